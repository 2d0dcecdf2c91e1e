"""Every row of the tables of one task: all arms, methods by their plain names, constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fingerprint.measure import chosen, classify
from fingerprint.measure.chosen import Called, Side
from fingerprint.measure.classify import Bools, Floats, Row

POINTS = 400  # of a drawn ROC
SIDES = ("dev", "test")
Told = dict[str, Any]


@dataclass(frozen=True)
class Rated:
    """The rows of one task, by side and key.

    Attributes
    ----------
    metrics, confusion, roc, by_patient : mapping of ``dev`` and ``test`` to rows by key
        A key is ``method/arm``, ``method``, a constant, or one of the first with ``@0``, ``@f1``,
        ``@median`` for another cut than that of DEV.
    cuts, predicted : mapping of method
    draws : as `metrics`; every metric in every resample, for means over tasks
    answers : mapping of method to bool, shape (n of TEST,)
    """

    metrics: dict[str, Told] = field(default_factory=lambda: {side: {} for side in SIDES})
    confusion: dict[str, Told] = field(default_factory=lambda: {side: {} for side in SIDES})
    roc: dict[str, Told] = field(default_factory=lambda: {side: {} for side in SIDES})
    by_patient: dict[str, Told] = field(default_factory=lambda: {side: {} for side in SIDES})
    cuts: Told = field(default_factory=dict)
    predicted: Told = field(default_factory=dict)
    draws: dict[str, Told] = field(default_factory=lambda: {side: {} for side in SIDES})
    answers: dict[str, Bools] = field(default_factory=dict)


def rated(
    dev: Side, test: Side, methods: Iterable[str], natural: tuple[str, ...], *, seed: int
) -> Rated:
    """Rate every arm, every method by the arm that DEV chooses, and the constants.

    Parameters
    ----------
    methods : iterable of str
        Plain names; one without an arm is left out.
    natural : tuple of str
        Beginnings of arms whose own cut is zero: they are also rated at it.
    """
    out = Rated()
    for arm in dev.scores:
        row = chosen.of_arm(dev, arm)
        _rate(out, "dev", dev, arm, row, seed)
        _rate(out, "test", test, arm, chosen.on_test(test, arm, row.threshold), seed)
        if arm.startswith(natural):
            for name, side in zip(SIDES, (dev, test), strict=True):
                own = Called(side.scores[arm], side.scores[arm] >= 0, 0.0)
                _rate(out, name, side, f"{arm}@0", own, seed)
    for method in methods:
        if arms := [arm for arm in dev.scores if arm.startswith(f"{method}/")]:
            _method(out, dev, test, method, arms, seed)
    for name, side in zip(SIDES, (dev, test), strict=True):
        if side.used is not None:
            out.metrics[name] |= classify.constants(side.used, side.patient, seed=seed)
    return out


def _method(out: Rated, dev: Side, test: Side, method: str, arms: Sequence[str], seed: int) -> None:
    arm, row = chosen.of_method(dev, arms)
    asked = chosen.on_test(test, arm, row.threshold)
    f1, share = classify.threshold_f1(dev.scores[arm], np.asarray(dev.used))
    median = float(np.median(asked.scores))
    _rate(out, "dev", dev, method, row, seed, arm)
    _rate(out, "test", test, method, asked, seed, arm)
    for at, cut in (("f1", f1), ("median", median)):
        other = Called(asked.scores, asked.scores >= cut, cut)
        _rate(out, "test", test, f"{method}@{at}", other, seed, arm)
    out.cuts[method] = {
        "balanced": row.threshold, "f1": f1, "f1_share_called_used": share, "median": median,
    }  # fmt: skip
    used = int(asked.called.sum())
    out.predicted[method] = {"used": used, "not_used": len(asked.called) - used}
    out.answers[method] = asked.called
    on_dev = dict(zip(SIDES, (row.scores, dev.scores[arm]), strict=True))
    for name, side, one in zip(SIDES, (dev, test), (row, asked), strict=True):
        if side.used is None or side.used.all() or not side.used.any():
            continue
        out.roc[name][method] = _curve(one.scores, side.used)
        people, who = chosen.by_patient(side, one, dev, on_dev[name])
        out.by_patient[name][method] = classify.rated(
            people.scores, people.called, who, np.arange(len(who)), seed=seed
        )


def _rate(
    out: Rated, name: str, side: Side, key: str, row: Called, seed: int, arm: str = ""
) -> None:
    if side.used is None:
        return
    what = (row.scores, row.called, side.used)
    out.draws[name][key] = drawn = classify.draws(*what, side.patient, seed=seed)
    told: Told = dict(classify.row_of(drawn, *what)) | {"threshold": row.threshold}
    out.metrics[name][key] = told | ({"arm": arm} if arm else {})
    c = classify.confusion(row.called, side.used, np.ones((1, len(side.used))))
    counts = {k: int(getattr(c, k)[0]) for k in ("tp", "fp", "tn", "fn")}
    out.confusion[name][key] = counts


def _curve(scores: Floats, used: Bools) -> dict[str, list[float]]:
    fpr, tpr = classify.roc(scores, used)
    at = np.unique(np.linspace(0, len(fpr) - 1, POINTS).round().astype(int))
    return {"fpr": fpr[at].tolist(), "tpr": tpr[at].tolist()}


def difference(side: Side, arm: str, other: str, *, seed: int) -> Told | None:
    """Return AUC of `other` less that of `arm`, with its interval; None where there is no AUC.

    The same patients are drawn for both, so that what they share does not widen the interval.
    """
    used = side.used
    if used is None or used.all() or not used.any() or not {arm, other} <= set(side.scores):
        return None
    times = classify.resampled(side.patient, seed)
    both = [side.scores[name] for name in (other, arm)]
    value = [float(classify.auc(scores, used)[0]) for scores in both]
    drawn = [classify.auc(scores, used, times) for scores in both]
    return {
        "difference": value[0] - value[1],
        "interval": classify.interval(drawn[0] - drawn[1]),
    }


def mean_of(each: Mapping[str, Rated], side: str) -> Told:
    """Return the mean over tasks of every row that all of them have, with its interval."""
    tasks = list(each.values())
    out: Told = {}
    for key, first in tasks[0].metrics[side].items():
        rows = [task.metrics[side].get(key) for task in tasks]
        if len(rows) == 1:
            out[key] = first
        elif all(row is not None and "auc" in row for row in rows):
            drawn = [task.draws[side].get(key) for task in tasks]
            out[key] = _averaged([row for row in rows if row], drawn)
        elif all(row is not None for row in rows):
            out[key] = first  # a reason, the same of all
    return out


def _averaged(each: Sequence[Told], drawn: Sequence[Told | None]) -> Row:
    out: Row = {}
    for name in classify.METRICS:
        values = [one[name]["value"] for one in each]
        if None in values:
            reason = each[values.index(None)][name]["reason"]
            out[name] = {"value": None, "interval": None, "reason": reason}
            continue
        there = all(d is not None and len(d[name]) for d in drawn)
        of_all = np.mean([d[name] for d in drawn if d], axis=0) if there else np.empty(0)
        out[name] = {"value": float(np.mean(values)), "interval": classify.interval(of_all)}
    return out
