"""How extreme a query is among strangers: scores that need no scale, and their p-values.

Controls are slices of patients whom the reference does not hold, or whose own slices were left out.
They went through every step of the search as the queries did, so under no copying a query's score
is one more of theirs (METHOD.md, sections 3.5 to 3.7). Two kinds of p are kept apart and labelled:

    p_patient, p_pooled   ranks among the controls: no model, never below 1 / (number + 1)
    p_tail                beyond the largest control, by extrapolating their tail: a model
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_SPACINGS = 10
LEAST_PATIENTS = 10  # compared with a query, for s_gap; of controls, for a tail
LEAST_IN_STRATUM = 20  # control patients for a null of their own
LEAST_EXCEEDANCES = 20
TAIL_SHARE = 0.1  # of the controls, above the threshold of the tail
LARGEST_XI = 0.5
BOOTSTRAPS = 1000
UPPER = 0.95  # quantile of p over the bootstraps
SMALLEST_SPACING = 1e-9  # ties below the first place must not make a gap infinite

Floats = NDArray[np.float64]
Labels = NDArray[Any]


# -- 3.5 scores of a query


def spacings_of(patients: int) -> int:
    """Return k, how many spacings are compared: ``min(10, P // 2)``; 0 if P < 10."""
    return min(MOST_SPACINGS, patients // 2) if patients >= LEAST_PATIENTS else 0


def s_gap(z: Floats, k: int) -> Floats:
    """Return by how much the best patient of each query stands apart from the next ones.

    ``D_i = i (z_(i) - z_(i+1))``, ``ratio = D_1 / mean(D_2 .. D_k)``,
    ``s_gap = (k - 1) ln(1 + ratio / (k - 1))``: about Exp(1) for strangers (Renyi 1953). Unchanged
    by ``z -> c z + d``, c > 0: a smoother image, or more patients, are no finding.

    Parameters
    ----------
    z : float64, shape (q, p)
        Fisher z of the best slice of each patient, all of one stage; NaN: not compared.
    k : int
        The same for all queries that are compared with each other: `spacings_of` the fewest
        patients that any of them was compared with.

    Returns
    -------
    float64, shape (q,)
        NaN where fewer than k + 1 patients were compared.

    References
    ----------
    METHOD.md, section 3.5.
    """
    if k < 2:
        raise ValueError(f"s_gap: k must be at least 2, got {k}")
    if z.shape[1] < k + 1:
        return np.full(len(z), np.nan)
    best = -np.sort(np.partition(-z, k, axis=1)[:, : k + 1], axis=1)  # NaN go to the end
    spacing = np.arange(1, k + 1) * (best[:, :-1] - best[:, 1:])
    rest = np.maximum(spacing[:, 1:].mean(axis=1), SMALLEST_SPACING)
    return np.asarray((k - 1) * np.log1p(spacing[:, 0] / rest / (k - 1)), np.float64)


def ranks_of(patients: int) -> int:
    """Return how many patients below the best s_excess compares with: ``min(10, P // 2)``."""
    return min(MOST_SPACINGS, patients // 2)


def s_excess(z: Floats, k: int) -> Floats:
    """Return z of the best patient of each query over the mean of its next k: its own level.

    As S_p of METHOD.md, section 3.10, for one query. An image that resembles everybody more, by the
    same z, gains nothing. On real slices and in World Z it holds its level as s_gap does and finds
    more copies (docs/calibration.md): one more person like the source closes a gap of order
    statistics, and hardly moves a mean of ten.

    Parameters
    ----------
    z : float64, shape (q, p)
        As `s_gap`.
    k : int
        `ranks_of` the fewest patients that any query was compared with.

    Returns
    -------
    float64, shape (q,)
        NaN where fewer than k + 1 patients were compared.
    """
    if k < 1:
        raise ValueError(f"s_excess: k must be at least 1, got {k}")
    if z.shape[1] < k + 1:
        return np.full(len(z), np.nan)
    best = -np.sort(np.partition(-z, k, axis=1)[:, : k + 1], axis=1)
    return np.asarray(best[:, 0] - best[:, 1:].mean(axis=1), np.float64)


def s_r(z: Floats) -> Floats:
    """Return the best z of each query over patients, float64 (q,): the score of paper 000."""
    if not z.shape[1]:
        return np.full(len(z), np.nan)
    return np.asarray(np.fmax.reduce(z, axis=1), np.float64)


# -- 3.6 conformal p


@dataclass(frozen=True)
class Controls:
    """Scores of the control queries that have one.

    Attributes
    ----------
    score : float64, shape (m,)
        Larger is more extreme.
    patient : shape (m,)
        Who each slice is of.
    stratum : shape (m,)
        What it is compared within: its region.
    """

    score: Floats
    patient: Labels
    stratum: Labels

    def __len__(self) -> int:
        return len(self.score)

    @property
    def patients(self) -> int:
        """K, the number of control patients."""
        return len(np.unique(self.patient))

    def of(self, stratum: Any) -> Controls | None:
        """Return those of one stratum; None if they are of too few patients."""
        mine = self.stratum == stratum
        own = Controls(self.score[mine], self.patient[mine], self.stratum[mine])
        return own if own.patients >= LEAST_IN_STRATUM else None


def p_patient(score: Floats, controls: Controls) -> Floats:
    """Return conformal p weighted by patient: ``(1 + sum_k w_k) / (K + 1)``.

    w_k is the share of control patient k's slices that score at least as high. Valid whatever the
    dependence inside a patient (hierarchical exchangeability: Lee, Barber and Willett 2023).

    Parameters
    ----------
    score : float64, shape (q,)
        NaN has no p.
    """
    _, who, counts = np.unique(controls.patient, return_inverse=True, return_counts=True)
    at_least = _at_least(score, controls.score, 1 / counts[who])
    # a whole patient is 1, not 0.9999: sums of shares are rounded, not cut
    return _p(score, np.round(at_least, 9), len(counts))


def p_pooled(score: Floats, controls: Controls) -> Floats:
    """Return conformal p over slices: ``(1 + #{s_h >= s_g}) / (m + 1)``.

    Exact if control slices are exchangeable across patients; trusted down to about 1/K.
    """
    return _p(score, _at_least(score, controls.score, np.ones(len(controls))), len(controls))


def _at_least(score: Floats, controls: Floats, weight: Floats) -> Floats:
    """Sum the weights of the controls that score at least as high: ties count against a query."""
    order = np.argsort(controls)
    above = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
    return np.asarray(above[np.searchsorted(controls[order], score, side="left")], np.float64)


def _p(score: Floats, at_least: Floats, n: int) -> Floats:
    return np.where(np.isnan(score), np.nan, (1 + at_least) / (n + 1))


def intraclass(controls: Controls) -> float:
    """Return the intraclass correlation of control scores: how alike slices of one patient are.

    One-way analysis of variance with unequal group sizes; NaN without two slices of one patient.
    """
    _, who, counts = np.unique(controls.patient, return_inverse=True, return_counts=True)
    n, groups = len(who), len(counts)
    if groups < 2 or n == groups:
        return float("nan")
    means = np.bincount(who, controls.score) / counts
    within = float(((controls.score - means[who]) ** 2).sum()) / (n - groups)
    between = float((counts * (means - controls.score.mean()) ** 2).sum()) / (groups - 1)
    size = (n - float((counts**2).sum()) / n) / (groups - 1)
    total = between + (size - 1) * within
    return (between - within) / total if total > 0 else float("nan")


# -- 3.7 tail


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto tail: ``p(s) = share (1 + xi (s - start) / sigma)^(-1 / xi)``."""

    start: float
    share: float
    xi: float
    sigma: float

    def p(self, score: Floats) -> Floats:
        """Return p of scores; at most `share`, which is what stands below `start`."""
        far = np.maximum(score - self.start, 0) / self.sigma
        if self.xi < 1e-9:
            return np.asarray(self.share * np.exp(-far), np.float64)
        return np.asarray(self.share * (1 + self.xi * far) ** (-1 / self.xi), np.float64)

    def reach(self, p: float) -> float:
        """Return the score at which the tail has come down to `p`."""
        if self.xi < 1e-9:
            return self.start + self.sigma * float(np.log(self.share / p))
        return self.start + self.sigma / self.xi * float((self.share / p) ** self.xi - 1)


def fitted_tail(score: Floats) -> Tail | None:
    """Fit the exceedances over the 90 % quantile by probability-weighted moments.

    ``b0 = mean y``, ``b1 = mean of y (1 - F)``, ``xi = 2 - b0 / (b0 - 2 b1)`` held in [0, 0.5],
    ``sigma = (1 - xi) b0``; b1 is the unbiased estimate, with 1 - F of the i-th of n exceedances
    (n - i) / (n - 1).

    Returns
    -------
    Tail or None
        None under two exceedances, or if they are all 0.

    References
    ----------
    Hosking and Wallis 1987; METHOD.md, section 3.7.
    """
    start = float(np.quantile(score, 1 - TAIL_SHARE))
    y = np.sort(score[score > start] - start)
    if len(y) < 2 or y[-1] <= 0:
        return None
    b0 = float(y.mean())
    b1 = float((y * np.arange(len(y) - 1, -1, -1)).mean()) / (len(y) - 1)
    xi = float(np.clip(2 - b0 / (b0 - 2 * b1), 0, LARGEST_XI)) if b0 > 2 * b1 else LARGEST_XI
    return Tail(start, len(y) / len(score), xi, (1 - xi) * b0)


def no_tail(controls: Controls) -> str:
    """Say why no tail is fitted; empty: it is."""
    if controls.patients < LEAST_PATIENTS:
        return (
            f"a tail needs {LEAST_PATIENTS} control patients, there are {controls.patients}; "
            "give CONTROLS of more patients"
        )
    above = int((controls.score > np.quantile(controls.score, 1 - TAIL_SHARE)).sum())
    if above < LEAST_EXCEEDANCES:
        needed = round(LEAST_EXCEEDANCES / TAIL_SHARE)
        return (
            f"a tail needs {LEAST_EXCEEDANCES} control slices above its threshold, there are "
            f"{above}; give at least {needed} control slices, or raise controls in the settings"
        )
    return "" if fitted_tail(controls.score) else "the largest control scores are all the same"


def p_tail(score: Floats, controls: Controls, seed: int) -> tuple[Floats, Floats]:
    """Return p by the tail, and the upper end of p over bootstraps of control *patients*.

    Returns
    -------
    p : float64, shape (q,)
        By the tail of all controls. NaN, as the other, where `no_tail` gives a reason.
    upper : float64, shape (q,)
        95 % quantile of p over `BOOTSTRAPS` resamples, each with a threshold and a fit of its own.
    """
    tail = None if no_tail(controls) else fitted_tail(controls.score)
    if tail is None:
        return np.full(len(score), np.nan), np.full(len(score), np.nan)
    again = np.stack([one.p(score) for one in _refitted(controls, seed)])
    # the higher of the two neighbours, not between them: p is never made smaller
    return tail.p(score), np.quantile(again, UPPER, axis=0, method="higher")


def _refitted(controls: Controls, seed: int) -> Iterator[Tail]:
    rng = np.random.default_rng(seed)
    _, who = np.unique(controls.patient, return_inverse=True)
    slices = [controls.score[who == k] for k in range(who.max() + 1)]
    for _ in range(BOOTSTRAPS):
        drawn = rng.integers(0, len(slices), len(slices))
        tail = fitted_tail(np.concatenate([slices[k] for k in drawn]))
        if tail is not None:
            yield tail


# -- all of them


@dataclass(frozen=True)
class PValues:
    """Every p of some queries, float64 (q,); NaN where one was not computed.

    Attributes
    ----------
    patient, pooled, tail : as above
    image : p_pooled where that is above 0.1, else the larger of p_tail and its upper end
    own, own_tail : bool, shape (q,)
        Whether a query was ranked within its stratum, and whether its tail was; else across all.
    """

    patient: Floats
    pooled: Floats
    tail: Floats
    image: Floats
    own: NDArray[np.bool_]
    own_tail: NDArray[np.bool_]


def p_values(score: Floats, stratum: Labels, controls: Controls, seed: int) -> PValues:
    """Compare queries with the controls of their stratum where those are of 20 patients, else all.

    A stratum of 20 patients may have too few slices for a tail: then the tail is that of all.

    Parameters
    ----------
    score : float64, shape (q,)
    stratum : shape (q,)
    controls : Controls
    seed : int
        Of the bootstrap.
    """
    none = np.full(len(score), np.nan)
    own, own_tail = np.zeros((2, len(score)), bool)
    out = PValues(none, none.copy(), none.copy(), none.copy(), own, own_tail)
    if not len(controls):
        return out
    for name in np.unique(stratum):
        mine, same = stratum == name, controls.of(name)
        own[mine], ranked = same is not None, same or controls
        out.patient[mine] = p_patient(score[mine], ranked)
        out.pooled[mine] = p_pooled(score[mine], ranked)
        own_tail[mine] = same is not None and not no_tail(same)
        fitted = same if same is not None and not no_tail(same) else controls
        out.tail[mine], out.image[mine] = _image(score[mine], fitted, seed)
    return out


def _image(score: Floats, controls: Controls, seed: int) -> tuple[Floats, Floats]:
    """Return p by the tail, and p_image: ranks where they suffice, else the tail with its error."""
    tail, upper = p_tail(score, controls, seed)
    pooled = p_pooled(score, controls)
    there = ~np.isnan(score) & ~np.isnan(tail)
    image = np.where(pooled > TAIL_SHARE, pooled, np.fmax(tail, upper))
    return np.where(there, tail, np.nan), np.where(there, image, np.nan)
