"""Slices that lie in sealed corpora, as methods take them: decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus import store
from fingerprint.ledger import digest_of
from fingerprint.search.sets import opened


@dataclass(frozen=True)
class Part:
    """Some slices of one corpus, by row."""

    path: Path
    digest: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Stored:
    """Slices of one or more corpora, one after the other: `membership.Images` that can be sent.

    Attributes
    ----------
    parts : tuple of Part
    px : int
        Side of a slice.
    """

    parts: tuple[Part, ...]
    px: int

    def __len__(self) -> int:
        return sum(len(part.rows) for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, px, px)``."""
        return len(self), self.px, self.px

    @property
    def digest(self) -> str:
        """Name of these slices, for the key of a shard."""
        return digest_of([[part.digest, part.rows.tolist()] for part in self.parts])

    def __getitem__(self, some: slice, /) -> NDArray[np.uint8]:
        return self.read(some, "pixels")

    def mids(self) -> NDArray[np.uint8]:
        """Return their area means of 128 px (or of their own side, if that is smaller)."""
        return self.read(slice(None), "mid")

    def read(self, some: slice, array: str) -> NDArray[np.uint8]:
        """Return one array of a corpus, of some of the slices."""
        found, first = [], 0
        start, stop, _ = some.indices(len(self))
        for part in self.parts:
            rows = part.rows[max(0, start - first) : max(0, stop - first)]
            if len(rows):
                found.append(opened(part.path, part.digest).at(rows, array))
            first += len(part.rows)
        return np.concatenate(found) if found else np.empty((0, self.px, self.px), np.uint8)


def taken(images: Stored, wanted: NDArray[np.bool_]) -> Stored:
    """Return some slices of `images`, those of a mask (n,)."""
    parts, first = [], 0
    for part in images.parts:
        mask = wanted[first : first + len(part.rows)]
        parts.append(Part(part.path, part.digest, part.rows[mask]))
        first += len(part.rows)
    return Stored(tuple(parts), images.px)


def whole(corpora: Sequence[store.Corpus], px: int) -> Stored:
    """Return all slices of some corpora."""
    return Stored(tuple(Part(c.path, c.digest, np.arange(c.n)) for c in corpora), px)
