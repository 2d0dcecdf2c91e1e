"""The whole set: is it closer to its patients than to strangers? Labels of patients, permuted."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from worlds import world_z

from fingerprint.measure import labels
from fingerprint.measure.labels import differences, set_level, share_sd, statistic

NAN = np.nan


def naive_w(z: np.ndarray, trained: np.ndarray) -> float:
    total = 0.0
    for row in z:
        ours = max(v for v, t in zip(row, trained, strict=True) if t and v == v)
        theirs = max(v for v, t in zip(row, trained, strict=True) if not t and v == v)
        total += np.sign(ours - theirs) * (ours - theirs) ** 2
    return total / len(z)


def p_of(seed: int, permutations: int = 199, **world: object) -> tuple[float, labels.SetLevel]:
    w = world_z(
        np.random.default_rng(seed), trained=20, held=20, generated=60, own_level=0, copy_z=2.0,
        copy_sd=0, collapsed=30, **world,
    )  # fmt: skip
    found = set_level(w.generated, w.trained, np.zeros(40), seed=seed, permutations=permutations)
    return found.p, found


def test_d_and_w_equal_the_obvious_loops(rng: np.random.Generator) -> None:
    z = rng.normal(size=(7, 9))
    z[2, 3] = NAN
    trained = np.arange(9) < 5
    d = differences(z, trained)
    assert d[0] == z[0, :5].max() - z[0, 5:].max()
    assert statistic(d) == pytest.approx(naive_w(z, trained))


def test_p_is_that_of_all_labellings_of_a_small_world(rng: np.random.Generator) -> None:
    z = rng.normal(size=(5, 6))
    z[:, :3] += 0.8
    trained = np.arange(6) < 3
    w = naive_w(z, trained)
    every = [
        naive_w(z, np.isin(np.arange(6), chosen)) >= w - 1e-12
        for chosen in combinations(range(6), 3)
    ]
    found = set_level(z, trained, np.zeros(6), seed=1, permutations=4000)
    assert found.p == pytest.approx(np.mean(every), abs=3 * np.sqrt(0.25 / 4000))
    assert found.w == pytest.approx(w)


def test_labels_are_exchanged_within_strata_only() -> None:
    """Men alone resemble the images; both labels hold as many men, so nothing stands out."""
    sex = np.array(["F", "M"] * 10)
    trained = np.arange(20) < 10
    for drawn in labels._permuted(trained, sex, 3, 50):
        assert (drawn[:, sex == "F"].sum(axis=1) == 5).all()
        assert (drawn[:, sex == "M"].sum(axis=1) == 5).all()
        assert len(np.unique(drawn, axis=0)) > 40


def test_without_copying_p_is_level_though_half_of_the_images_are_one() -> None:
    runs = 200
    p = np.array([p_of(seed)[0] for seed in range(runs)])
    for a in (0.05, 0.1, 0.3):
        assert (p <= a).mean() <= a + 3 * np.sqrt(a * (1 - a) / runs)
    assert (p <= 0.5).mean() > 0.35


def test_power_rises_with_the_copies() -> None:
    runs = 40
    power = [np.mean([p_of(seed, copies=n)[0] <= 0.05 for seed in range(runs)]) for n in (2, 4, 10)]
    assert power[0] < power[1] < power[2]
    assert power[2] > 0.85


@pytest.mark.slow
def test_power_is_that_of_the_method() -> None:
    """METHOD 3.9: 0.20, 0.67, 1.00 with 2, 4, 10 copies; level 0.06."""
    runs = 400
    for copies, wanted in ((0, 0.06), (2, 0.20), (4, 0.67), (10, 1.00)):
        p = np.array([p_of(seed, 999, copies=copies)[0] for seed in range(runs)])
        assert (p <= 0.05).mean() == pytest.approx(wanted, abs=0.12)


def test_the_sd_of_the_share_is_that_of_shuffled_labels(rng: np.random.Generator) -> None:
    nearest = rng.integers(0, 30, 80)
    nearest[:40] = 4  # mode collapse
    trained = np.arange(30) < 12
    drawn = [rng.permutation(trained)[nearest].mean() for _ in range(20_000)]
    assert share_sd(nearest, 12, 18) == pytest.approx(np.std(drawn), rel=0.03)


def test_far_more_patients_of_one_label_change_nothing(rng: np.random.Generator) -> None:
    z = rng.normal(size=(4, 203))
    trained = np.arange(203) < 200
    found = set_level(z, trained, np.zeros(203), seed=1, permutations=300)
    assert found.w == pytest.approx(naive_w(z, trained))
    assert found.share_expected == pytest.approx(200 / 203)


def test_one_label_alone_cannot_be_tested() -> None:
    for trained in (np.ones(4, bool), np.zeros(4, bool)):
        with pytest.raises(ValueError, match="both labels"):
            set_level(np.zeros((2, 4)), trained, np.zeros(4), seed=1)
    z = np.array([[0.1, 0.2, NAN, NAN]])
    with pytest.raises(ValueError, match="more than 2 patients"):
        set_level(z, np.array([True, True, False, False]), np.zeros(4), seed=1)
