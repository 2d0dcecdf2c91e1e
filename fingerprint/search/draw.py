"""Which slices stand for a corpus: evenly over its patients, in the regions of what is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Labels = NDArray[Any]


def spread(
    patient: Labels, region: Labels, wanted: Labels, n: int, rng: np.random.Generator
) -> Ints:
    """Draw `n` slices, or all there are.

    Each region gets the share that it has among `wanted`, so that a null is made of slices like
    those that it judges; within a region patients take turns, so that none counts for more than
    another. What a region lacks is taken from the others, patients taking turns again.

    Parameters
    ----------
    patient, region : shape (s,)
        Of each slice that may be drawn.
    wanted : shape (w,)
        Regions of the images that are judged.
    n : int

    Returns
    -------
    int64, shape (min(n, s),)
        In order.
    """
    order = rng.permutation(len(patient))
    chosen = [
        order[region[order] == name][turns(patient[order[region[order] == name]])][:count]
        for name, count in _shares(wanted, n).items()
    ]
    drawn = np.concatenate([np.zeros(0, np.int64), *chosen])
    rest = np.setdiff1d(order, drawn)
    rest = rest[rng.permutation(len(rest))]
    # after those that were drawn, so that who has many of them waits
    both = np.concatenate([drawn, rest])
    turn = np.argsort(np.argsort(turns(patient[both])))
    rest = rest[np.argsort(turn[len(drawn) :], kind="stable")]
    return np.sort(np.concatenate([drawn, rest[: max(0, n - len(drawn))]])).astype(np.int64)


def turns(patient: Labels) -> Ints:
    """Return an order in which everybody's first comes before anybody's second: int64 (s,)."""
    _, who = np.unique(patient, return_inverse=True)
    by_patient = np.argsort(who, kind="stable")
    counts = np.bincount(who)
    start = np.repeat(np.cumsum(counts) - counts, counts)
    turn = np.empty(len(who), np.int64)
    turn[by_patient] = np.arange(len(who)) - start
    return np.argsort(turn, kind="stable").astype(np.int64)


def _shares(wanted: Labels, n: int) -> dict[Any, int]:
    """Divide `n` among regions as they are among `wanted`: largest remainders are rounded up."""
    names, counts = np.unique(wanted, return_counts=True)
    exact = n * counts / max(counts.sum(), 1)
    whole = np.floor(exact).astype(np.int64)
    for k in np.argsort(whole - exact, kind="stable")[: n - int(whole.sum())]:
        whole[k] += 1
    return dict(zip(names.tolist(), whole.tolist(), strict=True))
