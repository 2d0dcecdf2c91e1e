"""Intervals over patients and clusters; over slices they would be far too narrow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from fingerprint.measure.intervals import at_least, clopper_pearson, cluster_bootstrap

PATIENTS, SLICES = 40, 10


def clustered(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Slices whose mean is 0; four fifths of their variance is between patients."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(PATIENTS), SLICES)
    own = rng.normal(0, 2, PATIENTS)
    return own[who] + rng.normal(0, 1, len(who)), who


def coverage(runs: int, *, by_slice: bool) -> float:
    inside = 0
    for seed in range(runs):
        values, who = clustered(seed)
        unit = np.arange(len(who)) if by_slice else who
        low, high = cluster_bootstrap(values, unit, seed=seed, resamples=400)
        inside += low <= 0 <= high
    return inside / runs


def within(share: float, runs: int) -> bool:
    """Whether a coverage is 92 to 98 %, as far as so many runs can tell (3 sigma)."""
    low, high = (3 * np.sqrt(a * (1 - a) / runs) for a in (0.92, 0.98))
    return 0.92 - low <= share <= 0.98 + high


def test_intervals_over_patients_cover_and_over_slices_do_not():
    assert within(coverage(150, by_slice=False), 150)
    assert coverage(60, by_slice=True) < 0.8


@pytest.mark.slow
def test_intervals_over_patients_cover_in_a_thousand_runs():
    assert within(coverage(1000, by_slice=False), 1000)
    assert coverage(1000, by_slice=True) < 0.8


def test_one_seed_gives_one_interval_and_few_clusters_none():
    values, who = clustered(1)
    assert cluster_bootstrap(values, who, seed=3) == cluster_bootstrap(values, who, seed=3)
    assert np.isnan(cluster_bootstrap(values, who % 4, seed=3)).all()
    assert np.isnan(cluster_bootstrap(np.empty(0), np.empty(0), seed=3)).all()


def test_a_statistic_sees_how_often_each_value_was_drawn():
    values = np.arange(20.0)
    low, high = cluster_bootstrap(
        values, np.arange(20), seed=1, statistic=lambda x, w: float(w.sum())
    )
    assert low == high == 20


@pytest.mark.parametrize(("found", "n"), [(0, 5), (3, 9), (10, 10), (29, 29), (1, 240)])
def test_proportions_are_exact(found: int, n: int):
    wanted = binomtest(found, n).proportion_ci(method="exact")
    assert clopper_pearson(found, n) == pytest.approx((wanted.low, wanted.high))
    if found:
        one = binomtest(found, n, alternative="greater").proportion_ci(method="exact")
        assert at_least(found, n) == pytest.approx(one.low)


def test_ten_of_ten_and_none():
    assert at_least(10, 10) == pytest.approx(0.741, abs=5e-4)
    assert at_least(29, 29) == pytest.approx(0.902, abs=5e-4)
    assert at_least(0, 10) == 0
    with pytest.raises(ValueError, match="0 <= found <= n"):
        clopper_pearson(3, 2)
    with pytest.raises(ValueError, match="n >= 1"):
        at_least(0, 0)
