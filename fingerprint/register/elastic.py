"""Elastic registration: a smooth field that makes two images alike locally, in batches.

The moving image, as its affine start shows it, is bent by w: cubic B-splines over a grid of knots
(`splines`), coarse to fine. Both images are normalised locally (less the local mean, over the local
spread), so brightness and contrast may differ from place to place, and Gauss-Newton steps (`bend`)
make them alike. Every field that is returned is free of folds: its Jacobian is positive.

A pair is done in the same way whatever stands beside it: on a CPU pairs are taken one at a time; on
a GPU many at a time, where sums may be added in another order.

Demons (Thirion 1998) were rejected: smoothing every update, they came no closer than 0.4 px to
known warps of 4 px, where this comes to 0.1 px of 12 px in the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nn
from torch import Tensor

from fingerprint.register import resample, splines
from fingerprint.register.bend import Bend, jacobian, step
from fingerprint.register.overlap import checked_pairs

AT_ONCE = 64  # pairs on a GPU: some 2 GiB at 512
FIRST_PX = 32  # side of the smallest images, at least
KNOT_PX = 4  # distance of knots, in pixels of an image of every size
MOST_KNOTS = 64  # along a side
REACH_PX = 5.0  # sigma of what is local, in pixels of an image of every size
FLOOR = 5.0  # grey levels; less contrast than this is not blown up to the contrast of the rest


@dataclass(frozen=True)
class Elastic:
    """What is looked for, and how long.

    stiffness : weight of the bending of the field against the likeness of the images
    steps : of Gauss-Newton at every size of the images
    outlier : difference of normalised images (local standard deviations) at which a pixel counts
        half
    least_jacobian : smallest local change of area that a step may lead to
    """

    stiffness: float = 0.5
    steps: int = 8
    outlier: float = 1.0
    least_jacobian: float = 0.2

    def __post_init__(self) -> None:
        if not (self.stiffness > 0 and self.outlier > 0 and self.steps >= 1):
            raise ValueError(
                "Elastic: stiffness and outlier must be > 0 and steps >= 1, got "
                f"{self.stiffness}, {self.outlier}, {self.steps}"
            )
        if not 0 < self.least_jacobian < 1:
            raise ValueError(
                f"Elastic: least_jacobian must be in (0, 1), got {self.least_jacobian}"
            )


@dataclass(frozen=True)
class Deformation:
    """Fields that were found; on the device of the images."""

    field: Tensor  # (B, 2, H, H) float32: moving point = p + u(p), (y, x) px, the start included


def elastic(
    moving: Tensor,
    fixed: Tensor,
    *,
    start: Tensor,
    spec: Elastic = Elastic(),  # noqa: B008
) -> Deformation:
    """Find the field of each pair that makes it alike, from an affine start.

    Parameters
    ----------
    moving, fixed : Tensor, shape (B, 1, H, H), float32
        Query and slice, grey levels.
    start : Tensor, shape (B, 2, 3), float64
        Fixed point -> moving point, (y, x) px: from `affine`.
    spec : Elastic

    Returns
    -------
    Deformation
        Identical images give the start, to the last bit.

    Raises
    ------
    ValueError
        Images that are not square or not float32, counts or sizes that differ.
    """
    checked_pairs("elastic", moving, fixed, start)
    few = 1 if moving.device.type == "cpu" else AT_ONCE
    parts = [slice(i, i + few) for i in range(0, len(moving), few)]
    # copies: how a tensor lies in memory must not decide how its sums are added
    done = [_field(moving[at].clone(), fixed[at].clone(), start[at], spec) for at in parts]
    return Deformation(torch.cat(done or [moving.new_empty(0, 2, *moving.shape[2:])]))


def _field(moving: Tensor, fixed: Tensor, start: Tensor, spec: Elastic) -> Tensor:
    side = fixed.shape[-1]
    straight = resample.affine_field(start, side)
    seen, shown = resample.inside(straight).float(), resample.warp_field(moving, straight)
    knots = fixed.new_zeros(len(fixed), 2, 1, 1)
    for shrink in _sizes(side):
        parts = [nn.avg_pool2d(part, shrink) for part in (shown, fixed, seen)]
        pair = Bend(_normalised(parts[0]), _normalised(parts[1]), parts[2])
        pixels = parts[1].shape[-1]
        knots = splines.spread(knots, min(max(1, pixels // KNOT_PX), MOST_KNOTS))
        for _ in range(spec.steps):
            # knots are in px of the whole image, a step in px of this size
            knots = step(pair, knots / shrink, spec.stiffness, spec.outlier, spec.least_jacobian)
            knots = knots * shrink
    return through(start, _unfolded(splines.spread(knots, side)))


def _sizes(side: int) -> list[int]:
    """Return by how much images are made smaller, coarse to fine: the last are whole."""
    halvings = max(0, (side // FIRST_PX).bit_length() - 1)
    return [2**i for i in range(halvings, -1, -1)]


def _normalised(images: Tensor) -> Tensor:
    """Return images less their local mean, over their local standard deviation."""
    away = images - splines.blurred(images, REACH_PX)
    return away / (splines.blurred(away * away, REACH_PX) + FLOOR * FLOOR).sqrt()


def _unfolded(w: Tensor) -> Tensor:
    """Halve fields that fold between the pixels where steps had looked, until they do not."""
    while True:
        folds = jacobian(w).flatten(1).amin(1) <= 0
        if not folds.any():
            return w
        w = torch.where(folds[:, None, None, None], w / 2, w)


def through(start: Tensor, w: Tensor) -> Tensor:
    """Return u with p + u = A(p + w), A being the start: (B, 2, H, H) float32."""
    linear = start[:, :, :2].float()[..., None, None]
    return resample.affine_field(start, w.shape[-1]) + (linear * w[:, None]).sum(2)
