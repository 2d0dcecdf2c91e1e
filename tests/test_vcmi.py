"""The SSIM family: slow loops, ranks pinned; copies are found, and strangers are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generators import blobs
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from fingerprint.measure.structural import ssim, windows
from fingerprint.membership import Dev, Real, Scorer, vcmi
from fingerprint.membership.vcmi import Vcmi

PX = 16
N = 30  # slices of each kind
THRESHOLDS = ("threshold-max", "threshold-mean2sd", "threshold-mean3sd")
ARMS = (*THRESHOLDS, "retrieval", "ranking", "clustering", "vote")


def scorer(**knobs) -> Scorer:
    real = Real(blobs(1), np.zeros(1, np.int64))
    return Vcmi(**knobs).fit(Dev(blobs(1), real, real))


def with_noise(images: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 4, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def one_by_one(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return SSIM of every pair, a pair at a time."""
    one, other = (torch.from_numpy(a.astype(np.float32))[:, None] for a in (x, y))
    pairs = [[ssim(a[None], b[None]).item() for b in other] for a in one]
    return np.array(pairs)


def checked(found) -> dict[str, np.ndarray]:
    assert tuple(found) == ("nearest", *ARMS)
    assert all(np.isfinite(values).all() for values in found.values())
    return dict(found)


# -- planted, and absent


def test_copies_are_found() -> None:
    people, used = blobs(3 * N, PX, seed=1), np.arange(2 * N) < N
    made = with_noise(people[:N], seed=2)
    found = checked(scorer(retrieved=1)(people[: 2 * N], made, people[2 * N :], seed=1))
    for arm in (*THRESHOLDS, "retrieval", "ranking", "vote"):
        assert roc_auc_score(used, found[arm]) > 0.95, arm
    # the mean of the top 10 says little of one copy, and clusters are only as good as both
    assert adjusted_rand_score(used, found["clustering"]) > 0.2


def test_strangers_are_not() -> None:
    everyone, used = blobs(5 * N, PX, seed=3), np.arange(2 * N) < N
    found = scorer()(everyone[: 2 * N], everyone[3 * N :], everyone[2 * N : 3 * N], seed=1)
    se = np.sqrt((2 * N + 1) / (12 * N * N))  # of AUC without truth, N against N
    for arm, values in checked(found).items():
        assert abs(roc_auc_score(used, values) - 0.5) < 3 * se, arm
    assert abs(adjusted_rand_score(used, found["clustering"])) < 0.2


# -- slow loops


@pytest.mark.parametrize("together", [3, 64])
def test_scores_are_those_of_loops(together: int, monkeypatch) -> None:
    monkeypatch.setattr(vcmi, "TOGETHER", together)
    asked, made, control = (blobs(n, PX, seed=n) for n in (6, 8, 5))
    found = checked(scorer(retrieved=2)(asked, made, control, seed=1))
    s = one_by_one(asked, made).max(1)
    real = one_by_one(control, control)
    nearest = np.array([max(real[i][j] for j in range(5) if j != i) for i in range(5)])
    cuts = [nearest.max(), *(nearest.mean() + k * np.std(nearest, ddof=1) for k in (2, 3))]
    for arm, cut in zip(THRESHOLDS, cuts, strict=True):
        np.testing.assert_allclose(found[arm], s - cut, atol=1e-5)
    pool = one_by_one(np.concatenate([asked, control]), made)
    hits = np.zeros(11)
    for g in range(8):
        for i in sorted(range(11), key=lambda i: -pool[i, g])[:2]:
            hits[i] += 1
    np.testing.assert_allclose(found["retrieval"], hits[:6] / 8)
    place = np.array([1 + sum(other > mine for other in s) for mine in s])
    np.testing.assert_allclose(found["ranking"], 1 - (place - 0.5) / 6)
    natural = vcmi.natural_cuts(6, 5, 2)
    assert natural["retrieval"] == pytest.approx(2 / 11)
    for i in range(6):
        votes = [found[arm][i] > natural[arm] for arm in ARMS if arm != "vote"]
        assert found["vote"][i] == pytest.approx(sum(votes) / 6)


def test_pairs_of_prepared_images_have_the_ssim_of_pairs() -> None:
    x, y = blobs(4, PX, seed=4), blobs(5, PX, seed=5)
    mine, other = (windows(torch.from_numpy(a.astype(np.float32))[:, None]) for a in (x, y))
    np.testing.assert_allclose(vcmi.ssims(mine, other), one_by_one(x, y), atol=1e-5)


# -- ranks


def test_rank_is_a_double_argsort() -> None:
    values = np.array([0.1, 0.9, 0.5, 0.7])
    assert vcmi.ranks(values).tolist() == [4, 1, 3, 2]
    single = len(values) + 1 - np.argsort(values)  # as published: no ranks, there is a fifth
    assert single.tolist() == [5, 3, 2, 4]
    np.testing.assert_allclose(vcmi.ranking(values), [0.125, 0.875, 0.375, 0.625])


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=20, unique=True))
def test_without_ties_ranks_are_argsort_of_argsort(values: list[int]) -> None:
    found = vcmi.ranks(np.array(values, float))
    assert found.tolist() == (np.argsort(np.argsort(-np.array(values))) + 1).tolist()


def test_ties_have_their_mean_rank_and_no_half_is_upper() -> None:
    assert vcmi.ranks(np.array([0.5, 0.9, 0.5])).tolist() == [2.5, 1, 2.5]
    assert vcmi.ranking(np.full(5, 0.3)).tolist() == [0.5] * 5


# -- retrieval, cuts, clusters


@given(
    arrays(np.float64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(0, 5)),
    arrays(np.float64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(0, 5)),
    st.integers(1, 15),
)
@examples(deadline=None)
def test_retrieved_are_those_with_fewer_than_k_above(asked, control, k: int) -> None:
    pool = np.concatenate([asked, control])
    want = [sum((pool[:, g] > row[g]).sum() < k for g in range(4)) for row in asked]
    assert vcmi.retrievals(asked, control, k).tolist() == want


def test_cuts_are_their_formulas() -> None:
    found = vcmi.cuts(np.array([0.2, 0.4, 0.6]))
    assert found == pytest.approx({"max": 0.6, "mean2sd": 0.8, "mean3sd": 1.0})


def test_cluster_of_the_more_similar_is_called_used() -> None:
    features = np.array([[0.2, 0.1], [0.9, 0.8], [0.25, 0.1], [0.95, 0.7]])
    assert vcmi.clustering(features, seed=0).tolist() == [0, 1, 0, 1]
    assert vcmi.clustering(np.full((3, 2), 0.7), seed=0).tolist() == [0, 0, 0]
    nearly = np.array([[0.7, 0.7], [0.7 + 1e-9, 0.7]])  # of one value, but for rounding
    assert vcmi.clustering(nearly, seed=0).tolist() == [0, 0]


# -- what must not crash, what cannot be


def test_one_slice_constant_slices_and_copies_have_scores() -> None:
    some = blobs(4, PX, seed=6)
    checked(scorer()(some[:1], some[:1], some[1:], seed=1))
    flat = np.full((3, PX, PX), 7, np.uint8)
    found = checked(scorer()(flat, flat, flat, seed=1))
    assert found["vote"].tolist() == [found["vote"][0]] * 3
    checked(scorer()(some[[0, 0, 0]], some, flat, seed=2**40))


def test_thresholds_rank_alike_and_a_seed_gives_the_same() -> None:
    sets = [blobs(9, PX, seed=k) for k in (7, 8, 9)]
    found, again = (checked(scorer()(*sets, seed=3)) for _ in range(2))
    orders = [np.argsort(found[arm]).tolist() for arm in (*THRESHOLDS, "ranking")]
    assert all(order == orders[0] for order in orders)
    for arm in ARMS:
        np.testing.assert_array_equal(found[arm], again[arm])


def test_what_cannot_be_computed_is_said() -> None:
    some, score = blobs(4, PX), scorer()
    with pytest.raises(ValueError, match="asked must have >= 1 slices, got 0"):
        score(some[:0], some, some, seed=1)
    with pytest.raises(ValueError, match="control must have >= 2 slices, got 1"):
        score(some, some, some[:1], seed=1)
    with pytest.raises(ValueError, match="generated must have >= 1 slices, got 0"):
        score(some, some[:0], some, seed=1)
    with pytest.raises(ValueError, match="at least 11 px"):
        score(some[:, :8, :8], some, some, seed=1)
    with pytest.raises(ValueError, match="px must be >= 11, got 10"):
        Vcmi(px=10)
    with pytest.raises(ValueError, match="at least 2 values"):
        vcmi.cuts(np.array([0.5]))
