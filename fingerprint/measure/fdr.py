"""False-discovery rate: which of many p-values stand (METHOD.md, section 3.8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    below = p[order] <= q * np.arange(1, len(order) + 1) / max(len(order), 1)
    out = np.zeros(len(p), bool)
    if q and below.any():
        out[order[: np.flatnonzero(below)[-1] + 1]] = True
    return out
