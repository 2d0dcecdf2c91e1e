"""The learned combination finds what is planted, and makes nothing of nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fingerprint.membership.learned import PENALTY, fit_combination

N, K = 200, 6


def drawn(seed: int, signal: float, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of which column 2 alone says anything, and who was used."""
    rng = np.random.default_rng(seed)
    used = np.arange(n) % 2 == 0
    features = rng.standard_normal((n, K))
    features[:, 2] += signal * used
    return features, used


def fresh_auc(seed: int, signal: float) -> tuple[float, float]:
    """Return AUC on fresh slices of the combination, and of the only column that counts."""
    fitted = fit_combination(*drawn(seed, signal))
    features, used = drawn(seed + 1000, signal, 2000)
    return roc_auc_score(used, fitted.scores(features)), roc_auc_score(used, features[:, 2])


def test_planted_signal_is_found_among_useless_columns():
    together, alone = np.mean([fresh_auc(seed, 1.5) for seed in range(5)], axis=0)
    assert alone > 0.84
    assert together > alone - 0.02


def test_two_weak_signals_are_worth_more_than_one():
    features, used = drawn(3, 1.0, 2000)
    features[:, 4] += used
    fitted = fit_combination(features[:1000], used[:1000])
    together = roc_auc_score(used[1000:], fitted.scores(features[1000:]))
    assert together > max(roc_auc_score(used[1000:], features[1000:, k]) for k in range(K)) + 0.03


def test_useless_columns_are_worth_half():
    areas = [fresh_auc(seed, 0.0)[0] for seed in range(20)]
    se = np.sqrt(2001 / 12 / 1000 / 1000 / len(areas))  # Mann-Whitney at 1,000 against 1,000
    assert abs(np.mean(areas) - 0.5) < 3 * se


def test_no_weight_is_negative_and_a_wrong_way_column_gets_none():
    features, used = drawn(1, 1.5)
    fitted = fit_combination(np.column_stack([features[:, 2], -features[:, 2]]), used)
    assert fitted.weight[0] > 0
    assert fitted.weight[1] == 0


def test_constant_column_gets_no_weight_and_changes_nothing():
    features, used = drawn(1, 1.5)
    more = np.column_stack([features, np.full(N, 7.0)])
    without, fitted = fit_combination(features, used), fit_combination(more, used)
    assert fitted.weight[-1] == 0
    np.testing.assert_allclose(fitted.scores(more), without.scores(features), atol=1e-4)
    elsewhere = more.copy()
    elsewhere[:, -1] = -3.0  # constant on development data, another constant later
    np.testing.assert_allclose(fitted.scores(elsewhere), fitted.scores(more))


@settings(max_examples=20, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
    column=st.integers(0, K - 1),
)
def test_unit_of_a_score_does_not_count(scale: float, shift: float, column: int):
    features, used = drawn(5, 1.0)
    moved = features.copy()
    moved[:, column] = scale * features[:, column] + shift
    plain, other = fit_combination(features, used), fit_combination(moved, used)
    np.testing.assert_allclose(other.scores(moved), plain.scores(features), atol=1e-3)


def test_one_column_keeps_its_order_far_beyond_the_clip():
    features, used = drawn(2, 2.0)
    fitted = fit_combination(features[:, 2:3], used)
    rising = np.linspace(-60, 60, 201)[:, None]
    assert (np.diff(fitted.scores(rising)) > 0).all()


def test_same_as_sklearn_where_no_weight_would_be_negative():
    features, used = drawn(4, 1.5)
    features[:, [0, 4]] += np.where(used, 0.7, 0)[:, None]
    chosen = features[:, [0, 2, 4]]
    fitted = fit_combination(chosen, used)
    x = np.clip((chosen - fitted.middle) / fitted.spread, -5, 5)
    # sklearn: |w|^2 / 2 + C sum; ours: PENALTY |w|^2 + sum
    peer = LogisticRegression(C=1 / (2 * PENALTY), class_weight="balanced", tol=1e-8).fit(x, used)
    assert (fitted.weight > 0).all()
    np.testing.assert_allclose(fitted.weight, peer.coef_[0], atol=1e-3)
    np.testing.assert_allclose(fitted.constant, peer.intercept_[0], atol=1e-3)


def test_classes_weigh_the_same_however_many_there_are():
    features, used = drawn(6, 1.0)
    keep = used | (np.arange(N) % 20 == 1)
    fitted = fit_combination(features[keep][:, 2:3], used[keep])
    called = fitted.scores(features[:, 2:3]) > 0
    assert 0.3 < called[~used].mean() + (~called[used]).mean() < 0.9
    assert called[~used].mean() < 0.5  # not everything is called used


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value: float):
    features, used = drawn(0, 1.0)
    features[3, 1] = value
    with pytest.raises(ValueError, match="features must be finite"):
        fit_combination(features, used)


@pytest.mark.parametrize("every", [True, False])
def test_one_class_is_refused(every: bool):
    features, _ = drawn(0, 1.0)
    with pytest.raises(ValueError, match="used must hold both classes"):
        fit_combination(features, np.full(N, every))
