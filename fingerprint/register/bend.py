"""One step of elastic registration: Gauss-Newton on the knots of a field.

The change d of the knots c solves

    (D + s B) d = b - s B c         b, D   what pixels say (their difference times the gradient of
                                           the image; gradients times gradients), gathered to knots
                                    s B    stiffness times the bending of knots

by conjugate gradients, preconditioned with the cosines that make B diagonal. D is lumped to 2 x 2
blocks, an upper bound of the true one: steps are short and do not overshoot. The gradient is the
mean of both images' (Benhimane and Malis 2004), and a pixel with difference e counts
1 / (1 + (e / outlier)^2), so that what no field explains bends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nn
from torch import Tensor

from fingerprint.register import resample, splines

ROUNDS = 8  # of conjugate gradients
HALVINGS = 4  # of a step that would fold
LEAST = 1e-3  # of D, where pixels say nothing


@dataclass(frozen=True)
class Bend:
    """Images of one size: (B, 1, n, n) each, float32."""

    moving: Tensor
    fixed: Tensor
    seen: Tensor  # share of each pixel that the moving image has


def step(
    pair: Bend, knots: Tensor, stiffness: float, outlier: float, least_jacobian: float
) -> Tensor:
    """Return better knots: (B, 2, k, k) float32, (y, x) px of these images.

    A step that would bring the Jacobian of the field below `least_jacobian` is halved, and at last
    left out.
    """
    count = knots.shape[-1]
    blocks, right = _normal(pair, knots, outlier)
    stiff = stiffness * splines.bending_spectrum(count, str(knots.device))
    change = _solved(blocks, right - splines.filtered(knots, stiff), stiff)
    return _unfolded(knots, change, pair.fixed.shape[-1], least_jacobian)


def _normal(pair: Bend, knots: Tensor, outlier: float) -> tuple[Tensor, Tensor]:
    """Return D as (B, 3, k, k): yy, xy, xx; and b as (B, 2, k, k)."""
    w = splines.spread(knots, pair.fixed.shape[-1])
    shown = resample.warp_field(pair.moving, w)
    away = shown - pair.fixed
    slope = (_gradient(shown) + _gradient(pair.fixed)) / 2
    counts = pair.seen * resample.inside(w) / (1 + (away / outlier) ** 2)
    y, x = slope[:, :1], slope[:, 1:]
    said = torch.cat([y * y, x * y, x * x, -y * away, -x * away], dim=1) * counts
    gathered = splines.gathered(said, knots.shape[-1])
    return gathered[:, :3], gathered[:, 3:]


def _solved(blocks: Tensor, right: Tensor, stiff: Tensor) -> Tensor:
    """Solve (D + s B) d = right by preconditioned conjugate gradients, a fixed number of rounds."""
    yy, xy, xx = blocks.unbind(1)
    typical = ((yy + xx) / 2).flatten(1).mean(1)[:, None, None, None] + LEAST
    alone = 1 / (typical + stiff)
    found, left = torch.zeros_like(right), right
    toward = way = splines.filtered(left, alone)
    size = _dot(left, toward)
    for _ in range(ROUNDS):
        y, x = way.unbind(1)
        moved = torch.stack([yy * y + xy * x, xy * y + xx * x], dim=1)
        moved = moved + splines.filtered(way, stiff)
        far = _ratio(size, _dot(way, moved))
        found, left = found + far * way, left - far * moved
        toward = splines.filtered(left, alone)
        before, size = size, _dot(left, toward)
        way = toward + _ratio(size, before) * way
    return found


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)[:, None, None, None]


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, and 0 where there is nothing left to solve."""
    return torch.where(b > 0, a / b, 0.0)


def _unfolded(knots: Tensor, change: Tensor, pixels: int, least: float) -> Tensor:
    share = torch.ones_like(knots[:, :1, :1, :1])
    for halved in range(HALVINGS + 1):
        w = splines.spread(knots + share * change, pixels)
        folds = (jacobian(w).flatten(1).amin(1) < least)[:, None, None, None]
        share = torch.where(folds, share / 2 if halved < HALVINGS else 0.0, share)
    return knots + share * change


def jacobian(w: Tensor) -> Tensor:
    """Return det(I + grad w) of displacements (B, 2, n, n): (B, n - 1, n - 1), between pixels."""
    down = w[..., 1:, :-1] - w[..., :-1, :-1]
    across = w[..., :-1, 1:] - w[..., :-1, :-1]
    return (1 + down[:, 0]) * (1 + across[:, 1]) - down[:, 1] * across[:, 0]


def _gradient(images: Tensor) -> Tensor:
    """Return central differences, the border continued: (B, 1, n, n) -> (B, 2, n, n), (y, x)."""
    wide = nn.pad(images, (1, 1, 1, 1), mode="replicate")
    down = wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    across = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]
    return torch.cat([down, across], dim=1) / 2
