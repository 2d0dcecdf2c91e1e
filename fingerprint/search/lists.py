"""The best patients of each slice: short lists that add up, for a corpus against itself.

A query x patient matrix of a million slices does not fit anywhere; the best few patients do. A
list holds each patient once, with the best r over that patient's slices and the slice that has it:
best r first, the lower slice first where two are equal.

**Adding lists is exact**, although a patient's slices may lie in several parts. A patient among the
best K of the union has its best slice in one of the parts, and fewer than K patients are better in
the union, so fewer than K are better in that part (no patient's best there exceeds its best in the
union): the entry is in that part's list. A lower entry of the same patient from another part loses
to it by the maximum, so the best K of the two lists are the best K of the union, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.search.best import NOWHERE, reduced

Rows = slice  # `slice` means a CT slice inside the classes below


@dataclass(frozen=True)
class Top:
    """The best patients of some slices; `+` is the union by patient maximum, then the best K.

    Attributes
    ----------
    r : float64, shape (m, K)
        Falling; -inf where there is none.
    slice : int64, shape (m, K)
        The slice that has it; `NOWHERE` where there is none.
    who : int64, shape (m, K)
        Its patient; -1 where there is none.
    """

    r: NDArray[np.float64]
    slice: NDArray[np.int64]
    who: NDArray[np.int64]

    @classmethod
    def empty(cls, rows: int, keep: int) -> Top:
        """Return the element that changes nothing."""
        shape = (rows, keep)
        return cls(
            np.full(shape, -np.inf), np.full(shape, NOWHERE, np.int64), np.full(shape, -1, np.int64)
        )

    def __len__(self) -> int:
        return len(self.r)

    def __getitem__(self, rows: Rows | NDArray[np.int64]) -> Top:
        return Top(self.r[rows], self.slice[rows], self.who[rows])

    def __add__(self, other: Top) -> Top:
        keep = self.r.shape[1]
        mine, theirs = self._without_what(other)
        r, at, who = (np.concatenate(pair, axis=1) for pair in zip(mine, theirs, strict=True))
        order = np.lexsort((at, -r), axis=1)[:, :keep]
        return Top(*(np.take_along_axis(values, order, 1) for values in (r, at, who)))

    def put(self, rows: Rows, other: Top) -> None:
        """Add `other` to some rows, in place: for a state that is too large to be copied."""
        here = self[rows]  # views
        # a list that begins below the end of this one changes nothing, and most do after a while
        change = np.flatnonzero((other.slice[:, 0] != NOWHERE) & (other.r[:, 0] >= here.r[:, -1]))
        merged = here[change] + other[change]
        here.r[change], here.slice[change], here.who[change] = merged.r, merged.slice, merged.who

    def _without_what(self, other: Top) -> tuple[_Arrays, _Arrays]:
        """Return both lists; of a patient in both, the worse entry is taken out."""
        same = (self.who[:, :, None] == other.who[:, None, :]) & (self.who >= 0)[:, :, None]
        r, s = self.r[:, :, None], other.r[:, None, :]
        lower = other.slice[:, None, :] < self.slice[:, :, None]
        loses = (s > r) | ((s == r) & lower)
        return self._less((same & loses).any(2)), other._less((same & ~loses).any(1))

    def _less(self, out: NDArray[np.bool_]) -> _Arrays:
        return (
            np.where(out, -np.inf, self.r),
            np.where(out, NOWHERE, self.slice),
            np.where(out, -1, self.who),
        )


_Arrays = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Side:
    """Consecutive slices along one side of a block, and whose they are. Made by `side_of`.

    Attributes
    ----------
    first : int
        Index of the first slice in the corpus.
    who : int64, shape (s,)
        Patient of each; -1: compared with nobody.
    met : int64, shape (m,)
        The patients, rising.
    local : int64, shape (s,)
        Place of each slice's patient in `met`.
    """

    first: int
    who: NDArray[np.int64]
    met: NDArray[np.int64]
    local: NDArray[np.int64]


def side_of(first: int, who: NDArray[np.int64]) -> Side:
    """Look up the patients of consecutive slices once, for all blocks that they take part in."""
    met, local = np.unique(who, return_inverse=True)
    return Side(first, who, met, local.astype(np.int64))


def top_of(r: Tensor, side: Side, keep: int, floor: NDArray[np.float64] | None = None) -> Top:
    """List the best patients of every row of a block.

    Parameters
    ----------
    r : Tensor, shape (m, s), float64
        NaN where a pair is excluded.
    side : Side
        The s slices of the columns.
    keep : int
        Patients kept, K.
    floor : float64, shape (m,), optional
        What is lower need not be listed: the last of the lists that this is going to be added to.

    Returns
    -------
    Top, (m, K)
    """
    best, at, who = _per_patient(r, side)  # (m, g), (m, g), (g,)
    least = torch.full((len(r),), -torch.inf, dtype=torch.float64, device=best.device)
    if floor is not None:
        least = torch.from_numpy(np.ascontiguousarray(floor)).to(best.device)
    if best.shape[1] > keep:
        least = torch.maximum(least, best.topk(keep, 1).values[:, -1])
    # topk breaks ties as it likes: all that equal its last are taken, and ranked here
    row, place = torch.nonzero((best >= least[:, None]) & (best > -torch.inf), as_tuple=True)
    found = best[row, place].cpu().numpy(), at[row, place].cpu().numpy()
    return _ranked(row.cpu().numpy(), *found, who[place.cpu().numpy()], shape=(len(r), keep))


def _per_patient(r: Tensor, side: Side) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Best r and its slice for each row and patient; and the patients, in the order of columns."""
    where = torch.arange(side.first, side.first + r.shape[1], device=r.device)
    if len(side.met) == len(side.who):  # each slice is a patient: there is nothing to reduce
        return torch.where(torch.isnan(r), -torch.inf, r), where.expand(r.shape), side.who
    local = torch.from_numpy(side.local).to(r.device)
    return *reduced(r, local, len(side.met), where), side.met


def _ranked(
    row: NDArray[np.int64],
    r: NDArray[np.float64],
    at: NDArray[np.int64],
    who: NDArray[np.int64],
    *,
    shape: tuple[int, int],
) -> Top:
    """Put entries (row, r, slice, patient), each patient once in a row, into lists."""
    order = np.lexsort((at, -r, row))
    row = row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < shape[1]
    top = Top.empty(*shape)
    place, order = (row[kept], rank[kept]), order[kept]
    top.r[place], top.slice[place], top.who[place] = r[order], at[order], who[order]
    return top
