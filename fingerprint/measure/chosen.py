"""Which arm of a method, which threshold, and what both are worth: decided on DEV alone.

Every development slice is scored, judged and, for the plain name of a method, even choosing the arm
is done by what the other folds teach. TEST is judged by all of DEV (METHOD.md, section 3.19).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fingerprint.measure import classify
from fingerprint.measure.classify import Bools, Floats

LEARNED = "calibrated/learned"


@dataclass(frozen=True)
class Side:
    """Slices of DEV or TEST of one task with all scores.

    Attributes
    ----------
    scores : mapping of arm to float64, shape (n,)
    used : bool, shape (n,); None: nobody says
    patient : int64, shape (n,)
    fold : int64, shape (n,)
        -1 in TEST.
    """

    scores: Mapping[str, Floats]
    used: Bools | None
    patient: np.ndarray
    fold: np.ndarray


@dataclass(frozen=True)
class Called:
    """One row of a table before it is rated: scores, and which slices are called used."""

    scores: Floats
    called: Bools
    threshold: float  # on all of DEV


def best_arm(dev: Side, arms: Sequence[str], rows: Bools) -> str:
    """Return the arm of largest AUC on some development slices; of equals the first."""
    used = _known(dev)[rows]
    areas = [classify.auc(dev.scores[arm][rows], used)[0] for arm in arms]
    return arms[int(np.argmax(areas))]


def out_of_fold(dev: Side, scores: Mapping[int, Floats]) -> tuple[Floats, Bools]:
    """Return scores and answers of all development slices, each fold by the threshold of the rest.

    Parameters
    ----------
    scores : mapping of fold to float64, shape (n,)
        What is used where that fold is judged.
    """
    used, out = _known(dev), np.empty(len(dev.fold))
    called = np.zeros(len(dev.fold), bool)
    for fold, values in scores.items():
        here = dev.fold == fold
        cut = classify.threshold(values[~here], used[~here])
        out[here], called[here] = values[here], values[here] >= cut
    return out, called


def of_arm(dev: Side, arm: str) -> Called:
    """Return the row of one arm on DEV."""
    same = dict.fromkeys(map(int, np.unique(dev.fold)), dev.scores[arm])
    cut = classify.threshold(dev.scores[arm], _known(dev))
    return Called(*out_of_fold(dev, same), cut)


def of_method(dev: Side, arms: Sequence[str]) -> tuple[str, Called]:
    """Return the arm that DEV chooses, and the row of the method on DEV.

    Arms have scales of their own: a fold is put on the scale of its threshold, so that folds for
    which different arms were chosen can stand in one ROC.
    """
    used, scaled = _known(dev), {}
    for fold in map(int, np.unique(dev.fold)):
        rest = dev.fold != fold
        values = dev.scores[best_arm(dev, arms, rest)]
        cut = classify.threshold(values[rest], used[rest])
        scaled[fold] = (values - cut) / (float(np.std(values[rest])) or 1.0)
    arm = best_arm(dev, arms, np.ones(len(used), bool))
    cut = classify.threshold(dev.scores[arm], used)
    return arm, Called(*out_of_fold(dev, scaled), cut)


def on_test(test: Side, arm: str, threshold: float) -> Called:
    """Return the row of an arm on TEST, with the threshold of DEV."""
    return Called(test.scores[arm], test.scores[arm] >= threshold, threshold)


def by_patient(side: Side, row: Called, dev: Side, dev_scores: Floats) -> tuple[Called, Bools]:
    """Return a row over patients, the mean over the slices of each, and who of them was used.

    The threshold is that of patients of DEV. A patient of whom some slices were used and some not
    counts as what most of them are.
    """
    _, scores, used = _mean(row.scores, side)
    _, there, known = _mean(dev_scores, dev)
    cut = classify.threshold(there, known)
    return Called(scores, scores >= cut, cut), used


def _mean(scores: Floats, side: Side) -> tuple[np.ndarray, Floats, Bools]:
    people, of, n = np.unique(side.patient, return_inverse=True, return_counts=True)
    used = np.bincount(of, _known(side).astype(np.float64)) / n
    return people, np.bincount(of, scores) / n, used > 0.5


def _known(side: Side) -> Bools:
    if side.used is None:
        raise ValueError("chosen: used must be known of these slices")
    return side.used
