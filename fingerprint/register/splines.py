"""Smooth displacement fields: cubic B-splines over a square grid of knots, and their bending.

A field of n x n pixels is ``P c P'``: knots c, and one matrix P (n, knots) of B-spline weights for
both directions. Knots lie in the middle of equal cells; at the border the last one is continued.
The bending of knots is that of their Laplacian, whose eigenvectors are cosines: a system that is
nearly bending alone is solved by products with a cosine matrix.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


@functools.lru_cache(maxsize=32)
def weights(pixels: int, knots: int, device: str = "cpu") -> Tensor:
    """Return P: float32 (pixels, knots); each row sums to 1."""
    at = (torch.arange(pixels, dtype=torch.float64) + 0.5) * (knots / pixels) - 0.5
    first = at.floor().long() - 1
    matrix = torch.zeros(pixels, knots, dtype=torch.float64)
    for k in range(4):
        distance = (at - (first + k)).abs()
        weight = torch.where(
            distance < 1,
            2 / 3 - distance**2 + distance**3 / 2,
            (2 - distance).clamp(min=0) ** 3 / 6,
        )
        matrix.scatter_add_(1, (first + k).clamp(0, knots - 1)[:, None], weight[:, None])
    return matrix.float().to(device)


def spread(knots: Tensor, pixels: int) -> Tensor:
    """Return the field of knots: (B, C, k, k) -> (B, C, pixels, pixels)."""
    p = weights(pixels, knots.shape[-1], str(knots.device))
    return p @ knots @ p.T


def gathered(values: Tensor, knots: int) -> Tensor:
    """Return what pixels give to knots, the adjoint of `spread`: (B, C, n, n) -> (B, C, k, k)."""
    p = weights(values.shape[-1], knots, str(values.device))
    return p.T @ values @ p


@functools.lru_cache(maxsize=32)
def cosines(knots: int, device: str = "cpu") -> Tensor:
    """Return the orthonormal cosine transform (DCT-II): float32 (knots, knots)."""
    k = torch.arange(knots, dtype=torch.float64)
    matrix = torch.cos(math.pi / knots * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / knots)
    matrix[0] /= math.sqrt(2)
    return matrix.float().to(device)


@functools.lru_cache(maxsize=32)
def bending_spectrum(knots: int, device: str = "cpu") -> Tensor:
    """Return the eigenvalues of the squared Laplacian of knots, by `cosines`: (knots, knots)."""
    one = 2 - 2 * torch.cos(math.pi * torch.arange(knots, dtype=torch.float64) / knots)
    return ((one[:, None] + one[None]) ** 2).float().to(device)


def filtered(knots: Tensor, gain: Tensor) -> Tensor:
    """Multiply every cosine of knots by its gain: both (..., k, k)."""
    c = cosines(knots.shape[-1], str(knots.device))
    return c.T @ ((c @ knots @ c.T) * gain) @ c


@functools.lru_cache(maxsize=32)
def _bell(pixels: int, sigma: float, device: str) -> Tensor:
    """Return the matrix of a Gaussian blur whose border is continued: float32 (pixels, pixels)."""
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1)
    bell = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    at = (torch.arange(pixels)[:, None] + offsets).clamp(0, pixels - 1)
    matrix = torch.zeros(pixels, pixels, dtype=torch.float64)
    matrix.scatter_add_(1, at, (bell / bell.sum()).expand_as(at))
    return matrix.float().to(device)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Return images (..., n, n) blurred by a Gaussian, in two products with a matrix."""
    bell = _bell(images.shape[-1], sigma, str(images.device))
    return bell @ images @ bell.T
