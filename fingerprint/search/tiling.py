"""The plan of a search, in integers only: bands of queries x shards of slices.

Every pair of a query and a slice lies in exactly one tile. Shards end on chunk borders, so that no
chunk is decoded by two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tile:
    """Queries [q0, q1) against slices [s0, s1)."""

    q0: int
    q1: int
    s0: int
    s1: int


def tiles(n_queries: int, n_slices: int, *, band: int, shard: int, chunk: int) -> list[Tile]:
    """Cut queries x slices into tiles of at most `band` x about `shard`, on chunk borders.

    Raises
    ------
    ValueError
        If a count is negative or a size is not positive.
    """
    if min(n_queries, n_slices) < 0 or min(band, shard, chunk) < 1:
        raise ValueError(
            f"tiles: counts >= 0 and sizes >= 1, got {n_queries, n_slices, band, shard, chunk}"
        )
    step = max(1, shard // chunk) * chunk
    return [
        Tile(q, min(q + band, n_queries), s, min(s + step, n_slices))
        for s in range(0, n_slices, step)
        for q in range(0, n_queries, band)
    ]


def bytes_needed(*, band: int, block: int, chunk: int, side: int) -> int:
    """Memory that one tile takes, from the settings alone: independent of the number of slices.

    A band of queries twice (as read, and as int8), a block of slices, one chunk being decoded, and
    some arrays of block x band in 8 bytes (product, r, its parts, and the reduction's copies).
    """
    pixels = side * side
    return 2 * band * pixels + block * pixels + 2 * chunk * pixels + 8 * 8 * band * block


def capped(patients: NDArray[np.int64], z_mm: NDArray[np.float64], cap: int) -> NDArray[np.bool_]:
    """Choose at most `cap` slices of each patient, evenly in z, so that patients can be compared.

    Parameters
    ----------
    patients : int64, shape (s,)
        Patient of each slice.
    z_mm : float64, shape (s,)
        NaN counts as the lowest position; ties keep the stored order.
    cap : int
        0: the smallest number of slices that any patient has.

    Returns
    -------
    bool, shape (s,)
    """
    chosen = np.zeros(len(patients), bool)
    if not len(patients):
        return chosen
    cap = cap or int(np.bincount(patients).min())
    order = np.lexsort((np.nan_to_num(z_mm, nan=-np.inf), patients))
    for members in np.split(order, np.flatnonzero(np.diff(patients[order])) + 1):
        k = min(cap, len(members))
        # the middle of k equal stretches of the stack
        chosen[members[((np.arange(k) + 0.5) * len(members) / k).astype(int)]] = True
    return chosen
