"""One shard of a corpus against itself: rows against the columns to their right, each pair once.

A band of slices is held as int8 rows, the slices to its right stream by as columns in blocks, and
each block of r serves twice: read along the rows for the lists of the rows, and along the columns
for theirs.

    rows q0..q1   |  block  |  block  |  ...        lists of the rows: added block by block
    (int8, held)  |   of r  |   of r  |
                     v   v     v   v                lists of the columns: each written once
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.corpus import store
from fingerprint.ledger import Counts, Values
from fingerprint.search import device
from fingerprint.search.best import BINS, histogram
from fingerprint.search.correlate import SHIFT, Pixels, correlate, shifted
from fingerprint.search.lists import Side, Top, side_of, top_of
from fingerprint.search.sets import opened
from fingerprint.search.tiling import Tile

Whose = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Patients of consecutive slices as (patient, number of slices) of each run: short, to be sent."""


def runs(who: NDArray[np.int64]) -> Whose:
    """Shorten the patients of at least one slice."""
    starts = np.flatnonzero(np.diff(who, prepend=who[0] - 1))
    return who[starts], np.diff(starts, append=len(who))


def search_tiles(
    path: Path, digest: str, tiles: list[tuple[Tile, Whose, Whose]], block: int, keep: int
) -> tuple[Values, Counts]:
    """Compare the rows of each tile with its columns, `block` columns at a time.

    Returns
    -------
    values : mapping
        spans int64 (k, 2), stretches [first, last) of slices, one after the other; r, slice (m,
        keep), their lists, -inf and `NOWHERE` where there is none; histogram int64 (4096,).
    counts : mapping
        ``pairs``: how many were compared.
    """
    # the int8 product does not scale with threads; shards run side by side
    torch.set_num_threads(1)
    corpus = opened(path, digest)
    spans: list[tuple[int, int]] = []
    found: list[Top] = []
    counts = np.zeros(BINS, np.int64)
    for tile, rows, columns in tiles:
        rows_top, columns_top = _search(
            corpus, tile, np.repeat(*rows), np.repeat(*columns), block, keep, counts
        )
        spans += [(tile.q0, tile.q1), (tile.s0, tile.s1)]
        found += [rows_top, columns_top]
    values = {
        "spans": np.array(spans, np.int64),
        "r": np.concatenate([top.r for top in found]),
        "slice": np.concatenate([top.slice for top in found]),
        "histogram": counts,
    }
    return values, {"pairs": int(counts.sum())}


def _search(
    corpus: store.Corpus,
    tile: Tile,
    row_who: NDArray[np.int64],
    column_who: NDArray[np.int64],
    block: int,
    keep: int,
    counts: NDArray[np.int64],
) -> tuple[Top, Top]:
    """Return the lists of the rows and of the columns of a tile; `counts` is added to."""
    where = device.chosen()
    held = _held(corpus, tile.q0, tile.q1, block, where)
    rows_top, columns_top = (Top.empty(len(who), keep) for who in (row_who, column_who))
    whole = side_of(tile.q0, row_who)
    with closing(_columns(corpus, tile, held, block, where)) as stream:
        for first, slices in stream:
            at = slice(first - tile.s0, first - tile.s0 + len(slices))
            columns = side_of(first, column_who[at])
            many = min(tile.q1, first + len(slices)) - tile.q0  # rows below have no pair here
            rows = whole if many == len(row_who) else side_of(tile.q0, row_who[:many])
            r = _correlations(held[:many], slices, rows, columns)
            counts += histogram(r)
            better = top_of(r, columns, keep, floor=rows_top.r[:many, -1])
            rows_top.put(slice(0, many), better)
            columns_top.put(at, top_of(r.T, rows, keep))
    return rows_top, columns_top


def _held(corpus: store.Corpus, first: int, last: int, block: int, where: str) -> Pixels:
    """Load a band of rows as int8, block by block: never twice in memory."""
    n = corpus.size_px**2
    values = _room(last - first, n, where).view(torch.int8)
    total, squares = (torch.empty(last - first, dtype=torch.int64, device=where) for _ in range(2))
    with closing(device.blocks(corpus, first, last, block, where)) as stream:
        for start, part in stream:
            rows, part = slice(start - first, start - first + len(part)), shifted(part)
            values[rows] = part.values
            total[rows], squares[rows] = part.total, part.squares
    return Pixels(values, total, squares)


def _columns(
    corpus: store.Corpus, tile: Tile, held: Pixels, block: int, where: str
) -> Generator[tuple[int, Pixels]]:
    """Yield the columns of a tile: those that are rows too from the rows, the others decoded."""
    n, shared = corpus.size_px**2, min(max(tile.s0, tile.q1), tile.s1)
    page = _room(min(block, shared - tile.s0), n, where)
    for first in range(tile.s0, shared, block):
        part = held[first - tile.q0 : min(first + block, shared) - tile.q0]
        values = page[: len(part)]
        torch.bitwise_xor(part.values.view(torch.uint8), SHIFT, out=values)
        total = part.total + SHIFT * n
        yield first, Pixels(values, total, part.squares + 2 * SHIFT * total - SHIFT**2 * n)
    if shared < tile.s1:
        with closing(device.blocks(corpus, shared, tile.s1, block, where)) as stream:
            yield from stream


def _room(rows: int, pixels: int, where: str) -> Tensor:
    """Allocate pages; numpy asks for huge ones, torch does not: faults cost as much as decoding."""
    if where == "cpu":
        return torch.from_numpy(np.empty((rows, pixels), np.uint8))
    return torch.empty((rows, pixels), dtype=torch.uint8, device=where)


def _correlations(held: Pixels, slices: Pixels, rows: Side, columns: Side) -> Tensor:
    """Return r (rows, columns) of a block; NaN: one patient, or not above the diagonal.

    A block that crosses the diagonal is multiplied whole: halving it again and again saves products
    and loses as much, because small products run at half the speed (measured down to 32 x 32).
    """
    r = correlate(held, slices)
    if rows.first + len(held) > columns.first:
        i, j = (
            torch.arange(s.first, s.first + len(s.who), device=r.device) for s in (rows, columns)
        )
        r[i[:, None] >= j[None, :]] = torch.nan
    if np.intersect1d(rows.met, columns.met).size or min(rows.met[0], columns.met[0]) < 0:
        a, b = (torch.from_numpy(side.who).to(r.device) for side in (rows, columns))
        r[(a[:, None] == b[None, :]) | (a < 0)[:, None] | (b < 0)[None, :]] = torch.nan
    return r
