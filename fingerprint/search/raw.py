"""The raw search: every query against every slice, best r per patient, in resumable tiles.

One tile is one shard: its queries are held in memory as int8, its slices stream by in blocks as the
stored bytes. What a tile leaves is small: the best per patient it met, and the histogram of all r.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from threading import Lock
from typing import Any

import numpy as np
import torch

from fingerprint import ledger
from fingerprint.corpus.scan import sums
from fingerprint.ledger import Counts, Values
from fingerprint.search import device, tiling
from fingerprint.search.correlate import Pixels, correlate, queries_from
from fingerprint.search.sets import Against, QuerySet, Reference, opened, pieces_of, smoothed
from fingerprint.search.tile import Tally, fold
from fingerprint.search.tiling import Tile, tiles
from fingerprint.settings import Settings

__all__ = ["VERSION", "band_for", "fold", "forget", "plan", "search_tile"]

VERSION = 2


def plan(
    againsts: Sequence[Against], *, band: int, shard: int, block: int, keep: bool = False
) -> list[ledger.Shard]:
    """Cut the search of all query sets into shards.

    Parameters
    ----------
    keep : bool
        Tiles leave all their r too, for `matrix`.
    """
    return [
        _shard(queries, against.reference, tile, block, keep)
        for against in againsts
        for queries in against.sets
        for tile in tiles(
            len(queries),
            len(against.reference.patients),
            band=band,
            shard=shard,
            chunk=against.reference.chunk,
        )
    ]


def band_for(againsts: Sequence[Against], settings: Settings) -> int:
    """Return how many queries a tile takes: what the settings say, or what memory holds.

    Raises
    ------
    ValueError
        Naming the knobs, if not even a few fit.
    """
    first = againsts[0].reference
    step = max(1, settings.shard_slices // first.chunk) * first.chunk
    return tiling.band_for(
        settings,
        side=opened(first.corpus, first.digest).size_px,
        chunk=max(against.reference.chunk for against in againsts),
        patients=max(len(against.patients) for against in againsts),
        met=max(tiling.most_met(against.reference.patients, step) for against in againsts),
        kept=step if settings.keep_matrix else 0,
    )


def _shard(
    queries: QuerySet, reference: Reference, tile: Tile, block: int, keep: bool
) -> ledger.Shard:
    asked, searched = queries[tile.q0 : tile.q1], reference[tile.s0 : tile.s1]
    depends = {
        "queries": [asked.digest, asked.indices.tolist(), asked.own.tolist(), asked.native_px],
        "slices": [searched.digest, tile.s0, tile.s1, searched.patients.tolist()],
        "capped": np.flatnonzero(searched.capped).tolist(),
        "keep": keep,
    }
    return ledger.shard("search", VERSION, depends, search_tile, asked, searched, tile, block, keep)


def search_tile(
    queries: QuerySet, reference: Reference, tile: Tile, block: int, keep: bool = False
) -> tuple[Values, Counts]:
    """Compare a band of queries with a shard of slices, `block` slices at a time.

    `queries` and the patients of `reference` are those of the tile; the values speak of the
    patients that were met.
    """
    # the int8 product does not scale with threads; shards run side by side
    torch.set_num_threads(1)
    where = device.chosen()
    asked = _asked(queries, where)
    tally = Tally(len(queries), reference, queries.own, where, start=tile.s0)
    corpus = opened(reference.corpus, reference.digest)
    kept = np.empty((len(queries), tile.s1 - tile.s0 if keep else 0))
    with closing(device.blocks(corpus, tile.s0, tile.s1, block, where)) as stream:
        for first, slices in stream:
            if not keep:
                tally.add_product(asked, slices, first)
                continue
            r = correlate(asked, slices)
            tally.exclude(r, first)
            kept[:, first - tile.s0 : first - tile.s0 + len(slices)] = r.cpu().numpy()
            tally.add(r, first)
    values = tally.values() | ({"block": kept} if keep else {})
    return values, {"pairs": int(values["histogram"].sum())}


# the band that was multiplied last. Its tiles come one after another: to decode, smooth and shift
# the queries again for each would cost a seventh of the product, and more for scattered controls
_held: list[tuple[tuple[Any, ...], Pixels]] = []
_holding = Lock()


def _asked(queries: QuerySet, where: str) -> Pixels:
    """Return queries ready to be multiplied; the same band is loaded once."""
    key = (queries.corpus, queries.digest, queries.indices.tobytes(), queries.native_px, where)
    with _holding:
        if not (_held and _held[0][0] == key):
            _held.clear()  # first, so that two bands are never in memory
            _held.append((key, _load(queries).to(where)))
        return _held[0][1]


def forget() -> None:
    """Let go of the queries that were multiplied last."""
    with _holding:
        _held.clear()


def _load(queries: QuerySet) -> Pixels:
    """Shift queries to int8; sums of stored images are stored, those of smoothed ones are taken."""
    corpus = opened(queries.corpus, queries.digest)
    values = np.empty((len(queries), corpus.size_px**2), np.int8)
    both = np.empty((2, len(queries)), np.int64)
    stored = np.stack([corpus.label(n)[queries.indices] for n in ("sum", "sum_of_squares")])
    for here, images in pieces_of(queries):
        known = sums(images) if smoothed(queries) else stored[:, here]
        piece = queries_from(images, known[0], known[1])
        values[here] = piece.values.numpy()
        both[:, here] = piece.total.numpy(), piece.squares.numpy()
    return Pixels(torch.from_numpy(values), torch.from_numpy(both[0]), torch.from_numpy(both[1]))
