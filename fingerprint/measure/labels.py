"""Is the whole set closer to its training patients than to strangers? Labels of patients, permuted.

T are the patients of the real corpus, H those of the given controls, who were never trained on. A
generator that knows T only through the population cannot tell T from H, so the labels T and H may
be exchanged between patients; all slices of a patient keep together (METHOD.md, section 3.9).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 9_999
AT_ONCE = 1_000  # permutations whose labels are in memory together
FIRST = 32  # patients of a query that are looked at first: its best ones

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SetLevel:
    """What the whole set says.

    Attributes
    ----------
    difference : float64, shape (g,)
        D(g): best z over T less best z over H.
    w : float
        Mean of sign(D) D^2: the statistic that is tested.
    p : float
        ``(1 + #{W* >= W}) / (B + 1)``.
    share : float
        U: queries whose nearest patient is of T.
    share_expected, share_sd : float
        Of U under exchangeable labels; mode collapse widens it by itself.
    permutations : int
    """

    difference: Floats
    w: float
    p: float
    share: float
    share_expected: float
    share_sd: float
    permutations: int


def differences(z: Floats, trained: Bools) -> Floats:
    """Return D(g), the best z over T less the best over H, float64 (g,); NaN are not compared.

    Parameters
    ----------
    z : float64, shape (g, t + h)
        Best z of each query over the slices of each patient: as many slices for every patient.
    trained : bool, shape (t + h,)
        Which patients are of T.
    """
    top = [np.fmax.reduce(z[:, who], axis=1, initial=-np.inf) for who in (trained, ~trained)]
    with np.errstate(invalid="ignore"):
        return np.asarray(top[0] - top[1], np.float64)


def statistic(difference: Floats) -> float:
    """Return W, the mean of ``sign(D) D^2``: few large differences weigh more than many small."""
    return float((np.sign(difference) * difference**2).mean())


def set_level(
    z: Floats,
    trained: Bools,
    stratum: NDArray[Any],
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> SetLevel:
    """Test the whole set by permuting the labels of patients within strata.

    Parameters
    ----------
    z, trained
        As `differences`; every query has a z with more patients than the larger label has, so that
        no labelling leaves it without one of either.
    stratum : shape (t + h,)
        Of each patient, such as sex: labels are exchanged within.
    seed : int

    Raises
    ------
    ValueError
        No patient of T or none of H, or a query that was compared with too few.

    References
    ----------
    METHOD.md, section 3.9.
    """
    if trained.all() or not trained.any():
        raise ValueError("set_level: patients of both labels are needed, T (trained) and H")
    most = max(int(trained.sum()), int((~trained).sum()))
    compared = int(np.isfinite(z).sum(axis=1).min())
    if compared <= most:
        raise ValueError(
            f"set_level: every query needs a z with more than {most} patients, so that none is "
            f"left without a label; one has {compared}"
        )
    order = np.argsort(-np.where(np.isnan(z), -np.inf, z), axis=1, kind="stable")
    high = np.take_along_axis(np.where(np.isnan(z), -np.inf, z), order, axis=1)
    mine = differences(z, trained)
    w, above = statistic(mine), 0
    slack = 1e-12 * float((mine**2).mean())  # of the terms: W itself may be 0 but for rounding
    for labels in _permuted(trained, stratum, seed, permutations):
        above += int((_statistics(high, order, labels) >= w - slack).sum())
    nearest, t, n = order[:, 0], int(trained.sum()), len(trained)
    return SetLevel(
        difference=mine,
        w=w,
        p=(1 + above) / (permutations + 1),
        share=float(trained[nearest].mean()),
        share_expected=t / n,
        share_sd=share_sd(nearest, t, n - t),
        permutations=permutations,
    )


def share_sd(nearest: NDArray[np.int64], t: int, h: int) -> float:
    """Return the SD of U: ``var U = |T| |H| S_c^2 / ((|T| + |H|) M^2)``.

    S_c^2 is the sample variance over patients of the number of queries nearest to each.
    """
    counts = np.bincount(nearest, minlength=t + h).astype(np.float64)
    variance = t * h * counts.var(ddof=1) / ((t + h) * len(nearest) ** 2)
    return float(np.sqrt(variance))


def _permuted(
    trained: Bools, stratum: NDArray[Any], seed: int, permutations: int
) -> Iterator[Bools]:
    """Yield labels (b, patients), some at a time: shuffled within each stratum."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(stratum == name) for name in np.unique(stratum)]
    for first in range(0, permutations, AT_ONCE):
        labels = np.empty((min(AT_ONCE, permutations - first), len(trained)), bool)
        for group in groups:
            same = np.broadcast_to(trained[group], (len(labels), len(group)))
            labels[:, group] = rng.permuted(same, axis=1)
        yield labels


def _statistics(high: Floats, order: NDArray[np.int64], labels: Bools) -> Floats:
    """Return W of each labelling (b,): maxima are redone, pairs are not."""
    total = np.zeros(len(labels))
    for values, who in zip(high, order, strict=True):
        top = [_first(values, who, labels == label) for label in (True, False)]
        d = top[0] - top[1]
        total += np.sign(d) * d**2
    return total / len(high)


def _first(values: Floats, who: NDArray[np.int64], mine: Bools) -> Floats:
    """Return the first of falling `values` whose patient has the label, for each labelling."""
    out, left, width = np.full(len(mine), -np.inf), np.arange(len(mine)), FIRST
    start = 0
    while len(left) and start < len(who):
        here = mine[np.ix_(left, who[start : start + width])]
        found = here.any(axis=1)
        out[left[found]] = values[start + here[found].argmax(axis=1)]
        left, start, width = left[~found], start + width, 4 * width
    return out
