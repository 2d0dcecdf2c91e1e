"""One tile of the search: queries x slices become the best per patient and a histogram.

Every stage that compares all with all leaves the same values of a tile in the ledger:

    met        int64 (m,)          columns of the matrix that the tile touches, rising
    r, slice   (2, b, m)           best r and its slice, over all slices and over the capped choice
    histogram  int64 (4096,)       of all r
    block      float64 (b, s)      all r of the tile, only where the full matrix is kept

and `fold` puts the tiles of a band of queries together, one band in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.ledger import Values
from fingerprint.search.best import BINS, NOWHERE, Best, histogram, mark_absent, reduced
from fingerprint.search.correlate import Pixels, correlate
from fingerprint.search.finish import Fused, available
from fingerprint.search.sets import Against, Reference
from fingerprint.search.tiling import tiles

SLICES = ("all", "capped")


@dataclass(frozen=True)
class Band:
    """Some rows of the matrix of one `Against`, for one stage.

    Attributes
    ----------
    set_name : str
        The query set of these rows.
    rows : slice
        Rows of the matrix.
    r : float64, shape (k, b, p)
        Best r over each patient's slices; k = 2: `SLICES`, or 1: all slices only. NaN: none.
    slice : int64, shape (k, b, p)
        Which slice has it; -1: none.
    histogram : int64, shape (4096,)
        Of all r of these rows; zeros where the stage has none.
    more : mapping of name -> array
        Of the pose stage: angle_deg, scale, shift_y_px, shift_x_px (b, p), mirrored int8 (b, p),
        r_image (image, b, p).
    """

    set_name: str
    rows: slice
    r: NDArray[np.float64]
    slice: NDArray[np.int64]
    histogram: NDArray[np.int64]
    more: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Tally:
    """Best per patient and histogram of a tile, while its blocks of r come by.

    Parameters
    ----------
    n_queries : int
    reference : Reference
        Of the slices of the tile.
    own : int64, shape (n_queries,)
        Column that each query is not compared with; -1: none.
    device : str
        Where r is.
    start : int
        Index in the corpus of the first slice of the tile.
    """

    def __init__(
        self,
        n_queries: int,
        reference: Reference,
        own: NDArray[np.int64],
        device: str,
        *,
        start: int,
    ) -> None:
        used = reference.patients >= 0
        self.met = np.unique(reference.patients[used])
        self._local = np.where(used, np.searchsorted(self.met, reference.patients), -1)
        own = np.where(np.isin(own, self.met), np.searchsorted(self.met, own), -2)
        self._capped, self._start, self._device = reference.capped & used, start, device
        self._own = self._there(own)
        self._fused = None
        if available(device):
            self._fused = Fused(
                own, self._local, self._capped, len(self.met), start=start, device=device
            )
            return
        shape = (len(SLICES), n_queries, len(self.met))
        self._r = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        self._at = torch.full(shape, NOWHERE, dtype=torch.int64, device=device)
        self._counts = np.zeros(BINS, np.int64)

    def add_product(self, queries: Pixels, slices: Pixels, first: int) -> None:
        """Multiply a block and take its correlations; see `correlate` and `add`."""
        if self._fused is not None:
            self._fused.add_product(queries, slices, first)
        else:
            self.add(correlate(queries, slices), first)

    def add(self, r: Tensor, first: int) -> None:
        """Take the correlations of one block; `r` may be overwritten.

        Parameters
        ----------
        r : Tensor, shape (q, s), float64
            NaN where an image is constant.
        first : int
            Index in the corpus of the first slice of the block.
        """
        if self._fused is not None:
            self._fused.add(r, first)
            return
        self.exclude(r, first)
        self._counts += histogram(r)
        at = slice(first - self._start, first - self._start + r.shape[1])
        local = self._local[at]
        for kind, chosen in enumerate((local >= 0, self._capped[at])):
            self._merge(kind, r, local, np.flatnonzero(chosen), first)

    def exclude(self, r: Tensor, first: int) -> None:
        """Put NaN where a query is not compared with a slice."""
        to = self._there(self._local[first - self._start :][: r.shape[1]])
        r.masked_fill_((self._own[:, None] == to[None, :]) | (to < 0)[None, :], torch.nan)

    def _merge(
        self,
        kind: int,
        r: Tensor,
        local: NDArray[np.int64],
        chosen: NDArray[np.int64],
        first: int,
    ) -> None:
        """Merge some columns of a block: only the patients that they are of are touched."""
        if not len(chosen):
            return
        met, place = np.unique(local[chosen], return_inverse=True)
        if len(chosen) < len(local):
            r = r[:, self._there(chosen)]
        columns = self._there(met)
        top, at = reduced(r, self._there(place), len(met), self._there(first + chosen))
        mine, mine_at = self._r[kind][:, columns], self._at[kind][:, columns]
        better = (top > mine) | ((top == mine) & (at < mine_at))
        self._r[kind][:, columns] = torch.where(better, top, mine)
        self._at[kind][:, columns] = torch.where(better, at, mine_at)

    def _there(self, indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(indices).to(self._device)

    def values(self) -> dict[str, NDArray[Any]]:
        """Return what the tile leaves in the ledger."""
        if self._fused is not None:
            r, at, counts = self._fused.best()
        else:
            r, at, counts = self._r.cpu().numpy(), self._at.cpu().numpy(), self._counts
        return {"met": self.met, "r": r, "slice": at, "histogram": counts}


def fold(against: Against, values: Iterator[Values], *, band: int, shard: int) -> Iterator[Band]:
    """Put the tiles of each band of queries together.

    Parameters
    ----------
    values : iterator
        Of the tiles in plan order; those of `against` are taken from it and no more.

    Yields
    ------
    Band
        In the order of the rows.
    """
    reference = against.reference
    start = 0
    for queries in against.sets:
        plan = tiles(
            len(queries), len(reference.patients), band=band, shard=shard, chunk=reference.chunk
        )
        for first in range(0, len(queries), band):
            rows = slice(first, min(first + band, len(queries)))
            parts = (next(values) for tile in plan if tile.q0 == first)
            best, counts = _merged(rows.stop - first, len(against.patients), parts)
            there = slice(start + rows.start, start + rows.stop)
            yield Band(queries.name, there, *best, counts)
        start += len(queries)


def _merged(
    n_queries: int, n_patients: int, parts: Iterator[Values]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.int64]], NDArray[np.int64]]:
    """Merge tiles by maximum, ties to the lower slice; what was not compared becomes NaN and -1."""
    shape = (len(SLICES), n_queries, n_patients)
    r, at = np.full(shape, -np.inf), np.full(shape, NOWHERE, np.int64)
    counts = np.zeros(BINS, np.int64)
    for part in parts:
        counts += part["histogram"]
        met, other_r, other_at = part["met"], part["r"], part["slice"]
        for kind in range(len(SLICES)):
            mine = Best(r[kind][:, met], at[kind][:, met])
            mine += Best(other_r[kind], other_at[kind])
            r[kind][:, met], at[kind][:, met] = mine.r, mine.slice
    mark_absent(r, at)
    return (r, at), counts
