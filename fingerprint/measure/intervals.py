"""Intervals over what was drawn independently: patients, and clusters of duplicates.

Never over pixels or slices: 118 slices of a patient are one observation, and an interval over them
is many times too narrow (METHOD.md, section 3.11).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

RESAMPLES = 2000
LEVEL = 0.95
CELLS = 4_000_000  # counts of resamples and clusters in memory
LEAST_CLUSTERS = 5  # fewer give an interval that means nothing

Floats = NDArray[np.float64]
Statistic = Callable[[Floats, Floats], float]


def cluster_bootstrap(
    values: Floats,
    cluster: NDArray[Any],
    *,
    seed: int,
    statistic: Statistic | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic over resamples of clusters.

    Parameters
    ----------
    values : float64, shape (n,)
        No NaN.
    cluster : shape (n,)
        Patient of each value, or its cluster of duplicates.
    statistic : callable
        Of values and how often each was drawn; None: their mean, for all resamples at once.

    Returns
    -------
    (low, high)
        NaN under `LEAST_CLUSTERS` clusters.

    References
    ----------
    METHOD.md, section 3.11.
    """
    _, of = np.unique(cluster, return_inverse=True)
    n = int(of.max(initial=-1)) + 1
    if n < LEAST_CLUSTERS:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    if statistic is None:
        drawn = np.concatenate([_means(values, of, rng, b) for b in _parts(resamples, n)])
    else:
        drawn = np.array([statistic(values, _times(rng, n, 1)[0][of]) for _ in range(resamples)])
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _times(rng: np.random.Generator, n: int, resamples: int) -> Floats:
    """Return how often each of n clusters is drawn, float64 (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)


def _means(
    values: Floats, of: NDArray[np.int64], rng: np.random.Generator, resamples: int
) -> Floats:
    sizes = np.bincount(of).astype(np.float64)
    times = _times(rng, len(sizes), resamples)
    return np.asarray(times @ np.bincount(of, values) / (times @ sizes), np.float64)


def _parts(resamples: int, n: int) -> list[int]:
    """Cut resamples so that one part takes little memory."""
    step = max(1, CELLS // n)
    return [min(step, resamples - first) for first in range(0, resamples, step)]


def clopper_pearson(found: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact two-sided interval of a proportion of independent units."""
    _counts("clopper_pearson", found, n)
    half = (1 - level) / 2
    low = float(beta.ppf(half, found, n - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - half, found + 1, n - found)) if found < n else 1.0
    return low, high


def at_least(found: int, n: int, level: float = LEVEL) -> float:
    """Return the exact one-sided lower bound of a proportion: 10 of 10 give 0.741."""
    _counts("at_least", found, n)
    return float(beta.ppf(1 - level, found, n - found + 1)) if found else 0.0


def _counts(name: str, found: int, n: int) -> None:
    if not 0 <= found <= n or n < 1:
        raise ValueError(f"{name}: 0 <= found <= n and n >= 1, got {found} of {n}")
