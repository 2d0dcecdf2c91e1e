"""From HU to grey levels, and from any size to one size."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.corpus.window import (
    air_level,
    area_mean,
    fit,
    place,
    stored_grid,
    to_uint8,
)

FULL, LUNG = (-1000.0, 1000.0), (-1350.0, 150.0)


def naive_area_mean(image, shape):
    """Every overlap as an exact fraction."""
    (h, w), (m, n) = image.shape, shape

    def overlap(i, length, j, count):
        start, stop = Fraction(j * length, count), Fraction((j + 1) * length, count)
        return max(Fraction(0), min(Fraction(i + 1), stop) - max(Fraction(i), start))

    mean = np.empty(shape, object)
    for y in range(m):
        for x in range(n):
            total = sum(
                overlap(i, h, y, m) * overlap(j, w, x, n) * int(image[i, j])
                for i in range(h)
                for j in range(w)
            )
            mean[y, x] = total / (Fraction(h, m) * Fraction(w, n))
    return mean


def test_ends_of_the_window_are_black_and_white():
    assert to_uint8([-1000, 0, 1000], FULL).tolist() == [0, 128, 255]
    assert to_uint8([-1024, 2000], FULL).tolist() == [0, 255]


def test_ties_are_rounded_to_even():
    assert to_uint8([0.5, 1.5, 2.5], (0.0, 255.0)).tolist() == [0, 2, 2]


def test_padding_is_air_before_the_lung_window():
    hu = np.array([-2048.0, -1025.0, -1024.0, -1000.0, 500.0])
    grey = to_uint8(hu, LUNG, np.array([False, False, False, False, True]))
    assert grey.tolist() == [60, 60, 55, 60, 60]
    assert air_level(LUNG) == 60


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        to_uint8([0.0, value], FULL)


def test_a_window_that_does_not_rise_is_refused():
    with pytest.raises(ValueError, match="rise"):
        to_uint8([0.0], (5.0, 5.0))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_area_mean_is_the_exact_mean_over_the_area(data):
    h, w = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    m, n = data.draw(st.tuples(st.integers(1, h), st.integers(1, w)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    image = np.random.default_rng(seed).integers(0, 256, (h, w)).astype(np.uint8)
    expected = naive_area_mean(image, (m, n))
    got = area_mean(image, (m, n))
    assert got.shape == (m, n)
    assert all(float(e) == g for e, g in zip(expected.ravel(), got.ravel(), strict=True))


@pytest.mark.parametrize("side", [256, 128, 32, 1])
def test_area_mean_over_whole_pixels_is_that_with_weights(rng, side):
    images = rng.integers(0, 256, (2, 512, 512)).astype(np.uint8)
    images[1] = 255
    # only bytes go the short way
    assert np.array_equal(area_mean(images, (side, side)), area_mean(images * 1.0, (side, side)))


def test_area_mean_of_a_stack_is_that_of_each_slice(rng):
    stack = rng.random((3, 10, 7))
    whole = area_mean(stack, (4, 5))
    assert all(np.array_equal(whole[k], area_mean(stack[k], (4, 5))) for k in range(3))


def test_area_mean_does_not_enlarge():
    with pytest.raises(ValueError, match="within"):
        area_mean(np.zeros((4, 4)), (5, 4))


def test_an_image_of_the_right_size_is_not_touched(rng):
    image = rng.integers(0, 256, (2, 64, 64)).astype(np.uint8)
    stored, scale, corner = fit(image, 64, 0)
    assert np.array_equal(stored, image)
    assert (scale, corner) == (1.0, (0, 0))


def test_a_smaller_image_is_centred_in_air():
    stored, scale, (y, x) = fit(np.full((3, 4), 9, np.uint8), 8, 60)
    assert (scale, y, x) == (1.0, 2, 2)
    assert (stored[2:5, 2:6] == 9).all()
    assert (stored == 60).sum() == 64 - 12


def test_a_larger_image_is_reduced_by_its_longer_side(rng):
    image = rng.integers(0, 256, (90, 150)).astype(np.uint8)
    stored, scale, (y, x) = fit(image, 64, 7)
    assert scale == 64 / 150
    assert place(image.shape, 64).shape == (38, 64)
    assert (y, x) == (13, 0)
    assert np.array_equal(stored[13:51], np.rint(area_mean(image, (38, 64))).astype(np.uint8))
    assert (stored[:13] == 7).all()
    assert (stored[51:] == 7).all()


@pytest.mark.parametrize("shape", [(512, 512), (768, 768), (300, 400), (1000, 700), (33, 1025)])
def test_stored_grid_keeps_the_centre_of_the_image_where_it_was(shape):
    spacing, origin = stored_grid(shape, 512, (0.8, 0.7), (-200.0, -180.0))
    at = place(shape, 512)
    for axis in (0, 1):
        centre = (-200.0, -180.0)[axis] + (0.8, 0.7)[axis] * (shape[axis] - 1) / 2
        middle = at.corner[axis] + (at.shape[axis] - 1) / 2
        assert origin[axis] + spacing[axis] * middle == pytest.approx(centre, abs=1e-9)
        assert spacing[axis] * at.shape[axis] == pytest.approx((0.8, 0.7)[axis] * shape[axis])


def test_a_blob_stays_at_its_place_in_millimetres():
    image = np.zeros((100, 130), np.uint8)
    image[60:66, 40:46] = 200
    spacing, origin = stored_grid(image.shape, 64, (0.9, 0.9), (5.0, -7.0))
    stored = fit(image, 64, 0)[0].astype(float)
    y, x = np.indices(stored.shape)
    got = [
        (stored * (o + s * i)).sum() / stored.sum()
        for o, s, i in zip(origin, spacing, (y, x), strict=True)
    ]
    assert got == pytest.approx([5.0 + 0.9 * 62.5, -7.0 + 0.9 * 42.5], abs=0.05)
