"""False-discovery rate: which of many p-values stand, and what that takes (METHOD.md, 3.8)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9  # 1 / (K + 1) <= k q / M must not fail by the last bit, here nor in what it takes


def benjamini_hochberg(p: NDArray[np.float64], q: float) -> NDArray[np.bool_]:
    """Tell which p-values are rejected: all up to the largest k with ``p_(k) <= k q / n``.

    Parameters
    ----------
    p : float64, shape (n,)
        NaN is no test: it is never rejected and does not count in n.
    q : float
        Expected share of false ones among those rejected, at most; 0 rejects nothing.

    Returns
    -------
    bool, shape (n,)

    Raises
    ------
    ValueError
        A p outside [0, 1], or q outside [0, 1).

    References
    ----------
    Benjamini and Hochberg 1995, section 3.
    """
    there = np.flatnonzero(~np.isnan(p))
    if not ((p[there] >= 0) & (p[there] <= 1)).all():
        raise ValueError("benjamini_hochberg: p must lie in [0, 1]")
    if not 0 <= q < 1:
        raise ValueError(f"benjamini_hochberg: q must lie in [0, 1), got {q}")
    order = there[np.argsort(p[there], kind="stable")]
    bound = q * (1 + ROUNDING) * np.arange(1, len(order) + 1) / max(len(order), 1)
    below = p[order] <= bound
    out = np.zeros(len(p), bool)
    if q and below.any():
        out[order[: np.flatnonzero(below)[-1] + 1]] = True
    return out


def benjamini_yekutieli(p: NDArray[np.float64], q: float) -> NDArray[np.bool_]:
    """`benjamini_hochberg` at ``q / (1 + 1/2 + .. + 1/n)``: whatever the dependence of the p.

    References
    ----------
    Benjamini and Yekutieli 2001, theorem 1.3.
    """
    return benjamini_hochberg(p, q / harmonic(int((~np.isnan(p)).sum())))


def harmonic(n: int) -> float:
    """Return ``1 + 1/2 + .. + 1/n``; 1 for none."""
    return math.fsum(1 / i for i in range(1, n + 1)) or 1.0


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest q at which each p is rejected by `benjamini_hochberg`; NaN stays NaN."""
    there = np.flatnonzero(~np.isnan(p))
    order = there[np.argsort(p[there], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    out = np.full(len(p), np.nan)
    least = np.minimum.accumulate(scaled[::-1])[::-1]
    # rounded as the test is: what is rejected at q has at most q
    out[order] = np.where(least < 1, least / (1 + ROUNDING), 1)
    return out


def controls_needed(tests: int, q: float, findings: int = 1) -> int:
    """Return K, the control patients that `findings` findings need: ``1/(K + 1) <= k q / M``."""
    return max(0, math.ceil(tests / (findings * q) * (1 - ROUNDING)) - 1)


def findings_needed(tests: int, q: float, controls: int) -> int:
    """Return how many must be found at once, so that ranks among K control patients reject any."""
    return max(1, math.ceil(tests / ((controls + 1) * q) * (1 - ROUNDING)))
