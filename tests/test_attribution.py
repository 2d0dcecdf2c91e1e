"""Attribution of generated sets to training sets: exact p, pin E11, and what cancels."""

from __future__ import annotations

from itertools import permutations
from math import factorial

import naive_sets as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.measure import attribution as module
from fingerprint.measure.attribution import FIGURE_4, TABLE_2, attribution
from fingerprint.measure.frechet import enough, frechet, moments
from fingerprint.measure.kid import kid

INCEPTION = 2048  # features behind the FID of paper 000


def test_e10_fid_falls_with_n_where_covariances_cannot_have_full_rank() -> None:
    sizes, fid = zip(*TABLE_2, strict=True)
    assert sizes == (60, 600, 6000, 60000)
    assert fid == (70.08, 17.02, 14.45, 10.71)
    assert (np.diff(fid) < 0).all()
    assert [enough(n, INCEPTION) for n in sizes] == [False, False, True, True]
    assert not enough(240, INCEPTION)  # the generated images, if they were those of Table 1


def test_e11_figure_4_is_membership_inference_by_set() -> None:
    f = np.array(FIGURE_4)
    own, rest = np.diag(f), f[~np.eye(7, dtype=bool)]
    assert (own.min(), own.max()) == (16.6, 17.9)
    assert own.mean() == pytest.approx(17.11, abs=5e-3)
    assert (rest.min(), rest.max()) == (31.2, 42.2)
    assert rest.mean() == pytest.approx(35.89, abs=5e-3)
    found = attribution(FIGURE_4)
    assert found.p == 1 / 5040
    assert (found.exact, found.permutations, found.k) == (True, 5040, 7)
    assert (found.row_hits, found.column_hits) == (7, 7)
    assert found.diagonal_sum == pytest.approx(119.8, abs=1e-9)
    assert found.next_best_sum == pytest.approx(149.2, abs=1e-9)


@given(st.integers(0, 2**31), st.integers(2, 6), st.booleans())
def test_equals_a_loop_over_all_permutations(seed: int, k: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    f = rng.integers(0, 3, (k, k)) * 0.1 if tied else rng.normal(size=(k, k))
    found = attribution(f)
    assert found.p == naive.attribution_p(f)
    every = [sum(f[i, pi[i]] for i in range(k)) for pi in permutations(range(k))]
    assert found.diagonal_sum == pytest.approx(every[0], abs=1e-12)
    assert found.next_best_sum == pytest.approx(min(every[1:]), abs=1e-12)


@pytest.mark.parametrize("k", [2, 5, 8])
def test_row_and_column_effects_cancel(rng: np.random.Generator, k: int) -> None:
    f = rng.normal(size=(k, k)) - 1.5 * np.eye(k)
    moved = f + 1e4 * rng.normal(size=(k, 1)) + 1e4 * rng.normal(size=(1, k))
    assert attribution(moved).p == attribution(f).p
    printed = np.array(FIGURE_4)
    assert attribution(printed + 50 * rng.normal(size=(7, 1))).p == 1 / 5040


def test_p_is_uniform_over_all_ways_to_label_the_sets(rng: np.random.Generator) -> None:
    f = rng.normal(size=(4, 4))
    found = sorted(attribution(f[:, list(pi)]).p for pi in permutations(range(4)))
    assert found == pytest.approx(np.arange(1, 25) / 24)


def test_one_order_for_both_kinds_changes_nothing(rng: np.random.Generator) -> None:
    f = rng.normal(size=(6, 6)) - np.eye(6)
    order = rng.permutation(6)
    found, again = attribution(f), attribution(f[np.ix_(order, order)])
    assert (again.p, again.row_hits, again.column_hits) == (
        found.p,
        found.row_hits,
        found.column_hits,
    )


def test_ties_count_against_us() -> None:
    assert attribution(np.ones((4, 4))).p == 1
    assert attribution(np.full((4, 4), 0.1)).row_hits == 0
    assert attribution([[0.1, 0.3], [0.2, 0.4]]).p == 1  # 0.1 + 0.4 and 0.3 + 0.2
    assert attribution(np.zeros((9, 9))).p == 1


@pytest.mark.parametrize("k", [5, 9])
def test_level_is_kept_by_matrices_without_truth(
    rng: np.random.Generator, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAWN", 199)
    runs = 400
    p = np.array(
        [attribution(rng.normal(size=(k, k)) + rng.normal(size=k), seed=s).p for s in range(runs)]
    )
    for level in (0.05, 0.1, 0.5):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level * (1 - level) / runs)
    assert p.mean() == pytest.approx(0.5, abs=3 / np.sqrt(12 * runs) + 0.01)


def test_chance_expects_one_hit(rng: np.random.Generator) -> None:
    found = [attribution(rng.normal(size=(6, 6))) for _ in range(400)]
    for hits in ([run.row_hits for run in found], [run.column_hits for run in found]):
        assert np.mean(hits) == pytest.approx(1, abs=4 * np.std(hits) / 20)


def test_more_than_eight_sets_are_sampled_with_the_identity(rng: np.random.Generator) -> None:
    f = rng.normal(size=(9, 9)) - 5 * np.eye(9)
    found = attribution(f)
    assert (found.exact, found.permutations) == (False, 100_000)
    assert found.p == pytest.approx(1 / 100_000)
    assert found.next_best_sum > found.diagonal_sum
    mixed = rng.normal(size=(9, 9))
    first, again, other = (attribution(mixed, seed=s) for s in (1, 1, 2))
    assert first == again
    assert other.p == pytest.approx(first.p, abs=0.01)


def test_sampled_and_exact_agree(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    f = rng.normal(size=(6, 6)) - 0.5 * np.eye(6)
    exact = attribution(f)
    monkeypatch.setattr(module, "EXACT", 5)
    sampled = attribution(f)
    assert (exact.exact, sampled.exact) == (True, False)
    assert sampled.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p / 100_000) + 1e-5)
    assert exact.permutations == factorial(6)


@pytest.mark.parametrize("measure", ["frechet", "kid"])
def test_planted_parents_are_found_seven_of_seven(rng: np.random.Generator, measure: str) -> None:
    k, n, d = 7, 60, 8
    # every training set is a sample of one law; a generated set repeats rows of its own, with noise
    trained = [rng.normal(size=(n, d)) for _ in range(k)]
    generated = [t[rng.integers(0, n, n)] + 0.1 * rng.normal(size=(n, d)) for t in trained]
    apart = (lambda t, g: frechet(moments(t), moments(g))) if measure == "frechet" else kid
    f = np.array([[apart(t, g) for g in generated] for t in trained])
    found = attribution(f)
    assert (found.row_hits, found.column_hits) == (7, 7)
    assert found.p == 1 / 5040
    strangers = [rng.normal(size=(n, d)) for _ in range(k)]
    f = np.array([[apart(t, g) for g in strangers] for t in trained])
    assert attribution(f).p > 1 / 100
    assert attribution(f).row_hits < 7


@pytest.mark.parametrize(
    ("f", "told"),
    [
        (np.zeros((2, 3)), r"F must be square with k >= 2, got shape \(2, 3\)"),
        (np.zeros((1, 1)), r"F must be square with k >= 2, got shape \(1, 1\)"),
        (np.zeros(4), r"got shape \(4,\)"),
        ([[1.0, np.nan], [0.0, 1.0]], "F must be finite, got nan"),
        ([[1.0, np.inf], [0.0, 1.0]], "F must be finite, got inf"),
    ],
)
def test_bad_matrices_are_refused(f: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=f"attribution: .*{told}|attribution: {told}"):
        attribution(f)
