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
    moving: Tensor  # (b, 1, n, n), its mean removed; if `own`, (b, 3, n, n): and d/dy, d/dx
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


def level(
    moving: Tensor, fixed: Tensor, *, side: int, shrink: int, every: int = 1, own: bool = False
) -> Level:
    """Make a level.

    Parameters
    ----------
    moving, fixed : Tensor, shape (b, 1, n, n), float32
        Of that size.
    side, shrink : int
        Of the images themselves, and how many of their pixels make one along a side.
    every : int
        Along a side, one pixel in `every` of the fixed image is compared.
    own : bool
        Keep derivatives of the moving image also.
    """
    moving, fixed = (image - image.mean((2, 3), keepdim=True) for image in (moving, fixed))
    place = torch.arange(0, fixed.shape[-1], every, dtype=torch.float64, device=fixed.device)
    away = shrink * place + ((shrink - 1) / 2 - (side - 1) / 2)
    by_y, by_x = (part[:, 0, ::every, ::every] for part in _slopes(fixed, shrink))
    shown = fixed[:, 0, ::every, ::every]
    rows = rows_of(shown, by_y, by_x, torch.ones_like(shown), away / (side / 2))
    if own:
        moving = torch.cat([moving, *_slopes(moving, shrink)], dim=1)
    return Level(side, shrink, moving, rows, away)


def _slopes(images: Tensor, shrink: int) -> tuple[Tensor, Tensor]:
    """Central differences by y and by x, per px of the images themselves."""
    # the border has no derivative: what lies beyond is not known
    by_y, by_x = torch.zeros_like(images), torch.zeros_like(images)
    torch.sub(images[:, :, 2:], images[:, :, :-2], out=by_y[:, :, 1:-1])
    torch.sub(images[..., 2:], images[..., :-2], out=by_x[..., 1:-1])
    return by_y.div_(2 * shrink), by_x.div_(2 * shrink)


def rows_of(shown: Tensor, by_y: Tensor, by_x: Tensor, ones: Tensor, unit: Tensor) -> Tensor:
    """Fill in rows, (b, m, m) each -> (b, ROWS, m m); distances (m,) are in half sides."""
    y, x = unit.float()[:, None], unit.float()
    rows = shown.new_empty((len(shown), ROWS, len(unit), len(unit)))
    rows[:, 0], rows[:, ROWS - 1] = shown, ones
    for first, slope in ((1, by_y), (4, by_x)):
        torch.mul(slope, y, out=rows[:, first])
        torch.mul(slope, x, out=rows[:, first + 1])
        rows[:, first + 2] = slope
    return rows.flatten(2)


def repeated(level: Level, times: int) -> Level:
    """Show every pair several times in a row, for several starts."""
    moving, rows = (part.repeat_interleave(times, dim=0) for part in (level.moving, level.rows))
    return Level(level.side, level.shrink, moving, rows, level.away)


def look(level: Level, place: Tensor) -> tuple[Tensor, Tensor]:
    """Look the moving images up where places put the compared pixels.

    Returns
    -------
    seen : Tensor, shape (b, 1 or 3, m m), float32
        The moving image, and its derivatives if it has them; 0 outside.
    mask : Tensor, shape (b, 1, m m), float32
        1 where the point lies in the image, else 0.
    """
    centre = ((level.side - 1) / 2 - (level.shrink - 1) / 2) / level.shrink
    moved = place / level.shrink
    down = (moved[:, :, 0, None] * level.away).float()  # (b, 2, m)
    across = (moved[:, :, 1, None] * level.away + (moved[:, :, 2, None] + centre)).float()
    at = down[..., :, None] + across[..., None, :]
    mask = within(at, level.moving.shape[-1]).flatten(2).float()
    return sample(level.moving, at).flatten(2).mul_(mask), mask
