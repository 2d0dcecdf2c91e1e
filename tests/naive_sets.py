"""Slow and obvious: distances of sets of features, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]


def frechet(x: Features, y: Features) -> float:
    """Fréchet distance by the nuclear norm of the product of the centred rows: no covariance."""
    xc, yc = x - x.mean(0), y - y.mean(0)
    n, m = len(x), len(y)
    apart = float(np.sum((x.mean(0) - y.mean(0)) ** 2))
    spread = float(np.sum(xc**2) / (n - 1) + np.sum(yc**2) / (m - 1))
    overlap = np.linalg.svd(xc @ yc.T, compute_uv=False).sum() / np.sqrt((n - 1.0) * (m - 1.0))
    return apart + spread - 2 * float(overlap)


def kernel(u: Sequence[float], v: Sequence[float]) -> float:
    """KID's kernel of two rows."""
    return (sum(a * b for a, b in zip(u, v, strict=True)) / len(u) + 1) ** 3


def kid(x: Features, y: Features) -> float:
    """Unbiased squared MMD of two sets: every pair, one after the other."""
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    xy = sum(kernel(u, v) for u in x for v in y)
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def attribution_p(f: NDArray[np.float64]) -> float:
    """Share of all permutations whose sum is not above that of the diagonal, ties among them."""
    k = len(f)
    every = list(permutations(range(k)))
    own = sum(f[i, i] for i in range(k))
    return sum(sum(f[i, pi[i]] for i in range(k)) <= own + 1e-9 for pi in every) / len(every)


def area_mean(image: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """Mean of each block of pixels of a square image."""
    f = len(image) // side
    return np.array(
        [
            [np.mean(image[i * f : (i + 1) * f, j * f : (j + 1) * f]) for j in range(side)]
            for i in range(side)
        ]
    )
