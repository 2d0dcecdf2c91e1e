"""Features without a network: what they are, that they repeat, and what their distances say."""

from __future__ import annotations

import naive_sets as naive
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.feature import local_binary_pattern

from fingerprint.measure.frechet import (
    RankDeficient,
    enough,
    expected_bias,
    fid_infinite,
    frechet,
    moments,
)
from fingerprint.measure.kid import kid
from fingerprint.measure.pixel_features import MOST, components, fit, lbp, pixels_64


def textures(rng: np.random.Generator, n: int, sigma: float, side: int = 128) -> np.ndarray:
    """Smoothed noise of mean 128 and SD 30, whatever the smoothing."""
    fields = gaussian_filter(rng.normal(size=(n, side, side)), (0, sigma, sigma))
    fields /= fields.std((1, 2), keepdims=True)
    return np.clip(np.rint(128 + 30 * fields), 0, 255).astype(np.uint8)


def apart(basis, x: np.ndarray, y: np.ndarray) -> float:
    return frechet(moments(basis.project(x)), moments(basis.project(y)))


@pytest.mark.parametrize("side", [64, 128, 512])
def test_pixels_are_exact_area_means(rng: np.random.Generator, side: int) -> None:
    images = rng.integers(0, 256, (2, side, side), np.uint8)
    found = pixels_64(images)
    assert (found.shape, found.dtype) == ((2, 4096), np.float64)
    for one, image in zip(found, images, strict=True):
        assert (one.reshape(64, 64) == naive.area_mean(image, 64)).all()


def test_an_image_has_the_same_features_alone_and_in_a_batch(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (3, 128, 128), np.uint8)
    for of in (pixels_64, lbp):
        assert (of(images)[1] == of(images[1:2])[0]).all()
        assert of(images[:0]).shape == (0, of(images).shape[1])


def test_histograms_are_those_of_each_cell(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (128, 128), np.uint8)
    found = lbp(image[None])
    assert (found.shape, found.dtype) == ((1, 864), np.float64)
    at = 0
    for row in range(4):
        for column in range(4):
            for points, radius in ((8, 1), (16, 2), (24, 3)):
                pattern = local_binary_pattern(image, points, radius, method="uniform")
                cell = pattern[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                for value in range(points + 2):
                    assert found[0, at] == np.mean(cell == value)
                    at += 1
    assert at == 864


def test_every_histogram_adds_up_to_one(rng: np.random.Generator) -> None:
    cells = lbp(textures(rng, 2, 1.5)).reshape(2, 16, 54)
    for part in np.split(cells, [10, 28], axis=2):
        assert part.sum(2) == pytest.approx(1)


def test_patterns_do_not_see_brightness(rng: np.random.Generator) -> None:
    image = rng.integers(0, 200, (1, 128, 128), np.uint8)
    inner = lbp(image).reshape(16, 54)[[5, 6, 9, 10]]  # cells that do not reach outside the image
    assert (lbp(image + np.uint8(50)).reshape(16, 54)[[5, 6, 9, 10]][:, :10] == inner[:, :10]).all()


def test_a_large_image_is_its_area_mean_in_whole_grey_levels(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (256, 256), np.uint8)
    small = np.rint(naive.area_mean(image, 128)).astype(np.uint8)
    assert (lbp(image[None]) == lbp(small[None])).all()


def test_constant_images_give_finite_features() -> None:
    images = np.repeat(np.array([0, 77, 255], np.uint8), 128 * 128).reshape(3, 128, 128)
    for of in (pixels_64, lbp):
        assert np.isfinite(of(images)).all()


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((2, 128, 128)), "images must be uint8, got float64"),
        (np.zeros((128, 128), np.uint8), r"s a multiple of (64|128), got \(128, 128\)"),
        (np.zeros((2, 128, 256), np.uint8), r"got \(2, 128, 256\)"),
        (np.zeros((2, 100, 100), np.uint8), r"got \(2, 100, 100\)"),
        (np.zeros((2, 0, 0), np.uint8), r"got \(2, 0, 0\)"),
    ],
)
def test_other_images_are_refused(images: np.ndarray, told: str) -> None:
    for of in (pixels_64, lbp):
        with pytest.raises(ValueError, match=f"{of.__name__}: .*{told}|{of.__name__}: {told}"):
            of(images)


def test_components_leave_a_margin_for_the_extrapolation(rng: np.random.Generator) -> None:
    assert [components(n) for n in (6, 7, 8, 60, 129, 130, 10_000)] == [2, 2, 3, 29, 63, MOST, MOST]
    assert components(10_000, most=10) == 10
    for n in (6, 31, 60):
        k = components(n)
        assert enough(n, k)
        assert n >= 2 * k
        x = rng.normal(size=(n, k))
        fid_infinite(x, x, seed=0)  # not refused


def test_too_few_rows_have_no_components() -> None:
    with pytest.raises(RankDeficient, match="at least 6 rows in a set, got 5"):
        components(5)
    with pytest.raises(ValueError, match="most must be at least 2, got 1"):
        components(100, most=1)


def test_basis_is_that_of_the_covariance(rng: np.random.Generator) -> None:
    x = rng.normal(size=(80, 12)) @ rng.normal(size=(12, 12)) + 5
    basis = fit(x, 4)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    strongest = vectors[:, ::-1][:, :4]
    assert np.abs(np.sum(strongest * basis.components, axis=0)) == pytest.approx(1)
    assert basis.components.T @ basis.components == pytest.approx(np.eye(4), abs=1e-12)
    assert basis.scale == pytest.approx(np.sqrt(values[::-1][:4].mean()))
    projected = basis.project(x)
    assert projected.mean(0) == pytest.approx(0, abs=1e-10)
    assert projected.var(0, ddof=1).mean() == pytest.approx(1)
    assert projected.var(0, ddof=1) == pytest.approx(values[::-1][:4] / basis.scale**2)


def test_a_fit_gives_the_same_bits_and_signs_that_do_not_depend_on_the_rows_order(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(40, 90)) * np.arange(1, 91) ** -0.5
    basis, again, shuffled = fit(x, 8), fit(x.copy(), 8), fit(x[rng.permutation(40)], 8)
    assert (basis.components == again.components).all()
    assert basis.scale == again.scale
    assert shuffled.components == pytest.approx(basis.components, abs=1e-9)
    at = np.abs(basis.components).argmax(0)
    assert (basis.components[at, np.arange(8)] > 0).all()


def test_a_gain_and_an_offset_of_all_images_change_no_distance(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(50, 30)), rng.normal(size=(50, 30)) + 0.4
    plain, moved = fit(x, 10), fit(3 * x + 100, 10)
    assert apart(moved, 3 * x + 100, 3 * y + 100) == pytest.approx(apart(plain, x, y), rel=1e-9)
    k = [kid(plain.project(x), plain.project(y))]
    k.append(kid(moved.project(3 * x + 100), moved.project(3 * y + 100)))
    assert k[0] == pytest.approx(k[1], rel=1e-8)


def test_a_rotation_of_the_features_changes_no_distance(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(50, 20)), rng.normal(size=(50, 20)) + 0.4
    turn = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    turned = apart(fit(x @ turn, 6), x @ turn, y @ turn)
    assert turned == pytest.approx(apart(fit(x, 6), x, y), rel=1e-8)


def test_rows_that_span_less_give_fewer_components(rng: np.random.Generator) -> None:
    flat = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 50)) + 7
    assert fit(flat, 20).components.shape == (50, 3)
    repeated = np.repeat(rng.normal(size=(5, 50)), 8, axis=0)
    assert fit(repeated, 20).components.shape == (50, 4)


def test_a_basis_is_refused_where_there_is_none(rng: np.random.Generator) -> None:
    x = rng.normal(size=(10, 6))
    with pytest.raises(RankDeficient, match="10 components need at least 11 rows, got 10"):
        fit(x, 10)
    for constant in (np.full((10, 6), 0.1), np.zeros((10, 6))):
        with pytest.raises(RankDeficient, match="the rows must differ, got 10 that are the same"):
            fit(constant, 4)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        fit(x, 0)
    with pytest.raises(ValueError, match=r"project: features must have 6 columns, got \(10, 5\)"):
        fit(x, 3).project(x[:, :5])
    with pytest.raises(ValueError, match="fit: features must be finite, got nan"):
        fit(x * np.nan, 3)


@pytest.mark.parametrize(("of", "fine", "coarse"), [(pixels_64, 12.0, 30.0), (lbp, 2.0, 4.0)])
def test_two_textures_are_told_apart(
    rng: np.random.Generator, of, fine: float, coarse: float
) -> None:
    n = 24
    real, control = of(textures(rng, n, fine)), of(textures(rng, n, fine))
    other = of(textures(rng, n, coarse))
    basis = fit(real, components(n))
    assert apart(basis, other, real) > 1.5 * apart(basis, control, real)
    if of is lbp:  # two dozen images are too few for the kernel of pixels
        floor = kid(basis.project(control), basis.project(real))
        assert kid(basis.project(other), basis.project(real)) > 10 * abs(floor)


def test_one_law_gives_the_floor_of_its_spectrum() -> None:
    rng = np.random.default_rng(3)
    p, n, k = 40, 400, 8
    basis = fit(rng.normal(size=(4000, p)), k)  # on rows of neither set; all variances are 1
    draws = [apart(basis, *rng.normal(size=(2, n, p))) for _ in range(60)]
    wanted = expected_bias(n, k) / basis.scale**2
    error = np.std(draws, ddof=1) / np.sqrt(len(draws))
    assert np.mean(draws) == pytest.approx(wanted, abs=4 * error + 0.02 * wanted)


def test_fitted_on_the_reference_a_new_set_is_as_far_as_the_control() -> None:
    rng = np.random.default_rng(4)
    p, n = 120, 40
    k, sd = components(n), np.arange(1, 121) ** -0.5
    fair, unfair = [], []
    for _ in range(40):
        real, control, new = rng.normal(size=(3, n, p)) * sd
        for basis, out in ((fit(real, k), fair), (fit(np.r_[real, control], k), unfair)):
            out.append(apart(basis, new, real) - apart(basis, control, real))
    for out, same in ((fair, True), (unfair, False)):
        error = np.std(out, ddof=1) / np.sqrt(len(out))
        assert (abs(np.mean(out)) <= 4 * error) == same
