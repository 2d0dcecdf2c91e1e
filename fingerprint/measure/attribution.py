"""Which training set made which generated set (METHOD.md, section 3.15), and paper 000's figures.

A k x k matrix holds how far training set i is from generated set j. If each generated set is of its
own training set, the sum of the diagonal is small among the sums of all ways to pair the sets. What
is common to a row or to a column adds the same to every sum: no set has to be as good as another.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

EXACT = 8  # sets: 40,320 permutations, all of them
DRAWN = 99_999  # permutations of more sets than that, beside the identity
STEP = 9_999  # of them at a time

# -- as printed in paper 000

# Table 2: (slices in the training set, FID); generated images not stated, other ages at 60,000
TABLE_2 = ((60, 70.08), (600, 17.02), (6000, 14.45), (60000, 10.71))

# Fig. 4: FID; rows Real-1 .. 7, columns Gen-1 .. 7; 600 slices in each real set
FIGURE_4 = (
    (17.1, 31.3, 39.7, 35.5, 34.4, 33.9, 34.8),
    (34.8, 16.6, 39.3, 33.2, 32.3, 33.5, 31.9),
    (39.9, 35.4, 17.9, 37.9, 37.6, 37.8, 37.4),
    (39.2, 33.4, 41.9, 16.9, 35.6, 36.5, 35.9),
    (35.3, 31.2, 39.9, 33.3, 17.5, 34.2, 32.5),
    (36.9, 33.3, 40.9, 36.1, 36.1, 16.6, 34.3),
    (39.2, 32.4, 42.2, 35.7, 34.8, 36.1, 17.2),
)


@dataclass(frozen=True)
class Attribution:
    """Whether generated sets are closest to their own training sets, all together.

    Attributes
    ----------
    p : float
        Share of the permutations whose sum is not above that of the diagonal; the diagonal is one
        of them, and ties count against us.
    exact : bool
        All permutations were taken, not a sample.
    permutations : int
        With the identity: p is a multiple of 1 / permutations.
    diagonal_sum : float
    next_best_sum : float
        The smallest sum of any other permutation; exact for every k.
    row_hits : int
        Training sets whose own generated set is the closest, no other as close. Chance: 1 expected.
    column_hits : int
        Generated sets whose own training set is the closest.
    k : int
        Sets of each kind.
    """

    p: float
    exact: bool
    permutations: int
    diagonal_sum: float
    next_best_sum: float
    row_hits: int
    column_hits: int
    k: int


def attribution(F: ArrayLike, *, seed: int = 0) -> Attribution:
    """Ask whether the diagonal of a matrix of distances is small among all pairings.

    Parameters
    ----------
    F : array_like, shape (k, k), k >= 2
        Rows training sets, columns generated sets, the own pairs on the diagonal. FID, KID or minus
        the mean best z: smaller is closer. All at equal n, so that the bias of all is the same.
    seed : int
        Of the permutations drawn, for k above 8.

    Raises
    ------
    ValueError
        A matrix that is not square, has fewer than 2 rows or a value that is not finite.

    Warnings
    --------
    Sets that share patients are not exchangeable. Below k = 4 p cannot reach 0.05.

    References
    ----------
    METHOD.md, section 3.15.
    """
    F = _square(F)
    k = len(F)
    # sums of permutations are all shifted alike, so a large effect of a set costs no digits
    level = F - F.mean(1, keepdims=True)
    level -= level.mean(0)
    own = np.trace(level) + 1e-9 * np.abs(level).max()  # a tie by another order of sums is a tie
    exact = k <= EXACT
    as_small = _as_small(level, own) if exact else 1 + _as_small_drawn(level, own, seed)
    permutations = factorial(k) if exact else DRAWN + 1
    return Attribution(
        p=as_small / permutations,
        exact=exact,
        permutations=permutations,
        diagonal_sum=float(np.trace(F)),
        next_best_sum=_next_best(F),
        row_hits=_hits(F),
        column_hits=_hits(F.T),
        k=k,
    )


def _square(F: ArrayLike) -> NDArray[np.float64]:
    F = np.asarray(F, np.float64)
    if F.ndim != 2 or F.shape[0] != F.shape[1] or len(F) < 2:
        raise ValueError(f"attribution: F must be square with k >= 2, got shape {F.shape}")
    if not np.isfinite(F).all():
        raise ValueError(f"attribution: F must be finite, got {F[~np.isfinite(F)][0]}")
    return F


def _as_small(F: NDArray[np.float64], own: float) -> int:
    """Count the permutations, of all there are, with a sum of at most `own`."""
    every = np.array(list(itertools.permutations(range(len(F)))))
    return int(np.sum(_sums(F, every) <= own))


def _as_small_drawn(F: NDArray[np.float64], own: float, seed: int) -> int:
    """Count them among `DRAWN` permutations drawn at random."""
    rng = np.random.default_rng(seed)
    count = 0
    for at in range(0, DRAWN, STEP):
        rows = np.tile(np.arange(len(F)), (min(STEP, DRAWN - at), 1))
        count += int(np.sum(_sums(F, rng.permuted(rows, axis=1)) <= own))
    return count


def _sums(F: NDArray[np.float64], permutations: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``sum_i F[i, pi(i)]`` of permutations (B, k): (B,)."""
    return F[np.arange(len(F)), permutations].sum(1)


def _next_best(F: NDArray[np.float64]) -> float:
    """Return the smallest sum of a permutation other than the identity.

    Such a one leaves out at least one pair of the diagonal: the best assignment without it, for
    each pair in turn.
    """
    sums = []
    for i in range(len(F)):
        without = F.copy()
        without[i, i] = np.inf
        sums.append(float(F[linear_sum_assignment(without)].sum()))
    return min(sums)


def _hits(F: NDArray[np.float64]) -> int:
    """Count the rows whose smallest value is on the diagonal, and only there."""
    others = F.copy()
    np.fill_diagonal(others, np.inf)
    return int(np.sum(np.diag(F) < others.min(1)))
