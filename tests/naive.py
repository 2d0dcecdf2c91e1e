"""Slow and obvious: what every fast path is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pearson(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    """Pearson r in Python integers and one square root; NaN if an image is constant."""
    a, b = [int(v) for v in x.ravel()], [int(v) for v in y.ravel()]
    n = len(a)
    num = n * sum(p * q for p, q in zip(a, b, strict=True)) - sum(a) * sum(b)
    var_a = n * sum(p * p for p in a) - sum(a) ** 2
    var_b = n * sum(q * q for q in b) - sum(b) ** 2
    if var_a == 0 or var_b == 0:
        return math.nan
    return num / math.sqrt(float(var_a) * float(var_b))


def best_per_patient(
    queries: NDArray[np.uint8],
    slices: NDArray[np.uint8],
    patients: Sequence[int],
    n_patients: int,
    own: Sequence[int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Best r of each query over each patient's slices, and which slice: ties to the lower slice.

    `own` is the patient left out for each query (-1: none). NaN and -1 where there is no slice.
    """
    r = np.full((len(queries), n_patients), np.nan)
    at = np.full((len(queries), n_patients), -1, np.int64)
    for q, query in enumerate(queries):
        for s, image in enumerate(slices):
            p = patients[s]
            if own is not None and own[q] == p:
                continue
            value = pearson(query, image)
            if not math.isnan(value) and (at[q, p] < 0 or value > r[q, p]):
                r[q, p], at[q, p] = value, s
    return r, at
