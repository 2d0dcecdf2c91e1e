"""Smooth random fields: the texture of tissue, the grain of noise, the irregularity of a body.

A field is a coarse lattice of random numbers seen through cubic B-splines. Lattice and weights are
rounded to binary fractions, so that every product and sum below is exact in float32 and the field
is the same, bit for bit, for any number of threads and any order of summation.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Array = NDArray[np.float32]
Weights: TypeAlias = csr_array

_FINE = 64.0  # lattice values are multiples of 1/64, weights of 1/64: 21 bits, float32 holds 24


def lattice(rng: np.random.Generator, *shape: int) -> Array:
    """Return standard normal numbers, rounded to multiples of 1/64."""
    return (np.rint(rng.standard_normal(shape) * _FINE) / _FINE).astype(np.float32)


def spread(size: int, knots: int) -> Weights:
    """Weights that carry `knots` lattice values to `size` samples: one cubic B-spline per knot.

    Returns
    -------
    sparse float32, shape (size, knots)
        Rows have unit energy on average, so a lattice of variance 1 gives a field of about 1.
    """
    at = (np.arange(size) + 0.5) / size * (knots - 3) + 1
    distance = np.abs(at[:, None] - np.arange(knots)[None, :])
    weights = np.where(
        distance < 1,
        2 / 3 - distance**2 + distance**3 / 2,
        np.where(distance < 2, (2 - distance) ** 3 / 6, 0.0),
    )
    weights /= np.sqrt((weights**2).sum(1).mean())
    return csr_array((np.rint(weights * _FINE) / _FINE).astype(np.float32))


def between(planes: Array, at: float) -> Array:
    """Return the lattice at depth `at` (0: first plane, 1: last), with unit variance kept."""
    position = float(np.clip(at, 0, 1)) * (len(planes) - 1)
    low = min(int(position), len(planes) - 2)
    angle = (position - low) * np.pi / 2  # cos^2 + sin^2 = 1: no plane is smoother than another
    mixed = planes[low] * np.cos(angle) + planes[low + 1] * np.sin(angle)
    return (np.rint(mixed * _FINE) / _FINE).astype(np.float32)


def smooth(knots: Array, weights: Weights) -> Array:
    """Return the field of a square lattice on the whole slice, float32, shape (size, size).

    Sparse products: four weights a sample, and no threads that spin on a busy machine.
    """
    return np.asarray(weights @ (weights @ knots.T).T, np.float32)


def grain(rng: np.random.Generator, side: int) -> Array:
    """Noise of variance 1 with the short correlation of a reconstruction kernel, (side, side)."""
    white = rng.standard_normal((side, side), dtype=np.float32)
    white = white + np.roll(white, 1, axis=1)
    white = white + np.roll(white, 1, axis=0)
    return (white / white.std()).astype(np.float32)


def streaks(rng: np.random.Generator, side: int) -> Array:
    """Noise of variance 1 that runs along x, as it does between two shoulders, (side, side)."""
    white = rng.standard_normal((side, side), dtype=np.float32)
    total = np.cumsum(np.hstack([white, white]), axis=1)
    run = total[:, side:] - total[:, side - side // 16 : -(side // 16)]
    return (run / run.std()).astype(np.float32)
