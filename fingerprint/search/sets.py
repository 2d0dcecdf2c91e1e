"""Who is compared with whom: sets of queries, and the corpus that they are compared with.

The five blocks of METHOD.md, section 3.0, are pairs of these: generated and control queries against
the real, the control and the generated corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.corpus.images import enlarged
from fingerprint.corpus.window import fit
from fingerprint.search.device import decode

FEW = 16  # queries that are smoothed or shifted at a time


@dataclass(frozen=True)
class QuerySet:
    """Queries of one kind: which slices of which corpus, and which patient each leaves out.

    Attributes
    ----------
    name : str
        ``generated`` or ``control``.
    corpus : Path
    digest : str
        Of that corpus.
    indices : int64, shape (q,)
        Slices of the corpus that are queries, in order.
    own : int64, shape (q,)
        Index of the patient whose slices a query is not compared with; -1: none.
    native_px : int
        Controls of images that were enlarged from this side are made as smooth as they are:
        reduced to it by area mean and enlarged again. 0: as stored.
    withheld : bool, shape (q,), optional
        Queries that are searched and not judged: they will not be published. No shard depends on
        it, so that what is left is judged again without a search.
    """

    name: str
    corpus: Path
    digest: str
    indices: NDArray[np.int64]
    own: NDArray[np.int64]
    native_px: int = 0
    withheld: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice) -> QuerySet:
        withheld = None if self.withheld is None else self.withheld[rows]
        return replace(self, indices=self.indices[rows], own=self.own[rows], withheld=withheld)

    @property
    def labels(self) -> list[str]:
        """The query set that each query counts in: `name`, or ``withheld``."""
        out = np.full(len(self), self.name, object)
        if self.withheld is not None:
            out[self.withheld] = "withheld"
        return list(out)


@dataclass(frozen=True)
class Reference:
    """What is searched: a corpus, the patient of each of its slices, and the capped choice.

    Attributes
    ----------
    patients : int64, shape (s,)
        Column of the matrix for each slice; -1: this slice is not compared with anything.
    capped : bool, shape (s,)
        An equal number of slices of each patient, evenly in z.
    """

    corpus: Path
    digest: str
    chunk: int
    patients: NDArray[np.int64]
    capped: NDArray[np.bool_]

    def __getitem__(self, slices: slice) -> Reference:
        return replace(self, patients=self.patients[slices], capped=self.capped[slices])


@dataclass(frozen=True)
class Against:
    """A reference and the query sets compared with it: one matrix, one or two of the five blocks.

    Attributes
    ----------
    name : str
        ``real``, ``control`` or ``generated``: what is searched.
    reference : Reference
    patients : tuple of str
        Columns of the matrix, in order.
    sets : tuple of QuerySet
        Rows of the matrix, in order; their `own` are columns of this matrix.
    """

    name: str
    reference: Reference
    patients: tuple[str, ...]
    sets: tuple[QuerySet, ...]

    def __len__(self) -> int:
        """Count the rows."""
        return sum(len(queries) for queries in self.sets)


def opened(path: Path, digest: str) -> store.Corpus:
    """Open a corpus and make sure that it is the one of the plan.

    Raises
    ------
    ledger.Damaged
        It was rebuilt or has grown since.
    """
    corpus = _open(path, str(store.pointer(path)["attributes"]["manifest"]))
    if corpus.digest != digest:
        raise ledger.Damaged(f"{path.name}: this corpus changed while it was searched")
    return corpus


@lru_cache(maxsize=4)
def _open(path: Path, manifest: str) -> store.Corpus:
    """Open a corpus once per process: the manifest of a million slices takes 0.1 s to check."""
    del manifest  # names the state that was opened
    return store.open_corpus(path)


def pieces_of(queries: QuerySet) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Yield a few queries at a time: their places, and their pixels as `images_of` has them.

    Each stored chunk is decoded once, and one at a time is in memory: a piece may be a view of it,
    valid until the next is asked for.
    """
    corpus = opened(queries.corpus, queries.digest)
    step, side = corpus.chunk_slices, corpus.size_px
    chunk = queries.indices // step
    page = np.empty((step, side * side), np.uint8)  # one for all: fresh memory costs a decoding
    for k in np.unique(chunk):
        decode(corpus, int(k), page)
        found = np.flatnonzero(chunk == k)
        for here in np.split(found, range(FEW, len(found), FEW)):
            images = _rows(page, queries.indices[here] - k * step).reshape(-1, side, side)
            yield here, as_smooth_as(queries.native_px, images) if smoothed(queries) else images


def _rows(page: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return some rows, without a copy where they follow each other."""
    if (np.diff(rows) == 1).all():
        return page[rows[0] : rows[0] + len(rows)]
    return page[rows]


def smoothed(queries: QuerySet) -> bool:
    """Whether the images of queries are not those that are stored."""
    return 0 < queries.native_px < opened(queries.corpus, queries.digest).size_px


def images_of(queries: QuerySet) -> NDArray[np.uint8]:
    """Return the pixels (q, side, side) of queries, controls made as smooth as what they judge."""
    side = opened(queries.corpus, queries.digest).size_px
    images = np.empty((len(queries), side, side), np.uint8)
    for here, piece in pieces_of(queries):
        images[here] = piece
    return images


def mids_of(queries: QuerySet) -> NDArray[np.uint8]:
    """Return queries (q, side, side) reduced as the stored `mid` is: 128 px, less if stored so.

    From `images_of`, so that controls that were made smooth are so here too.
    """
    corpus = opened(queries.corpus, queries.digest)
    if not smoothed(queries):
        return corpus.at(queries.indices, "mid")
    side = corpus.side("mid")
    mids = np.empty((len(queries), side, side), np.uint8)
    for here, piece in pieces_of(queries):
        mids[here] = fit(piece, side, 0)[0]
    return mids


def as_smooth_as(native_px: int, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce images (n, s, s) to `native_px` by area mean and enlarge them again, bilinear."""
    small, _, _ = fit(images, native_px, 0)
    return enlarged(small, images.shape[1])
