"""From scores to decisions: every metric against a plain count, and what useless scores give."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from fingerprint.measure import classify
from fingerprint.measure.classify import Confusion

SCORES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({used for _, used in rows}) == 2
)


def columns(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, used = zip(*rows, strict=True)
    return np.array(scores, float), np.array(used)


@given(SCORES)
def test_area_is_the_share_of_pairs_in_order_ties_half(rows: list[tuple[int, bool]]) -> None:
    scores, used = columns(rows)
    pairs = [(a > b) + (a == b) / 2 for a, b in product(scores[used], scores[~used])]
    assert classify.auc(scores, used)[0] == pytest.approx(np.mean(pairs))


@given(SCORES, st.sampled_from(classify.FPR))
def test_true_positive_rate_is_the_best_of_all_cuts(rows: list, fpr: float) -> None:
    scores, used = columns(rows)
    cuts = [*scores, np.inf]
    best = max((scores[used] >= c).mean() for c in cuts if (scores[~used] >= c).mean() <= fpr)
    assert classify.tpr_at(scores, used, fpr)[0] == best


@given(SCORES)
def test_threshold_has_the_largest_balanced_accuracy(rows: list[tuple[int, bool]]) -> None:
    scores, used = columns(rows)

    def balanced(cut: float) -> float:
        return ((scores[used] >= cut).mean() + (scores[~used] < cut).mean()) / 2

    best = max(balanced(c) for c in (*scores, np.inf))
    assert balanced(classify.threshold(scores, used)) == pytest.approx(best)


@given(SCORES)
def test_threshold_of_f1_has_the_largest_f1(rows: list[tuple[int, bool]]) -> None:
    scores, used = columns(rows)
    cut, share = classify.threshold_f1(scores, used)
    best = max(sklearn.f1_score(used, scores >= c) for c in scores)
    assert sklearn.f1_score(used, scores >= cut) == pytest.approx(best)
    assert share == (scores >= cut).mean()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=40))
@settings(max_examples=60)
def test_metrics_are_those_of_a_peer(rows: list[tuple[bool, bool]]) -> None:
    called, used = (np.array(column) for column in zip(*rows, strict=True))
    c = classify.confusion(called, used, np.ones((1, len(used))))
    ours = {name: float(of(c)[0]) for name, of in classify.OF_ANSWERS.items()}
    peers = {
        "accuracy": sklearn.accuracy_score(used, called),
        "precision": sklearn.precision_score(used, called, zero_division=np.nan),
        "recall": sklearn.recall_score(used, called, zero_division=np.nan),
        "specificity": sklearn.recall_score(~used, ~called, zero_division=np.nan),
    }
    if used.any():
        peers["f1"] = sklearn.f1_score(used, called, zero_division=0)
    if len(set(used) | set(called)) == 2 and (len(set(used)) == 2 or len(set(called)) == 2):
        peers["kappa"] = sklearn.cohen_kappa_score(used, called)
    if len(set(used)) == 2 and len(set(called)) == 2:
        peers["adjusted_rand"] = sklearn.adjusted_rand_score(used, called)
    for name, value in peers.items():
        assert ours[name] == pytest.approx(value, nan_ok=True), name


def test_a_resample_counts_a_slice_as_often_as_its_patient_was_drawn(rng) -> None:
    scores, used = rng.normal(size=12), np.arange(12) % 3 == 0
    patient = np.repeat(np.arange(6), 2)
    times = classify.resampled(patient, 5, 40)
    assert (times[:, ::2] == times[:, 1::2]).all()
    assert (times.sum(1) == 12).all()
    for row in times.astype(int):
        again = np.repeat(np.arange(12), row)
        one = row[None].astype(float)
        if len(set(used[again])) == 2:
            want = classify.auc(scores[again], used[again])[0]
            assert classify.auc(scores, used, one)[0] == pytest.approx(want)
            want = classify.tpr_at(scores[again], used[again], 0.1)[0]
            assert classify.tpr_at(scores, used, 0.1, one)[0] == want


def test_useless_scores_call_half_and_the_best_f1_calls_nearly_all(rng) -> None:
    shares, f1 = [], []
    for _ in range(200):
        scores, used = rng.normal(size=200), np.arange(200) % 2 == 0
        cut, share = classify.threshold_f1(scores, used)
        shares.append(share)
        f1.append(sklearn.f1_score(used, scores >= cut))
    assert np.mean(shares) > 0.9  # METHOD.md, section 3.19: 97 %, and F1 0.66 to 0.67
    assert 0.66 < np.mean(f1) < 0.69
    assert classify.threshold(np.zeros(4), np.array([True, False, True, False])) != 0


def test_kappa_of_a_coin_has_the_stated_error(rng) -> None:
    used = np.arange(500) % 2 == 0
    tossed = rng.random((400, 500)) < 0.5
    found = [classify.kappa(classify.confusion(row, used, np.ones((1, 500))))[0] for row in tossed]
    assert np.std(found) == pytest.approx(1 / np.sqrt(500), rel=0.1)


def test_intervals_hold_the_truth_as_often_as_they_say(rng) -> None:
    patient, used = np.repeat(np.arange(80), 4), np.repeat(np.arange(80) % 2 == 0, 4)
    held = 0
    for seed in range(100):
        own = np.repeat(rng.normal(size=80), 4)  # slices of a patient go together
        row = classify.rated(own, own > 0, used, patient, seed=seed)
        low, high = row["auc"]["interval"]
        held += low <= 0.5 <= high
    assert held >= 88


def test_constants_stand_beside_every_table() -> None:
    used = np.arange(40) % 4 == 0
    rows = classify.constants(used, np.arange(40), seed=1)
    always = rows["always"]
    assert always["f1"]["value"] == pytest.approx(2 * 0.25 / 1.25)  # 2 pi / (1 + pi)
    assert always["kappa"]["value"] == 0
    assert always["auc"]["value"] == 0.5
    assert rows["never"]["precision"] == {
        "value": None,
        "interval": None,
        "reason": classify.NONE_CALLED,
    }
    assert rows["never"]["f1"]["value"] == 0


def test_what_cannot_be_estimated_says_so() -> None:
    scores, used = np.arange(8.0), np.arange(8) >= 4
    row = classify.rated(scores, scores > 3, used, np.arange(8), seed=0)
    assert "10 are needed" in row["tpr_at_fpr_0.1"]["reason"]
    alone = classify.rated(scores, scores > 3, np.ones(8, bool), np.arange(8), seed=0)
    assert alone["auc"] == {"value": None, "interval": None, "reason": classify.ONE_CLASS}
    assert alone["recall"]["value"] == 0.5
    few = classify.rated(scores, scores > 3, used, np.arange(8) // 4, seed=0)
    assert few["auc"] == {"value": 1.0, "interval": None, "reason": classify.FEW}
    one = classify.rated(scores[:1], scores[:1] > 3, used[:1], np.zeros(1, int), seed=0)
    assert one["accuracy"]["value"] == 1


def test_thresholds_refuse_one_class_and_scores_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="both classes, got 3 of 3"):
        classify.threshold(np.arange(3.0), np.ones(3, bool))
    with pytest.raises(ValueError, match="finite"):
        classify.threshold_f1(np.array([0, np.nan]), np.array([True, False]))


def test_a_threshold_lies_midway_and_of_equals_in_the_middle() -> None:
    used = np.array([False, False, True, True])
    assert classify.threshold(np.array([0.0, 1.0, 3.0, 4.0]), used) == 2
    near = np.nextafter(1.0, 2)
    assert classify.threshold(np.array([0.0, 1.0, near, 4.0]), used) == near


def test_e01_f1_is_the_harmonic_mean_not_its_half() -> None:
    c = Confusion(tp=713, fp=362.4, tn=637.6, fn=287)  # P .663, R .713
    assert classify.f1(c) == pytest.approx(0.687, abs=5e-4)
    p, r = classify.precision(c), classify.recall(c)
    assert p * r / (p + r) == pytest.approx(0.344, abs=5e-4)
