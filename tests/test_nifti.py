"""NIfTI: geometry of all 48 axis orders, the same numbers as DICOM, and damage that is seen."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc
import zlib
from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from fingerprint.corpus import dicom, nifti
from fingerprint.corpus.scan import ReadOptions, Rejected
from fingerprint.corpus.window import fit, to_uint8

FULL = (-1000.0, 1000.0)
SIZE = 32
OPTIONS = ReadOptions(FULL, SIZE)
SPACING_ZYX = (2.5, 0.8, 0.7)
ORIGIN_ZYX = (-30.0, -12.0, -14.0)  # LPS


def volume(seed=1, shape=(6, 10, 14)):
    """Draw HU, canonical (z, y, x): no two voxels nearby are alike, half of it air."""
    hu = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    hu[:, :3] = -1000
    return hu


def affine_of(order=(2, 1, 0), flips=(False, False, False), shape=(6, 10, 14)):
    """RAS affine of a canonical volume stored with file axes `order`, some of them backwards."""
    affine = np.eye(4)
    start = np.array([ORIGIN_ZYX[2], ORIGIN_ZYX[1], ORIGIN_ZYX[0]])
    for column, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        world = 2 - axis  # canonical axis 0 is z
        step = SPACING_ZYX[axis] * (-1 if flip else 1)
        affine[:3, column] = 0
        affine[world, column] = step
        if flip:
            start[world] += SPACING_ZYX[axis] * (shape[axis] - 1)
    affine[:3, 3] = start
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def save(path, hu=None, order=(2, 1, 0), flips=(False, False, False), kind=nib.Nifti1Image):
    """Write a canonical volume with the given file axes."""
    hu = volume() if hu is None else hu
    stored = hu.transpose(order)
    for axis, flip in enumerate(flips):
        stored = np.flip(stored, axis) if flip else stored
    affine = affine_of(order, flips, hu.shape)
    nib.save(kind(np.ascontiguousarray(stored), affine, dtype=stored.dtype), path)
    return path


def expected(hu, size=SIZE):
    return fit(to_uint8(hu, FULL), size, 0)[0]


def refusal(path, options=OPTIONS):
    """Return code and detail with which a file is rejected, by its header or by its content."""
    try:
        nifti.headers(path, options)
        stack = nifti.read([path], options)
    except Rejected as why:
        return why.code, why.detail
    assert stack.scan is None, "accepted"
    return stack.rejected[0].code, stack.rejected[0].detail


ORDERS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product([False, True], repeat=3)
]


def test_there_are_48_axis_orders():
    assert len(ORDERS) == 48


@pytest.mark.parametrize(("order", "flips"), ORDERS)
def test_every_axis_order_gives_the_same_scan(tmp_path, order, flips):
    hu = volume()
    path = save(tmp_path / "a.nii", hu, order, flips)
    scan = nifti.read([path], OPTIONS).scan
    assert np.array_equal(scan.pixels, expected(hu))
    assert scan.spacing_mm == pytest.approx(SPACING_ZYX)
    assert scan.z_mm == pytest.approx(-30.0 + 2.5 * np.arange(6))
    y, x = (SIZE - 10) // 2, (SIZE - 14) // 2
    assert scan.origin_mm == pytest.approx((-12.0 - 0.8 * y, -14.0 - 0.7 * x))
    assert scan.native_px == 14
    header = nifti.headers(path, OPTIONS)[0]
    assert (header.patient, header.sex, header.age_y, header.frames) == (None, "", -1, 6)
    assert header.position_mm == pytest.approx(-30.0)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4", "<f8", ">f4", "<i8"])
def test_every_voxel_type_gives_the_same_scan(tmp_path, name, kind, dtype):
    hu = volume()
    path = save(tmp_path / name, hu.astype(dtype), kind=kind)
    assert nifti.is_nifti(path, path.read_bytes()[:400])
    assert np.array_equal(nifti.read([path], OPTIONS).scan.pixels, expected(hu))


def test_scaled_voxels_are_hu(tmp_path):
    hu = np.clip(volume(), -1000, 1000) // 8 * 8
    image = nib.Nifti1Image(((hu + 1024) // 8).transpose(2, 1, 0).astype(np.uint8), affine_of())
    image.header.set_slope_inter(8, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(nifti.read([tmp_path / "a.nii.gz"], OPTIONS).scan.pixels, expected(hu))


def test_trailing_dimensions_of_one_are_dropped(tmp_path):
    hu = volume()
    image = nib.Nifti1Image(hu.transpose(2, 1, 0)[..., None, None], affine_of())
    nib.save(image, tmp_path / "a.nii")
    assert np.array_equal(nifti.read([tmp_path / "a.nii"], OPTIONS).scan.pixels, expected(hu))


@pytest.mark.parametrize("shape", [(14, 10), (14, 10, 6, 2), (14, 10, 6, 1, 3)])
def test_other_than_three_dimensions_is_rejected(tmp_path, shape):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), affine_of()), tmp_path / "a.nii")
    assert refusal(tmp_path / "a.nii")[0] == "not_3d"


@pytest.mark.parametrize(("degrees", "accepted"), [(1.5, True), (5.0, False), (30.0, False)])
def test_an_oblique_volume_is_rejected(tmp_path, degrees, accepted):
    a = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    image = nib.Nifti1Image(volume().transpose(2, 1, 0), turn @ affine_of())
    nib.save(image, tmp_path / "a.nii")
    if accepted:
        assert nifti.read([tmp_path / "a.nii"], OPTIONS).scan is not None
    else:
        assert refusal(tmp_path / "a.nii")[0] == "not_axial"


def test_a_sheared_volume_is_rejected(tmp_path):
    affine = affine_of()
    affine[1, 2] = 2.5 * np.tan(np.radians(15))
    nib.save(nib.Nifti1Image(volume().transpose(2, 1, 0), affine), tmp_path / "a.nii")
    assert refusal(tmp_path / "a.nii")[0] == "not_axial"


def test_a_volume_that_does_not_say_where_it_lies_is_rejected(tmp_path):
    nib.save(nib.Nifti1Image(volume(), None), tmp_path / "a.nii")
    assert refusal(tmp_path / "a.nii")[0] == "no_geometry"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_that_is_no_number_rejects_the_file(tmp_path, value):
    hu = volume().astype(np.float32)
    hu[3, 5, 7] = value
    assert refusal(save(tmp_path / "a.nii.gz", hu))[0] == "not_finite"


def test_an_image_without_air_is_no_ct(tmp_path):
    assert refusal(save(tmp_path / "a.nii", np.abs(volume()))) == (
        "not_ct",
        "no air below -500 HU",
    )


@pytest.mark.parametrize("dtype", ["complex64", [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_that_are_no_plain_numbers_are_rejected(tmp_path, dtype):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), dtype), affine_of()), tmp_path / "a.nii")
    assert refusal(tmp_path / "a.nii")[0] == "bits"


def test_a_header_without_voxels_is_rejected(tmp_path):
    nib.save(nib.Nifti1Pair(volume(), affine_of()), tmp_path / "a.hdr")
    assert refusal(tmp_path / "a.hdr")[0] == "unreadable"


def test_larger_slices_are_reduced(tmp_path):
    hu = volume(shape=(3, 48, 64))
    path = save(tmp_path / "a.nii", hu)
    scan = nifti.read([path], OPTIONS).scan
    assert np.array_equal(scan.pixels, expected(hu))
    assert scan.spacing_mm == pytest.approx((2.5, 1.6, 1.4))


def test_one_volume_at_a_time():
    with pytest.raises(ValueError, match="one volume"):
        nifti.read([], OPTIONS)


# -- damage


def test_every_truncation_is_rejected(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        whole = save(tmp_path / name).read_bytes()
        for length in range(2, len(whole), 37):
            (tmp_path / name).write_bytes(whole[:length])
            assert refusal(tmp_path / name)[0] in ("truncated", "unreadable"), length


def flipped(whole, bit):
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_flipped_bit_in_a_nii_gz_is_rejected(tmp_path, rng):
    path = save(tmp_path / "a.nii.gz", volume(shape=(20, 50, 50)))
    whole = path.read_bytes()
    seen = Counter()
    for bit in rng.choice(np.arange(4000, len(whole) * 8 - 200), 200, replace=False):
        path.write_bytes(flipped(whole, bit))
        seen[refusal(path)[0]] += 1
    assert seen["damaged"] >= 190
    assert set(seen) <= {"damaged", "truncated"}


def test_a_flipped_bit_anywhere_is_never_another_image(tmp_path):
    """Some bits of the packing mean nothing: a time, a name, codes that are not used."""
    path = save(tmp_path / "a.nii.gz")
    whole, pixels = path.read_bytes(), nifti.read([path], OPTIONS).scan.pixels
    harmless = 0
    for bit in [*range(0, 80), *range(80, len(whole) * 8, 5)]:
        path.write_bytes(flipped(whole, bit))
        try:
            stack = nifti.read([path], OPTIONS)
        except Rejected:
            continue
        if stack.scan is not None:
            harmless += 1
            assert np.array_equal(stack.scan.pixels, pixels)
    assert harmless < 80


def declared(shape, dtype=np.int16):
    """Return a header that declares `shape`, without voxels."""
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(affine_of(), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + bytes(4)


def peak_of(path):
    tracemalloc.start()
    try:
        code = refusal(path)[0]
        return code, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "code"),
    [((512, 512, 4096), "bomb"), ((32767, 32767, 8), "too_large"), ((512, 512, 60), "bomb")],
)
def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path, shape, code):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    path = tmp_path / "a.nii.gz"
    with path.open("wb") as file:
        file.write(packer.compress(declared(shape)))
        for _ in range(32):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    got, peak = peak_of(path)
    assert got == code
    assert peak < 8 << 20


def test_a_bomb_behind_an_honest_header_is_refused(tmp_path):
    hu = volume(shape=(20, 60, 60))
    path = save(tmp_path / "a.nii.gz", hu)
    with path.open("ab") as file:  # a second member, which readers append to the first
        file.write(gzip.compress(bytes(64 << 20), 9))
    code, peak = peak_of(path)
    assert code == "bomb"
    assert peak < 16 << 20


def test_a_plain_file_that_declares_too_much_is_truncated(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(declared((512, 512, 100)) + bytes(1000))
    assert refusal(path)[0] == "truncated"


def test_hostile_numbers_in_a_header_are_rejected(tmp_path):
    path = save(tmp_path / "a.nii")
    whole = path.read_bytes()
    for offset, value in itertools.product(
        range(40, 348, 2), (b"\xff\xff", b"\x00\x80", struct.pack("<h", 32767))
    ):
        path.write_bytes(whole[:offset] + value + whole[offset + 2 :])
        try:
            stack = nifti.read([path], ReadOptions(FULL, 16))
        except Rejected:
            continue
        assert (stack.scan is None) == bool(stack.rejected)


# -- real CT


def test_nifti_and_dicom_of_one_scan_are_identical(data):
    options = ReadOptions(FULL)
    one = nifti.read([data / "nifti" / "lung_dx-a0002_b40f.nii.gz"], options).scan
    files = sorted((data / "dicom_series" / "lung_dx-a0002_b40f").iterdir())
    other = dicom.read(files, options).scan
    assert np.array_equal(one.pixels, other.pixels)
    assert one.z_mm == pytest.approx(other.z_mm)
    assert one.spacing_mm == pytest.approx(other.spacing_mm)
    assert one.origin_mm == pytest.approx(other.origin_mm)


def test_a_real_mr_is_no_ct_and_a_real_ct_is(data):
    mr = data / "nifti" / "totalseg_example_mr_sm.nii.gz"
    assert refusal(mr, ReadOptions(FULL)) == ("not_ct", "no air below -500 HU")
    ct = nifti.read([data / "nifti" / "totalseg_example_ct_sm.nii.gz"], ReadOptions(FULL)).scan
    assert ct.pixels.shape == (30, 512, 512)
    assert ct.native_px == 122
