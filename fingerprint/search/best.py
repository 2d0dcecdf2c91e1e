"""Best: for each query and patient, the best r and the slice that has it. Merged by maximum.

Merging is exact, associative and order-free; on a tie the lower slice wins, so the result does not
depend on how slices were cut into blocks and shards. Neighbouring slices of one patient correlate
with 0.99: a list of slices would be filled by one patient, a matrix over patients is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOWHERE = np.iinfo(np.int64).max  # loses every tie
BINS = 4096


@dataclass(frozen=True)
class Best:
    """Best r over each patient's slices.

    Attributes
    ----------
    r : float64, shape (q, p)
        -inf where no slice of the patient was compared.
    slice : int64, shape (q, p)
        Index of the slice in the corpus; `NOWHERE` where there is none.
    """

    r: NDArray[np.float64]
    slice: NDArray[np.int64]

    @classmethod
    def empty(cls, queries: int, patients: int) -> Best:
        """Return the element that changes nothing."""
        shape = (queries, patients)
        return cls(np.full(shape, -np.inf), np.full(shape, NOWHERE, np.int64))

    def __add__(self, other: Best) -> Best:
        better = (other.r > self.r) | ((other.r == self.r) & (other.slice < self.slice))
        return Best(
            np.where(better, other.r, self.r),
            np.where(better, other.slice, self.slice),
        )

    def found(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return r with NaN and slice with -1 where there is none: the form that is stored."""
        r, at = self.r.copy(), self.slice.copy()
        mark_absent(r, at)
        return r, at


def mark_absent(r: NDArray[np.float64], at: NDArray[np.int64]) -> None:
    """Put NaN and -1 where there is no slice, in place: the form that is stored."""
    nothing = at == NOWHERE
    r[nothing], at[nothing] = np.nan, -1


def best_of(r: Tensor, patients: Tensor, n_patients: int, first: int) -> Best:
    """Reduce a block of correlations to the best per patient.

    Parameters
    ----------
    r : Tensor, shape (q, s), float64
        NaN where a pair is excluded.
    patients : Tensor, shape (s,), int64
        Patient of each slice, below `n_patients`.
    first : int
        Index of the first slice of the block.
    """
    where = torch.arange(first, first + r.shape[1], device=r.device)
    top, at = reduced(r, patients, n_patients, where)
    return Best(top.cpu().numpy(), at.cpu().numpy())


def reduced(r: Tensor, patients: Tensor, n_patients: int, where: Tensor) -> tuple[Tensor, Tensor]:
    """`best_of` of any slices, left on the device.

    Parameters
    ----------
    where : Tensor, shape (s,), int64
        Index of each slice.

    Returns
    -------
    (q, n_patients) float64, -inf where there is none; (q, n_patients) int64, `NOWHERE` there
    """
    shape = (len(r), n_patients)
    to = patients.expand(len(r), -1)
    usable = torch.where(torch.isnan(r), -torch.inf, r)
    top = torch.full(shape, -torch.inf, dtype=torch.float64, device=r.device)
    top.scatter_reduce_(1, to, usable, "amax")
    held = (usable == top.gather(1, to)) & (usable > -torch.inf)
    at = torch.full(shape, NOWHERE, dtype=torch.int64, device=r.device)
    at.scatter_reduce_(1, to, torch.where(held, where, NOWHERE), "amin")
    return top, at


def histogram(r: Tensor) -> NDArray[np.int64]:
    """Count all r that are not NaN in `BINS` equal bins over [-1, 1]; 1 falls in the last."""
    finite = r[~torch.isnan(r)]
    bins = finite.add_(1.0).mul_(BINS / 2).long().clamp_(0, BINS - 1)
    counts: NDArray[np.int64] = torch.bincount(bins, minlength=BINS).cpu().numpy()
    return counts
