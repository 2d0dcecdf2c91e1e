"""The plan of a search, in integers only: bands of queries x shards of slices.

Every pair of a query and a slice lies in exactly one tile. Shards end on chunk borders, so that no
chunk is decoded by two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.settings import Settings

BASE_BYTES = 512 << 20  # a process with torch, zarr, xarray and Prefect: measured 486 MiB
MOST = 4096  # queries of a tile: more gain nothing
STEP = 8
PER_PATIENT = 32  # best r and its slice, over all slices and over the capped choice
PER_PAIR = 72  # product, r, the sums in it, and what the reduction to the best makes of it
COPIES = 5  # of the values of a tile while they are written to the ledger, or read from it


@dataclass(frozen=True)
class Tile:
    """Queries [q0, q1) against slices [s0, s1)."""

    q0: int
    q1: int
    s0: int
    s1: int


def tiles(n_queries: int, n_slices: int, *, band: int, shard: int, chunk: int) -> list[Tile]:
    """Cut queries x slices into tiles of at most `band` x about `shard`, on chunk borders.

    All tiles of a band of queries stand together, so that its rows can be finished, and its
    queries be held, while the slices go by.

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
        for q in range(0, n_queries, band)
        for s in range(0, n_slices, step)
    ]


def most_met(patients: NDArray[np.int64], shard: int) -> int:
    """Count the patients of the shard of slices that has most."""
    cuts = [patients[s : s + shard] for s in range(0, len(patients), shard)]
    return max((len(np.unique(cut[cut >= 0])) for cut in cuts), default=0)


def bytes_needed(
    *, band: int, block: int, chunk: int, side: int, met: int = 1, kept: int = 0
) -> int:
    """Memory that one tile takes, from the settings alone: independent of the number of slices.

    Parameters
    ----------
    band, block, chunk : int
        Queries of a tile; slices multiplied at a time; slices in a stored chunk.
    side : int
        Of a slice, in pixels.
    met : int
        Most patients whose slices lie in one tile.
    kept : int
        Slices of a tile of which every r is kept, for `matrix`; 0: none.
    """
    pixels = side * side
    page = max(block // chunk, 1) * chunk
    queries = band * pixels + 4 * chunk * pixels  # int8, and one chunk of them on its way there
    pages = (2 * page + 2 * chunk) * pixels  # in use, decoded ahead, and the stored bytes
    values = band * (PER_PATIENT * met + 8 * kept)
    written = COPIES * values  # in the ledger's hands
    return queries + values + max(pages + PER_PAIR * band * min(block, page), written)


def bytes_folded(*, band: int, patients: int, met: int) -> int:
    """Memory to put the tiles of a band together: its rows of the matrix, and one of the tiles."""
    return band * PER_PATIENT * (2 * patients + COPIES * met)


def band_for(
    settings: Settings, *, side: int, chunk: int, patients: int = 1, met: int = 1, kept: int = 0
) -> int:
    """Return how many queries a tile takes: what the settings say, or what memory holds.

    Half of `memory_gib` is for the tile: the other half is the interpreter's and the allocator's.

    Parameters
    ----------
    patients, met : int
        Columns of the largest matrix, and of them the most that one shard of slices touches.
    kept : int
        See `bytes_needed`.

    Raises
    ------
    ValueError
        Naming the knobs, if that, or the smallest band, does not fit.
    """

    def needed(band: int) -> int:
        tile = bytes_needed(
            band=band, block=settings.block_slices, chunk=chunk, side=side, met=met, kept=kept
        )
        return max(tile, bytes_folded(band=band, patients=patients, met=met))

    limit = int(settings.memory_gib * 2**30)
    room = min(limit // 2, limit - BASE_BYTES)
    least = settings.band_queries or STEP
    if needed(least) > room:
        raise ValueError(
            f"memory_gib: one tile needs {needed(least) / 2**30:.2f} GiB for {least} queries, and "
            f"{max(room, 0) / 2**30:.2f} of {settings.memory_gib:g} are free for it; lower "
            "band_queries, block_slices or shard_slices, or raise memory_gib"
        )
    if settings.band_queries:
        return settings.band_queries
    return max(band for band in range(STEP, MOST + 1, STEP) if needed(band) <= room)


def within_cap(size: int, gib: float) -> None:
    """Refuse a full matrix of `size` bytes that is larger than its cap.

    Raises
    ------
    ValueError
        Naming the knob.
    """
    if size > gib * 2**30:
        raise ValueError(
            f"keep_matrix: {size / 2**30:.3g} GiB would be written, the cap is {gib:g}; "
            "raise keep_matrix_gib, or leave --keep-matrix out"
        )


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
