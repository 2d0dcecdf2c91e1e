"""The pose bank: queries are turned, resized and shifted, so that no slice ever has to be.

A grid of similarity transforms covers the ranges of the settings: angles and sizes in equal cells,
shifts on a lattice within the longest shift. Each query is shown at each of its poses at the size
of `mid`, reduced to 32 px as a thumb is, and becomes a row as `corpus.screen` makes them: int8, of
one norm, summing to zero. The best pose of a slice is then the largest int32 product.

    mid --turn, resize--> canvas --area means, one for each fraction of a pixel--> thumbs with a
    margin --local contrast--> normalised --each shift is a window of one of them--> rows

To move the contrast instead of the image is exact here: outside of the image is air, and no window
of a kept pixel reaches beyond the border of a slice. Every step is a sum of integers below 2^53 or
float64 element by element, so the rows are the same bytes for any batch on any machine.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.corpus.screen import INSIDE, PIXELS, SIDE, UNIT, normalised, rows_of
from fingerprint.search.finish import highest_over_poses
from fingerprint.search.product import int8_product
from fingerprint.settings import Settings
from fingerprint.warp import SIDE_PX, points, sample

VERSION = 1
PIXEL = SIDE_PX // SIDE  # of a thumb, in the unit of shifts
QUERIES = 8  # moved at a time
SLICES = 512  # multiplied at a time on a CPU: with 1,500 poses the product stays in the cache
POSES = 2048  # so many at a time: with the slices above, 4 MiB of product

Int8 = NDArray[np.int8]


@dataclass(frozen=True)
class Grid:
    """The poses that are searched: every combination, except shifts beyond the longest.

    Attributes
    ----------
    angles_deg, scales : tuple of float
    shifts_px : tuple of int
        Along y and along x, in pixels of 512.
    reach_px : float
        Longest shift, y and x together.
    mirrors : tuple of int
        (0,), or (0, 1) where mirrored copies are searched.
    """

    angles_deg: tuple[float, ...]
    scales: tuple[float, ...]
    shifts_px: tuple[int, ...]
    reach_px: float
    mirrors: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.views) * len(self.shifts)

    @cached_property
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """Shifts (y, x) within reach."""
        return tuple(
            (y, x)
            for y in self.shifts_px
            for x in self.shifts_px
            if math.hypot(y, x) <= self.reach_px
        )

    @cached_property
    def views(self) -> tuple[tuple[int, float, float], ...]:
        """All but the shifts: (mirrored, angle, scale)."""
        return tuple((m, a, s) for m in self.mirrors for a in self.angles_deg for s in self.scales)

    @cached_property
    def poses(self) -> NDArray[np.float64]:
        """All poses, float64 (n, 5) as `warp.POSE`; the shifts of one view stand together."""
        return np.array([(a, s, y, x, m) for m, a, s in self.views for y, x in self.shifts], float)

    def as_json(self) -> dict[str, Any]:
        """Return the grid for keys, and for whoever reads a run."""
        return {
            "angles_deg": list(self.angles_deg),
            "scales": list(self.scales),
            "shifts_px": list(self.shifts_px),
            "reach_px": self.reach_px,
            "mirrors": list(self.mirrors),
            "poses": len(self),
        }


def grid_of(settings: Settings) -> Grid:
    """Return the grid of the settings.

    Angles and sizes are the centres of as few equal cells as the step allows, so that nothing in
    the range is further away than half a step. Shifts are whole pixels. A copy that was shifted by
    `shift_px` and made smaller is brought back by a shift that is longer by as much.
    """
    reach = settings.shift_px / (1 - settings.scale)
    most = int(reach / settings.shift_step_px)
    shifts = {round(k * settings.shift_step_px) for k in range(-most, most + 1)}
    return Grid(
        _cells(settings.angle_deg, settings.angle_step_deg),
        tuple(round(1 + away, 6) for away in _cells(settings.scale, settings.scale_step)),
        tuple(sorted(shifts)),
        reach,
        (0, 1) if settings.mirror else (0,),
    )


def _cells(reach: float, step: float) -> tuple[float, ...]:
    """Return the centres of equal cells of at most `step` that cover [-reach, reach]."""
    n = max(1, math.ceil(2 * reach / step - 1e-9))
    return tuple(round((2 * i + 1 - n) * reach / n, 6) for i in range(n))


# -- rows


def posed(mids: NDArray[np.uint8], grid: Grid) -> Int8:
    """Return queries at every pose, ready to be multiplied with `screen.inside` of slices.

    Parameters
    ----------
    mids : uint8, shape (q, h, h)
        As `mid` is stored: 128 px, less where slices are smaller; a multiple of 32.

    Returns
    -------
    int8, shape (q, n, 384)
        In the order of `grid.poses`. Rows sum to zero and have a norm of about `screen.NORM`; those
        of a constant query are zeros.

    Raises
    ------
    ValueError
        Another dtype or shape.
    """
    if mids.dtype != np.uint8 or mids.ndim != 3 or mids.shape[1] != mids.shape[2]:
        raise ValueError(f"posed: mids must be uint8 (q, h, h), got {mids.dtype} {mids.shape}")
    if mids.shape[1] % SIDE:
        raise ValueError(f"posed: the side must be a multiple of {SIDE}, got {mids.shape[1]}")
    rows = np.zeros((len(mids), len(grid), PIXELS), np.int8)
    for i in range(0, len(mids), QUERIES):
        _fill(rows[i : i + QUERIES], mids[i : i + QUERIES], grid)
    rows[np.ptp(mids, axis=(1, 2)) == 0] = 0
    return rows


def _fill(rows: Int8, mids: NDArray[np.uint8], grid: Grid) -> None:
    """Fill in the rows (q, n, 384) of a few queries."""
    side, n_shifts = mids.shape[1], len(grid.shifts)
    margin, windows = _windows(grid.shifts)
    for view, (mirrored, angle, scale) in enumerate(grid.views):
        there = points((angle, scale, 0, 0, mirrored), side, margin_px=margin * side // SIDE)
        canvas = np.rint(sample(mids, *there) * UNIT)
        for fraction, members, places in windows:
            contrast = normalised(_thumbs(canvas, side, margin, fraction)).reshape(len(mids), -1)
            found = rows_of(contrast[:, places].reshape(-1, PIXELS))
            rows[:, view * n_shifts + members] = found.reshape(len(mids), -1, PIXELS)


@dataclass(frozen=True)
class _Windows:
    """Shifts by one fraction of a pixel of the thumb.

    Attributes
    ----------
    fraction : (y, x)
        Where the first pixel begins, in pixels of 512.
    members : int64, shape (m,)
        Which shifts of the grid.
    places : int64, shape (m, 384)
        Where on the flat canvas of thumbs each shift finds the kept pixels.
    """

    fraction: tuple[int, int]
    members: NDArray[np.int64]
    places: NDArray[np.int64]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.fraction, self.members, self.places))


@functools.lru_cache(maxsize=4)
def _windows(shifts: tuple[tuple[int, int], ...]) -> tuple[int, tuple[_Windows, ...]]:
    """Return the margin of the canvas in pixels of the thumb, and the shifts by their fraction.

    What is shifted by s shows at 0 what was at -s: the window begins at the pixel -s // 16, and
    the pixels at -s % 16 of 512.

        canvas   |....|....|....|....|....|      a pixel is 16 px of 512
        window         |....|....|....|          shifted by 10: pixel -1, fraction 6
    """
    whole, fraction = np.divmod(-np.array(shifts, np.int64).reshape(-1, 2), PIXEL)
    # one more behind: with a fraction the last pixel of the canvas is not whole
    margin = max(-int(whole.min()), int(whole.max()) + 1)
    row, column = np.divmod(INSIDE, SIDE)
    width = SIDE + 2 * margin
    places = (row + whole[:, :1] + margin) * width + column + whole[:, 1:] + margin
    groups = []
    for one in np.unique(fraction, axis=0):
        members = np.flatnonzero((fraction == one).all(1))
        groups.append(_Windows((int(one[0]), int(one[1])), members, places[members]))
    return margin, tuple(groups)


def _thumbs(
    canvas: NDArray[np.float64], side: int, margin: int, fraction: tuple[int, int]
) -> NDArray[np.float64]:
    """Reduce canvases of integers (q, m, m) to pixels of a thumb that begin at a fraction."""
    down, across = (_overlaps(side, margin, part) for part in fraction)
    total = down @ canvas @ across.T
    return np.rint(total / (PIXEL * (side // SIDE)) ** 2)


@functools.lru_cache(maxsize=64)
def _overlaps(side: int, margin: int, fraction: int) -> NDArray[np.float64]:
    """Return how much of each pixel of `mid` lies in each of the thumb, in 16ths of the former."""
    size = side // SIDE  # of a pixel of the thumb
    thumbs, mids = SIDE + 2 * margin, side + 2 * margin * size
    first = PIXEL * size * np.arange(thumbs)[:, None] + fraction * size
    at = PIXEL * np.arange(mids)[None, :]
    overlap = np.minimum(first + PIXEL * size, at + PIXEL) - np.maximum(first, at)
    return np.maximum(overlap, 0).astype(np.float64)


# -- the best of the rows


def best_over_poses(rows: Tensor, screen: Tensor) -> Tensor:
    """Return the largest product of each slice with the poses of each query.

    All rows of a query have nearly one norm, so the largest integer is at the best pose, and the
    same on every device.

    Parameters
    ----------
    rows : Tensor, shape (q, n, k), int8, contiguous
    screen : Tensor, shape (s, k), int8, contiguous, on the same device

    Returns
    -------
    Tensor, shape (q, s), int32
    """
    if rows.device.type != "cpu":
        return highest_over_poses(rows, screen)
    out = torch.full((len(rows), len(screen)), torch.iinfo(torch.int32).min, dtype=torch.int32)
    for s in range(0, len(screen), SLICES):
        for q in range(len(rows)):
            for n in range(0, rows.shape[1], POSES):
                product = int8_product(rows[q, n : n + POSES], screen[s : s + SLICES])
                here = out[q, s : s + SLICES]
                torch.maximum(here, product.amax(0), out=here)
    return out


def norms_of(rows: Int8) -> NDArray[np.float64]:
    """Return the norm of each query: the largest over its poses, so that no r exceeds 1."""
    squares = np.array([np.square(row, dtype=np.int32).sum(1).max() for row in rows], np.float64)
    norms: NDArray[np.float64] = np.sqrt(squares)
    return norms
