"""What affine maps are found on: smaller and smaller images, and derivatives of the fixed one.

A pixel of a level is the mean of `shrink` x `shrink` pixels and lies in the middle of them: pixel i
of a level shows the point ``shrink i + (shrink - 1) / 2``. Maps are kept apart from levels: they
speak of pixels of the images themselves, counted from the image centre,

    q - c = L (p - c) + t        c = ((side - 1) / 2, (side - 1) / 2)

and are called places here, float64 (b, 2, 3) = [L | t].
"""

from __future__ import annotations

from collections.abc import Sequence
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


def shrunk(images: Tensor, shrinks: Sequence[int]) -> dict[int, Tensor]:
    """Make images (b, 1, side, side) smaller, each size from the last: powers of two, or 1.

    What is left over at the lower and right border is left out.
    """
    sizes, last = {}, 1
    for shrink in sorted(shrinks):
        if shrink > last:
            images = nn.avg_pool2d(images, shrink // last)
        sizes[shrink], last = images, shrink
    return sizes


def level(moving: Tensor, fixed: Tensor, *, side: int, shrink: int, every: int = 1) -> Level:
    """Make a level.

    Parameters
    ----------
    moving, fixed : Tensor, shape (b, 1, n, n), float32
        Of that size.
    side, shrink : int
        Of the images themselves, and how many of their pixels make one along a side.
    every : int
        Along a side, one pixel in `every` of the fixed image is compared.
    """
    moving, fixed = (image - image.mean((2, 3), keepdim=True) for image in (moving, fixed))
    place = torch.arange(0, fixed.shape[-1], every, dtype=torch.float64, device=fixed.device)
    away = shrink * place + ((shrink - 1) / 2 - (side - 1) / 2)
    return Level(side, shrink, moving, _rows(fixed[:, 0], away / (side / 2), shrink, every), away)


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
