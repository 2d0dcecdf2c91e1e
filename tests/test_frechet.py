"""Fréchet distance: against an oracle without covariances, in closed form, and by its bias."""

from __future__ import annotations

import naive_sets as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.measure.frechet import (
    Moments,
    RankDeficient,
    enough,
    expected_bias,
    fid_infinite,
    fold,
    frechet,
    merged,
    moments,
)


def correlated(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Rows with a mean, correlations and a falling spectrum."""
    mix = rng.normal(size=(d, d)) * np.arange(1, d + 1) ** -0.75
    return rng.normal(size=(n, d)) @ mix.T + rng.normal(size=d)


def with_covariance(rng: np.random.Generator, n: int, wanted: np.ndarray) -> np.ndarray:
    """Rows whose own covariance is exactly the one asked for, and whose mean is 0."""
    x = rng.normal(size=(n, len(wanted)))
    x -= x.mean(0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(x.T)))
    return x @ whiten.T @ np.linalg.cholesky(wanted).T


@pytest.mark.parametrize(("n", "m", "d"), [(9, 9, 8), (200, 77, 24), (65, 300, 64), (50, 50, 1)])
def test_equals_the_oracle(rng: np.random.Generator, n: int, m: int, d: int) -> None:
    x, y = correlated(rng, n, d), correlated(rng, m, d)
    assert frechet(moments(x), moments(y)) == pytest.approx(naive.frechet(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 5), (20, 60, 64), (60, 30, 200), (7, 90, 32)])
def test_equals_the_oracle_without_full_rank_too(
    rng: np.random.Generator, n: int, m: int, d: int
) -> None:
    x, y = correlated(rng, n, d), correlated(rng, m, d)
    ours = frechet(moments(x), moments(y), rank_deficient=True)
    assert ours == pytest.approx(naive.frechet(x, y), rel=1e-6)
    # the other way round the root is taken of the other covariance
    assert frechet(moments(y), moments(x), rank_deficient=True) == pytest.approx(ours, rel=1e-6)


def test_two_subsets_of_one_set_without_full_rank_equal_the_oracle(
    rng: np.random.Generator,
) -> None:
    rows = correlated(rng, 40, 100)  # a small distance beside large traces: the hard case
    x, y = rows[:30], rows[10:]
    ours = frechet(moments(x), moments(y), rank_deficient=True)
    assert ours == pytest.approx(naive.frechet(x, y), rel=1e-6)


def test_commuting_covariances_have_a_closed_form(rng: np.random.Generator) -> None:
    d = 12
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    a, b = rng.uniform(0.01, 9, d), rng.uniform(0.01, 9, d)
    shift = rng.normal(size=d)
    x = with_covariance(rng, 40, (turn * a) @ turn.T)
    y = with_covariance(rng, 55, (turn * b) @ turn.T) + shift
    expected = shift @ shift + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet(moments(x), moments(y)) == pytest.approx(expected, rel=1e-9)


def test_equal_covariances_leave_the_distance_of_the_means(rng: np.random.Generator) -> None:
    x = correlated(rng, 60, 10)
    shift = rng.normal(size=10)
    assert frechet(moments(x), moments(x + shift)) == pytest.approx(shift @ shift, rel=1e-9)


def test_a_gain_multiplies_by_its_square_and_a_rotation_changes_nothing(
    rng: np.random.Generator,
) -> None:
    x, y = correlated(rng, 60, 10), correlated(rng, 60, 10)
    turn = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    plain = frechet(moments(x), moments(y))
    assert frechet(moments(3 * x), moments(3 * y)) == pytest.approx(9 * plain, rel=1e-9)
    assert frechet(moments(x @ turn), moments(y @ turn)) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("n", [5, 33, 400])
def test_a_set_and_itself_are_not_apart_and_never_below_zero(
    rng: np.random.Generator, n: int
) -> None:
    a = moments(correlated(rng, n, 32))
    assert 0 <= frechet(a, a, rank_deficient=True) <= 1e-6 * np.trace(a.scatter) / (n - 1)
    if n > 32:
        assert frechet(a, a) <= 1e-12 * np.trace(a.scatter) / (n - 1)


def test_bias_of_two_sets_of_one_law_is_the_formula(rng: np.random.Generator) -> None:
    d, n = 32, 1000
    assert expected_bias(n, d) == pytest.approx(0.593, abs=5e-4)
    draws = [
        frechet(moments(rng.normal(size=(n, d))), moments(rng.normal(size=(n, d))))
        for _ in range(60)
    ]
    error = np.std(draws, ddof=1) / np.sqrt(len(draws))
    # the formula is of first order: what is left is of order (d / n)^2
    assert np.mean(draws) == pytest.approx(expected_bias(n, d), abs=4 * error + d * (d / n) ** 2)


@pytest.mark.parametrize(("n", "d"), [(1, 3), (5, 0)])
def test_bias_needs_rows_and_features(n: int, d: int) -> None:
    with pytest.raises(ValueError, match="expected_bias: n must be >= 2 and d >= 1"):
        expected_bias(n, d)


def test_extrapolation_takes_the_bias_off(rng: np.random.Generator) -> None:
    d, n = 16, 400
    runs = [
        fid_infinite(rng.normal(size=(n, d)), rng.normal(size=(n + 50, d)), seed=s)
        for s in range(30)
    ]
    values = np.array([run.value for run in runs])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean()) <= 4 * error
    assert values.mean() < 0.2 * np.mean([run.values[0] for run in runs])
    assert np.mean([run.slope for run in runs]) == pytest.approx(expected_bias(n, d) * n, rel=0.25)


def test_extrapolation_keeps_a_distance_that_is_there(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(600, 8)), rng.normal(size=(600, 8)) + 1
    run = fid_infinite(x, y, seed=1)
    assert run.value == pytest.approx(8, rel=0.15)


def test_extrapolation_is_a_line_through_equal_sizes(rng: np.random.Generator) -> None:
    x, y = correlated(rng, 60, 6), correlated(rng, 40, 6)
    run = fid_infinite(x, y, seed=3)
    assert len(run.sizes) == len(run.values) == 15
    assert (run.sizes[0], run.sizes[-1]) == (40, 20)
    assert (np.diff(run.sizes) <= 0).all()
    design = np.c_[np.ones(15), 1 / run.sizes]
    intercept, slope = np.linalg.lstsq(design, run.values, rcond=None)[0]
    assert (run.value, run.slope) == pytest.approx((intercept, slope), rel=1e-8)
    again = fid_infinite(x, y, seed=3)
    assert again.value == run.value
    assert fid_infinite(x, y, seed=4).value != run.value


def test_extrapolation_refuses_a_smallest_size_without_full_rank(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(100, 6))
    fid_infinite(x, x[:14], seed=0)
    with pytest.raises(RankDeficient, match="6 features need at least 14 rows .*, got 13"):
        fid_infinite(x, x[:13], seed=0)
    with pytest.raises(ValueError, match="sizes must be at least 3, got 2"):
        fid_infinite(x, x, sizes=2, seed=0)
    with pytest.raises(ValueError, match="d must be equal, got 6 and 5"):
        fid_infinite(x, x[:, :5], seed=0)


def test_too_few_rows_are_refused_with_one_line() -> None:
    x = np.random.default_rng(0).normal(size=(9, 8))
    frechet(moments(x), moments(x))
    assert enough(9, 8)
    assert not enough(8, 8)
    for a, b in ((x[:8], x), (x, x[:8])):
        with pytest.raises(RankDeficient, match="8 features need at least 9 rows .* got 8") as told:
            frechet(moments(a), moments(b))
        assert "\n" not in str(told.value)
    with pytest.raises(RankDeficient, match="at least 2 rows .* got 1"):
        frechet(moments(x[:1]), moments(x), rank_deficient=True)


@given(
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.integers(1, 6),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_streaming_equals_all_at_once(seed: int, n: int, d: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 100 * rng.normal(size=d)
    at_once = moments(x)
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    streamed = fold(moments(x[i:j]) for i, j in zip(edges, edges[1:], strict=False))
    assert streamed.n == at_once.n
    assert streamed.mean == pytest.approx(at_once.mean, rel=1e-12, abs=1e-11)
    assert streamed.scatter == pytest.approx(at_once.scatter, rel=1e-9, abs=1e-9)


def test_any_grouping_of_the_merges_gives_the_same_moments(rng: np.random.Generator) -> None:
    a, b, c = (moments(rng.normal(size=(n, 4)) + n) for n in (5, 1, 30))
    left, right = merged(merged(a, b), c), merged(a, merged(b, c))
    assert left.mean == pytest.approx(right.mean, rel=1e-13)
    assert left.scatter == pytest.approx(right.scatter, rel=1e-12)
    for order in ((a, b, c), (c, a, b)):
        assert fold(order).scatter == pytest.approx(left.scatter, rel=1e-12)


def test_a_fold_in_one_order_gives_the_same_bits(rng: np.random.Generator) -> None:
    parts = [moments(rng.normal(size=(7, 5))) for _ in range(20)]
    assert (fold(parts).scatter == fold(iter(parts)).scatter).all()


def test_the_empty_set_changes_nothing(rng: np.random.Generator) -> None:
    a, empty = moments(rng.normal(size=(5, 3))), moments(np.zeros((0, 3)))
    for both in (merged(a, empty), merged(empty, a)):
        assert both.n == 5
        assert both.mean == pytest.approx(a.mean, rel=1e-15)
        assert (both.scatter == a.scatter).all()
    assert merged(empty, empty).n == 0


def test_a_large_mean_does_not_drown_a_small_spread(rng: np.random.Generator) -> None:
    x = rng.normal(size=(300, 3))
    near, far = moments(x), fold(moments(part + 1e6) for part in np.array_split(x, 7))
    assert far.scatter == pytest.approx(near.scatter, rel=1e-7, abs=1e-6)


def test_float32_features_are_summed_in_float64(rng: np.random.Generator) -> None:
    x = rng.normal(size=(50, 3)).astype(np.float32)
    assert moments(x).scatter.dtype == np.float64
    assert (moments(x).scatter == moments(x.astype(np.float64)).scatter).all()


def test_repeated_rows_and_constant_features_give_a_number(rng: np.random.Generator) -> None:
    x = np.repeat(rng.normal(size=(3, 6)), 10, axis=0)
    y = rng.normal(size=(30, 6))
    y[:, 2] = 4.0
    constant = np.full((30, 6), 2.0)
    for a, b in ((x, y), (y, x), (x, x), (constant, y), (y, constant), (constant, constant)):
        value = frechet(moments(a), moments(b))
        assert np.isfinite(value)
        assert value == pytest.approx(naive.frechet(a, b), rel=1e-6, abs=1e-6)
    assert frechet(moments(constant), moments(constant + 1)) == pytest.approx(6)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (np.zeros(3), r"features must have shape \(n, d\), d >= 1, got \(3,\)"),
        (np.zeros((3, 0)), r"got \(3, 0\)"),
        ([[1.0, np.nan]], "features must be finite, got nan"),
        ([[1.0, -np.inf]], "features must be finite, got -inf"),
    ],
)
def test_bad_features_are_refused(features: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=f"moments: .*{told}|moments: {told}"):
        moments(features)


def test_features_of_other_lengths_are_refused(rng: np.random.Generator) -> None:
    a, b = moments(rng.normal(size=(9, 3))), moments(rng.normal(size=(9, 4)))
    for call in (merged, frechet):
        with pytest.raises(ValueError, match=f"{call.__name__}: d must be equal, got 3 and 4"):
            call(a, b)
    with pytest.raises(ValueError, match="fold: parts must have at least one element, got 0"):
        fold([])


def test_moments_are_frozen() -> None:
    a = moments([[1.0], [2.0]])
    with pytest.raises(AttributeError):
        a.n = 3  # type: ignore[misc]
    assert isinstance(a, Moments)
