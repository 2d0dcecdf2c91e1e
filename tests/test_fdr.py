"""Which of many p-values stand: against brute force, and by what share of findings is false."""

from __future__ import annotations

import math

import naive
import naive_null
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from fingerprint.measure.fdr import (
    adjusted,
    benjamini_hochberg,
    benjamini_yekutieli,
    controls_needed,
    findings_needed,
    harmonic,
)

P = st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=30)
Q = st.sampled_from([0.01, 0.05, 0.2, 0.5, 0.9])
TESTS, LEVEL = 240, 0.05


@given(p=P, q=Q)
def test_both_reject_what_trying_every_k_rejects(p: list[float], q: float) -> None:
    assert benjamini_hochberg(np.array(p), q).tolist() == naive.stepped_up(p, q)
    assert benjamini_yekutieli(np.array(p), q).tolist() == naive_null.yekutieli(p, q)


@given(p=P, q=Q)
def test_nan_is_no_test(p: list[float], q: float) -> None:
    values = np.array(p)
    there = ~np.isnan(values)
    for rejects in (benjamini_hochberg, benjamini_yekutieli):
        got = rejects(values, q)
        assert not got[~there].any()
        assert got[there].tolist() == rejects(values[there], q).tolist()
    assert np.isnan(adjusted(values)).tolist() == (~there).tolist()


@given(p=P, q=Q, seed=st.integers(0, 99))
def test_the_order_of_tests_says_nothing(p: list[float], q: float, seed: int) -> None:
    values = np.array(p)
    order = np.random.default_rng(seed).permutation(len(values))
    assert (benjamini_hochberg(values, q)[order] == benjamini_hochberg(values[order], q)).all()
    np.testing.assert_array_equal(adjusted(values)[order], adjusted(values[order]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_those_of_scipy(p: list[float]) -> None:
    expected = false_discovery_control(np.array(p), method="bh")
    np.testing.assert_allclose(adjusted(np.array(p)), expected, rtol=2e-9, atol=1e-300)


@given(p=P, q=st.floats(0.001, 0.999))
def test_a_q_value_of_at_most_q_is_a_rejection_at_q(p: list[float], q: float) -> None:
    values = adjusted(np.array(p))
    far = ~(np.abs(values / q - 1) < 1e-12)  # the last bits decide nothing
    assert (benjamini_hochberg(np.array(p), q) == (values <= q))[far].all()


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20))
def test_each_is_rejected_just_at_its_q_value(p: list[float]) -> None:
    values = adjusted(np.array(p))
    for k, q in enumerate(values):
        if q < 0.999:
            assert benjamini_hochberg(np.array(p), q * (1 + 1e-12))[k]
            assert not benjamini_hochberg(np.array(p), q * (1 - 1e-12))[k]


def test_yekutieli_divides_by_the_harmonic_sum() -> None:
    assert harmonic(TESTS) == pytest.approx(6.06, abs=0.005)
    assert [harmonic(n) for n in (0, 1, 2, 4)] == pytest.approx([1, 1, 1.5, 25 / 12])
    p = np.ones(TESTS)
    p[0] = LEVEL / TESTS / 6.07
    assert benjamini_yekutieli(p, LEVEL).sum() == 1
    p[0] = LEVEL / TESTS / 6.05
    assert not benjamini_yekutieli(p, LEVEL).any()
    assert benjamini_hochberg(p, LEVEL).sum() == 1


def test_no_tests_reject_nothing() -> None:
    for p in (np.array([]), np.array([math.nan])):
        assert not benjamini_hochberg(p, 0.5).any()
        assert not benjamini_yekutieli(p, 0.5).any()


# -- the arithmetic of ranks


def test_the_printed_arithmetic_is_that_of_the_method() -> None:
    assert controls_needed(TESTS, LEVEL) == 4_799
    assert findings_needed(TESTS, LEVEL, 100) == 48
    assert controls_needed(100, LEVEL, 20) == 99
    assert findings_needed(100, LEVEL, 100) == 20  # patients, METHOD 3.10
    assert findings_needed(1, 0.5, 100) == 1


@pytest.mark.parametrize("q", [0.01, 0.05, 0.1, 0.2])
def test_as_many_controls_as_are_asked_for_do_and_one_less_does_not(q: float) -> None:
    for tests in (*range(1, 130, 3), TESTS, 4096):
        for findings in {1, 2, max(1, tests // 3), tests} - set(range(tests + 1, 3)):
            controls = controls_needed(tests, q, findings)
            p = np.ones(tests)
            p[:findings] = 1 / (controls + 1)
            assert benjamini_hochberg(p, q)[:findings].all(), (tests, findings)
            assert (adjusted(p)[:findings] <= q).all()
            assert findings_needed(tests, q, controls) <= findings
            if controls:
                p[:findings] = 1 / controls
                assert not benjamini_hochberg(p, q)[0], (tests, findings)
                assert findings_needed(tests, q, controls - 1) > findings


@pytest.mark.parametrize("q", [0.01, 0.05, 0.1, 0.2])
def test_as_many_findings_as_are_asked_for_do_and_one_less_does_not(q: float) -> None:
    for tests in (*range(1, 130, 3), TESTS):
        for controls in (1, 2, 19, 20, 99, 100, 399):
            findings = findings_needed(tests, q, controls)
            if findings > tests:  # not even all of them
                assert not benjamini_hochberg(np.full(tests, 1 / (controls + 1)), q).any()
                continue
            p = np.ones(tests)
            p[:findings] = 1 / (controls + 1)
            assert benjamini_hochberg(p, q).sum() == findings, (tests, controls)
            p[findings - 1] = 1
            assert not benjamini_hochberg(p, q).any(), (tests, controls)


# -- how many findings are false


def false_share(rejected: np.ndarray, copies: np.ndarray) -> float:
    return float((rejected & ~copies).sum() / max(1, rejected.sum()))


def conformal(rng: np.random.Generator, scores: np.ndarray, controls: int) -> np.ndarray:
    """Rank queries among controls that they share: so their p depend on each other."""
    null = np.sort(rng.standard_normal(controls))
    return (1 + controls - np.searchsorted(null, scores)) / (controls + 1)


def below(shares: list[float], q: float) -> bool:
    """Tell whether the mean is at most q, within three standard errors of these runs."""
    return bool(np.mean(shares) <= q + 3 * np.std(shares) / math.sqrt(len(shares)))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_mean_share_of_false_findings_is_at_most_q(share: float) -> None:
    shares, power = [], []
    for run in range(1_000):
        rng = np.random.default_rng((1, int(100 * share), run))
        copies = np.arange(TESTS) < share * TESTS
        p = conformal(rng, rng.standard_normal(TESTS) + 4 * copies, 2_000)
        got = benjamini_hochberg(p, 0.1)
        shares.append(false_share(got, copies))
        power.append(got[copies].mean())
    assert below(shares, 0.1)
    assert np.mean(shares) > 0.1 * (1 - share) / 2  # q (1 - share) is what is expected
    assert np.mean(power) > 0.7


def test_without_a_copy_a_run_has_a_finding_with_probability_q_at_most() -> None:
    runs, q, hits = 2_000, 0.1, 0
    for run in range(runs):
        rng = np.random.default_rng((2, run))
        hits += benjamini_hochberg(conformal(rng, rng.standard_normal(60), 2_000), q).any()
    assert q / 2 < hits / runs <= q + 3 * math.sqrt(q * (1 - q) / runs)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_yekutieli_holds_where_half_of_the_queries_are_one(share: float) -> None:
    shares = []
    for run in range(1_000):
        rng = np.random.default_rng((3, int(10 * share), run))
        copies = np.arange(TESTS) < share * TESTS
        scores = rng.standard_normal(TESTS) + 4 * copies
        scores[TESTS // 2 :] = scores[-1]
        shares.append(false_share(benjamini_yekutieli(conformal(rng, scores, 4_000), 0.2), copies))
    assert below(shares, 0.2)


def worst(rng: np.random.Generator, n: int, q: float) -> np.ndarray:
    """Draw p, each uniform, so that with probability q / j just j of them are just low enough."""
    j = rng.choice(n + 1, p=[1 - q * harmonic(n), *(q / np.arange(1, n + 1))])
    p = rng.uniform(q, 1, n)
    p[rng.permutation(n)[:j]] = rng.uniform((j - 1) * q / n, j * q / n, j)
    return p


def test_yekutieli_holds_where_hochberg_does_not() -> None:
    n, runs, q = 10, 4_000, 0.2
    hochberg, yekutieli = 0, 0
    for run in range(runs):
        rng = np.random.default_rng((4, run))
        hochberg += benjamini_hochberg(worst(rng, n, q), q).any()
        yekutieli += benjamini_yekutieli(worst(rng, n, q / harmonic(n)), q).any()
    for hits, expected in ((hochberg, q * harmonic(n)), (yekutieli, q)):
        assert abs(hits / runs - expected) <= 3 * math.sqrt(expected * (1 - expected) / runs)
