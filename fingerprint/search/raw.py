"""The raw search: every query against every slice, best r per patient, in resumable tiles.

One tile is one shard: its queries are held in memory as int8, its slices stream by in blocks as the
stored bytes. What a tile leaves is small: the best per patient it met, and the histogram of all r.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.corpus.scan import sums
from fingerprint.ledger import Counts, Values
from fingerprint.search.best import BINS, Best, best_of, histogram
from fingerprint.search.correlate import Pixels, correlate, queries_from, slices_from
from fingerprint.search.sets import QuerySet, Reference, images_of, opened
from fingerprint.search.tiling import Tile, tiles

SLICES = ("all", "capped")
VERSION = 1


def plan(
    sets: Sequence[QuerySet], reference: Reference, *, band: int, shard: int, block: int
) -> list[ledger.Shard]:
    """Cut the search of all query sets into shards."""
    return [
        _shard(queries, reference, tile, block)
        for queries in sets
        for tile in tiles(
            len(queries), len(reference.patients), band=band, shard=shard, chunk=reference.chunk
        )
    ]


def _shard(queries: QuerySet, reference: Reference, tile: Tile, block: int) -> ledger.Shard:
    rows, columns = slice(tile.q0, tile.q1), slice(tile.s0, tile.s1)
    asked = replace(queries, indices=queries.indices[rows], own=queries.own[rows])
    searched = replace(
        reference, patients=reference.patients[columns], capped=reference.capped[columns]
    )
    depends = {
        "queries": [asked.digest, asked.indices.tolist(), asked.own.tolist(), asked.native_px],
        "slices": [searched.digest, tile.s0, tile.s1, searched.patients.tolist()],
        "capped": np.flatnonzero(searched.capped).tolist(),
    }
    return ledger.shard("search", VERSION, depends, search_tile, asked, searched, tile, block)


def search_tile(
    queries: QuerySet, reference: Reference, tile: Tile, block: int
) -> tuple[Values, Counts]:
    """Compare a band of queries with a shard of slices, `block` slices at a time.

    `queries` and the patients of `reference` are those of the tile; the values speak of the
    patients that were met.
    """
    # the int8 product does not scale with threads; shards run side by side
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    met, local = np.unique(reference.patients, return_inverse=True)
    asked = _load(queries).to(device)
    at_home = np.where(np.isin(queries.own, met), np.searchsorted(met, queries.own), -1)
    own = torch.from_numpy(at_home).to(device)
    best = [Best.empty(len(queries), len(met)) for _ in SLICES]
    counts = np.zeros(BINS, np.int64)
    for first, slices in _blocks(opened(reference.corpus, reference.digest), tile, block):
        at = slice(first - tile.s0, first - tile.s0 + len(slices))
        to = torch.from_numpy(local[at]).to(device)
        r = correlate(asked, slices.to(device))
        r[own[:, None] == to[None, :]] = torch.nan
        counts += histogram(r)
        best[0] += best_of(r, to, len(met), first)
        r[:, torch.from_numpy(~reference.capped[at]).to(device)] = torch.nan
        best[1] += best_of(r, to, len(met), first)
    values = {
        "met": met,
        "r": np.stack([b.r for b in best]),
        "slice": np.stack([b.slice for b in best]),
        "histogram": counts,
    }
    return values, {"pairs": int(counts.sum())}


def _load(queries: QuerySet) -> Pixels:
    images = images_of(queries)
    return queries_from(images, *sums(images))


def _blocks(corpus: store.Corpus, tile: Tile, block: int) -> Iterator[tuple[int, Pixels]]:
    total, squares = corpus.label("sum"), corpus.label("sum_of_squares")
    for first in range(tile.s0, tile.s1, block):
        last = min(first + block, tile.s1)
        images = corpus.read(first, last)
        yield first, slices_from(images, total[first:last], squares[first:last])


def fold(
    sets: Sequence[QuerySet],
    reference: Reference,
    values: Iterator[Values],
    *,
    band: int,
    shard: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], Mapping[str, NDArray[np.int64]]]:
    """Put the tiles together.

    Returns
    -------
    r : float64, shape (2, q, p)
        Over all slices and over the capped choice; q over all sets in order; NaN: nothing compared.
    slice : int64, shape (2, q, p)
        -1 where nothing was compared.
    histograms : mapping of set name -> int64 (BINS,)
    """
    n_patients = int(reference.patients.max()) + 1
    total = sum(len(queries) for queries in sets)
    best = [Best.empty(total, n_patients) for _ in SLICES]
    counts: dict[str, NDArray[Any]] = {queries.name: np.zeros(BINS, np.int64) for queries in sets}
    offset = 0
    for queries in sets:
        for tile in tiles(
            len(queries), len(reference.patients), band=band, shard=shard, chunk=reference.chunk
        ):
            value = next(values)
            counts[queries.name] += value["histogram"]
            place = np.ix_(np.arange(offset + tile.q0, offset + tile.q1), value["met"])
            for kind, merged in enumerate(best):
                here = Best(merged.r[place], merged.slice[place])
                here += Best(value["r"][kind], value["slice"][kind])
                merged.r[place], merged.slice[place] = here.r, here.slice
        offset += len(queries)
    found = [b.found() for b in best]
    return np.stack([f[0] for f in found]), np.stack([f[1] for f in found]), counts
