"""Folds by patient: nobody in two, both classes in each; groups where nobody says whose it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from fingerprint.membership.split import FINER, folds_of, grouped

Counts = list[tuple[int, int]]  # slices of each patient: used, not used
ONE_CLASS = st.tuples(st.integers(1, 30), st.booleans()).map(lambda t: (t[0], 0)[:: 1 - 2 * t[1]])
EITHER = st.tuples(st.integers(0, 20), st.integers(0, 20)).filter(any)


def dealt(counts: Counts, folds: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Return patient, used and fold of every slice, in an order that says nothing."""
    patient = np.repeat(np.arange(len(counts)), [sum(c) for c in counts]) * 7 + 3
    used = np.concatenate([np.repeat([True, False], c) for c in counts])
    order = np.random.default_rng(seed).permutation(len(used))
    patient, used = patient[order], used[order]
    return patient, used, folds_of(patient, used, folds, seed)


def can(counts: Counts, folds: int) -> bool:
    """Whether every fold can have both classes: each class has a patient for every fold."""
    return all(sum(c[kind] > 0 for c in counts) >= folds for kind in (0, 1))


@given(
    counts=st.lists(st.one_of(ONE_CLASS, EITHER), min_size=1, max_size=14),
    folds=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
@examples(max_examples=100, deadline=None)
def test_nobody_is_in_two_folds_and_every_fold_has_both_classes(
    counts: Counts, folds: int, seed: int
) -> None:
    if not can(counts, folds):
        with pytest.raises(ValueError, match=f"DEV: {folds} folds need as many patients"):
            dealt(counts, folds, seed)
        return
    patient, used, fold = dealt(counts, folds, seed)
    assert fold.dtype == np.int64
    assert fold.shape == patient.shape
    for one in np.unique(patient):
        assert len(np.unique(fold[patient == one])) == 1
    for kind in (used, ~used):
        assert set(fold[kind]) == set(range(folds))


@given(
    counts=st.lists(ONE_CLASS, min_size=8, max_size=40),
    folds=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
@examples(max_examples=50, deadline=None)
def test_slices_are_dealt_evenly(counts: Counts, folds: int, seed: int) -> None:
    """Largest first, to the fold that has least: apart by one patient at most."""
    if not can(counts, folds):
        return
    _, used, fold = dealt(counts, folds, seed)
    for kind, of in ((0, used), (1, ~used)):
        each = np.bincount(fold[of], minlength=folds)
        assert each.max() - each.min() <= max(c[kind] for c in counts)


def test_equal_patients_are_halved_in_both_classes() -> None:
    _, used, fold = dealt([(4, 0)] * 10 + [(0, 4)] * 10, 2, seed=1)
    assert np.bincount(fold[used]).tolist() == [20, 20]
    assert np.bincount(fold[~used]).tolist() == [20, 20]


def test_folds_are_of_the_seed() -> None:
    patient = np.repeat(np.arange(20), 4)
    used = np.repeat([True, False], 40)
    first, again, other = (folds_of(patient, used, 2, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    # whose number is which does not count, nor where a slice stands
    assert (folds_of(patient * 100, used, 2, 1) == first).all()
    order = np.random.default_rng(3).permutation(len(patient))
    assert (folds_of(patient[order], used[order], 2, 1) == first[order]).all()


def test_too_few_patients_are_one_line_with_their_numbers() -> None:
    with pytest.raises(ValueError, match=r"there are 1 used and 3 not used$") as raised:
        dealt([(9, 0), (0, 2), (0, 2), (0, 2)], 2, seed=1)
    assert str(raised.value).startswith("DEV: 2 folds need as many patients of each class")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="there are 3 used and 0 not used"):
        dealt([(1, 0)] * 3, 2, seed=1)


def test_a_patient_of_both_classes_goes_where_a_class_lacks() -> None:
    """Two patients have slices that were not used: one for each fold, whatever their sizes."""
    for seed in range(10):
        _, used, fold = dealt([(10, 1), (9, 0), (5, 0), (4, 1)], 2, seed)
        assert set(fold[~used]) == {0, 1}
        assert set(fold[used]) == {0, 1}


# -- groups


def noise(n: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(n, 32, 32))


def grey(waves: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(127.5 + 30 * waves), 0, 255).astype(np.uint8)


def near(people: int, each: int, r: float, seed: int) -> NDArray[np.uint8]:
    """Return slices of people: r within a person, 0 between persons."""
    own = np.repeat(noise(people, seed), each, axis=0)
    return grey(np.sqrt(r) * own + np.sqrt(1 - r) * noise(people * each, seed + 1))


def chained(n: int, r: float, seed: int) -> NDArray[np.uint8]:
    """Return slices that each resemble the next, r, and hardly the one after many."""
    step, out = noise(n, seed), [noise(1, seed + 1)[0]]
    for k in range(n - 1):
        out.append(r * out[-1] + np.sqrt(1 - r * r) * step[k])
    return grey(np.array(out))


def test_near_duplicates_stand_in_for_patients() -> None:
    mids, used = near(10, 4, 0.99, 1), np.repeat(np.arange(10) % 2 == 0, 4)
    found = grouped(mids, used, 2)
    assert found.patient.dtype == np.int64
    who = np.repeat(np.arange(10), 4)
    assert ((found.patient[:, None] == found.patient) == (who[:, None] == who)).all()
    assert found.note == "groups of near-duplicates (r > 0.95) stand in for them"


@pytest.mark.parametrize(("r", "limit"), [(0.96, 0.97), (0.976, 0.98), (0.985, 0.99)])
def test_limit_rises_where_slices_chain(r: float, limit: float) -> None:
    """At 0.95 everything would be one group, and there would be no folds."""
    mids, used = chained(40, r, 3), np.arange(40) % 2 == 0
    found = grouped(mids, used, 2)
    assert f"(r > {limit})" in found.note
    assert "r > 0.95 would join too many" in found.note
    for of in (used, ~used):
        _, sizes = np.unique(found.patient[of], return_counts=True)
        assert len(sizes) >= 4
        assert sizes.max() <= of.sum() / 2
    folds_of(found.patient, used, 2, 1)


def test_where_nearly_all_is_alike_only_equal_pictures_stay_together() -> None:
    base = near(1, 12, 0.9999, 5)
    mids = np.concatenate([base, base[[0, 3]], base[[0]]])
    used = np.arange(15) % 2 == 0
    found = grouped(mids, used, 2)
    assert f"r > {FINER[-1]}" in found.note
    assert "too narrow" in found.note
    assert found.patient.shape == (15,)
    assert found.patient.dtype == np.int64
    assert len(np.unique(found.patient)) == 12
    assert found.patient[0] == found.patient[12] == found.patient[14]
    assert found.patient[3] == found.patient[13]
    fold = folds_of(found.patient, used, 2, 1)
    assert fold[0] == fold[12] == fold[14]


def test_one_class_may_be_absent() -> None:
    mids = near(10, 3, 0.99, 7)
    found = grouped(mids, np.ones(30, bool), 2)
    assert len(np.unique(found.patient)) == 10
