"""Synthetic patients look like patients to the search, and planted copies are what they claim."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fingerprint import phantom
from fingerprint.corpus.readers import Reader
from fingerprint.corpus.scan import CODES, ReadOptions, Rejected
from fingerprint.phantom import fields
from fingerprint.phantom.files import reconstructed

SEED = 20250123
OPTIONS = ReadOptions(window_hu=(-1000, 1000), size_px=64)


@pytest.fixture(scope="module")
def people() -> list[phantom.Patient]:
    """Patients of every orientation, with and without a padding circle."""
    found = [phantom.patient(n, seed=SEED, n_slices=5, size_px=64) for n in range(24)]
    assert {p.position for p in found} == {"HFS", "FFS", "HFP", "FFP"}
    assert {p.padded for p in found} == {True, False}
    assert {p.sex for p in found} == {"M", "F"}
    return found


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as one:
        yield one


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> phantom.Hospital:
    folder = tmp_path_factory.mktemp("ward")
    return phantom.write_hospital(folder, patients=11, seed=SEED, n_slices=4, size_px=64)


def pearson(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# -- patients --------------------------------------------------------------------------------------


def test_same_arguments_give_the_same_patient_and_other_seeds_another() -> None:
    def make(number: int, seed: int) -> phantom.Patient:
        return phantom.patient(number, seed=seed, n_slices=4, size_px=48)

    one, again, other, later = make(3, 1), make(3, 1), make(3, 2), make(4, 1)
    assert np.array_equal(one.hu, again.hu)
    assert one.identifiers == again.identifiers
    assert not np.array_equal(one.hu, other.hu)
    assert not np.array_equal(one.hu, later.hu)
    assert one.patient_id == "PHANTOM-0003"
    assert set(one.identifiers).isdisjoint(later.identifiers)


def test_a_slice_made_alone_is_the_slice_of_the_patient(people: list[phantom.Patient]) -> None:
    for number in (0, 7):
        for index in (0, 3):
            alone = phantom.one_slice(number, index, seed=SEED, n_slices=5, size_px=64)
            assert np.array_equal(alone, people[number].hu[index])


def test_volume_is_hu_in_even_slices(people: list[phantom.Patient]) -> None:
    for one in people:
        assert one.hu.dtype == np.int16
        assert one.hu.shape == (5, 64, 64)
        assert np.allclose(np.diff(one.z_mm), one.spacing_mm[0])
        assert 5 <= one.spacing_mm[0] <= 10
        inside = one.hu[one.hu != -2000]
        assert -1024 <= inside.min() < -950
        assert 250 < inside.max() <= 3071
        assert (one.hu == -2000).any() == one.padded


@pytest.mark.parametrize("n_slices", [3, 5, 12, 24, 40])
def test_regions_are_contiguous_and_shoulders_lie_above_heart_above_liver(n_slices: int) -> None:
    for number in range(8):
        one = phantom.patient(number, seed=SEED, n_slices=n_slices, size_px=16)
        at = {name: np.flatnonzero(np.array(one.region) == name) for name in phantom.REGIONS}
        assert all(len(where) for where in at.values())
        assert all((np.diff(where) == 1).all() for where in at.values())
        assert at["c1"].max() < at["c2"].min() <= at["c2"].max() < at["c3"].min()


def test_masks_hold_the_organs_that_the_regions_are_named_after() -> None:
    one = phantom.patient(1, seed=SEED, n_slices=24, size_px=96)
    found = phantom.masks(one)
    region = np.array(one.region)

    def area(name: str, where: str) -> float:
        return float(found[name][region == where].sum(axis=(1, 2)).mean())

    assert area("liver", "c1") > 5 * area("liver", "c2")
    assert area("heart", "c2") > 3 * area("heart", "c3")
    assert area("lungs", "c2") > area("lungs", "c1")
    assert area("bone", "c3") > area("bone", "c2")
    assert -950 < np.median(one.hu[found["lungs"]]) < -750
    assert 0 < np.median(one.hu[found["liver"]]) < 200
    assert not found["lungs"][~found["body"]].any()
    middle = one.hu.shape[2] // 2
    assert found["liver"][:, :, :middle].sum() > found["liver"][:, :, middle:].sum()
    assert found["heart"][:, :, middle:].sum() > found["heart"][:, :, :middle].sum()
    assert found["spine"].nonzero()[1].mean() > found["heart"].nonzero()[1].mean()


def calibration(seed: int, size_px: int, patients: int) -> tuple[list[float], list[float]]:
    """Pearson r of different patients at one level, and of neighbouring slices of one patient."""
    scans = [
        np.stack(
            [
                phantom.seen(hu, size_px=size_px)
                for hu in phantom.patient(n, seed=seed, n_slices=24, size_px=size_px).hu
            ]
        )
        for n in range(patients)
    ]
    strangers = [
        pearson(scans[i][level], scans[j][level])
        for level in range(0, 24, 4)
        for i in range(patients)
        for j in range(i)
    ]
    neighbours = [pearson(a, b) for scan in scans for a, b in zip(scan, scan[1:], strict=False)]
    return strangers, neighbours


def check_calibration(seed: int, size_px: int, patients: int) -> None:
    strangers, neighbours = calibration(seed, size_px, patients)
    print(
        f"{size_px} px, seed {seed}: strangers median {np.median(strangers):.3f}, "
        f"max {max(strangers):.3f}; neighbours median {np.median(neighbours):.3f}, "
        f"5 % {np.quantile(neighbours, 0.05):.3f}, min {min(neighbours):.3f}"
    )
    assert 0.6 < np.median(strangers) < 0.9
    assert max(strangers) < min(0.98, np.quantile(neighbours, 0.9))
    assert np.median(neighbours) > 0.95
    assert np.quantile(neighbours, 0.05) > 0.945
    assert min(neighbours) > 0.93


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_strangers_are_alike_and_neighbours_more_so_at_128(seed: int) -> None:
    check_calibration(seed, 128, 8)


def test_strangers_are_alike_and_neighbours_more_so_at_512() -> None:
    check_calibration(7, 512, 4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 14))
def test_strangers_are_alike_and_neighbours_more_so_at_512_for_many_seeds(seed: int) -> None:
    check_calibration(seed, 512, 8)


def test_texture_has_the_same_bits_in_any_order_of_summation() -> None:
    rng = np.random.default_rng(1)
    knots = fields.lattice(rng, 30, 30)
    weights = fields.spread(96, 30)
    dense = weights.toarray().astype(np.float64)
    exact = dense @ knots.astype(np.float64) @ dense.T
    assert np.array_equal(fields.smooth(knots, weights).astype(np.float64), exact)
    assert 0.5 < exact.var() < 2


@pytest.mark.parametrize(("slices", "size"), [(2, 64), (4, 8)])
def test_too_few_slices_or_pixels_are_refused(slices: int, size: int) -> None:
    with pytest.raises(ValueError, match="phantom"):
        phantom.patient(1, seed=1, n_slices=slices, size_px=size)


# -- files -----------------------------------------------------------------------------------------


def canonical(path: Path) -> tuple[float, NDArray[np.float64]]:
    """Position and HU of a DICOM slice, turned by its own tags: written apart from the reader."""
    ds = pydicom.dcmread(path)
    hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    hu = hu[:: int(ds.ImageOrientationPatient[4]), :: int(ds.ImageOrientationPatient[0])]
    return float(ds.ImagePositionPatient[2]), hu


def test_dicom_files_hold_the_hu_of_the_patient(
    people: list[phantom.Patient], tmp_path: Path
) -> None:
    for one in people:
        files = phantom.write_dicom(one, tmp_path / str(one.number))
        assert len(set(files)) == 5
        for path, z, hu in zip(files, one.z_mm, one.hu, strict=True):
            position, found = canonical(path)
            assert position == pytest.approx(z)
            assert np.array_equal(found, hu)
        ds = pydicom.dcmread(files[0])
        assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        assert (ds.PatientSex, ds.PatientAge) == (one.sex, f"{one.age:03d}Y")
        assert str(ds.PatientID) in one.identifiers
        assert ("PixelPaddingValue" in ds) == one.padded
        if one.padded:
            padding = ds.PixelPaddingValue * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
            assert padding == -2000


def test_scanners_differ_in_orientation_and_in_how_they_store_hu(
    people: list[phantom.Patient], tmp_path: Path
) -> None:
    forms = set()
    for one in people[:8]:
        tags = [pydicom.dcmread(f) for f in phantom.write_dicom(one, tmp_path / str(one.number))]
        intercepts = len({float(ds.RescaleIntercept) for ds in tags})
        forms.add((tags[0].PixelRepresentation, float(tags[0].RescaleSlope), intercepts))
    assert len(forms) >= 4


def test_file_names_do_not_follow_the_order_of_slices(tmp_path: Path) -> None:
    one = phantom.patient(5, seed=SEED, n_slices=12, size_px=16)
    files = phantom.write_dicom(one, tmp_path / "a")
    assert [f.name for f in files] != sorted(f.name for f in files)
    assert not any(one.patient_id in f.name or f.suffix for f in files)
    plain = phantom.write_dicom(one, tmp_path / "b", shuffle_names=False)
    assert [f.name for f in plain] == sorted(f.name for f in plain)


def test_two_reconstructions_share_the_acquisition_and_not_the_pixels(tmp_path: Path) -> None:
    one = phantom.patient(6, seed=SEED, n_slices=3, size_px=96)
    soft, sharp = (
        pydicom.dcmread(phantom.write_dicom(one, tmp_path, series=series)[1])
        for series in ("soft", "sharp")
    )
    for tag in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "AcquisitionNumber"):
        assert soft[tag].value == sharp[tag].value
    assert soft.SeriesInstanceUID != sharp.SeriesInstanceUID
    assert soft.SOPInstanceUID != sharp.SOPInstanceUID
    images = [phantom.seen(reconstructed(one, s)[1], size_px=96) for s in ("soft", "sharp")]
    assert 0.97 < pearson(*images) < 1


def test_nifti_files_hold_the_hu_of_the_patient_in_many_axis_orders(
    people: list[phantom.Patient], tmp_path: Path
) -> None:
    orders = set()
    for one in people:
        ending = "nii" if one.number % 2 else "nii.gz"
        image = nib.load(phantom.write_nifti(one, tmp_path / f"sub-{one.number}.{ending}"))
        orders.add("".join(nib.aff2axcodes(image.affine)))
        assert image.get_data_dtype() == np.int16
        turned = nib.as_closest_canonical(image)  # R, A, S
        hu = np.asanyarray(turned.dataobj)[::-1, ::-1].transpose(2, 1, 0)
        assert np.array_equal(hu, one.hu)
        corner = turned.affine @ (63, 63, 0, 1)
        found = (-corner[1], -corner[0], corner[2])
        assert np.allclose(found, (*one.origin_mm, one.z_mm[0]), atol=1e-3)
    assert len(orders) >= 10


def test_the_readers_see_every_patient_as_it_was_made(
    people: list[phantom.Patient], reader: Reader, tmp_path: Path
) -> None:
    for one in people[:12]:
        truth = np.stack([phantom.seen(hu, size_px=64) for hu in one.hu])
        files = phantom.write_dicom(one, tmp_path / str(one.number))[::-1]
        volume = phantom.write_nifti(one, tmp_path / f"sub-{one.number}.nii.gz")
        for kind, paths in (("dicom", files), ("nifti", [volume])):
            stack = reader.read(paths, kind, OPTIONS)
            assert not stack.rejected
            assert stack.scan is not None
            assert np.array_equal(stack.scan.pixels, truth)
            assert np.allclose(stack.scan.z_mm, one.z_mm, atol=1e-3)


def test_every_damaged_file_is_rejected_with_the_code_it_was_made_for(
    reader: Reader, tmp_path: Path
) -> None:
    for seed in (1, 2, 3):
        made = phantom.damage(tmp_path / str(seed), seed)
        assert sorted(made) == sorted((tmp_path / str(seed)).iterdir())
        assert set(made.values()) <= set(CODES)
        for path, code in made.items():
            answer = reader.headers([path], OPTIONS)[0]
            if not isinstance(answer, Rejected):
                answer = reader.read([path], answer[0].kind, OPTIONS).rejected[0]
            assert answer.code == code, path.name


def test_hospital_lists_all_that_it_wrote(ward: phantom.Hospital) -> None:
    files = [p for p in ward.folder.rglob("*") if p.is_file() and p.name != "participants.tsv"]
    assert len(files) == ward.files + len(ward.unusable)
    rows = (ward.folder / "participants.tsv").read_text().splitlines()
    volumes = {n: who for n, who in ward.participant.items() if who.startswith("sub-")}
    assert len(volumes) == 2
    assert [row.split("\t")[0] for row in rows] == ["participant_id", *volumes.values()]
    for row, number in zip(rows[1:], volumes, strict=True):
        one = ward.patient(number)
        assert row.split("\t")[1:] == [str(one.age), one.sex]
        assert (ward.folder / f"{volumes[number]}.nii.gz").exists()
    assert len(ward.identifiers) == len(set(ward.identifiers)) == 4 * 11


def test_hospital_is_the_same_bytes_each_time(ward: phantom.Hospital, tmp_path: Path) -> None:
    phantom.write_hospital(tmp_path, patients=11, seed=SEED, n_slices=4, size_px=64)
    names = [p.relative_to(ward.folder) for p in ward.folder.rglob("*") if p.is_file()]
    same, other, errors = filecmp.cmpfiles(ward.folder, tmp_path, names, shallow=False)
    assert (len(same), other, errors) == (len(names), [], [])


# -- planted copies --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slices(people: list[phantom.Patient]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return phantom.seen(people[0].hu[2], size_px=64), phantom.seen(people[1].hu[2], size_px=64)


@pytest.mark.parametrize("kind", list(phantom.KINDS))
def test_copies_are_deterministic_and_keep_shape_and_dtype(
    kind: str, slices: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    image, stranger = slices
    before = image.copy()
    level = {"gamma": 1.4, "noise": 8.0, "elastic": 5.0, "blur": 2.0}.get(kind, 0.5)
    one, two = (phantom.plant(image, kind, level, seed=3, stranger=stranger) for _ in range(2))
    assert np.array_equal(one, two)
    assert one.dtype == np.uint8
    assert one.shape == image.shape
    assert np.array_equal(one, image) == (kind == "exact")
    assert np.array_equal(image, before)


@pytest.mark.parametrize("kind", ["exact", "noise", "blur", "pose", "elastic"])
def test_level_zero_is_an_exact_copy(
    kind: str, slices: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    assert np.array_equal(phantom.plant(slices[0], kind, 0, seed=1), slices[0])


@given(sd=st.floats(2, 20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_noise_has_the_stated_deviation(sd: float, seed: int) -> None:
    grey = np.full((200, 200), 128, np.uint8)
    error = phantom.plant(grey, "noise", sd, seed=seed).astype(float) - 128
    # rounding adds 1/12 to the variance; the estimate has a relative error of 1/sqrt(2 n) = 0.35 %
    assert error.std() == pytest.approx(np.sqrt(sd**2 + 1 / 12), rel=0.02)
    assert abs(error.mean()) < 5 * sd / 200


def test_blur_turns_a_point_into_a_bell_of_the_stated_width() -> None:
    image = np.zeros((65, 65), np.uint8)
    image[32, 32] = 255
    blurred = phantom.plant(image, "blur", 1.5, seed=1)
    y, x = np.indices(image.shape) - 32
    assert np.abs(blurred - 255 * np.exp(-(y**2 + x**2) / 4.5) / (2 * np.pi * 2.25)).max() < 1


@pytest.mark.parametrize("level", [0.5, 0.8, 1.0, 1.25, 2.0])
def test_gamma_of_a_constant_is_its_formula(level: float) -> None:
    for value in (0, 1, 37, 128, 255):
        image = np.full((4, 4), value, np.uint8)
        assert (phantom.plant(image, "gamma", level, seed=1) == np.rint(
            255 * (value / 255) ** level
        )).all()  # fmt: skip


@pytest.mark.parametrize(("level", "size"), [(0.3, 512), (1.0, 512), (1.0, 128)])
def test_pose_moves_a_point_where_it_says(level: float, size: int) -> None:
    for seed in range(6):
        moved = phantom.pose_of(level, seed=seed, side_px=size)
        assert abs(moved.angle_deg) == pytest.approx(15 * level)
        assert abs(moved.scale - 1) == pytest.approx(0.1 * level)
        shift = np.hypot(moved.shift_y_px, moved.shift_x_px)
        assert shift == pytest.approx(40 * level * size / 512)
        image = np.zeros((size, size), np.uint8)
        image[size // 2 - 2 : size // 2 + 3, size // 4 - 2 : size // 4 + 3] = 200
        copy = phantom.plant(image, "pose", level, seed=seed).astype(float)
        found = [(grid * copy).sum() / copy.sum() for grid in np.indices(copy.shape)]
        centre = (size - 1) / 2
        dy, dx = size // 2 - centre, size // 4 - centre
        c, s = np.cos(np.deg2rad(moved.angle_deg)), np.sin(np.deg2rad(moved.angle_deg))
        y = centre + moved.scale * (c * dy + s * dx) + moved.shift_y_px
        x = centre + moved.scale * (c * dx - s * dy) + moved.shift_x_px
        assert found == pytest.approx([y, x], abs=0.1)


def test_elastic_moves_no_pixel_farther_than_it_says() -> None:
    ramp = np.tile(np.arange(50, 200, dtype=np.uint8), (150, 1))
    field = phantom.bend_of(6.0, seed=2, shape=(150, 150))
    assert np.hypot(*field).max() == pytest.approx(6)
    copy = phantom.plant(ramp, "elastic", 6.0, seed=2).astype(float)
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(copy - ramp - field[1])[inner].max() <= 0.5 + 1e-9
    assert np.abs(copy - ramp)[inner].max() > 2
    gradient = np.gradient(field[1])
    assert np.abs(gradient).max() < 1  # smooth enough not to fold


def test_mirrored_twice_is_the_slice(
    slices: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    once = phantom.plant(slices[0], "mirrored", seed=1)
    assert np.array_equal(once, slices[0][:, ::-1])
    assert np.array_equal(phantom.plant(once, "mirrored", seed=1), slices[0])


@given(share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_tile_copies_the_stated_share_in_one_rectangle(share: float, seed: int) -> None:
    image, stranger = np.full((96, 128), 200, np.uint8), np.full((96, 128), 10, np.uint8)
    copy = phantom.plant(image, "tile", share, seed=seed, stranger=stranger)
    assert set(np.unique(copy)) <= {10, 200}
    rows, columns = (copy == 200).any(axis=1), (copy == 200).any(axis=0)
    assert (copy == 200).sum() == rows.sum() * columns.sum()
    assert abs(rows.sum() / 96 - np.sqrt(share)) <= 0.5 / 96 + 1e-9
    assert abs(columns.sum() / 128 - np.sqrt(share)) <= 0.5 / 128 + 1e-9


def test_blend_is_the_weighted_mean() -> None:
    image, stranger = np.full((4, 4), 200, np.uint8), np.full((4, 4), 100, np.uint8)
    assert (phantom.plant(image, "blend", 0.3, seed=1, stranger=stranger) == 130).all()
    assert (phantom.plant(image, "blend", 1, seed=1, stranger=stranger) == 200).all()
    assert (phantom.plant(image, "blend", 0, seed=1, stranger=stranger) == 100).all()


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [
        ("copied", 1.0, "kind must be one of"),
        ("pose", 1.5, "level of pose"),
        ("noise", -1.0, "level of noise"),
        ("noise", float("nan"), "level of noise"),
        ("gamma", 0.0, "level of gamma"),
        ("tile", 0.5, "needs a stranger"),
        ("blend", 0.5, "needs a stranger"),
    ],
)
def test_a_copy_that_cannot_be_made_is_refused(kind: str, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        phantom.plant(np.zeros((8, 8), np.uint8), kind, level, seed=1)


def test_a_copy_of_something_else_than_a_slice_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        phantom.plant(np.zeros((8, 8), np.float32), "exact", seed=1)  # type: ignore[arg-type]


# -- the generated set -----------------------------------------------------------------------------


def test_generated_set_is_what_its_truth_says(ward: phantom.Hospital, tmp_path: Path) -> None:
    copies = [("exact", 0.0)] * 14 + [("noise", 5.0), ("tile", 0.5)]
    truth = phantom.write_generated(tmp_path, ward, copies, 6, seed=4, size_px=64)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(truth)
    assert sorted((row.kind, row.level) for row in truth.values() if row.kind != "novel") == sorted(
        copies
    )
    exact = [name for name, row in truth.items() if row.kind == "exact"]
    for name in exact:
        row = truth[name]
        with Image.open(tmp_path / name) as image:
            assert image.mode == "L"
            pixels = np.asarray(image)
        hu = ward.patient(row.number).hu[row.index]
        assert np.array_equal(pixels, phantom.seen(hu, size_px=64))
        assert row.participant == ward.participant[row.number]
    assert {truth[name].number for name in exact} == set(ward.numbers)
    nobody = [row for row in truth.values() if row.kind == "novel"]
    assert len(nobody) == 6
    assert all(row.number >= phantom.NOBODY and not row.participant for row in nobody)
    table = phantom.truth_table(truth).splitlines()
    assert len(table) == 1 + len(truth)
    assert not any(who in name for who in ward.participant.values() for name in truth)


def test_exact_copies_equal_the_ingested_slices(
    ward: phantom.Hospital, reader: Reader, tmp_path: Path
) -> None:
    truth = phantom.write_generated(tmp_path, ward, [("exact", 0.0)] * 11, 0, seed=5, size_px=64)
    stored = {}
    drawers = sorted({p.parent for p in ward.folder.glob("study*/*")})
    for path in [p for drawer in drawers for p in sorted(drawer.iterdir())]:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        stored.setdefault((str(ds.PatientID), str(ds.ConvolutionKernel)), []).append(path)
    for name, row in truth.items():
        paths = stored.get((row.participant, "B40f"))
        kind = "dicom" if paths else "nifti"
        scan = reader.read(paths or [ward.folder / f"{row.participant}.nii.gz"], kind, OPTIONS).scan
        assert scan is not None
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(np.asarray(image), scan.pixels[row.index])


def test_novel_images_resemble_no_slice_as_a_copy_would(ward: phantom.Hospital) -> None:
    stored = [phantom.seen(hu, size_px=64) for n in ward.numbers for hu in ward.patient(n).hu]
    for which in range(6):
        hu, _ = phantom.novel(which, seed=SEED, n_slices=4, size_px=64)
        image = phantom.seen(hu, size_px=64)
        assert max(pearson(image, real) for real in stored) < 0.98


def test_another_range_of_numbers_is_a_hospital_of_other_people(
    ward: phantom.Hospital, tmp_path: Path
) -> None:
    controls = phantom.write_hospital(
        tmp_path, patients=2, seed=SEED, n_slices=3, size_px=32, first=500, damaged=False
    )
    assert set(controls.identifiers).isdisjoint(ward.identifiers)
    assert not controls.unusable
    assert set(controls.numbers).isdisjoint(ward.numbers)


def test_unknown_kinds_of_copies_are_refused_before_anything_is_written(
    ward: phantom.Hospital, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="unknown kinds"):
        phantom.write_generated(tmp_path / "g", ward, [("faint", 1.0)], 1, seed=1)
    assert not (tmp_path / "g").exists()
