"""DICOM: which files are slices of a CT, how pixels become grey, and what a proper stack is."""

from __future__ import annotations

import csv
import itertools
import random
from collections import Counter

import dicoms
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    RLELossless,
)

from fingerprint.corpus import dicom
from fingerprint.corpus.scan import ReadOptions, Rejected
from fingerprint.corpus.window import fit, to_uint8

FULL = (-1000.0, 1000.0)
SIZE = 64
OPTIONS = ReadOptions(FULL, SIZE)


def stored(hu, window=FULL, size=SIZE):
    """Make what is stored of a canonical slice in HU."""
    return fit(to_uint8(hu, window), size, int(to_uint8(-1000, window)))[0]


def code_of(path, options=OPTIONS):
    """Code with which the headers of a file are rejected, or ``ok``."""
    try:
        dicom.headers(path, options)
    except Rejected as why:
        return why.code
    return "ok"


def codes(stack):
    return {why.code for why in stack.rejected.values()}


# -- kinds of files


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "ok"),
        ({"Modality": None}, "not_ct"),
        ({"Modality": "MR"}, "not_ct"),
        ({"Modality": "SEG"}, "not_image"),
        ({"PatientID": None}, "no_patient"),
        ({"PatientID": "  "}, "no_patient"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "derived"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "MPR"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PROJECTION IMAGE"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SCREEN SAVE"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]}, "ok"),
        ({"ImageType": None}, "ok"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "photometric"),
        ({"PhotometricInterpretation": None}, "photometric"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "photometric"),
        ({"RescaleSlope": None}, "bits"),
        ({"RescaleSlope": 0}, "bits"),
        ({"HighBit": 11}, "bits"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "bits"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "bits"),
        ({"Rows": None}, "no_geometry"),
        ({"ImagePositionPatient": None}, "no_geometry"),
        ({"ImageOrientationPatient": None}, "no_geometry"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no_geometry"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "no_geometry"),
        ({"PixelSpacing": None}, "no_geometry"),
        ({"PixelSpacing": [0.7, 0]}, "no_geometry"),
        ({"orientation": (1, 0, 0, 0, 0, -1)}, "not_axial"),
        ({"orientation": (0, 1, 0, 0, 0, -1)}, "not_axial"),
        ({"orientation": (0.9659, 0.2588, 0, -0.2588, 0.9659, 0)}, "not_axial"),
        ({"orientation": (1, 0, 0, 0, 0.9998, 0.0175)}, "ok"),
        (
            {"orientation": (1, 0, 0, 0, 0.9483, -0.3173), "GantryDetectorTilt": -18.5},
            "gantry_tilt",
        ),
        ({"GantryDetectorTilt": "18.5"}, "ok"),  # tag alone: the plane is axial
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"NumberOfFrames": 1}, "ok"),
    ],
)
def test_a_header_is_accepted_or_rejected_by_rule(tmp_path, fields, code):
    path = dicoms.write(tmp_path / "a", **fields)
    assert code_of(path) == code


def test_details_quote_nothing_from_the_file(tmp_path):
    path = dicoms.write(tmp_path / "a", Modality="JOHN DOE", StudyDescription="JOHN DOE")
    with pytest.raises(Rejected) as caught:
        dicom.headers(path, OPTIONS)
    assert (caught.value.code, caught.value.detail) == ("not_ct", "")


def test_a_file_without_pixels_is_no_image(tmp_path):
    ds = dicoms.dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR")
    del ds.PixelData
    assert code_of(dicoms.write(tmp_path / "report", ds)) == "not_image"


def test_a_dicom_directory_is_no_image(tmp_path):
    ds = dicoms.dataset(SOPClassUID=None, Modality=None)
    del ds.PixelData
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    assert code_of(dicoms.write(tmp_path / "DICOMDIR", ds)) == "not_image"


def test_float_pixels_are_no_supported_format(tmp_path):
    ds = dicoms.dataset()
    del ds.PixelData
    ds.FloatPixelData = bytes(4 * 32 * 40)
    assert code_of(dicoms.write(tmp_path / "float", ds)) == "bits"


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path):
    ds = dicoms.dataset()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert code_of(dicoms.write(tmp_path / "deflated", ds)) == "bits"


@pytest.mark.parametrize("implicit", [False, True])
def test_a_file_without_preamble_is_recognised(tmp_path, implicit):
    ds = dicoms.dataset(implicit=implicit)
    path = tmp_path / "bare"
    del ds.file_meta
    ds.save_as(path, implicit_vr=implicit, little_endian=True)
    assert dicom.is_dicom(path, path.read_bytes()[:200])
    assert code_of(path) == "ok"
    assert np.array_equal(dicom.read([path], OPTIONS).scan.pixels[0], stored(dicoms.picture()))


def test_other_files_are_not_taken_for_dicom(tmp_path):
    for head in (b"", b"\0" * 200, b"\x08\0", b"patient,age\n" * 20, b"PK\3\4" + bytes(200)):
        assert not dicom.is_dicom(tmp_path, head)


# -- what the header says


@pytest.mark.parametrize(
    ("age", "years"),
    [
        *[("053Y", 53), ("022Y", 22), ("22Y", 22), ("53", 53), ("089Y", 89), ("090Y", 89)],
        *[("120Y", 89), ("018M", 1), ("011M", 0), ("060W", 1), ("010D", 0), ("", -1), (None, -1)],
        *[("Y", -1), ("-5Y", -1), ("abcY", -1), ("999Y", -1)],
    ],
)
def test_age_is_whole_years_capped_at_89(tmp_path, age, years):
    ds = dicoms.dataset(PatientAge=None)
    if age is not None:
        ds.add(pydicom.DataElement("PatientAge", "AS", age, validation_mode=pydicom.config.IGNORE))
    assert dicom.headers(dicoms.write(tmp_path / "a", ds), OPTIONS)[0].age_y == years


@pytest.mark.parametrize(
    ("sex", "stored_sex"), [("M", "M"), ("F", "F"), ("O", ""), ("", ""), (None, "")]
)
def test_sex_is_m_f_or_missing(tmp_path, sex, stored_sex):
    path = dicoms.write(tmp_path / "a", PatientSex=sex)
    assert dicom.headers(path, OPTIONS)[0].sex == stored_sex


def test_flags_are_counted(tmp_path):
    plain = dicoms.write(tmp_path / "a")
    assert dicom.headers(plain, OPTIONS)[0].flags == ()
    flagged = dicoms.write(
        tmp_path / "b",
        PatientIdentityRemoved="YES",
        BurnedInAnnotation="YES",
        RecognizableVisualFeatures="YES",
    )
    assert dicom.headers(flagged, OPTIONS)[0].flags == (
        "deidentified",
        "burned_in",
        "recognizable_face",
    )
    said_no = dicoms.write(tmp_path / "c", BurnedInAnnotation="NO", PatientIdentityRemoved="NO")
    assert dicom.headers(said_no, OPTIONS)[0].flags == ()
    by_method = dicoms.dataset()
    by_method.DeidentificationMethodCodeSequence = Sequence([Dataset()])
    path = dicoms.write(tmp_path / "d", by_method)
    assert dicom.headers(path, OPTIONS)[0].flags == ("deidentified",)


def test_reconstructions_of_one_acquisition_share_it(tmp_path):
    def header(name, **fields):
        return dicom.headers(dicoms.write(tmp_path / name, **fields), OPTIONS)[0]

    soft = header("soft")
    sharp = header("sharp", SeriesInstanceUID="1.2.3.1.2", AcquisitionNumber="000002")
    later = header("later", SeriesInstanceUID="1.2.3.1.3", AcquisitionNumber=3)
    unnumbered = header("un", SeriesInstanceUID="1.2.3.1.4", AcquisitionNumber=None)
    assert soft.acquisition == sharp.acquisition
    assert len({soft.acquisition, later.acquisition, unnumbered.acquisition}) == 3
    assert len({h.series for h in (soft, sharp, later, unnumbered)}) == 4
    assert header("lone", SeriesInstanceUID=None).series == ""


def test_uids_do_not_leave_the_reader(tmp_path):
    header = dicom.headers(dicoms.write(tmp_path / "a"), OPTIONS)[0]
    assert "1.2.3" not in header.series + header.acquisition


# -- pixel formats

FORMATS = [
    # allocated, stored, signed, slope, intercept
    (16, 16, True, 1.0, 0.0),
    (16, 16, True, 1.0, -1024.0),
    (16, 16, False, 1.0, -1024.0),
    (16, 12, False, 1.0, -1024.0),
    (16, 12, True, 1.0, 0.0),
    (16, 10, False, 2.0, -1024.0),
    (16, 16, False, 0.25, -1100.0),
    (8, 8, False, 8.0, -1024.0),
    (8, 8, True, 10.0, 0.0),
    (8, 7, False, 20.0, -1024.0),
]


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(("allocated", "kept", "signed", "slope", "intercept"), FORMATS)
def test_every_pixel_format_gives_the_same_hu(
    tmp_path, allocated, kept, signed, slope, intercept, implicit
):
    hu = dicoms.picture()
    form = {"allocated": allocated, "stored": kept, "signed": signed}
    path = dicoms.write(tmp_path / "a", slope=slope, intercept=intercept, implicit=implicit, **form)
    values = np.rint((hu - intercept) / slope) * slope + intercept  # what the format can hold
    got = dicom.read([path], OPTIONS)
    assert not got.rejected
    assert np.array_equal(got.scan.pixels[0], stored(values))


@pytest.mark.parametrize("stored_inverted", [False, True])
@pytest.mark.parametrize(("allocated", "kept", "signed", "slope", "intercept"), FORMATS[:6])
def test_monochrome1_gives_the_same_hu_however_it_is_stored(
    tmp_path, allocated, kept, signed, slope, intercept, stored_inverted
):
    path = dicoms.write(
        tmp_path / "a",
        allocated=allocated,
        stored=kept,
        signed=signed,
        slope=slope,
        intercept=intercept,
        invert=stored_inverted,
        PhotometricInterpretation="MONOCHROME1",
    )
    got = dicom.read([path], OPTIONS)
    assert not got.rejected
    assert np.array_equal(got.scan.pixels[0], stored(dicoms.picture()))


def test_monochrome1_that_is_no_hu_either_way_is_rejected(tmp_path):
    hu = np.full((32, 40), 15000)
    path = dicoms.write(tmp_path / "a", hu=hu, PhotometricInterpretation="MONOCHROME1")
    assert codes(dicom.read([path], OPTIONS)) == {"photometric"}


def test_bits_above_the_stored_ones_are_not_pixels(tmp_path):
    ds = dicoms.dataset(stored=12)
    values = np.frombuffer(ds.PixelData, "<u2") | 0x8000  # an overlay of old scanners
    ds.PixelData = values.astype("<u2").tobytes()
    got = dicom.read([dicoms.write(tmp_path / "a", ds)], OPTIONS)
    assert np.array_equal(got.scan.pixels[0], stored(dicoms.picture()))


def test_big_endian_pixels_are_read(tmp_path):
    ds = dicoms.dataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    path = tmp_path / "a"
    ds.save_as(path, enforce_file_format=True)
    got = dicom.read([path], OPTIONS)
    assert np.array_equal(got.scan.pixels[0], stored(dicoms.picture()))


def test_rescale_is_that_of_each_slice(tmp_path):
    paths = [
        dicoms.write(tmp_path / "a", z=0, intercept=-1024),
        dicoms.write(tmp_path / "b", z=2, intercept=-1000, slope=0.5),
        dicoms.write(tmp_path / "c", z=4, intercept=-1200),
    ]
    got = dicom.read(paths, OPTIONS).scan
    assert all(np.array_equal(image, stored(dicoms.picture())) for image in got.pixels)


LUNG = ReadOptions((-1350.0, 150.0), SIZE)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("signed", "tag", "vr"),
    [(True, 63536, "US"), (True, -2000, "SS"), (False, 63536, "US"), (False, -2000, "SS")],
)
def test_padding_becomes_air_in_whichever_sign_it_is_written(tmp_path, signed, tag, vr, implicit):
    """The tag says 63536 or -2000: the same bits."""
    hu = dicoms.picture()
    ds = dicoms.dataset(hu, signed=signed, intercept=0 if signed else -1024, implicit=implicit)
    values = np.frombuffer(ds.PixelData, "<u2").reshape(hu.shape).copy()
    values[:3] = 63536
    ds.PixelData = values.tobytes()
    ds.add_new("PixelPaddingValue", vr, tag)
    got = dicom.read([dicoms.write(tmp_path / "a", ds)], LUNG)
    assert np.array_equal(got.scan.pixels[0], stored(hu, LUNG.window_hu))


def test_padding_range_becomes_air(tmp_path):
    hu = dicoms.picture()
    ds = dicoms.dataset(hu, PixelPaddingValue=3000, PixelPaddingRangeLimit=3010)
    values = np.frombuffer(ds.PixelData, "<u2").reshape(hu.shape).copy()
    values[0], values[1], values[2] = 3000, 3005, 3010
    ds.PixelData = values.tobytes()
    got = dicom.read([dicoms.write(tmp_path / "a", ds)], LUNG)
    assert np.array_equal(got.scan.pixels[0], stored(hu, LUNG.window_hu))
    values[2] = 3011
    ds.PixelData = values.tobytes()
    got = dicom.read([dicoms.write(tmp_path / "b", ds)], LUNG)
    assert not np.array_equal(got.scan.pixels[0], stored(hu, LUNG.window_hu))


def test_below_minus_1024_is_air_even_if_no_tag_says_so(tmp_path):
    hu = dicoms.picture().copy()
    hu[:3] = -2048
    got = dicom.read([dicoms.write(tmp_path / "a", hu=hu, signed=True, intercept=0)], LUNG)
    assert np.array_equal(got.scan.pixels[0], stored(dicoms.picture(), LUNG.window_hu))


# -- compressed and multi-frame


def test_run_length_compression_is_decoded(tmp_path):
    ds = dicoms.dataset()
    ds.compress(RLELossless)
    got = dicom.read([dicoms.write(tmp_path / "a", ds)], OPTIONS)
    assert np.array_equal(got.scan.pixels[0], stored(dicoms.picture()))


def test_a_compression_without_decoder_is_rejected_by_its_name(data):
    path = data / "bad_inputs" / "pydicom-data" / "bad_sequence.dcm"
    with pytest.raises(Rejected) as caught:
        dicom.headers(path, OPTIONS)
    assert caught.value.code == "bits"
    assert "JPEG Lossless" in caught.value.detail


def test_an_unknown_compression_is_not_quoted(tmp_path):
    ds = dicoms.dataset()
    ds.compress(RLELossless)
    path = dicoms.write(tmp_path / "a", ds)
    uid = str(RLELossless).encode()
    path.write_bytes(path.read_bytes().replace(uid, b"9.9.9.9.9.9.9.9.9.9.9"[: len(uid)]))
    with pytest.raises(Rejected) as caught:
        dicom.headers(path, OPTIONS)
    assert caught.value.code in ("bits", "unreadable")
    assert "9.9" not in caught.value.detail


def test_compressed_pixels_that_declare_too_much_are_a_bomb(tmp_path):
    ds = dicoms.dataset()
    ds.compress(RLELossless)
    ds.Rows = ds.Columns = 16384
    assert code_of(dicoms.write(tmp_path / "a", ds)) == "bomb"


def test_enhanced_multi_frame_ct_is_a_stack_in_one_file(tmp_path):
    hu = np.stack([dicoms.picture(k) for k in (2, 0, 1)])
    path = dicoms.write(tmp_path / "a", dicoms.enhanced(hu))
    assert dicom.headers(path, OPTIONS)[0].frames == 3
    stack = dicom.read([path], OPTIONS)
    assert np.array_equal(stack.scan.pixels, stored(hu))
    assert stack.scan.spacing_mm[0] == 3
    assert stack.scan.source.tolist() == [0, 0, 0]
    assert not stack.rejected
    assert not stack.excluded


def test_derived_frames_of_an_enhanced_ct_are_rejected(tmp_path):
    ds = dicoms.enhanced(np.stack([dicoms.picture(k) for k in range(2)]))
    kind = Dataset()
    kind.FrameType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    ds.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence = Sequence([kind])
    assert code_of(dicoms.write(tmp_path / "a", ds)) == "derived"


def test_enhanced_frames_at_one_position_are_rejected(tmp_path):
    ds = dicoms.enhanced(np.stack([dicoms.picture(k) for k in range(3)]), step_mm=0.0)
    assert codes(dicom.read([dicoms.write(tmp_path / "a", ds)], OPTIONS)) == {"duplicate_position"}


# -- orientation


ORIENTATIONS = [
    (*row, *column)
    for row, column in itertools.product([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)], repeat=2)
    if np.dot(row, column) == 0
]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_prone_feet_first_and_decubitus_are_turned(tmp_path, orientation):
    """Store a canonical slice as a scanner with that orientation would; it comes back the same."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    hu = dicoms.picture()
    h, w = hu.shape
    spacing_y, spacing_x = 0.8, 0.7
    transposed = row[0] == 0
    image = hu.T if transposed else hu
    along_y, along_x = (row, column) if transposed else (column, row)
    if along_y[1] < 0:
        image = np.flip(image, 1 if transposed else 0)
    if along_x[0] < 0:
        image = np.flip(image, 0 if transposed else 1)
    position = (
        -14.0 + (w - 1) * spacing_x * (along_x[0] < 0),
        -12.0 + (h - 1) * spacing_y * (along_y[1] < 0),
        5.0,
    )
    path = dicoms.write(
        tmp_path / "a",
        hu=image,
        orientation=orientation,
        position=position,
        spacing=(spacing_x, spacing_y) if transposed else (spacing_y, spacing_x),
    )
    scan = dicom.read([path], OPTIONS).scan
    reference = dicom.read([dicoms.write(tmp_path / "b", hu=hu, z=5.0)], OPTIONS).scan
    assert np.array_equal(scan.pixels, reference.pixels)
    assert scan.spacing_mm[1:] == reference.spacing_mm[1:] == (0.8, 0.7)
    assert scan.origin_mm == pytest.approx(reference.origin_mm)
    assert scan.z_mm == pytest.approx(reference.z_mm)


def test_geometry_is_that_of_the_stored_grid(tmp_path):
    path = dicoms.write(tmp_path / "a")
    scan = dicom.read([path], OPTIONS).scan
    assert scan.native_px == 40
    y, x = (SIZE - 32) // 2, (SIZE - 40) // 2
    assert scan.origin_mm == pytest.approx((-12.0 - 0.8 * y, -14.0 - 0.7 * x))
    assert np.isnan(scan.spacing_mm[0])
    assert (scan.sex, scan.age_y) == ("F", 53)


# -- stacks


def test_slices_are_sorted_by_position_whatever_names_and_numbers_say(tmp_path):
    paths = dicoms.series(tmp_path / "s", 7)
    expected = stored(np.stack([dicoms.picture(k) for k in range(7)]))
    for seed in range(4):
        shuffled = random.Random(seed).sample(paths, len(paths))
        scan = dicom.read(shuffled, OPTIONS).scan
        assert np.array_equal(scan.pixels, expected)
        assert scan.z_mm.tolist() == [-10.0 + 2.5 * k for k in range(7)]
        assert [shuffled[i] for i in scan.source] == paths
        assert scan.spacing_mm == (2.5, 0.8, 0.7)


def test_a_missing_slice_rejects_the_series_with_the_distances(tmp_path):
    paths = dicoms.series(tmp_path / "s", 7)
    del paths[3]
    stack = dicom.read(paths, OPTIONS)
    assert stack.scan is None
    assert sorted(stack.rejected) == list(range(6))
    assert codes(stack) == {"uneven_spacing"}
    assert "2.500 to 5.000 mm" in stack.rejected[0].detail


def test_a_shifted_slice_rejects_the_series(tmp_path):
    paths = dicoms.series(tmp_path / "s", 7)
    dicoms.write(paths[3], hu=dicoms.picture(3), z=-10 + 3 * 2.5 + 0.6)
    assert codes(dicom.read(paths, OPTIONS)) == {"uneven_spacing"}


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    paths = [
        dicoms.write(tmp_path / f"{k}", hu=dicoms.picture(k), z=round(1.25 * k, 1))
        for k in range(9)
    ]
    scan = dicom.read(paths, OPTIONS).scan
    assert scan.spacing_mm[0] == pytest.approx(1.25)


@pytest.mark.parametrize("cut", [100, 1000, 1500, 3000])
def test_a_truncated_file_is_rejected_alone_and_its_gap_is_known(tmp_path, cut):
    paths = dicoms.series(tmp_path / "s", 7)
    whole = paths[3].read_bytes()
    paths[3].write_bytes(whole[: len(whole) - cut])
    stack = dicom.read(paths, OPTIONS)
    assert list(stack.rejected) == [3]
    assert stack.rejected[3].code == "truncated"
    assert len(stack.scan.pixels) == 6
    assert stack.scan.spacing_mm[0] == 2.5
    assert stack.scan.notes == ("1 slices could not be read",)


def test_every_length_of_a_truncated_file_is_rejected(tmp_path):
    whole = dicoms.write(tmp_path / "a").read_bytes()
    path = tmp_path / "b"
    seen = Counter()
    for length in range(132, len(whole), 7):
        path.write_bytes(whole[:length])
        stack = dicom.read([path], OPTIONS)
        assert stack.scan is None, length
        seen[stack.rejected[0].code] += 1
    assert seen["truncated"] > 300


def test_more_gaps_than_unreadable_files_reject_the_series(tmp_path):
    paths = dicoms.series(tmp_path / "s", 9)
    paths[2].write_bytes(paths[2].read_bytes()[:900])
    del paths[6]
    stack = dicom.read(paths, OPTIONS)
    assert stack.rejected[2].code == "truncated"
    assert {why.code for i, why in stack.rejected.items() if i != 2} == {"uneven_spacing"}
    assert dicom.read(paths, OPTIONS, lost=1).scan is not None


def test_the_same_slice_twice_is_excluded(tmp_path):
    paths = dicoms.series(tmp_path / "s", 5)
    again = dicoms.write(
        tmp_path / "again", hu=dicoms.picture(2), z=-5.0, SOPInstanceUID="1.2.3.99"
    )
    for order in ([*paths, again], [again, *paths]):
        stack = dicom.read(order, OPTIONS)
        assert len(stack.scan.pixels) == 5
        assert list(stack.excluded.values()) == [dicom.SAME_SLICE]
        assert not stack.rejected
    alone = dicom.read(paths, OPTIONS)
    assert np.array_equal(stack.scan.pixels, alone.scan.pixels)


def test_two_slices_at_one_position_reject_the_series(tmp_path):
    paths = dicoms.series(tmp_path / "s", 5)
    paths.append(dicoms.write(tmp_path / "other", hu=dicoms.picture(4), z=-5.0))
    stack = dicom.read(paths, OPTIONS)
    assert stack.scan is None
    assert codes(stack) == {"duplicate_position"}
    assert len(stack.rejected) == 6


@pytest.mark.parametrize(
    "odd",
    [
        {"hu": dicoms.picture(2, (40, 40))},
        {"spacing": (0.9, 0.7)},
        {"orientation": (-1, 0, 0, 0, 1, 0)},
        {"position": (-4.0, -12.0, -5.0)},
    ],
)
def test_a_change_inside_a_series_rejects_it(tmp_path, odd):
    paths = dicoms.series(tmp_path / "s", 5)
    dicoms.write(paths[2], **({"hu": dicoms.picture(2), "z": -5.0} | odd))
    stack = dicom.read(paths, OPTIONS)
    assert stack.scan is None
    assert codes(stack) == {"mixed_series"}


@pytest.mark.parametrize("tag", [None, 18.0])
def test_a_tilted_stack_is_rejected_with_and_without_the_tag(tmp_path, tag):
    tilt = np.radians(18.0)
    plane = (1, 0, 0, 0, np.cos(tilt), -np.sin(tilt))
    paths = dicoms.series(tmp_path / "s", 4, orientation=plane, GantryDetectorTilt=tag)
    assert codes(dicom.read(paths, OPTIONS)) == {"gantry_tilt"}


def test_axial_slices_that_drift_are_a_tilted_stack(tmp_path):
    paths = [
        dicoms.write(
            tmp_path / f"{k}", hu=dicoms.picture(k), position=(-14, -12 + 0.8 * k, 2.5 * k)
        )
        for k in range(5)
    ]
    assert codes(dicom.read(paths, OPTIONS)) == {"gantry_tilt"}


def test_an_oblique_stack_that_is_not_sheared_is_not_axial(tmp_path):
    tilt = np.radians(18.0)
    plane = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    normal = np.array([0, -np.sin(tilt), np.cos(tilt)])
    paths = [
        dicoms.write(
            tmp_path / f"{k}",
            hu=dicoms.picture(k),
            orientation=plane,
            position=tuple(2.5 * k * normal),
        )
        for k in range(4)
    ]
    assert codes(dicom.read(paths, OPTIONS)) == {"not_axial"}


def test_one_slice_is_a_scan(tmp_path):
    stack = dicom.read([dicoms.write(tmp_path / "a", z=3.0)], OPTIONS)
    assert stack.scan.z_mm.tolist() == [3.0]


def test_larger_slices_are_reduced(tmp_path):
    hu = dicoms.picture(0, (96, 128))
    scan = dicom.read([dicoms.write(tmp_path / "a", hu=hu)], OPTIONS).scan
    assert np.array_equal(scan.pixels[0], stored(hu))
    assert scan.spacing_mm[1:] == pytest.approx((1.6, 1.4))
    assert scan.native_px == 128


def test_reading_is_silent(tmp_path, capfd, recwarn):
    paths = dicoms.series(tmp_path / "s", 3)
    paths[1].write_bytes(paths[1].read_bytes()[:1500])
    dicom.read(paths, OPTIONS)
    code_of(paths[1])
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


# -- real CT

REAL = ReadOptions(FULL)


def folder(data, *parts):
    return sorted(p for p in data.joinpath(*parts).rglob("*") if p.is_file())


@pytest.mark.slow
def test_lidc_series_is_sorted_by_position(data):
    paths = folder(data, "dicom_series", "lidc-idri-0001")
    stack = dicom.read(paths, REAL)
    assert stack.scan.pixels.shape == (133, 512, 512)
    assert stack.scan.z_mm[[0, -1]].tolist() == [-340.0, -10.0]
    assert stack.scan.spacing_mm == (2.5, 0.703125, 0.703125)
    assert stack.scan.source.tolist() != sorted(stack.scan.source.tolist())
    assert not stack.rejected
    # the ring that one vendor paints is air in every window
    lung = dicom.read(paths[:1], ReadOptions((-1350.0, 150.0))).scan.pixels[0]
    assert lung[0, 0] == lung[-1, -1] == 60
    assert not (lung == 0).any()


def test_two_reconstructions_are_two_series_of_one_acquisition(data):
    seen = {
        kernel: {
            (h.series, h.acquisition)
            for path in folder(data, "dicom_series", f"lung_dx-a0002_{kernel}")
            for h in dicom.headers(path, REAL)
        }
        for kernel in ("b40f", "b70f")
    }
    assert [len(s) for s in seen.values()] == [1, 1]
    (soft,), (sharp,) = seen.values()
    assert soft[0] != sharp[0]
    assert soft[1] == sharp[1]


def test_the_same_pixels_in_other_bytes_equal_their_twin(data):
    odd = next((data / "bad_inputs").glob("same_slice_other_bytes*"))
    twin = data / "dicom_series" / "lidc-idri-0001" / "000015.dcm"
    scans = [dicom.read([path], REAL).scan for path in (odd, twin)]
    assert np.array_equal(scans[0].pixels, scans[1].pixels)
    both = dicom.read([twin, odd], REAL)
    assert len(both.scan.pixels) == 1
    assert list(both.excluded.values()) == [dicom.SAME_SLICE]


def test_a_really_truncated_download_is_rejected_alone(data):
    cut = next((data / "bad_inputs").glob("truncated_*"))
    assert code_of(cut) == "ok"  # its place in the series is known
    stack = dicom.read([cut], REAL)
    assert stack.scan is None
    assert stack.rejected[0].code == "truncated"
    assert stack.rejected[0].detail == "51078 of 524288 pixel bytes"
    neighbours = sorted(
        folder(data, "dicom_series", "lidc-idri-0001"),
        key=lambda p: abs(
            dicom.headers(p, REAL)[0].position_mm - dicom.headers(cut, REAL)[0].position_mm
        ),
    )[1:3]
    with_gap = dicom.read([*neighbours, cut], REAL)
    assert sorted(with_gap.rejected) == [2]
    assert len(with_gap.scan.pixels) == 2


def test_real_gantry_tilt_is_rejected(data):
    found = Counter(code_of(p) for p in folder(data, "bad_inputs", "gantry_tilt_head_phantom"))
    assert found == {"gantry_tilt": 6}


def test_real_files_without_modality_are_not_ct(data):
    for path in (data / "bad_inputs").glob("lungmask_*"):
        with pytest.raises(Rejected) as caught:
            dicom.headers(path, REAL)
        assert (caught.value.code, caught.value.detail) == ("not_ct", "no modality")


def test_real_originals_are_accepted_and_reformats_are_not(data):
    for path in folder(data, "dicom_pairs"):
        expected = "ok" if path.parent.name == "axial" else "derived"
        assert code_of(path) == expected
    originals = folder(data, "dicom_slices") + folder(data, "dicom_series")
    assert Counter(code_of(path) for path in originals) == {"ok": 256}


def test_odd_files_of_pydicom_have_a_code_each(data):
    found = {p.name: code_of(p) for p in folder(data, "bad_inputs", "pydicom-data")}
    assert found == {
        "JPEG-LL.dcm": "not_ct",
        "SC_rgb.dcm": "not_ct",
        "bad_sequence.dcm": "bits",
        "eCT_Supplemental.dcm": "derived",
        "emri_small_jpeg_2k_lossless_too_short.dcm": "not_ct",
        "explicit_VR-UN.dcm": "ok",  # a CT in JPEG 2000, which Pillow decodes
        "liver_deflate.dcm": "not_image",
        "liver_nonbyte_aligned.dcm": "not_image",
    }
    path = data / "bad_inputs" / "pydicom-data" / "explicit_VR-UN.dcm"
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert dicom.read([path], REAL).scan.pixels.std() > 20


def test_single_slices_of_many_patients_are_read_and_exact_repeats_excluded(data):
    paths = folder(data, "dicom_slices")
    groups = {}
    for path in paths:
        header = dicom.headers(path, REAL)[0]
        groups.setdefault((header.patient, header.series), []).append(path)
    stacks = [dicom.read(group, REAL) for group in groups.values()]
    accepted = sum(len(s.scan.source) for s in stacks if s.scan)
    excluded = sum(len(s.excluded) for s in stacks)
    rejected = sum(len(s.rejected) for s in stacks)
    assert accepted + excluded + rejected == len(paths) == 47
    assert (excluded, rejected) == (4, 0)
    with (data / "known_pairs.csv").open() as file:
        pairs = [
            (row["a"], row["b"])
            for row in csv.DictReader(file)
            if row["kind"] == "exact_same_pixels" and "tcga-luad" in row["a"]
        ]
    for a, b in pairs:
        one, other = (dicom.read([data / p], REAL).scan.pixels for p in (a, b))
        assert np.array_equal(one, other)
    assert len(pairs) == 4
