"""KID: against a double loop, unbiased, and calibrated when rows come in groups."""

from __future__ import annotations

import naive_sets as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fingerprint.measure import kid as module
from fingerprint.measure.kid import block_sums, kid, kid_interval, kid_p

D = 4


def patients(
    rng: np.random.Generator, count: int, slices: int, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Slices that resemble those of their own patient, and whose they are."""
    own = np.repeat(np.arange(count), slices)
    middle = rng.normal(size=(count, D)) + shift
    return middle[own] + 0.3 * rng.normal(size=(len(own), D)), own


def distance(shift: float, sd: float, rng: np.random.Generator) -> float:
    """MMD^2 of two normal laws, by a million pairs of independent rows."""
    k = lambda u, v: ((u * v).sum(1) / D + 1) ** 3  # noqa: E731
    a, b, c, e = (sd * rng.normal(size=(1_000_000, D)) for _ in range(4))
    return float(k(a, b).mean() + k(c + shift, e + shift).mean() - 2 * k(a, c + shift).mean())


@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5))
@examples(max_examples=50)
def test_equals_a_double_loop(seed: int, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 1
    assert kid(x, y) == pytest.approx(naive.kid(x, y), rel=1e-9, abs=1e-10)


def test_is_the_same_whatever_the_size_of_a_block(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = rng.normal(size=(23, 3)), rng.normal(size=(17, 3))
    of_x, of_y = rng.integers(0, 5, 23), rng.integers(0, 4, 17)
    whole = block_sums(x, y, of_x, of_y)
    monkeypatch.setattr(module, "ROWS", 4)
    parts = block_sums(x, y, of_x, of_y)
    for name in ("xx", "yy", "xy", "rows_x", "rows_y"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=1e-12)


def test_block_sums_are_those_of_every_pair(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(6, 3))
    of_x, of_y = np.array(list("baabcab")), np.array([5, 2, 5, 5, 9, 2])
    sums = block_sums(x, y, of_x, of_y)
    assert sums.rows_x.tolist() == [3, 3, 1]
    assert sums.rows_y.tolist() == [2, 3, 1]
    for g, one in enumerate("abc"):
        for h, other in enumerate("abc"):
            pairs = [
                naive.kernel(x[i], x[j])
                for i in range(7)
                for j in range(7)
                if i != j and (of_x[i], of_x[j]) == (one, other)
            ]
            assert sums.xx[g, h] == pytest.approx(sum(pairs), rel=1e-10, abs=1e-12)
        for h, label in enumerate((2, 5, 9)):
            pairs = [
                naive.kernel(x[i], y[j])
                for i in range(7)
                for j in range(6)
                if (of_x[i], of_y[j]) == (one, label)
            ]
            assert sums.xy[g, h] == pytest.approx(sum(pairs), rel=1e-10, abs=1e-12)
    assert sums.xx[2, 2] == 0  # one row has no pair
    np.testing.assert_allclose(sums.xx, sums.xx.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sums.yy, sums.yy.T, rtol=1e-12)


def test_mean_is_zero_for_one_law_and_half_of_the_values_are_negative() -> None:
    rng = np.random.default_rng(5)
    values = np.array([kid(rng.normal(size=(30, 4)), rng.normal(size=(20, 4))) for _ in range(600)])
    assert abs(values.mean()) <= 4 * values.std(ddof=1) / np.sqrt(len(values))
    assert np.mean(values < 0) > 0.3


def test_mean_is_the_distance_of_two_laws() -> None:
    rng = np.random.default_rng(6)
    values = np.array(
        [kid(rng.normal(size=(25, D)), rng.normal(size=(40, D)) + 0.5) for _ in range(400)]
    )
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert values.mean() == pytest.approx(distance(0.5, 1.0, rng), abs=4 * error + 0.01)


def test_pairs_inside_patients_raise_the_value_unless_they_are_left_out() -> None:
    rng = np.random.default_rng(7)
    plain, between = [], []
    for seed in range(150):
        (x, of_x), (y, of_y) = patients(rng, 8, 6), patients(rng, 8, 6)
        plain.append(kid(x, y))
        run = kid_interval(x, y, of_x, of_y, within=(False, False), resamples=1, seed=seed)
        between.append(run.value)
    error = np.std(between, ddof=1) / np.sqrt(len(between))
    assert abs(np.mean(between)) <= 4 * error
    assert np.mean(plain) > 8 * error


def test_value_of_the_interval_is_kid_and_without_inner_pairs_a_loop(
    rng: np.random.Generator,
) -> None:
    (x, of_x), (y, of_y) = patients(rng, 4, 3), patients(rng, 3, 2)
    run = kid_interval(x, y, of_x, of_y, resamples=50, seed=0)
    assert run.value == pytest.approx(kid(x, y), rel=1e-10)
    assert (run.groups_x, run.groups_y) == (4, 3)
    means = []
    for rows, of in ((x, of_x), (y, of_y)):
        n = range(len(rows))
        pairs = [naive.kernel(rows[i], rows[j]) for i in n for j in n if of[i] != of[j]]
        means.append(np.mean(pairs))
    cross = np.mean([naive.kernel(u, v) for u in x for v in y])
    run = kid_interval(x, y, of_x, of_y, within=(False, False), resamples=50, seed=0)
    assert run.value == pytest.approx(means[0] + means[1] - 2 * cross, rel=1e-10)


def test_a_resample_is_the_loop_over_its_rows() -> None:
    rng = np.random.default_rng(8)
    (x, of_x), (y, of_y) = patients(rng, 4, 3), patients(rng, 3, 2)
    sums = block_sums(x, y, of_x, of_y)
    c_x, c_y = np.array([2, 0, 1, 1]), np.array([0, 3, 0])
    for within in (True, False):
        means = []
        for rows, of, c in ((x, of_x, c_x), (y, of_y, c_y)):
            # (row, group, which copy of the group)
            drawn = [(i, of[i], k) for i in range(len(rows)) for k in range(c[of[i]])]
            pairs = [
                naive.kernel(rows[i], rows[j])
                for i, g, a in drawn
                for j, h, b in drawn
                if g != h or (within and a == b and i != j)
            ]
            means.append(np.mean(pairs) if pairs else np.nan)
        cross = np.mean(
            [
                naive.kernel(x[i], y[j])
                for i in range(len(x))
                for j in range(len(y))
                for _ in range(c_x[of_x[i]] * c_y[of_y[j]])
            ]
        )
        expected = means[0] + means[1] - 2 * cross
        got = module._weighed(sums, c_x[None] * 1.0, c_y[None] * 1.0, (within, within))
        assert got[0] == pytest.approx(expected, rel=1e-10, nan_ok=True)


@pytest.mark.parametrize(("slices", "within"), [(1, True), (5, False)])
def test_interval_covers_the_distance(slices: int, within: bool) -> None:
    rng = np.random.default_rng(9)
    wanted = distance(0.8, np.sqrt(1 + 0.3**2), rng)
    covered = 0
    for seed in range(150):
        (x, of_x), (y, of_y) = patients(rng, 60, slices), patients(rng, 50, slices, 0.8)
        run = kid_interval(x, y, of_x, of_y, within=(within, within), resamples=300, seed=seed)
        covered += run.low <= wanted <= run.high
    # 95 % less what a percentile bootstrap of a skewed law loses with 50 groups, and 3 sigma
    assert 0.87 <= covered / 150 <= 0.99


def test_a_bootstrap_over_slices_would_cover_far_less() -> None:
    rng = np.random.default_rng(10)
    wanted = distance(0.8, np.sqrt(1 + 0.3**2), rng)
    covered = 0
    for seed in range(50):
        (x, _), (y, _) = patients(rng, 60, 6), patients(rng, 50, 6, 0.8)
        each = np.arange(len(x)), np.arange(len(y))
        run = kid_interval(x, y, *each, resamples=200, seed=seed)
        covered += run.low <= wanted <= run.high
    assert covered / 50 < 0.8


def test_p_is_calibrated_for_patients_with_many_slices() -> None:
    rng = np.random.default_rng(11)
    p = []
    for seed in range(300):
        (x, of_x), (y, of_y) = patients(rng, 9, 5), patients(rng, 7, 5)
        p.append(kid_p(x, y, of_x, of_y, permutations=199, seed=seed))
    for level in (0.05, 0.1, 0.5):
        share, sigma = np.mean(np.array(p) <= level), np.sqrt(level * (1 - level) / len(p))
        assert abs(share - level) <= 3 * sigma


def test_p_finds_a_shift_and_does_not_depend_on_how_groups_are_named() -> None:
    rng = np.random.default_rng(12)
    (x, of_x), (y, of_y) = patients(rng, 12, 3), patients(rng, 12, 3, 1.5)
    p = kid_p(x, y, of_x, of_y, permutations=999, seed=1)
    assert p == 0.001
    named = kid_p(x, y, [f"a{g:02}" for g in of_x], of_y + 100, permutations=999, seed=1)
    assert named == p


def test_p_counts_ties_against_us() -> None:
    x = np.repeat([[0.1, 0.7]], 6, axis=0)
    assert kid_p(x, x, np.arange(6), np.arange(6), permutations=99, seed=0) == 1.0
    # three against three, exchanged as a whole: the same value by another order of sums
    x = np.random.default_rng(1).normal(size=(3, 2))
    p = kid_p(x, x + 9, np.arange(3), np.arange(3), permutations=9999, seed=0)
    assert p == pytest.approx(2 / 20, abs=0.02)


def test_interval_and_p_are_drawn_from_the_seed(rng: np.random.Generator) -> None:
    (x, of_x), (y, of_y) = patients(rng, 6, 3), patients(rng, 6, 3)
    first, again, other = (kid_interval(x, y, of_x, of_y, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.value == other.value
    assert first.low != other.low
    assert first.low <= first.high
    p = {kid_p(x, y, of_x, of_y, seed=s) for s in (1, 1)}
    assert len(p) == 1


def test_resamples_without_a_pair_have_no_value() -> None:
    x, y = np.eye(2), np.eye(2) + 1
    run = kid_interval(x, y, [0, 1], [0, 1], resamples=400, seed=0)
    assert run.resamples == pytest.approx(100, abs=30)  # both sets must draw both of their rows
    assert np.isfinite(run.low)
    run = kid_interval(np.zeros((2, 1)), np.zeros((2, 1)), [0, 1], [0, 1], resamples=1, seed=0)
    assert np.isnan(run.low) == (run.resamples == 0)


def test_bad_input_is_refused(rng: np.random.Generator) -> None:
    x, of = rng.normal(size=(4, 2)), np.arange(4)
    with pytest.raises(ValueError, match="kid: x and y must have at least 2 rows, got 1 and 4"):
        kid(x[:1], x)
    with pytest.raises(ValueError, match="kid: d must be equal, got 1 and 2"):
        kid(x[:, :1], x)
    with pytest.raises(ValueError, match="kid: y must be finite, got nan"):
        kid(x, x * np.nan)
    with pytest.raises(ValueError, match=r"groups_y must have shape \(4,\), got \(3,\)"):
        block_sums(x, x, of, of[:3])
    with pytest.raises(ValueError, match="kid_interval: resamples must be at least 1, got 0"):
        kid_interval(x, x, of, of, resamples=0, seed=0)
    with pytest.raises(ValueError, match="kid_p: permutations must be at least 1, got 0"):
        kid_p(x, x, of, of, permutations=0, seed=0)
    for call in (kid_interval, kid_p):
        with pytest.raises(ValueError, match=r"groups must be at least 2 .*, got \(1, 4\)"):
            call(x, x, of * 0, of, seed=0)
