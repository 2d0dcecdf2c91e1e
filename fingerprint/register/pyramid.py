"""What affine maps are found on: smaller and smaller images, and derivatives of the fixed one.

A pixel of a level is the mean of `shrink` x `shrink` pixels and lies in the middle of them: pixel i
of a level shows the point ``shrink i + (shrink - 1) / 2``. Maps are kept apart from levels: they
speak of pixels of the images themselves, counted from the image centre,

    q - c = L (p - c) + t        c = ((side - 1) / 2, (side - 1) / 2)

and are called places here, float64 (b, 2, 3) = [L | t].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nn
from torch import Tensor

from fingerprint.register.resample import sample, within

ROWS = 8  # of the fixed image: itself, derivatives by the six numbers of an affine map, ones


@dataclass(frozen=True)
class Level:
    """Pairs at one size; b pairs, m x m pixels of the fixed image are compared."""

    side: int  # of the images themselves
    shrink: int
    moving: Tensor  # (b, 1, n, n), its mean removed
    rows: Tensor  # (b, ROWS, m m): fixed, its mean removed; d/dy (y x 1), d/dx (y x 1); ones
    away: Tensor  # (m,) float64: where the compared pixels lie, in px from the image centre


def level(moving: Tensor, fixed: Tensor, *, shrink: int, every: int = 1) -> Level:
    """Make a level.

    Parameters
    ----------
    moving, fixed : Tensor, shape (b, 1, side, side), float32
    shrink : int
        Pixels of the images in one of the level's, along a side; what is left over is left out.
    every : int
        Along a side, one pixel in `every` of the fixed image is compared.
    """
    side = fixed.shape[-1]
    small, like = _shrunk(fixed, shrink)[:, 0], _shrunk(moving, shrink)
    place = torch.arange(0, small.shape[-1], every, dtype=torch.float64, device=fixed.device)
    away = shrink * place + ((shrink - 1) / 2 - (side - 1) / 2)
    return Level(side, shrink, like, _rows(small, away / (side / 2), shrink, every), away)


def _shrunk(images: Tensor, shrink: int) -> Tensor:
    small = nn.avg_pool2d(images, shrink) if shrink > 1 else images
    return small - small.mean((2, 3), keepdim=True)


def _rows(fixed: Tensor, unit: Tensor, shrink: int, every: int) -> Tensor:
    """Fill in the rows: derivatives are per px of the images, distances per half a side."""
    # the border has no derivative: what lies beyond is not known
    by_y, by_x = torch.zeros_like(fixed), torch.zeros_like(fixed)
    torch.sub(fixed[:, 2:], fixed[:, :-2], out=by_y[:, 1:-1])
    torch.sub(fixed[:, :, 2:], fixed[:, :, :-2], out=by_x[:, :, 1:-1])
    y, x = unit.float()[:, None], unit.float()
    rows = fixed.new_empty((len(fixed), ROWS, len(unit), len(unit)))
    rows[:, 0] = fixed[:, ::every, ::every]
    for first, part in ((1, by_y), (4, by_x)):
        per_px = part[:, ::every, ::every] / (2 * shrink)
        torch.mul(per_px, y, out=rows[:, first])
        torch.mul(per_px, x, out=rows[:, first + 1])
        rows[:, first + 2] = per_px
    rows[:, ROWS - 1] = 1
    return rows.flatten(2)


def repeated(level: Level, times: int) -> Level:
    """Show every pair several times in a row, for several starts."""
    moving, rows = (part.repeat_interleave(times, dim=0) for part in (level.moving, level.rows))
    return Level(level.side, level.shrink, moving, rows, level.away)


def look(level: Level, place: Tensor) -> tuple[Tensor, Tensor]:
    """Look the moving images up where places put the compared pixels.

    Returns
    -------
    seen, mask : Tensor, shape (b, 1, m m), float32
        The moving image, 0 outside; 1 where the point lies in the image, else 0.
    """
    centre = ((level.side - 1) / 2 - (level.shrink - 1) / 2) / level.shrink
    moved = place / level.shrink
    down = (moved[:, :, 0, None] * level.away).float()  # (b, 2, m)
    across = (moved[:, :, 1, None] * level.away + (moved[:, :, 2, None] + centre)).float()
    at = down[..., :, None] + across[..., None, :]
    mask = within(at, level.moving.shape[-1]).flatten(2).float()
    return sample(level.moving, at).flatten(2).mul_(mask), mask
