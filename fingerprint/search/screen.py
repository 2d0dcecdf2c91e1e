"""The search at every pose: posed queries against the screen image of every slice.

    poses    a band of queries is moved over the grid, once; the rows are the values of the shard,
             so they are kept in the run, under their digest
    screen   a band of rows against a shard of slices: the best pose by integers, then
             r = Sxy / (norm of the query x norm of the slice), and the best of each patient

Every tile names the digest of the rows that it multiplies: all workers multiply the same bytes. The
cuts have sizes of their own: a slice is 384 bytes here, and a query as many for each pose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.corpus.screen import PIXELS, inside
from fingerprint.ledger import Counts, Values
from fingerprint.search import device, pose, raw, tile
from fingerprint.search.pose import Grid
from fingerprint.search.sets import Against, QuerySet, Reference, mids_of, opened
from fingerprint.search.tile import Band, Tally
from fingerprint.search.tiling import Tile, tiles

POSES_VERSION = 1
VERSION = 1
ROWS_BYTES = 64 * 2**20  # posed rows of one band
MOST = 256  # queries of a band
SHARD = 65_536  # slices of a tile: 24 MiB that are multiplied, 64 MiB as stored
BLOCK = 4096  # slices whose r are held at a time
ON_GPU_BYTES = 2**31  # of slices: five million


def band_of(grid: Grid) -> int:
    """Return how many queries are moved, and multiplied, together."""
    return max(1, min(MOST, ROWS_BYTES // (len(grid) * PIXELS)))


def bytes_needed(grid: Grid, *, met: int = 1) -> int:
    """Memory that one tile takes, whatever the number of queries and slices.

    Parameters
    ----------
    met : int
        Most patients whose slices lie in one tile.
    """
    band = band_of(grid)
    rows = 3 * band * len(grid) * PIXELS  # as read, as decoded, and multiplied
    product = 4 * pose.SLICES * min(len(grid), pose.POSES)
    pairs = 72 * band * BLOCK  # r, and what the reduction to the best makes of it
    slices = BLOCK * (1024 + PIXELS)
    return rows + product + pairs + slices + 6 * 32 * band * met


# -- poses


def plan_poses(
    againsts: Sequence[Against], grid: Grid, *, band: int | None = None
) -> list[ledger.Shard]:
    """Cut the moving of queries into shards; a set that is compared twice is moved once."""
    shards = {
        one.key: one
        for against in againsts
        for queries in against.sets
        for one in _posed_shards(queries, grid, band or band_of(grid))
    }
    return list(shards.values())


def _posed_shards(queries: QuerySet, grid: Grid, band: int) -> list[ledger.Shard]:
    shards = []
    for first in range(0, len(queries), band):
        asked = queries[first : first + band]
        depends = {
            "queries": [asked.digest, asked.indices.tolist(), asked.native_px],
            "grid": grid.as_json(),
            "made": store.DERIVED,
            "rows": pose.VERSION,
        }
        shards.append(ledger.shard("poses", POSES_VERSION, depends, pose_queries, asked, grid))
    return shards


def pose_queries(queries: QuerySet, grid: Grid) -> tuple[Values, Counts]:
    """Show queries at every pose of the grid: ``rows``, int8 (q, n, 384)."""
    torch.set_num_threads(1)
    raw.forget()
    return {"rows": pose.posed(mids_of(queries), grid)}, {"queries": len(queries)}


# -- screen


def plan_screen(
    againsts: Sequence[Against],
    folder: Path,
    grid: Grid,
    *,
    band: int | None = None,
    shard: int = SHARD,
    block: int = BLOCK,
) -> list[ledger.Shard]:
    """Cut the search over poses into shards.

    Parameters
    ----------
    folder : Path
        The ledger, in which the shards of `plan_poses` are done.

    Raises
    ------
    FileNotFoundError, ledger.Damaged
        If one of those is not.
    """
    band = band or band_of(grid)
    digests: dict[str, str] = {}
    shards = []
    for against in againsts:
        for queries in against.sets:
            posed = _posed_shards(queries, grid, band)
            for one in _tiles(against.reference, len(queries), band, shard):
                rows = posed[one.q0 // band]
                path = ledger.path_of(folder, rows)
                if rows.key not in digests:
                    digests[rows.key] = ledger.receipt(path).digest
                asked = queries.own[one.q0 : one.q1]
                shards.append(_shard(path, digests[rows.key], asked, against.reference, one, block))
    return shards


def _tiles(reference: Reference, n_queries: int, band: int, shard: int) -> list[Tile]:
    n_slices = len(reference.patients)
    return tiles(n_queries, n_slices, band=band, shard=shard, chunk=reference.chunk)


def _shard(
    path: Path, digest: str, own: NDArray[np.int64], reference: Reference, one: Tile, block: int
) -> ledger.Shard:
    searched = reference[one.s0 : one.s1]
    depends = {
        "made": store.DERIVED,
        "rows": [digest, own.tolist()],
        "slices": [searched.digest, one.s0, one.s1, searched.patients.tolist()],
        "capped": np.flatnonzero(searched.capped).tolist(),
    }
    args = (path, digest, own, searched, one.s0, block)
    return ledger.shard("screen", VERSION, depends, search_tile, *args)


def search_tile(
    path: Path, digest: str, own: NDArray[np.int64], reference: Reference, start: int, block: int
) -> tuple[Values, Counts]:
    """Compare a band of posed queries with a shard of slices, `block` slices at a time.

    Parameters
    ----------
    path, digest :
        Of the shard that holds the rows.
    own : int64, shape (q,)
        Patient that each query is not compared with; -1: none.
    reference : Reference
        With the patients of this shard of slices alone.
    start : int
        Index in the corpus of its first slice.
    """
    torch.set_num_threads(1)  # the int8 product does not scale with threads
    raw.forget()
    where = device.chosen()
    rows, norms = _rows(path, digest, where)
    tally = Tally(len(own), reference, own, where, start=start)
    last = start + len(reference.patients)
    for first in range(start, last, block):
        screen, lengths = _slices(reference, first, min(first + block, last), where)
        tally.add(correlations(rows, norms, screen, lengths), first)
    values = tally.values()
    return values, {"pairs": int(values["histogram"].sum())}


def correlations(rows: Tensor, norms: Tensor, screen: Tensor, lengths: Tensor) -> Tensor:
    """Return r of every slice at the best pose of every query.

    Parameters
    ----------
    rows : Tensor, shape (q, n, k), int8
    norms : Tensor, shape (q,), float64
        Of the queries, as `pose.norms_of`.
    screen : Tensor, shape (s, k), int8
    lengths : Tensor, shape (s,), float64
        Norms of the slices.

    Returns
    -------
    Tensor, shape (q, s), float64
        NaN where an image is constant.
    """
    best = pose.best_over_poses(rows, screen)
    # one product and one division, both correctly rounded; 0 / 0 is NaN
    return (best.double() / (norms[:, None] * lengths[None, :])).clamp_(-1.0, 1.0)


# the rows that were multiplied last: the tiles of a band come one after another
_held: list[tuple[tuple[str, str], Tensor, Tensor]] = []
# on a GPU the slices stay too: a million take 0.4 GB, and reading them takes longer than all else
_there: dict[tuple[str, int, int], tuple[Tensor, Tensor]] = {}
_holding = Lock()


def _rows(path: Path, digest: str, where: str) -> tuple[Tensor, Tensor]:
    """Return posed rows and their norms, read and verified once for the tiles of a band."""
    with _holding:
        if not (_held and _held[0][0] == (digest, where)):
            _held.clear()  # first, so that two bands are never in memory
            if ledger.receipt(path).digest != digest:
                raise ledger.Damaged(f"{path.name}: these rows changed while they were searched")
            rows = ledger.read(path)["rows"]
            norms = torch.from_numpy(pose.norms_of(rows))
            _held.append(((digest, where), torch.from_numpy(rows).to(where), norms.to(where)))
        return _held[0][1:]


def _slices(reference: Reference, first: int, last: int, where: str) -> tuple[Tensor, Tensor]:
    """Return the pixels of slices that are multiplied, int8 (s, 384), and their norms."""
    key = (reference.digest, first, last)
    with _holding:
        if where != "cpu" and key in _there:
            return _there[key]
    corpus = opened(reference.corpus, reference.digest)
    squares = corpus.label("sum_of_squares_screen", slice(first, last)).astype(np.float64)
    screen = torch.from_numpy(inside(corpus.read(first, last, "screen"))).to(where)
    found = screen, torch.from_numpy(np.sqrt(squares)).to(where)
    if where != "cpu":
        with _holding:
            if sum(kept.nbytes for kept, _ in _there.values()) + screen.nbytes > ON_GPU_BYTES:
                _there.clear()
            _there[key] = found
    return found


def forget() -> None:
    """Let go of what was multiplied last."""
    with _holding:
        _held.clear()
        _there.clear()


def fold(
    against: Against,
    values: Iterator[Values],
    grid: Grid,
    *,
    band: int | None = None,
    shard: int = SHARD,
) -> Iterator[Band]:
    """Put the tiles of each band of queries together; see `tile.fold`."""
    return tile.fold(against, values, band=band or band_of(grid), shard=shard)
