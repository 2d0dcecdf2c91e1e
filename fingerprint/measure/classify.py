"""From scores to a decision and to its quality: once, for every method (METHOD.md, section 3.19).

Larger scores mean more likely used. Thresholds are chosen on development data alone. Every number
has an interval over patients, never over slices, and beside it stand the predictors that look at
nothing: at prevalence 1/2 "always used" has F1 0.667, more than papers 001 to 003 reached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.measure.intervals import LEAST_CLUSTERS, LEVEL

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Row = dict[str, dict[str, Any]]
"""Metric -> ``value``, ``interval`` (two numbers or None), ``reason`` where there is no value."""

RESAMPLES = 1000
FPR = (0.1, 0.01, 0.001)
ONE_CLASS = "only one class is there"
NONE_CALLED = "nothing was called used"
FEW = f"fewer than {LEAST_CLUSTERS} patients: no interval"


@dataclass(frozen=True)
class Confusion:
    """How often which answer met which truth; arrays of one shape, or numbers.

    Attributes
    ----------
    tp, fp, tn, fn : float64
        Used called used, not used called used, not used called so, used called not used.
    """

    tp: Any
    fp: Any
    tn: Any
    fn: Any


def confusion(called: Bools, used: Bools, times: Floats) -> Confusion:
    """Count answers, each slice as often as `times` (r, n) says: arrays (r,)."""
    groups = (called & used, called & ~used, ~called & ~used, ~called & used)
    return Confusion(*(times @ group.astype(np.float64) for group in groups))


# -- metrics of a confusion matrix: each NaN where it is undefined


def _ratio(above: Any, below: Any) -> Any:
    below = np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def accuracy(c: Confusion) -> Any:
    """Share of right answers."""
    return _ratio(c.tp + c.tn, c.tp + c.fp + c.tn + c.fn)


def precision(c: Confusion) -> Any:
    """Share of those called used that are."""
    return _ratio(c.tp, c.tp + c.fp)


def recall(c: Confusion) -> Any:
    """Share of the used that are called so."""
    return _ratio(c.tp, c.tp + c.fn)


def specificity(c: Confusion) -> Any:
    """Share of the not used that are called so."""
    return _ratio(c.tn, c.tn + c.fp)


def f1(c: Confusion) -> Any:
    """2 P R / (P + R), where papers 001 and 002 print P R / (P + R) (E01)."""
    return np.where(c.tp + c.fn > 0, _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn), np.nan)


def balanced_accuracy(c: Confusion) -> Any:
    """Mean of recall and specificity."""
    return (recall(c) + specificity(c)) / 2


def kappa(c: Confusion) -> Any:
    """Cohen's: agreement beyond that of independent answers of the same frequencies."""
    n = c.tp + c.fp + c.tn + c.fn
    agreed = _ratio(c.tp + c.tn, n)
    by_chance = _ratio((c.tp + c.fp) * (c.tp + c.fn) + (c.tn + c.fn) * (c.tn + c.fp), n * n)
    return _ratio(agreed - by_chance, 1 - by_chance)


def adjusted_rand(c: Confusion) -> Any:
    """Agreement of two clusterings beyond chance (Rand), however their clusters are named."""

    def pairs(n: Any) -> Any:
        return n * (n - 1) / 2

    cells = pairs(c.tp) + pairs(c.fp) + pairs(c.tn) + pairs(c.fn)
    rows = pairs(c.tp + c.fp) + pairs(c.tn + c.fn)
    columns = pairs(c.tp + c.fn) + pairs(c.tn + c.fp)
    chance = _ratio(rows * columns, pairs(c.tp + c.fp + c.tn + c.fn))
    return _ratio(cells - chance, (rows + columns) / 2 - chance)


OF_ANSWERS: Mapping[str, Callable[[Confusion], Any]] = {
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
    "f1": f1,
    "balanced_accuracy": balanced_accuracy,
    "kappa": kappa,
    "adjusted_rand": adjusted_rand,
}
OF_SCORES = ("auc", *(f"tpr_at_fpr_{fpr:g}" for fpr in FPR))
METRICS = (*OF_ANSWERS, *OF_SCORES)


# -- the curve of all thresholds


def roc(scores: Floats, used: Bools) -> tuple[Floats, Floats]:
    """Return false and true positive rate at every threshold, from (0, 0) to (1, 1)."""
    fp, tp = map(_shares, _counts(scores, used, np.ones((1, len(scores)))))
    return fp[0], tp[0]


def auc(scores: Floats, used: Bools, times: Floats | None = None) -> Floats:
    """Return the area under the curve, ties counted half: float64 (r,), NaN with one class."""
    return _area(*_counts(scores, used, np.ones((1, len(scores))) if times is None else times))


def _area(fp: Floats, tp: Floats) -> Floats:
    pairs = (np.diff(fp) * (tp[:, 1:] + tp[:, :-1])).sum(1)  # whole numbers: 1 is 1
    return np.asarray(_ratio(pairs, 2 * fp[:, -1] * tp[:, -1]))


def tpr_at(scores: Floats, used: Bools, fpr: float, times: Floats | None = None) -> Floats:
    """Return the largest true positive rate at no more than a false positive rate: float64 (r,)."""
    both = _counts(scores, used, np.ones((1, len(scores))) if times is None else times)
    return _highest(*both, fpr)


def _highest(fp: Floats, tp: Floats, fpr: float) -> Floats:
    best = np.where(_shares(fp) <= fpr, tp, 0).max(1)
    return np.where(fp[:, -1] > 0, _ratio(best, tp[:, -1]), np.nan)


def _counts(scores: Floats, used: Bools, times: Floats) -> tuple[Floats, Floats]:
    """Count false and true positives, float64 (r, k + 1), at the k distinct scores, falling."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    drawn = times[:, order]
    out = []
    for group in (~used, used):
        counted = np.cumsum(drawn * group[order], axis=1)[:, last]
        out.append(np.concatenate([np.zeros((len(times), 1)), counted], axis=1))
    return out[0], out[1]


def _shares(counts: Floats) -> Floats:
    return np.asarray(_ratio(counts, np.broadcast_to(counts[:, -1:], counts.shape)))


# -- thresholds: a slice is called used if its score is at least the threshold


def threshold(scores: Floats, used: Bools) -> float:
    """Return the cut of largest balanced accuracy: midway between two scores.

    Of several cuts that are equally good, the middle one. Cuts beyond all scores are among them:
    useless scores may call all slices used, or none.

    Raises
    ------
    ValueError
        One class only, or scores that are not finite.
    """
    _both("threshold", scores, used)
    cuts, called, right = _cuts(scores, used)
    n, m = int(used.sum()), int((~used).sum())
    gain = right * m - (called - right) * n  # balanced accuracy in whole numbers: ties are ties
    best = np.flatnonzero(gain == gain.max())
    return float(cuts[best[len(best) // 2]])


def threshold_f1(scores: Floats, used: Bools) -> tuple[float, float]:
    """Return the cut of largest F1, and the share of slices that it calls used.

    Shown beside `threshold`, not used: with useless scores it calls nearly all used, and is
    rewarded with an F1 of 0.67.
    """
    _both("threshold_f1", scores, used)
    cuts, called, right = _cuts(scores, used)
    best = int(np.argmax(_ratio(2 * right, called + int(used.sum()))))
    return float(cuts[best]), float(called[best] / len(scores))


def _cuts(scores: Floats, used: Bools) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return every cut, rising, how many slices it calls used, and how many of those are."""
    values = np.unique(scores)
    beyond = (values[-1] - values[0]) or 1.0
    cuts = np.concatenate(
        [[values[0] - beyond], (values[1:] + values[:-1]) / 2, [values[-1] + beyond]]
    )
    # between two neighbouring floats there is no midpoint
    cuts[1:-1] = np.where(cuts[1:-1] > values[:-1], cuts[1:-1], values[1:])
    at = np.searchsorted(np.sort(scores), cuts)
    used_at = np.searchsorted(np.sort(scores[used]), cuts)
    return cuts, len(scores) - at, int(used.sum()) - used_at


def _both(name: str, scores: Floats, used: Bools) -> None:
    if used.all() or not used.any():
        raise ValueError(
            f"{name}: used must hold both classes, got {int(used.sum())} of {len(used)}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{name}: scores must be finite")


# -- rows of a table


@functools.lru_cache(maxsize=8)
def _drawn(patients: bytes, seed: int, resamples: int) -> Floats:
    of = np.frombuffer(patients, np.int64)
    n = int(of.max()) + 1
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    return times.astype(np.float64)[:, of]


def resampled(patient: NDArray[np.int64], seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each slice is drawn when patients are: float64 (resamples, n).

    The same for every method that is asked about the same slices, so that methods can be compared
    within a resample.
    """
    _, of = np.unique(patient, return_inverse=True)
    return _drawn(of.astype(np.int64).tobytes(), seed, resamples)


def rated(
    scores: Floats, called: Bools, used: Bools, patient: NDArray[np.int64], *, seed: int
) -> Row:
    """Return every metric of a method on some slices, with intervals over patients.

    Parameters
    ----------
    scores : float64, shape (n,)
    called : bool, shape (n,)
        Which slices were called used; by more than one threshold, where there are folds.
    used : bool, shape (n,)
    patient : int64, shape (n,)
    seed : int

    Returns
    -------
    Row
        ``value`` is None where a metric is undefined, and ``reason`` says why.
    """
    return row_of(draws(scores, called, used, patient, seed=seed), scores, called, used)


def row_of(drawn: Mapping[str, Floats], scores: Floats, called: Bools, used: Bools) -> Row:
    """Return `rated` of what `draws` gave for the same slices."""
    once = _metrics(scores, called, used, np.ones((1, len(scores))))
    return {name: told(float(once[name][0]), values, used, name) for name, values in drawn.items()}


def draws(
    scores: Floats, called: Bools, used: Bools, patient: NDArray[np.int64], *, seed: int
) -> dict[str, Floats]:
    """Return every metric in every resample of patients, float64 (r,); empty with too few."""
    if len(np.unique(patient)) < LEAST_CLUSTERS:
        return dict.fromkeys(METRICS, np.empty(0))
    return _metrics(scores, called, used, resampled(patient, seed))


def told(value: float, drawn: Floats, used: Bools, name: str) -> dict[str, Any]:
    """Return one entry of a row: value, interval, and a reason where there is no value."""
    if (why := _not_estimable(name, used)) or not np.isfinite(value):
        undefined = why or (ONE_CLASS if used.all() or not used.any() else NONE_CALLED)
        return {"value": None, "interval": None, "reason": undefined}
    return {"value": value, "interval": interval(drawn)} | ({} if len(drawn) else {"reason": FEW})


def interval(drawn: Floats, level: float = LEVEL) -> list[float] | None:
    """Return the percentile interval of what was drawn; None where nothing was."""
    there = drawn[np.isfinite(drawn)]
    if not len(there):
        return None
    low, high = np.quantile(there, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _not_estimable(name: str, used: Bools) -> str:
    if not name.startswith("tpr_at_fpr_"):
        return ""
    fpr, n = float(name.removeprefix("tpr_at_fpr_")), int((~used).sum())
    return f"not estimable: {n} slices that were not used, {round(1 / fpr):,} are needed" * (
        n * fpr < 1 - 1e-9
    )


def _metrics(scores: Floats, called: Bools, used: Bools, times: Floats) -> dict[str, Floats]:
    answers = confusion(called, used, times)
    out = {name: np.asarray(of(answers), np.float64) for name, of in OF_ANSWERS.items()}
    fp, tp = _counts(scores, used, times)
    highest = (_highest(fp, tp, fpr) for fpr in FPR)
    return out | dict(zip(OF_SCORES, (_area(fp, tp), *highest), strict=True))


def constants(used: Bools, patient: NDArray[np.int64], *, seed: int) -> dict[str, Row]:
    """Return the rows of the predictors that look at nothing: ``always``, ``never``, ``coin``.

    The coin is tossed for each slice once, with `seed`: its expectation is accuracy 1/2, kappa 0.
    """
    n = len(used)
    toss = np.random.default_rng([seed, 1]).random(n)
    rows = {
        "always": (np.zeros(n), np.ones(n, bool)),
        "never": (np.zeros(n), np.zeros(n, bool)),
        "coin": (toss, toss >= 0.5),
    }
    return {
        k: rated(scores, called, used, patient, seed=seed) for k, (scores, called) in rows.items()
    }
