"""Images that are not scans: every row of the table of input rules, and bad files."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from PIL import Image

from fingerprint.corpus import images
from fingerprint.corpus.arrays import layout
from fingerprint.corpus.orientation import ORIENTATIONS
from fingerprint.corpus.scan import Header, ReadOptions, Rejected, Scan
from fingerprint.corpus.window import air_level

DATA = os.environ.get("FINGERPRINT_DATA")
FULL = ReadOptions(window_hu=(-1000.0, 1000.0))
GENERATED = dataclasses.replace(FULL, generated=True)


def grey(h: int = 512, w: int = 512, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (h, w), np.uint8)


def scan_of(path: Path, options: ReadOptions = FULL) -> Scan:
    stack = images.read([path], options)
    if stack.scan is None:
        raise stack.rejected[0]
    return stack.scan


def code_of(path: Path, options: ReadOptions = FULL) -> str:
    stack = images.read([path], options)
    assert stack.scan is None
    return stack.rejected[0].code


def save(path: Path, image: Image.Image, **how: Any) -> Path:
    image.save(path, **how)
    return path


def save_npy(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array)
    return path


# -- the table, row by row


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.npz"])
def test_8bit_grey_of_the_stored_size_is_taken_pixel_for_pixel(tmp_path: Path, name: str) -> None:
    path, image = tmp_path / name, grey()
    if name.endswith("npz"):
        np.savez(path, image)
    elif name.endswith("npy"):
        np.save(path, image)
    else:
        save(path, Image.fromarray(image))
    scan = scan_of(path)
    assert np.array_equal(scan.pixels[0], image)
    assert scan.native_px == 512
    assert scan.notes == ()
    assert np.array_equal(scan_of(path, GENERATED).pixels[0], image)
    assert images.headers(path, FULL) == [Header("image")]


def test_jpeg_grey_is_taken_as_it_decodes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(grey()), quality=90)
    with Image.open(path) as opened:
        assert np.array_equal(scan_of(path).pixels[0], np.asarray(opened))


def test_small_generated_squares_are_enlarged_and_remember_their_size(tmp_path: Path) -> None:
    image = grey(64, 64)
    scan = scan_of(save(tmp_path / "a.png", Image.fromarray(image)), GENERATED)
    assert scan.native_px == 64
    assert np.array_equal(scan.pixels[0], images.bilinear(image, (512, 512)))


def test_small_generated_oblongs_are_enlarged_then_centred_in_air(tmp_path: Path) -> None:
    image = grey(50, 100)
    lung = dataclasses.replace(GENERATED, window_hu=(-1350.0, 150.0))
    pixels = scan_of(save_npy(tmp_path / "a.npy", image), lung).pixels[0]
    assert np.array_equal(pixels[128:384], images.bilinear(image, (256, 512)))
    assert set(np.unique(np.r_[pixels[:128], pixels[384:]])) == {air_level(lung.window_hu)}
    assert air_level(lung.window_hu) > 0


def test_small_real_images_are_centred_in_air(tmp_path: Path) -> None:
    image = grey(100, 60)
    scan = scan_of(save(tmp_path / "a.png", Image.fromarray(image)))
    assert np.array_equal(scan.pixels[0, 206:306, 226:286], image)
    assert scan.pixels[0].sum() == image.sum()
    assert scan.native_px == 100


@pytest.mark.parametrize("options", [FULL, GENERATED])
def test_larger_images_are_reduced_by_area_mean_and_centred(
    tmp_path: Path, options: ReadOptions
) -> None:
    image = grey(1024, 512)
    scan = scan_of(save(tmp_path / "a.png", Image.fromarray(image)), options)
    mean = image.reshape(512, 2, 256, 2).astype(float).mean((1, 3))
    assert np.array_equal(scan.pixels[0, :, 128:384], np.rint(mean))
    assert not scan.pixels[0, :, :128].any()
    assert not scan.pixels[0, :, 384:].any()
    assert scan.native_px == 1024


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1", "CMYK"])
def test_grey_in_another_mode_is_grey(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(grey()).convert(mode)
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), picture)
    expected = np.asarray(picture.convert("L"))
    assert np.array_equal(scan_of(path).pixels[0], expected)


def test_channels_that_differ_by_two_are_grey_and_green_is_taken(tmp_path: Path) -> None:
    image = np.clip(grey(), 2, 253)
    rgb = np.stack([image - 1, image, image + 1], -1)
    assert np.array_equal(scan_of(save_npy(tmp_path / "a.npy", rgb)).pixels[0], image)


def test_a_grey_jpeg_saved_in_colour_is_grey(tmp_path: Path) -> None:
    smooth = images.bilinear(grey(16, 16), (512, 512))
    path = save(tmp_path / "a.jpg", Image.fromarray(smooth).convert("RGB"), quality=75)
    assert np.abs(scan_of(path).pixels[0].astype(int) - smooth).mean() < 2


@pytest.mark.parametrize("kind", ["RGB", "P", "CMYK", "YCbCr", "LAB"])
def test_channels_that_differ_are_colour(tmp_path: Path, kind: str) -> None:
    rgb = np.stack([grey(seed=i) for i in range(3)], -1)
    picture = Image.fromarray(rgb)
    if kind == "LAB":
        picture = Image.merge("LAB", picture.split())
    elif kind != "RGB":
        picture = picture.quantize(16) if kind == "P" else picture.convert(kind)
    path = save(tmp_path / ("a.png" if kind in ("RGB", "P") else "a.tif"), picture)
    assert code_of(path) == "colour"


def test_one_pixel_of_colour_is_colour(tmp_path: Path) -> None:
    rgb = np.repeat(grey()[..., None], 3, 2) // 2
    rgb[17, 400, 0] += 3
    assert code_of(save(tmp_path / "a.png", Image.fromarray(rgb))) == "colour"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_that_is_not_opaque_is_transparent(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(grey()).convert(mode)
    alpha = np.full((512, 512), 255, np.uint8)
    alpha[3, 5] = 254
    picture.putalpha(Image.fromarray(alpha))
    assert code_of(save(tmp_path / "a.png", picture)) == "transparent"


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_transparent_grey_level_that_occurs_is_transparent(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(grey()).convert(mode)
    path = save(tmp_path / "a.png", picture, transparency=7)
    assert code_of(path) == "transparent"
    unused = Image.fromarray(np.maximum(grey(), 8)).convert(mode)
    path = save(tmp_path / "b.png", unused, transparency=7)
    assert np.array_equal(scan_of(path).pixels[0], np.maximum(grey(), 8))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_16bit_without_a_unit_is_refused_and_with_hu_goes_through_the_window(
    tmp_path: Path, name: str
) -> None:
    hu = np.random.default_rng(1).integers(0, 1200, (512, 512)).astype(np.uint16)
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, hu)
    else:
        save(path, Image.fromarray(hu))
    assert code_of(path) == "no_unit"
    scan = scan_of(path, dataclasses.replace(FULL, hu=True))
    expected = np.clip(np.rint((hu.astype(float) + 1000) * 255 / 2000), 0, 255)
    assert np.array_equal(scan.pixels[0], expected)
    assert scan.notes == (images.NO_NEGATIVE,)
    [header] = images.headers(path, FULL)
    assert (header.pixel, header.low, header.high) == ("u16", hu.min(), hu.max())


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, ">i2"])
def test_negative_hu_go_through_the_window(tmp_path: Path, dtype: Any) -> None:
    hu = np.random.default_rng(2).integers(-2048, 2000, (512, 512)).astype(dtype)
    path = save_npy(tmp_path / "a.npy", hu)
    scan = scan_of(path, dataclasses.replace(FULL, hu=True, window_hu=(-1350.0, 150.0)))
    inside = np.where(hu < -1024, -1000, hu).astype(float)
    assert np.array_equal(scan.pixels[0], np.clip(np.rint((inside + 1350) * 255 / 1500), 0, 255))
    assert scan.notes == ()


def test_signed_16bit_tiff_is_hu(tmp_path: Path) -> None:
    hu = np.random.default_rng(2).integers(-1024, 2000, (512, 512)).astype(np.int16)
    tifffile.imwrite(tmp_path / "a.tif", hu)
    scan = scan_of(tmp_path / "a.tif", dataclasses.replace(FULL, hu=True))
    expected = np.clip(np.rint((hu + 1000.0) * 255 / 2000), 0, 255)
    assert np.array_equal(scan.pixels[0], expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("lo", "hi"), [(0.0, 1.0), (-1.0, 1.0)])
def test_every_grey_level_survives_as_float(
    tmp_path: Path, dtype: Any, lo: float, hi: float
) -> None:
    image = np.resize(np.arange(256), (512, 512))
    path = save_npy(tmp_path / "a.npy", (image / 255 * (hi - lo) + lo).astype(dtype))
    [header] = images.headers(path, FULL)
    assert (header.pixel, header.low, header.high) == ("float", lo, hi)
    assert images.set_range([header]) == (lo, hi)
    scan = scan_of(path, dataclasses.replace(FULL, value_range=(lo, hi)))
    assert np.array_equal(scan.pixels[0], image)
    assert scan.notes == (f"range {lo:g}..{hi:g}",)


def test_float_tiff_is_mapped_like_float_npy(tmp_path: Path) -> None:
    image = np.resize(np.arange(256), (512, 512))
    tifffile.imwrite(tmp_path / "a.tif", (image / 255).astype(np.float32))
    scan = scan_of(tmp_path / "a.tif", dataclasses.replace(FULL, value_range=(0.0, 1.0)))
    assert np.array_equal(scan.pixels[0], image)
    assert code_of(tmp_path / "a.tif") == "no_range"


def test_floats_outside_their_range_are_clipped_and_rounded_half_to_even(tmp_path: Path) -> None:
    image = np.zeros((512, 512), np.float64)
    image[0, :5] = [-1, 0.5, 1.5, 255, 400]
    path = save_npy(tmp_path / "a.npy", image)
    scan = scan_of(path, dataclasses.replace(FULL, value_range=(0.0, 255.0)))
    assert scan.pixels[0, 0, :5].tolist() == [0, 0, 2, 255, 255]


def test_floats_without_a_range_are_refused_even_if_they_are_whole_numbers(tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", grey().astype(np.float32))
    assert code_of(path) == "no_range"
    with pytest.raises(Rejected, match="no_range"):
        images.set_range(images.headers(path, FULL))


def test_the_range_is_that_of_the_whole_set() -> None:
    def header(low: float, high: float) -> Header:
        return Header("image", pixel="float", low=low, high=high)

    assert images.set_range([header(0, 0.5), header(0.2, 1)]) == (0, 1)
    assert images.set_range([header(0, 0.5), header(-0.01, 1)]) == (-1, 1)
    assert images.set_range([header(0, 0.5), Header("image")]) == (0, 1)
    with pytest.raises(Rejected, match="no_range"):
        images.set_range([header(0, 1), header(0, 1.0001)])
    with pytest.raises(ValueError, match="no float image"):
        images.set_range([Header("image")])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused_at_once(tmp_path: Path, value: float) -> None:
    image = np.zeros((2, 16, 16), np.float32)
    image[1, 3, 3] = value
    path = save_npy(tmp_path / "a.npy", image)
    with pytest.raises(Rejected, match="not_finite"):
        images.headers(path, FULL)
    assert code_of(path, dataclasses.replace(FULL, value_range=(0.0, 1.0))) == "not_finite"


def test_booleans_are_black_and_white(tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", grey() > 99)
    assert np.array_equal(scan_of(path).pixels[0], (grey() > 99) * 255)


STACK = np.stack([grey(32, 24, seed) for seed in range(5)])


@pytest.mark.parametrize(
    "array",
    [
        STACK,
        STACK[:, None],
        np.repeat(STACK[:, None], 3, 1),
        STACK[..., None],
        np.repeat(STACK[..., None], 3, 3),
        np.concatenate([np.repeat(STACK[..., None], 3, 3), np.full((5, 32, 24, 1), 255)], 3),
    ],
    ids=["NHW", "N1HW", "N3HW", "NHW1", "NHW3", "NHW4"],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_stack_of_arrays_is_as_many_images(
    tmp_path: Path, array: NDArray[Any], order: Any, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    array = np.asarray(array, np.uint8, order=order)
    (np.save if suffix == "npy" else np.savez_compressed)(path, array)
    scan = scan_of(path, dataclasses.replace(FULL, size_px=32))
    assert np.array_equal(scan.pixels[:, :, 4:28], STACK)
    assert scan.source.tolist() == [0] * 5
    assert scan.z_mm.tolist() == [0, 1, 2, 3, 4]
    assert images.headers(path, FULL)[0].frames == 5


@pytest.mark.parametrize(
    ("shape", "count", "sides"),
    [
        ((512, 512), 1, (512, 512)),
        ((3, 512, 512), 3, (512, 512)),
        ((512, 512, 3), 1, (512, 512)),
        ((512, 512, 1), 1, (512, 512)),
        ((1, 1, 64, 64), 1, (64, 64)),
        ((3, 3, 64, 64), 3, (64, 64)),
        ((4, 64, 64, 4), 4, (64, 64)),
        ((64, 64, 64), 64, (64, 64)),
    ],
)
def test_a_shape_reads_one_way(shape: tuple[int, ...], count: int, sides: tuple[int, int]) -> None:
    assert (layout(shape).count, layout(shape).shape) == (count, sides)


@pytest.mark.parametrize(
    "shape",
    [(), (512,), (4, 512), (512, 512, 2), (2, 5, 64, 64), (0, 64, 64), (1, 1, 1, 64, 64)]
    + [(64, 64, 4, 64), (2, 4, 64, 64), (7, 7)],
)
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert code_of(save_npy(tmp_path / "a.npy", np.zeros(shape, np.uint8))) == "shape"


@pytest.mark.parametrize("orient", ORIENTATIONS)
def test_the_stored_orientation_is_the_one_asked_for(tmp_path: Path, orient: str) -> None:
    image = grey(512, 400)
    options = dataclasses.replace(FULL, orient=orient)
    pixels = scan_of(save(tmp_path / "a.png", Image.fromarray(image)), options).pixels[0]
    turned = ORIENTATIONS[orient](image)
    y, x = ((512 - side) // 2 for side in turned.shape)
    assert np.array_equal(pixels[y : 512 - y, x : 512 - x], turned)


@pytest.mark.parametrize("exif", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "two.tif"])
def test_exif_orientation_is_noted_and_never_applied(
    tmp_path: Path, exif: int, suffix: str
) -> None:
    image = images.bilinear(grey(8, 8), (24, 32))
    tag = Image.Exif()
    tag[274] = exif
    path = tmp_path / f"a.{suffix}"
    if suffix.endswith("tif"):
        pages = np.repeat(image[None], 2 if suffix == "two.tif" else 1, 0)
        extra = [(274, "H", 1, exif, True)]
        tifffile.imwrite(path, pages, photometric="minisblack", extratags=extra)
    else:
        save(path, Image.fromarray(image), exif=tag, quality=95)
    scan = scan_of(path, dataclasses.replace(FULL, size_px=32))
    expected = image if suffix != "jpg" else np.asarray(Image.open(path))
    assert all(np.array_equal(pixels[4:28], expected) for pixels in scan.pixels)
    assert bool(scan.notes) == (exif != 1)


def test_an_orientation_in_the_xmp_of_a_tiff_is_not_applied_either(tmp_path: Path) -> None:
    image = grey(24, 32)
    xmp = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(700, "B", len(xmp), xmp, True)])
    scan = scan_of(tmp_path / "a.tif", dataclasses.replace(FULL, size_px=32))
    assert np.array_equal(scan.pixels[0, 4:28], image)
    assert len(scan.notes) == 1


# -- sizes, stacks, whole sets


def test_pages_of_a_tiff_are_images(tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(image) for image in STACK]
    path = save(tmp_path / "a.tif", first, save_all=True, append_images=rest)
    assert images.headers(path, FULL)[0].frames == 5
    scan = scan_of(path, dataclasses.replace(FULL, size_px=32))
    assert np.array_equal(scan.pixels[:, :, 4:28], STACK)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff_is_read(tmp_path: Path, compression: str) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(grey()), compression=compression)
    assert np.array_equal(scan_of(path).pixels[0], grey())


def test_pages_of_different_size_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(grey(32, 32)), Image.fromarray(grey(64, 64))]
    path = save(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:])
    assert code_of(path) == "shape"


def test_an_imagej_stack_without_pages_is_not_read_as_one_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], description="ImageJ=1.54f\nimages=5\n", metadata=None)
    assert code_of(path) == "shape"


def test_an_animated_png_is_multi_frame(tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(image) for image in STACK]
    path = save(tmp_path / "a.png", first, save_all=True, append_images=rest)
    assert code_of(path) == "multi_frame"


def test_files_follow_one_another_and_a_bad_one_costs_only_itself(tmp_path: Path) -> None:
    save_npy(tmp_path / "a.npy", STACK)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(tmp_path / "c.png", Image.fromarray(grey(32, 32)))
    paths = [tmp_path / name for name in ("c.png", "b.png", "a.npy", "missing.png")]
    stack = images.read(paths, dataclasses.replace(FULL, size_px=32))
    assert stack.scan is not None
    assert stack.scan.source.tolist() == [0, 2, 2, 2, 2, 2]
    assert stack.scan.z_mm.tolist() == list(range(6))
    assert {i: why.code for i, why in stack.rejected.items()} == {1: "truncated", 3: "unreadable"}
    assert stack.excluded == {}


def test_different_sizes_in_one_stack_are_noted(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{side}.png", Image.fromarray(grey(side, side))) for side in (16, 32)]
    scan = images.read(paths, dataclasses.replace(GENERATED, size_px=64)).scan
    assert scan is not None
    assert scan.native_px == 16
    assert scan.notes == ("images of 16 to 32 px in one stack",)


@pytest.mark.parametrize("size_px", [32, 256, 512])
def test_any_stored_size_works(tmp_path: Path, size_px: int) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(grey(300, 200)))
    options = dataclasses.replace(GENERATED, size_px=size_px)
    assert scan_of(path, options).pixels.shape == (1, size_px, size_px)


# -- bilinear


def test_bilinear_is_that_of_torch() -> None:
    for seed, (shape, new) in enumerate([((64, 64), (512, 512)), ((50, 33), (97, 512))]):
        image = grey(*shape, seed)
        ours = images.bilinear(image, new).astype(int)
        tensor = torch.from_numpy(image.astype(np.float64))[None, None]
        theirs = torch.nn.functional.interpolate(tensor, new, mode="bilinear", align_corners=False)
        off = np.abs(ours - theirs[0, 0].numpy())
        assert off.max() <= 0.5 + 1e-9


def test_bilinear_is_that_of_pillow_within_its_fixed_point() -> None:
    image = grey(64, 64)
    theirs = np.asarray(Image.fromarray(image).resize((512, 512), Image.Resampling.BILINEAR))
    assert np.abs(images.bilinear(image, (512, 512)).astype(int) - theirs).max() <= 1


def test_bilinear_keeps_the_same_size_and_constants() -> None:
    assert np.array_equal(images.bilinear(grey(64, 64), (64, 64)), grey(64, 64))
    assert (images.bilinear(np.full((8, 8), 201, np.uint8), (100, 512)) == 201).all()
    with pytest.raises(ValueError, match="must not be below"):
        images.bilinear(grey(64, 64), (63, 64))


def test_bilinear_rounds_half_to_even() -> None:
    edge = np.array([[0, 2], [0, 2]], np.uint8)  # a quarter: 0.5 -> 0, three quarters: 1.5 -> 2
    assert images.bilinear(edge, (2, 4)).tolist() == [[0, 0, 2, 2], [0, 0, 2, 2]]


# -- bad files


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        ("png", {}),
        ("jpg", {}),
        ("jpg", {"progressive": True}),
        ("tif", {}),
        ("tif", {"compression": "tiff_lzw"}),
        ("tif", {"compression": "tiff_deflate"}),
    ],
)
def test_truncated_pictures_are_rejected_at_any_length(
    tmp_path: Path, suffix: str, how: dict[str, Any]
) -> None:
    whole = save(tmp_path / f"a.{suffix}", Image.fromarray(grey(64, 64)), **how).read_bytes()
    part = tmp_path / f"b.{suffix}"
    lengths = [*range(1, 40), *range(40, len(whole) - 40, 211), *range(len(whole) - 40, len(whole))]
    for length in lengths:
        part.write_bytes(whole[:length])
        expected = ("unreadable", "truncated")
        assert code_of(part) in expected, length
        if length >= 16:
            assert code_of(part) == "truncated", length


@pytest.mark.parametrize("suffix", ["npy", "npz", "packed.npz"])
def test_truncated_arrays_are_rejected_at_any_length(tmp_path: Path, suffix: str) -> None:
    path, part = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    {"npy": np.save, "npz": np.savez}.get(suffix, np.savez_compressed)(path, grey(32, 32))
    whole = path.read_bytes()
    for length in [*range(6, len(whole) - 150, 9), *range(len(whole) - 150, len(whole))]:
        part.write_bytes(whole[:length])
        assert code_of(part) == "truncated", length


def test_a_flipped_bit_in_a_png_is_damage_and_never_another_image(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(grey(32, 32)))
    options = dataclasses.replace(FULL, size_px=32)
    whole = path.read_bytes()
    codes = set()
    for bit in range(0, 8 * len(whole), 13):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        codes.add(code_of(path, options))
    assert codes <= {"damaged", "truncated", "unreadable"}
    assert "damaged" in codes


def test_a_flipped_bit_in_an_npz_is_damage_or_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, grey(32, 32))
    options = dataclasses.replace(FULL, size_px=32)
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 17):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        scan = images.read([path], options).scan
        assert scan is None or np.array_equal(scan.pixels[0], grey(32, 32)), bit


def npy_bytes(shape: tuple[int, ...], descr: str = "|u1", data: bytes = b"") -> bytes:
    file = io.BytesIO()
    npy_format.write_array_header_1_0(
        file, {"shape": shape, "fortran_order": False, "descr": descr}
    )
    return file.getvalue() + data


def test_what_an_array_declares_is_checked_before_it_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for shape in [(10**6, 512, 512), (2**40, 2**20), (4097, 512, 512)]:
        path.write_bytes(npy_bytes(shape))
        assert code_of(path) == "too_large"
        with pytest.raises(Rejected, match="too_large"):
            images.headers(path, FULL)
    path.write_bytes(npy_bytes((4096, 512, 512)))
    assert code_of(path) == "truncated"


def test_small_images_that_would_grow_beyond_the_cap_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes((4097, 8, 8), data=bytes(4097 * 64)))
    with pytest.raises(Rejected, match="too_large"):
        images.headers(path, GENERATED)
    assert code_of(path, GENERATED) == "too_large"


def test_bytes_after_an_array_are_not_dropped_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.save(file, grey(16, 16))
        np.save(file, grey(16, 16))
    assert code_of(path) == "shape"


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (trap,)

    path = tmp_path / "a.npy"
    np.save(path, np.array([Trap()], object), allow_pickle=True)
    assert code_of(path) == "unreadable"
    np.savez(tmp_path / "a.npz", a=np.array([Trap()], object))
    assert code_of(tmp_path / "a.npz") == "unreadable"
    assert not trap.exists()


@pytest.mark.parametrize("dtype", ["c8", "S4", "U4", "M8[s]"])
def test_numbers_that_are_no_grey_levels_are_refused(tmp_path: Path, dtype: str) -> None:
    assert code_of(save_npy(tmp_path / "a.npy", np.zeros((16, 16), dtype))) == "bits"


@pytest.mark.parametrize("header", [b"{'shape': (", b"__import__('os')", b"\xff" * 40, b"1"])
def test_hostile_array_headers_are_unreadable(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    assert code_of(path) == "unreadable"


def test_an_archive_must_hold_exactly_one_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=grey(16, 16), b=grey(16, 16))
    np.savez(tmp_path / "none.npz")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("../../x<script>", "text")
    for name in ("two", "none", "text"):
        assert code_of(tmp_path / f"{name}.npz") == "shape"


def test_an_archive_that_declares_too_much_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, np.zeros((64, 512, 512), np.uint8))
    assert path.stat().st_size * 200 < 64 * 512 * 512
    assert code_of(path) == "bomb"
    with pytest.raises(Rejected, match="bomb"):
        images.headers(path, FULL)


def test_an_archive_that_lies_about_its_packed_size_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, np.zeros((64, 512, 512), np.uint8))
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 20 : entry + 24] = struct.pack("<I", 2**31)
    path.write_bytes(data)
    assert code_of(path) in ("bomb", "damaged")


def test_a_picture_of_too_many_pixels_is_a_bomb(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    path = tmp_path / "a.png"
    for side in (10_000, 60_000):  # a warning of Pillow's, an error of Pillow's
        size = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        image = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + image)
        assert code_of(path) == "bomb"
        with pytest.raises(Rejected, match="bomb"):
            images.headers(path, FULL)


@pytest.mark.parametrize("planes", [3, 4])
def test_16bit_colour_is_not_read_as_8bit(tmp_path: Path, planes: int) -> None:
    rgb = np.repeat((grey(32, 32).astype(np.uint16) * 257)[..., None], planes, 2)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    assert code_of(tmp_path / "a.tif") == "bits"


@pytest.mark.parametrize(
    "array", [np.zeros((32, 32), np.int8), np.zeros((32, 32), np.complex64)], ids=["i1", "c8"]
)
def test_tiff_of_other_numbers_is_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array)
    assert code_of(tmp_path / "a.tif") in ("bits", "unreadable")


def test_a_tiff_whose_white_is_zero_is_inverted_or_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", grey(32, 32), photometric="miniswhite")
    options = dataclasses.replace(FULL, size_px=32)
    assert np.array_equal(scan_of(tmp_path / "a.tif", options).pixels[0], 255 - grey(32, 32))
    tifffile.imwrite(tmp_path / "b.tif", grey(32, 32).astype(np.uint16), photometric="miniswhite")
    assert code_of(tmp_path / "b.tif", dataclasses.replace(options, hu=True)) == "bits"


def test_other_files_are_no_images(tmp_path: Path) -> None:
    empty, text, office = (tmp_path / name for name in ("a.png", "b.png", "c.docx"))
    empty.touch()
    text.write_text("no image")
    with zipfile.ZipFile(office, "w") as archive:
        archive.writestr("a.npy", b"")
    assert [code_of(path) for path in (empty, text, office)] == [
        "empty_file",
        "unreadable",
        "unreadable",
    ]
    assert not images.is_image(text, text.read_bytes())
    assert not images.is_image(office, office.read_bytes())
    assert images.is_image(tmp_path / "x.npz", office.read_bytes())


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.npy", "a.npz"])
def test_the_first_bytes_tell_an_image_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("a.np"):
        {"a.npy": np.save, "a.npz": np.savez}[name](path, grey(16, 16))
    else:
        save(path, Image.fromarray(grey(16, 16)))
    head = path.read_bytes()[:16]
    assert images.is_image(path, head)
    assert images.is_image(tmp_path / "no_extension", head) == (name != "a.npz")


def test_damage_in_a_fuzzed_file_is_a_rejection_and_never_an_exception(tmp_path: Path) -> None:
    rng = np.random.default_rng(20250123)
    options = dataclasses.replace(FULL, size_px=32, hu=True, value_range=(0.0, 1.0))
    whole = {}
    for name in ("a.png", "a.jpg", "a.tif"):
        whole[name] = save(tmp_path / name, Image.fromarray(grey(32, 32))).read_bytes()
    save_npy(tmp_path / "a.npy", STACK)
    np.savez_compressed(tmp_path / "a.npz", STACK)
    whole |= {name: (tmp_path / name).read_bytes() for name in ("a.npy", "a.npz")}
    for i in range(600):
        name = sorted(whole)[i % len(whole)]
        data = bytearray(whole[name])
        for at in rng.integers(0, min(len(data), 400), 3):
            data[at] = rng.integers(0, 256)
        path = tmp_path / f"fuzzed_{name}"
        path.write_bytes(data)
        stack = images.read([path], options)
        assert (stack.scan is None) == bool(stack.rejected)


# -- real images


@pytest.mark.skipif(not DATA, reason="FINGERPRINT_DATA is not set: no real CT")
def test_every_real_jpeg_is_read() -> None:
    paths = sorted(Path(DATA or "", "slices_8bit", "iq_oth_nccd").rglob("*.jp*g"))
    assert len(paths) == 299
    stack = images.read(paths, FULL)
    assert stack.scan is not None
    assert len(stack.scan.pixels) + len(stack.rejected) == 299
    assert not stack.rejected
    assert stack.scan.notes == ("images of 512 to 623 px in one stack",)
    for path, pixels in zip(paths[::40], stack.scan.pixels[::40], strict=True):
        with Image.open(path) as opened:
            if opened.size == (512, 512):
                assert np.array_equal(pixels, np.asarray(opened))
