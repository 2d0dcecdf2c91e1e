"""Who is held out, who is of which set, and whose slice is taken next: integers and a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def held_out(stratum: Ints, age: Ints, share: float, rng: np.random.Generator) -> Bools:
    """Choose the patients that are held out: as many of every stratum, evenly over its ages.

    Parameters
    ----------
    stratum, age : int64, shape (p,)
        Of each patient.
    share : float
        Of each stratum, to the nearest patient; at least one and not all of a stratum of two or
        more, none of a stratum of one.

    Returns
    -------
    bool, shape (p,)
    """
    out = np.zeros(len(stratum), bool)
    for name in np.unique(stratum):
        who = rng.permutation(np.flatnonzero(stratum == name))
        who, n = who[np.argsort(age[who], kind="stable")], len(who)
        k = min(max(round(share * n), 1), n - 1)
        # systematic sampling from a random start: k of n, everybody with the same probability
        steps = np.floor(np.arange(n + 1) * k / n + rng.random())
        out[who[np.diff(steps) > 0]] = True
    return out


def parts(group: Ints, slices: Ints, n: int, rng: np.random.Generator) -> Ints:
    """Deal patients to `n` sets: of each `n` with about as many slices, every set gets one.

    Parameters
    ----------
    group : int64, shape (p,)
        Such as sex; dealt one group after the other.
    slices : int64, shape (p, cells)
        What each patient has; sets differ by chance alone, and in the number of slices least.

    Returns
    -------
    int64, shape (p,)
        Set of each patient, from 0.
    """
    out = np.empty(len(group), np.int64)
    for name in np.unique(group):
        who = rng.permutation(np.flatnonzero(group == name))
        who = who[np.lexsort((-slices[who].sum(1), -slices[who].min(1)))]
        rounds = np.tile(np.arange(n), (-(-len(who) // n), 1))
        out[who] = rng.permuted(rounds, axis=1).ravel()[: len(who)]
    return out


def in_turns(
    cell: Ints, patient: Ints, group: Ints, of: int, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Return the order in which slices are taken, cell by cell.

    In a cell nobody's second slice comes before everybody's first. The cells of a group begin with
    different patients, so that a few slices of each are of as many patients as can be.

    Parameters
    ----------
    cell, patient, group : int64, shape (m,)
        Of each slice; a patient is of one group.
    of : int
        Cells of a group: ``cell % of`` tells them apart.

    Returns
    -------
    order : int64, shape (m,)
        Sorted by cell.
    turn : int64, shape (m,)
        How many slices of that patient and cell come before each slice.
    """
    shuffled = rng.permutation(len(cell))
    turn = np.empty(len(cell), np.int64)
    turn[shuffled] = places((cell * (patient.max(initial=0) + 1) + patient)[shuffled])
    names, first, who = np.unique(patient, return_index=True, return_inverse=True)
    rank, size = np.empty(len(names), np.int64), np.bincount(group[first])[group[first]]
    mixed = rng.permutation(len(names))
    rank[mixed] = places(group[first][mixed])
    begun = (rank[who] + cell % of * size[who] // of) % size[who]
    return np.lexsort((begun, turn, cell)), turn


def in_proportion(order: Ints, cell: Ints, turn: Ints, group: Ints, weight: Floats) -> Ints:
    """Return `order` so that any beginning of a turn has its groups in proportion to their weight.

    Parameters
    ----------
    order, cell, turn : int64, shape (m,)
        As `in_turns` returned and was given.
    group : int64, shape (m,)
        Such as age; 0 to g - 1.
    weight : float64, shape (g,)
        A group of none comes last in each turn; a group that has run out leaves it to the others.

    References
    ----------
    Sainte-Lague 1910: the next seat goes to the largest ``weight / (seats + 1/2)``.
    """
    same = (cell * (turn.max(initial=0) + 1) + turn) * len(weight) + group
    seats = places(same[order])
    with np.errstate(divide="ignore"):
        late = (seats + 0.5) / weight[group[order]]
    return order[np.lexsort((late, turn[order], cell[order]))]


def places(key: Ints) -> Ints:
    """Count for each element how many before it have the same key: int64 (m,)."""
    by_key = np.argsort(key, kind="stable")
    new = np.flatnonzero(np.diff(key[by_key], prepend=key.min(initial=0) - 1))
    lengths = np.diff(new, append=len(key))
    out = np.empty(len(key), np.int64)
    out[by_key] = np.arange(len(key)) - np.repeat(new, lengths)
    return out


def beginnings(order: Ints, cell: Ints, each: int) -> Ints:
    """Return the first `each` of every cell of an order that is sorted by cell, int64, sorted."""
    return np.sort(order[places(cell[order]) < each])
