"""One p for each patient: uniform for those who are not copied, small for those who are."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import world_z

from fingerprint.measure import fdr
from fingerprint.measure.patients import excess, patient_level

Q = 0.05


def naive_scores(z: np.ndarray) -> np.ndarray:
    out = np.full(z.shape[1], -np.inf)
    for row in z:
        next_ones = sorted((v for v in row if v == v), reverse=True)[1:11]
        for p, value in enumerate(row):
            if value == value:
                out[p] = max(out[p], value - sum(next_ones) / len(next_ones))
    return out


def world(seed: int, copies: int):
    return world_z(
        np.random.default_rng(seed), trained=100, held=100, generated=240, copies=copies,
        copy_z=2.2, copy_sd=0, own_level=0, distinct=True,
    )  # fmt: skip


def test_scores_and_p_equal_the_obvious_loops(rng: np.random.Generator) -> None:
    z = rng.normal(size=(9, 30))
    z[2, 4] = z[0, 7] = np.nan
    trained = np.arange(30) < 18
    found = patient_level(z, trained, seed=1)
    scores = naive_scores(z)
    np.testing.assert_allclose(found.score, scores[:18])
    ranks = [(1 + (scores[18:] >= s).sum()) / 13 for s in scores[:18]]
    np.testing.assert_allclose(found.p, ranks)
    assert (excess(z)[found.query, np.arange(18)] == found.score).all()


def test_p_of_patients_who_are_not_copied_is_uniform() -> None:
    p = []
    for seed in range(60):
        w = world(seed, 10)
        clean = np.setdiff1d(np.arange(100), w.copied[:10])
        p.append(patient_level(w.generated, w.trained, seed=seed).p[clean])
    for a in (0.05, 0.1, 0.5):
        assert np.mean(np.concatenate(p) <= a) == pytest.approx(a, abs=0.03)


def test_twenty_five_copied_patients_are_found_and_ten_cannot_be() -> None:
    """METHOD 3.10: P = K = 100 needs 20 at once; 25 are found, with FDR 0.024."""
    assert fdr.findings_needed(100, Q, 100) == 20
    runs, power, false = 40, {10: [], 25: []}, []
    for seed in range(runs):
        for copies in power:
            w = world(1000 + seed, copies)
            copied = np.isin(np.arange(100), w.copied[:copies])
            found = fdr.benjamini_hochberg(patient_level(w.generated, w.trained, seed=0).p, Q)
            power[copies].append((found & copied).sum() / copies)
            if copies == 25:
                false.append((found & ~copied).sum() / max(found.sum(), 1))
    assert np.mean(power[10]) < 0.1
    assert np.mean(power[25]) > 0.95
    assert np.mean(false) <= Q


def test_a_tail_needs_two_hundred_held_out_patients(rng: np.random.Generator) -> None:
    few = patient_level(rng.normal(size=(20, 60)), np.arange(60) < 30, seed=1)
    assert np.isnan(few.tail).all()
    assert "a tail needs 20" in few.no_tail
    many = patient_level(rng.normal(size=(20, 260)), np.arange(260) < 40, seed=1)
    assert np.isfinite(many.tail).all()
    assert many.no_tail == ""


def test_a_patient_without_any_z_has_no_p(rng: np.random.Generator) -> None:
    z = rng.normal(size=(5, 20))
    z[:, 3] = np.nan
    found = patient_level(z, np.arange(20) < 10, seed=1)
    assert np.isnan(found.score[3])
    assert np.isnan(found.p[3])
    assert found.query[3] == -1
    with pytest.raises(ValueError, match="at least two patients"):
        excess(np.zeros((2, 1)))
