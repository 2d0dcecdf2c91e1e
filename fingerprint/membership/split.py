"""Which development slices choose and which test: halves that share no patient.

Paper 001 cuts the development data in two halves. Slices of one patient resemble each other, so a
cut through a patient would tell the half that chooses about the half that tests (E27). Where nobody
says whose a slice is, groups of near-duplicates stand in for patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus.clusters import THRESHOLD, clusters

FINER = (THRESHOLD, 0.97, 0.98, 0.99, 0.995)
MOST = 0.5  # share of a class in one group, above which groups are made finer

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Groups:
    """Whose slices are.

    Attributes
    ----------
    patient : int64, shape (n,)
    note : str
        How they were told apart, where nobody said; "" where somebody did.
    """

    patient: Ints
    note: str = ""


def grouped(mids: NDArray[np.uint8], used: Bools, folds: int) -> Groups:
    """Group near-duplicates: r > 0.95 at 128 px, or above if that joins nearly everything.

    Slices of one region of many people resemble each other, and links chain. So the limit rises
    until each class has two groups for every fold and none holds more than half of a class.

    Parameters
    ----------
    mids : uint8, shape (n, h, w)
    used : bool, shape (n,)
    folds : int
    """
    for limit in FINER:
        patient = clusters(mids, limit)
        if all(_cut_up(patient[of], folds) for of in (used, ~used) if of.any()):
            note = "" if limit == THRESHOLD else f"; r > {THRESHOLD} would join too many of them"
            return Groups(
                patient, f"groups of near-duplicates (r > {limit}) stand in for them{note}"
            )
    _, patient = np.unique(mids.reshape(len(mids), -1), axis=0, return_inverse=True)
    return Groups(
        patient.ravel().astype(np.int64),
        "every picture stands for a patient of its own: nearly all resemble each other at r > "
        f"{FINER[-1]}, so that intervals may be too narrow",
    )


def _cut_up(patient: Ints, folds: int) -> bool:
    _, sizes = np.unique(patient, return_counts=True)
    return len(sizes) >= 2 * folds and sizes.max() <= MOST * len(patient)


def folds_of(patient: Ints, used: Bools, folds: int, seed: int) -> Ints:
    """Deal patients to folds, largest first, so that each has as much of each class as can be.

    Those with slices of both classes come before the others: where a class has few patients, it is
    they who must lie in different folds.

    Returns
    -------
    int64, shape (n,)
        The fold of every slice; all slices of a patient have the same.

    Raises
    ------
    ValueError
        A class has no patient in some fold.
    """
    people, of = np.unique(patient, return_inverse=True)
    sizes = np.stack([np.bincount(of, weights=w, minlength=len(people)) for w in (used, ~used)])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(people))
    both: Bools = np.asarray((sizes > 0).all(0), bool)
    order = order[np.lexsort((-sizes.sum(0)[order], ~both[order]))]
    filled, fold = np.zeros((2, folds)), np.empty(len(people), np.int64)
    for one in order:
        # a fold that lacks a class this patient has; then the one that has least of what this
        # patient has most of
        kind = int(np.argmax(sizes[:, one]))
        brings = ((filled == 0) & (sizes[:, [one]] > 0)).sum(0)
        fold[one] = np.lexsort((filled.sum(0), filled[kind], -brings))[0]
        filled[:, fold[one]] += sizes[:, one]
    if (filled == 0).any():
        raise ValueError(
            f"DEV: {folds} folds need as many patients of each class, or groups of near-duplicates "
            f"that stand in for them; there are {_count(patient[used])} used and "
            f"{_count(patient[~used])} not used"
        )
    return np.asarray(fold[of], np.int64)


def _count(patient: Ints) -> int:
    return len(np.unique(patient))
