"""Density attacks: closed forms and slow loops; what was used is found, and strangers are not."""

from __future__ import annotations

import numpy as np
import pytest
from generators import blobs
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fingerprint.corpus.window import fit
from fingerprint.membership import Dev, Real, Scorer, density
from fingerprint.membership.density import Density

PX = 32
N = 40  # slices of each kind
ARMS = ("domias", "mc", "gan-leaks", "gan-leaks-calibrated", "logan")


def scorer(**knobs) -> Scorer:
    real = Real(blobs(1), np.zeros(1, np.int64))
    return Density(**knobs).fit(Dev(blobs(1), real, real))


def with_noise(images: np.ndarray, seed: int, sd: float = 8) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sd, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def slices(n: int, seed: int) -> np.ndarray:
    """Return smooth images that vary in more ways than `blobs`: no two are near by chance."""
    noise = np.random.default_rng(seed).normal(size=(n, PX, PX))
    smooth = ndimage.gaussian_filter(noise, (0, 4, 4), mode="wrap")
    return np.clip(np.rint(127.5 + 40 * smooth / smooth.std()), 0, 255).astype(np.uint8)


def aucs(generated: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """Return the AUC of each arm; of `people` the first N were used, the last N are the control."""
    found = scorer()(people[: 2 * N], generated, people[2 * N :], seed=1)
    assert set(found) == set(ARMS)
    assert all(values.shape == (2 * N,) for values in found.values())
    assert all(np.isfinite(values).all() for values in found.values())
    return {arm: roc_auc_score(np.arange(2 * N) < N, values) for arm, values in found.items()}


# -- planted, and absent


def test_generator_that_adds_noise_to_its_training_set_is_found_out() -> None:
    people = slices(3 * N, seed=1)
    found = aucs(with_noise(np.repeat(people[:N], 2, axis=0), seed=2), people)
    for arm in ("domias", "gan-leaks", "gan-leaks-calibrated"):
        assert found[arm] > 0.95, (arm, found)


def test_generator_of_the_population_says_nothing() -> None:
    everyone = slices(5 * N, seed=3)
    se = np.sqrt((2 * N + 1) / (12 * N * N))  # of AUC without truth, N against N
    for arm, value in aucs(everyone[3 * N :], everyone[: 3 * N]).items():
        assert abs(value - 0.5) < 3 * se, (arm, value)


# -- closed forms


def test_domias_of_gaussians_is_its_closed_form() -> None:
    rng, n = np.random.default_rng(5), 4000
    generated, reference = rng.normal(0.5, 0.8, (n, 1)), rng.normal(-0.3, 1.1, (n, 1))
    asked, h = np.linspace(-1.5, 1.5, 13)[:, None], density.bandwidth(n, 1)
    # a kernel of SD h widens what it is put on
    truth = norm.logpdf(asked, 0.5, np.hypot(0.8, h)) - norm.logpdf(asked, -0.3, np.hypot(1.1, h))
    found = density.domias(asked, generated, reference)
    # SE of a density is sqrt(p / (2 sqrt(pi) n h)): at the least p here, 0.02, 4 % each
    np.testing.assert_allclose(found, truth[:, 0], atol=0.2)
    assert np.abs(found - truth[:, 0]).mean() < 0.06


def test_bandwidth_is_scotts() -> None:
    assert density.bandwidth(1024, 1) == pytest.approx(0.25)
    assert density.bandwidth(1, 7) == 1


def test_density_is_a_sum_of_kernels() -> None:
    rng = np.random.default_rng(6)
    rows, asked = rng.normal(size=(30, 3)), rng.normal(size=(7, 3)) * 3
    h = density.bandwidth(30, 3)
    one_by_one = [[norm.logpdf(x, y, h).sum() for y in rows] for x in asked]
    truth = logsumexp(one_by_one, axis=1) - np.log(30)
    np.testing.assert_allclose(density.log_density(asked, rows), truth, rtol=1e-9)


def test_scores_far_from_both_sets_are_finite() -> None:
    rng = np.random.default_rng(7)
    generated, reference = rng.normal(size=(50, 2)), rng.normal(size=(60, 2))
    far = np.array([[1e6, 0.0], [0.0, -1e6]])
    for score in (density.domias, density.logan, density.gan_leaks_calibrated):
        assert np.isfinite(score(far, generated, reference)).all()


def test_generator_of_one_image_has_scores() -> None:
    one = np.repeat(blobs(1, PX), 20, axis=0)
    people = np.concatenate([one[:1], blobs(9, PX, seed=8)])
    found = scorer()(people, one, blobs(20, PX, seed=9), seed=1)
    for arm in ("domias", "gan-leaks", "gan-leaks-calibrated"):
        assert found[arm].argmax() == 0, arm


def test_logan_rises_with_the_true_log_odds_and_has_their_sign() -> None:
    rng, n = np.random.default_rng(10), 2000
    generated, reference = rng.normal(1, 1, (n, 1)), rng.normal(-1, 1, (n // 4, 1))
    asked = np.linspace(-3, 3, 25)[:, None]
    truth = 2 * asked[:, 0]  # log-odds of N(1, 1) against N(-1, 1), equally likely
    found = density.logan(asked, generated, reference)
    assert (np.diff(found) > 0).all()
    clear = np.abs(truth) > 0.5
    assert (np.sign(found[clear]) == np.sign(truth[clear])).all()
    np.testing.assert_allclose(found, truth, atol=0.6)


# -- slow loops


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(0, 9)),
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.just(4)), elements=st.integers(0, 9)),
    arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(4)), elements=st.integers(0, 9)),
)
@examples(max_examples=50, deadline=None)
def test_distances_are_those_of_loops(asked, generated, reference) -> None:
    def apart(x: np.ndarray, y: np.ndarray) -> float:
        return sum((int(a) - int(b)) ** 2 for a, b in zip(x, y, strict=True)) ** 0.5

    made = [[apart(x, g) for g in generated] for x in asked]
    least = np.array([min(row) for row in made])
    real = np.array([min(apart(x, r) for r in reference) for x in asked])
    np.testing.assert_allclose(density.gan_leaks(asked, generated), -least)
    found = density.gan_leaks_calibrated(asked, generated, reference)
    np.testing.assert_allclose(found, real - least, atol=1e-12)
    eps = np.median(least)
    counts = [sum(d <= eps for d in row) / len(generated) for row in made]
    np.testing.assert_allclose(density.mc(asked, generated), counts)


def test_blocks_do_not_show(monkeypatch) -> None:
    people, made = blobs(30, PX, seed=11), blobs(20, PX, seed=12)
    whole = scorer()(people[:15], made, people[15:], seed=1)
    monkeypatch.setattr(density, "BLOCK", 7)
    parts = scorer()(people[:15], made, people[15:], seed=1)
    for arm in ARMS:
        np.testing.assert_allclose(parts[arm], whole[arm], rtol=1e-9, atol=1e-9)


# -- components


def test_components_are_those_of_both_sets_with_half_of_the_weight_each() -> None:
    rng = np.random.default_rng(13)
    generated = rng.normal(1, (3, 1, 0.2), (200, 3))
    reference = rng.normal(0, (1, 2, 0.3), (50, 3))
    found = density.components(generated, reference, most=2, seed=0)
    mean = (generated.mean(0) + reference.mean(0)) / 2
    spread = sum((rows - mean).T @ (rows - mean) / len(rows) / 2 for rows in (generated, reference))
    sizes, axes = np.linalg.eigh(spread)
    want = axes[:, ::-1][:, :2] / np.sqrt(sizes[::-1][:2])
    np.testing.assert_allclose(np.abs(found.axes), np.abs(want), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.mean, mean)


@pytest.mark.parametrize(("n", "m", "d", "want"), [(30, 4, 9, 3), (2, 30, 9, 1), (30, 30, 5, 5)])
def test_components_are_no_more_than_sets_allow(n: int, m: int, d: int, want: int) -> None:
    rng = np.random.default_rng(14)
    found = density.components(rng.normal(size=(n, d)), rng.normal(size=(m, d)), seed=0)
    assert found.axes.shape == (d, want)


def test_flat_directions_are_no_components() -> None:
    rng = np.random.default_rng(15)
    rows = rng.normal(size=(20, 1)) @ np.ones((1, 6))
    assert density.components(rows[:10], rows[10:], seed=0).axes.shape == (6, 1)


# -- what changes nothing


def test_order_of_generated_images_does_not_count() -> None:
    people, made = blobs(30, PX, seed=16), blobs(25, PX, seed=17)
    one = scorer()(people[:15], made, people[15:], seed=1)
    other = scorer()(people[:15], made[::-1], people[15:], seed=1)
    for arm in ARMS:
        np.testing.assert_allclose(other[arm], one[arm], rtol=1e-4, atol=1e-4)


def test_score_of_a_slice_does_not_depend_on_what_else_is_asked() -> None:
    people, made = blobs(30, PX, seed=18), blobs(25, PX, seed=19)
    all_of_them = scorer()(people[:15], made, people[15:], seed=1)
    some = scorer()(people[3:9], made, people[15:], seed=1)
    for arm in set(ARMS) - {"mc"}:  # which says that it does
        np.testing.assert_allclose(some[arm], all_of_them[arm][3:9], rtol=1e-9, atol=1e-9)


def test_same_seed_same_scores_and_images_are_compared_at_px() -> None:
    sets = [blobs(12, 64, seed=20 + k) for k in range(3)]
    one, again = (scorer(px=PX)(*sets, seed=4) for _ in range(2))
    small = scorer(px=PX)(*(fit(images, PX, 0)[0] for images in sets), seed=4)
    for arm in ARMS:
        np.testing.assert_array_equal(one[arm], again[arm])
        np.testing.assert_array_equal(one[arm], small[arm])


# -- what cannot be


def test_what_cannot_be_computed_is_said() -> None:
    some, score = blobs(4, PX), scorer()
    with pytest.raises(ValueError, match="asked must have at least one"):
        score(some[:0], some, some, seed=1)
    with pytest.raises(ValueError, match="control must have at least 2 slices, got 1"):
        score(some, some, some[:1], seed=1)
    with pytest.raises(ValueError, match="generated must have at least 2 slices, got 0"):
        score(some, some[:0], some, seed=1)
    with pytest.raises(ValueError, match="all generated and reference ones are alike"):
        score(some, some[[0, 0]], some[[0, 0]], seed=1)
    with pytest.raises(ValueError, match="components must be >= 1"):
        Density(components=0)
    with pytest.raises(ValueError, match="rows must be"):
        density.nearest(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="asked must be finite"):
        density.domias(np.array([[np.nan]]), np.zeros((2, 1)), np.zeros((2, 1)))
