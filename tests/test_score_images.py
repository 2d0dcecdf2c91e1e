"""The images that pairs are scored and aligned on: closed forms, slow oracles, the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fingerprint import phantom
from fingerprint.corpus.body import LEAST, body_mask
from fingerprint.corpus.window import to_uint8
from fingerprint.search import images
from fingerprint.search.images import (
    IMAGES,
    blurred,
    highpass,
    local_contrast,
    score_image,
)


def thorax(count: int, side: int = 128) -> np.ndarray:
    hu = [phantom.one_slice(i, 3, seed=5, n_slices=8, size_px=side) for i in range(count)]
    return np.stack([to_uint8(one, (-1000.0, 1000.0)) for one in hu])


def disc(side: int, radius: float) -> np.ndarray:
    y, x = np.indices((side, side)) - (side - 1) / 2
    return np.hypot(y, x) <= radius


def scene(side: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A body with a lung in it, and a table under it: the image, and where the body is."""
    body = disc(side, side * 0.35)
    image = np.where(body, 120, 0).astype(np.uint8)
    image[disc(side, side * 0.1)] = 10
    image[side - 6 : side - 3, side // 8 : -side // 8] = 150
    return image, body


# -- body


def test_the_table_is_taken_away_and_the_lung_is_kept() -> None:
    image, body = scene()
    found = body_mask(image[None])[0]
    # an opening with a cross takes single pixels off a circle, nothing else
    assert (found & ~body).sum() == 0
    assert (body & ~found).sum() <= 16
    assert found[64, 64]
    assert score_image(image[None], "body")[0, 124, 64] == 0


def test_a_thin_bridge_to_the_table_does_not_make_it_body() -> None:
    image, body = scene()
    image[100:125, 64] = 120  # a tube from the back to the table, one pixel wide
    # a stub of the tube stays, as long as the opening is wide
    assert not (body_mask(image[None])[0] & ~body)[112:].any()


def test_the_body_does_not_depend_on_the_window() -> None:
    image = thorax(3)
    # grey levels under another window, as long as air stays apart from tissue
    for gain, offset in ((0.5, 0), (0.7, 60)):
        other = np.rint(image * gain + offset).astype(np.uint8)
        assert (body_mask(other) != body_mask(image)).mean() < 0.002


def test_a_window_that_shows_bone_alone_has_no_body_to_take_out() -> None:
    image = np.zeros((128, 128), np.uint8)
    image[60:70, 60:70], image[100:104, 20:100] = 255, 255
    assert body_mask(image[None]).all()
    assert np.array_equal(score_image(image[None], "body")[0], image)


def test_a_constant_image_is_all_body() -> None:
    for level in (0, 7, 255):
        image = np.full((1, 64, 64), level, np.uint8)
        assert np.array_equal(score_image(image, "body"), image)


def test_the_body_equals_a_slow_one_at_both_sizes() -> None:
    for side in (128, 256):
        for image, found in zip(thorax(3, side), body_mask(thorax(3, side)), strict=True):
            assert np.array_equal(found, slow_body(image))


def slow_body(image: np.ndarray) -> np.ndarray:
    """One image, one operation after the other, with the functions that are named for them."""
    best, threshold = -1.0, 255
    values = image.astype(np.int64).ravel()
    for level in range(int(values.min()), int(values.max())):
        low, high = values[values <= level], values[values > level]
        between = len(low) * len(high) * (low.mean() - high.mean()) ** 2
        if between > best * (1 + 1e-12):
            best, threshold = between, level
    cross = ndimage.generate_binary_structure(2, 1)
    times = max(1, len(image) // 128)
    dense = ndimage.binary_erosion(image > threshold, cross, times, border_value=1)
    parts, count = ndimage.label(dense)
    largest = parts == 1 + int(np.argmax([(parts == k).sum() for k in range(1, count + 1)]))
    grown = ndimage.binary_dilation(largest, cross, times)
    filled = ndimage.binary_fill_holes(grown)
    return filled if filled.mean() >= LEAST else np.ones_like(filled)


def test_of_two_parts_of_one_size_the_first_is_kept() -> None:
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 5:30, 5:30] = 200
    image[0, 35:60, 35:60] = 200
    found = body_mask(image)[0]
    assert found[15, 15]
    assert not found[45, 45]


# -- highpass and blur


def test_the_highpass_is_the_image_less_a_gaussian() -> None:
    image = thorax(2).astype(np.float64)
    blur = [ndimage.gaussian_filter(one, 2, mode="nearest", truncate=3) for one in image]
    away = np.clip(image - blur, -127, 127)
    assert np.abs(highpass(image.astype(np.uint8)) - away).max() <= 0.55  # half for the rounding


def test_the_highpass_of_512_px_has_the_same_reach_on_the_body() -> None:
    small = thorax(1)[0]
    large = small.repeat(4, 0).repeat(4, 1)
    reduced = highpass(large[None])[0].reshape(128, 4, 128, 4).mean((1, 3))
    assert np.corrcoef(reduced.ravel(), highpass(small[None])[0].ravel())[0, 1] > 0.99


def test_nothing_is_left_of_a_constant_image_or_of_a_grey_level_added() -> None:
    image = thorax(2) // 2
    assert not highpass(np.full((1, 64, 64), 200, np.uint8)).any()
    assert np.array_equal(highpass(image + np.uint8(100)), highpass(image))


@pytest.mark.parametrize(("side", "sigma", "most"), [(64, 1, 1020), (64, 4, 65_025), (128, 2, 255)])
def test_a_blur_in_integers_is_a_blur(side: int, sigma: float, most: int) -> None:
    image = np.random.default_rng(1).integers(0, most + 1, (3, side, side)).astype(np.float32)
    expected = [ndimage.gaussian_filter(one, sigma, mode="nearest", truncate=3) for one in image]
    assert np.abs(blurred(image, sigma, most=most) - expected).max() < 0.006 * most


@pytest.mark.parametrize("most", [255, 1020, 65_025])
def test_every_sum_of_a_blur_fits_into_float32(most: int) -> None:
    """The largest image there is, in float64 and in float32: not one bit apart."""
    image = np.full((1, 64, 64), most, np.float32)
    image[0, ::2] -= 1
    one = 2 ** min(12, int(np.log2(2**24 / most)))
    weights = images._weights(64, 4.0, one)
    assert (weights.sum(1) == one).all()
    assert weights.min() >= 0
    wide = image.astype(np.float64) @ weights.T.astype(np.float64)
    assert wide.max() <= 2**24
    step = 2.0 ** -int(np.log2(2**24 / (most * one)))
    second = weights.astype(np.float64) @ np.rint(wide / (one * step))
    assert second.max() <= 2**24
    assert np.array_equal(blurred(image, 4.0, most=most), (second * (step / one)))


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_local_contrast_forgets_gain_and_offset(smooth: float) -> None:
    grey = thorax(2).astype(np.float32)
    plain = local_contrast(grey, most=255, reach=4, smooth=smooth).astype(float)
    other = local_contrast(np.rint(grey * 0.6 + 40), most=255, reach=4, smooth=smooth).astype(float)
    assert np.corrcoef(plain.ravel(), other.ravel())[0, 1] > 0.97
    flat = np.full((1, 64, 64), 9, np.float32)
    assert not local_contrast(flat, most=255, reach=4, smooth=smooth).any()


def test_local_contrast_is_the_grey_less_its_mean_over_its_spread() -> None:
    """Slowly, in float64: the same but for rounding on the way."""
    grey = thorax(1)[0].astype(np.float64)
    blur = {"sigma": 4, "mode": "nearest", "truncate": 3}
    away = grey - ndimage.gaussian_filter(grey, **blur)
    spread = ndimage.gaussian_filter(away * away, **blur)
    expected = np.clip(32 * away / np.sqrt(spread + 100), -127, 127)
    found = local_contrast(grey[None].astype(np.float32), most=255, reach=4)[0]
    assert np.abs(found - expected).max() < 4
    assert np.abs(found - expected).mean() < 0.8


# -- all of them


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_does_not_depend_on_those_beside_it(name: str) -> None:
    stack = thorax(5)
    together = score_image(stack, name)
    for i in range(len(stack)):
        assert np.array_equal(score_image(stack[i : i + 1], name)[0], together[i])
    assert np.array_equal(score_image(stack[::-1], name), together[::-1])
    assert score_image(stack[:0], name).shape == (0, 128, 128)


def test_more_images_than_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = thorax(5)
    whole = [score_image(stack, name) for name in IMAGES]
    monkeypatch.setattr(images, "AT_ONCE", 2)
    for name, expected in zip(IMAGES, whole, strict=True):
        assert np.array_equal(score_image(stack, name), expected)


def test_raw_is_the_image_and_types_are_those_stated() -> None:
    stack = thorax(2)
    assert np.array_equal(score_image(stack, "raw"), stack)
    assert [score_image(stack, name).dtype for name in IMAGES] == [np.uint8, np.uint8, np.int8]


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="name must be one of raw, body, highpass, got 'edge'"):
        score_image(thorax(1), "edge")
    for bad in (np.zeros((1, 8, 8)), np.zeros((8, 8), np.uint8), np.zeros((1, 8, 9), np.uint8)):
        with pytest.raises(ValueError, match="images must be uint8"):
            score_image(bad, "raw")
