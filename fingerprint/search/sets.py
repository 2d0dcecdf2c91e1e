"""Who is compared with whom: sets of queries, and the corpus that they are compared with.

The five blocks of METHOD.md, section 3.0, are pairs of these: generated and control queries against
the real, the control and the generated corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.corpus.images import bilinear
from fingerprint.corpus.window import fit


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
    """

    name: str
    corpus: Path
    digest: str
    indices: NDArray[np.int64]
    own: NDArray[np.int64]
    native_px: int = 0

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Reference:
    """What is searched: a corpus, the patient of each of its slices, and the capped choice."""

    corpus: Path
    digest: str
    chunk: int
    patients: NDArray[np.int64]
    capped: NDArray[np.bool_]


def opened(path: Path, digest: str) -> store.Corpus:
    """Open a corpus and make sure that it is the one of the plan.

    Raises
    ------
    ledger.Damaged
        It was rebuilt or has grown since.
    """
    corpus = store.open_corpus(path)
    if corpus.digest != digest:
        raise ledger.Damaged(f"{path.name}: this corpus changed while it was searched")
    return corpus


def images_of(queries: QuerySet) -> NDArray[np.uint8]:
    """Return the pixels (q, side, side) of queries, controls made as smooth as what they judge."""
    corpus = opened(queries.corpus, queries.digest)
    images = corpus.at(queries.indices)
    smoother = 0 < queries.native_px < corpus.size_px
    return as_smooth_as(queries.native_px, images) if smoother else images


def as_smooth_as(native_px: int, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce images (n, s, s) to `native_px` by area mean and enlarge them again, bilinear."""
    small, _, _ = fit(images, native_px, 0)
    return np.stack([bilinear(image, images.shape[1:]) for image in small])
