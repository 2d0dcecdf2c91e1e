"""The work of a shard of candidates: start poses again, coarse, fine, and the slices next door.

The screen sees 32 px and stores no pose. So the best pose of the grid is computed again for the
pairs that survived, and around the best few patients the neighbouring slices are tried too: of 40
planted copies in a scan with a slice every 2.5 mm the screen named the very slice of 32, after one
round there were 38, after two 40, and r on the high-pass image rose by 0.1 where it was another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.corpus import store
from fingerprint.corpus.screen import inside
from fingerprint.ledger import Counts, Values
from fingerprint.search import pose, raw, refine, screen
from fingerprint.search.align import Floats, Limits
from fingerprint.search.pose import Grid
from fingerprint.search.product import int8_product
from fingerprint.search.refine import Scored
from fingerprint.search.sets import QuerySet, mids_of, opened
from fingerprint.settings import IMAGES
from fingerprint.warp import POSE

AROUND = 8  # patients whose neighbouring slices are tried
REACH = 2  # slices before and after
ROUNDS = 2  # again, where a neighbour was better

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Candidates of some queries, query after query. Small types: a plan holds all of them.

    Attributes
    ----------
    counts : int64, shape (q,)
        How many pairs each query has; the others have one entry per pair.
    slices, patients : int32
        A slice of the corpus, and its column of the matrix.
    before, after : int8
        How many slices beside it, up to ``ROUNDS * REACH``, are of the same stack and patient.
    """

    counts: Ints
    slices: NDArray[np.int32]
    patients: NDArray[np.int32]
    before: NDArray[np.int8]
    after: NDArray[np.int8]

    def __getitem__(self, rows: slice) -> Pairs:
        """Take the pairs of some queries."""
        start, stop, _ = rows.indices(len(self.counts))
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        at = slice(int(ends[start]), int(ends[stop]))
        return Pairs(
            self.counts[rows], self.slices[at], self.patients[at], self.before[at], self.after[at]
        )

    def rows(self) -> Iterator[slice]:
        """Yield where the pairs of each query stand."""
        last = np.cumsum(self.counts)
        return (slice(int(b - n), int(b)) for b, n in zip(last, self.counts, strict=True))


@dataclass(frozen=True)
class How:
    """The settings of a refinement."""

    grid: Grid
    limits: Limits
    keep: int  # pairs of a query that are refined at 128 px


@dataclass(frozen=True)
class _Done:
    """Pairs of one query that were refined at 128 px; `home` is the candidate that led there."""

    home: Ints
    slice: Ints
    pose: Floats  # (n, 5)
    r: Floats  # (3, n)

    def __add__(self, other: _Done) -> _Done:
        return _Done(
            np.concatenate([self.home, other.home]),
            np.concatenate([self.slice, other.slice]),
            np.concatenate([self.pose, other.pose]),
            np.concatenate([self.r, other.r], axis=1),
        )


def refine_pairs(
    queries: QuerySet, corpus: Path, digest: str, pairs: Pairs, how: How
) -> tuple[Values, Counts]:
    """Refine the candidates of some queries.

    Returns
    -------
    values
        ``counts`` int64 (q,), and one entry per pair that was refined at 128 px, query after query:
        ``slice``, ``patient`` int64 (n,), ``pose`` float64 (n, 5), ``r`` float64 (3, n).
    """
    torch.set_num_threads(1)  # shards run side by side
    raw.forget()
    screen.forget()
    searched, mids = opened(corpus, digest), mids_of(queries)
    wanted, at = np.unique(pairs.slices.astype(np.int64), return_inverse=True)
    slices = searched.at(wanted, "mid")
    starts = _starts(mids, searched.at(wanted, "screen"), at, pairs, how.grid)
    close = _coarsely(mids, slices, at, starts, pairs, how)
    asked = refine.scored_images(mids)
    near = np.unique(np.concatenate([at[kept] for kept, _ in close]))
    scored = refine.scored_images(slices[near])
    found = []
    for i, (kept, poses) in enumerate(close):
        images = scored[np.searchsorted(near, at[kept])]
        poses, r = refine.fine(asked[i : i + 1], images, poses, how.limits)
        done = _Done(kept, pairs.slices[kept].astype(np.int64), poses, r)
        for _ in range(ROUNDS):
            done += _around(asked[i : i + 1], searched, done, pairs, how.limits)
        found.append(done)
    counts = {"pairs_64": len(at), "pairs_128": sum(len(done.slice) for done in found)}
    return _values(found, pairs), counts


def _starts(
    mids: NDArray[np.uint8], screens: NDArray[np.int8], at: Ints, pairs: Pairs, grid: Grid
) -> Floats:
    """Return the best pose of the grid for every pair, (pairs, 5); of equals the first.

    One start each: of 120 planted copies none came closer from the best two or three maxima that
    lie apart.
    """
    kept = inside(screens)
    posed = torch.from_numpy(pose.posed(mids, grid))
    starts = np.empty((len(at), len(POSE)))
    for i, rows in enumerate(pairs.rows()):
        product = int8_product(torch.from_numpy(kept[at[rows]]), posed[i]).numpy()
        starts[rows] = grid.poses[product.argmax(1)]
    return starts


def _coarsely(
    mids: NDArray[np.uint8],
    slices: NDArray[np.uint8],
    at: Ints,
    starts: Floats,
    pairs: Pairs,
    how: How,
) -> list[tuple[Ints, Floats]]:
    """Align all candidates at half the size; return the best of each query and their poses."""
    asked, searched = refine.coarse_images(mids), refine.coarse_images(slices)
    out = []
    for i, rows in enumerate(pairs.rows()):
        poses, r = refine.coarse(asked[i : i + 1], searched[at[rows]], starts[rows], how.limits)
        best = refine.best_of(r, how.keep)
        out.append((best + rows.start, poses[best]))
    return out


def _around(
    query: Scored, searched: store.Corpus, done: _Done, pairs: Pairs, limits: Limits
) -> _Done:
    """Refine the slices next to the best pair of each of the best few patients, from its pose.

    By the high-pass image, whatever the primary one is: what is computed does not depend on what is
    looked at.
    """
    r = np.nan_to_num(done.r[IMAGES.index("highpass")], nan=-2.0)
    order = np.lexsort((done.slice, -r))
    _, first = np.unique(pairs.patients[done.home[order]], return_index=True)
    source, slices = [], []
    for k in order[np.sort(first)[:AROUND]]:
        home = done.home[k]
        low = max(done.slice[k] - REACH, pairs.slices[home] - pairs.before[home])
        high = min(done.slice[k] + REACH, pairs.slices[home] + pairs.after[home])
        new = np.setdiff1d(np.arange(low, high + 1), done.slice)
        source += [k] * len(new)
        slices += new.tolist()
    at = np.array(source, np.int64)
    scored = refine.scored_images(searched.at(slices, "mid"))
    poses, found = refine.fine(query, scored, done.pose[at], limits)
    return _Done(done.home[at], np.array(slices, np.int64), poses, found)


def _values(found: list[_Done], pairs: Pairs) -> Values:
    every = found[0]
    for done in found[1:]:
        every += done
    return {
        "counts": np.array([len(done.slice) for done in found], np.int64),
        "slice": every.slice,
        "patient": pairs.patients[every.home].astype(np.int64),
        "pose": every.pose,
        "r": every.r,
    }
