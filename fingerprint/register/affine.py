"""Affine maps that make two images correlate best: batched, coarse to fine (`ecc`, `pyramid`).

A pair is done in the same way whatever stands beside it: on a CPU pairs are taken one at a time,
which is also the fastest (all that is computed of a pair stays in the cache); on a GPU many at a
time, where sums are added in another order, and results agree to a few hundredths of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint import warp
from fingerprint.register.ecc import Climb, climb, highest
from fingerprint.register.overlap import checked_pairs, overlap
from fingerprint.register.pyramid import level, shrunk

Kind = Literal["rigid", "similarity", "affine"]

AT_ONCE = {"cpu": 1, "cuda": 256}  # pairs at a time; on a GPU some 4 GiB at 512
FIRST_PX = 32  # side of the smallest images, at least
BENT_PX = 128  # on smaller images than these an affine map is not told from a similarity
TURNS_DEG = (0.0, -10.0, 10.0)  # added to the start on the smallest images
COARSE = 0.05  # pixels of a level: what a place is good to there

# small maps [S | s], row by row: y' = (S y x + s)
_AFFINE = [[float(i == j) for j in range(6)] for i in range(6)]
_TURN = [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]
_GROW = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
_SHIFTS = [_AFFINE[2], _AFFINE[5]]
BASES = {
    "rigid": [_TURN, *_SHIFTS],
    "similarity": [_GROW, _TURN, *_SHIFTS],
    "affine": _AFFINE,
}


@dataclass(frozen=True)
class Affine:
    """What is looked for, and how long.

    kind : what a map may add to its start: ``rigid`` turns and shifts (3 degrees of freedom),
        ``similarity`` also scales (4), ``affine`` all six
    steps : most steps at a level
    tolerance_px : a pair has converged when no longer step goes up (mean over the image corners)
    least_overlap : share of the fixed image; maps that leave less in common are not taken
    """

    kind: Kind = "affine"
    steps: int = 60  # strangers climb slowly; a copy needs two or three
    tolerance_px: float = 0.02
    least_overlap: float = 0.4

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"Affine: kind must be one of {get_args(Kind)}, got {self.kind!r}")
        if self.steps < 1 or not self.tolerance_px > 0:
            raise ValueError(
                f"Affine: steps must be >= 1 and tolerance_px > 0, got {self.steps}, "
                f"{self.tolerance_px}"
            )
        if not 0 < self.least_overlap <= 1:
            raise ValueError(f"Affine: least_overlap must be in (0, 1], got {self.least_overlap}")


@dataclass(frozen=True)
class Alignment:
    """Where pairs were brought; on the device of the images."""

    matrix: Tensor  # (B, 2, 3) float64: fixed (y, x, 1) -> moving (y, x), px
    r: Tensor  # (B,) float64: Pearson on the common overlap; NaN if an image is constant there
    converged: Tensor  # (B,) bool: False: `matrix` is the start


def affine(
    moving: Tensor,
    fixed: Tensor,
    *,
    start: Tensor,
    spec: Affine = Affine(),  # noqa: B008
) -> Alignment:
    """Find the affine map of each pair whose correlation is best near its start.

    Parameters
    ----------
    moving, fixed : Tensor, shape (B, 1, H, H), float32
        Query and slice, grey levels.
    start : Tensor, shape (B, 2, 3), float64
        Fixed point -> moving point, (y, x) px: `from_poses`, or the identity.
    spec : Affine

    Returns
    -------
    Alignment
        `r` is never below that of the start. A pair that does not converge (images without
        structure, nothing in common, steps used up) keeps its start and says so.

    Raises
    ------
    ValueError
        Images that are not square or not float32, counts or sizes that differ.

    References
    ----------
    Evangelidis and Psarakis, 2008, doi:10.1109/TPAMI.2008.113; see `ecc`.
    """
    checked_pairs("affine", moving, fixed, start)
    few = AT_ONCE.get(moving.device.type, 1)
    parts = [slice(i, i + few) for i in range(0, len(moving), few)]
    # copies: how a tensor lies in memory must not decide how its sums are added
    done = [_aligned(moving[at].clone(), fixed[at].clone(), start[at], spec) for at in parts]
    return Alignment(
        torch.cat([d.matrix for d in done] or [start.clone()]),
        torch.cat([d.r for d in done] or [start.new_empty(0)]),
        torch.cat([d.converged for d in done] or [start.new_empty(0, dtype=torch.bool)]),
    )


def from_poses(poses: NDArray[np.float64], side: int) -> Tensor:
    """Return the maps of poses: a pose brings the query onto the slice, a map goes back.

    Parameters
    ----------
    poses : float64, shape (B, 5)
        As in `fingerprint.warp`, mirroring included.
    side : int
        Pixels of the images that the maps are for.

    Returns
    -------
    Tensor, shape (B, 2, 3), float64
        Inverse of `warp.matrix`.

    Raises
    ------
    ValueError
        Poses of another shape.
    """
    if poses.ndim != 2:
        raise ValueError(f"from_poses: poses must be (B, 5), got shape {poses.shape}")
    matrices = torch.from_numpy(warp.matrix(poses, side))
    back = matrices.new_zeros((len(matrices), 2, 3))
    a, b, c, d = (matrices[:, i, j] for i in (0, 1) for j in (0, 1))
    area = a * d - b * c
    back[:, 0, 0], back[:, 0, 1] = d / area, -b / area
    back[:, 1, 0], back[:, 1, 1] = -c / area, a / area
    back[:, :, 2] = -(back[:, :, 0] * matrices[:, :1, 2] + back[:, :, 1] * matrices[:, 1:2, 2])
    return back


def _aligned(moving: Tensor, fixed: Tensor, start: Tensor, spec: Affine) -> Alignment:
    side = fixed.shape[-1]
    place = first = _place(start, side)
    settled = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    sizes = _sizes(side)
    safe = next(shrink for shrink, _ in sizes if shrink == 1 or side // shrink >= BENT_PX)
    small = [shrunk(images, [shrink for shrink, _ in sizes]) for images in (moving, fixed)]
    for i, (shrink, every) in enumerate(sizes):
        pair = [images[shrink] for images in small]
        here = level(*pair, side=side, shrink=shrink, every=every)
        how = _how(spec, side, shrink, place)
        if i == 0 < len(sizes) - 1:
            place = highest(here, _turned(place), how)
            continue
        if shrink == safe:  # where small images led away from a good start
            starts = torch.stack([first, place], dim=1)
            place = highest(here, starts, replace(how, steps=0))
        place, _, settled = climb(here, place, how)
        if shrink == safe:  # of strangers, derivatives of one image lose the way in the other
            own = level(*pair, side=side, shrink=shrink, every=every, own=True)
            place, _, settled = climb(own, place, how)
    stayed = (place == first).flatten(1).all(1)[:, None, None]
    found = torch.where(stayed, start, _matrix(place, side))  # no bit is lost where nothing moved
    return _judged(moving, fixed, start, found, settled, spec)


def _how(spec: Affine, side: int, shrink: int, like: Tensor) -> Climb:
    small = shrink > 1 and side // shrink < BENT_PX
    kind = "similarity" if small and spec.kind == "affine" else spec.kind
    return Climb(
        torch.tensor(BASES[kind], dtype=torch.float64, device=like.device),
        kind == "rigid",
        spec.steps,
        spec.tolerance_px if shrink == 1 else max(spec.tolerance_px, COARSE * shrink),
        spec.least_overlap,
    )


def _turned(place: Tensor) -> Tensor:
    """Return places and the same turned about the image centre, (b, turns, 2, 3)."""
    turns = torch.deg2rad(torch.tensor(TURNS_DEG, dtype=torch.float64, device=place.device))
    c, s = turns.cos(), turns.sin()
    turned = place[:, None, :, :2] @ torch.stack([c, s, -s, c], dim=1).unflatten(1, (2, 2))
    return torch.cat([turned, place[:, None, :, 2:].expand(-1, len(turns), -1, -1)], dim=3)


def _judged(
    moving: Tensor, fixed: Tensor, start: Tensor, found: Tensor, settled: Tensor, spec: Affine
) -> Alignment:
    """Take what was found where it is good, else the start."""
    start_r, _ = overlap(moving, fixed, start)
    found_r, share = overlap(moving, fixed, found)
    # NaN, of a start without structure, is no better than anything
    good = settled & found_r.isfinite() & ~(found_r < start_r) & (share >= spec.least_overlap)
    return Alignment(
        torch.where(good[:, None, None], found, start), torch.where(good, found_r, start_r), good
    )


def _sizes(side: int) -> list[tuple[int, int]]:
    """Return (shrink, every) of the levels, coarse to fine.

    Of large images every second pixel along a side is compared at full resolution: a quarter of
    the sums, and the same place to a few hundredths of a pixel.
    """
    halvings = max(0, (side // FIRST_PX).bit_length() - 1)
    fine = 2 if side >= 2 * BENT_PX else 1
    return [(2**i, 1) for i in range(halvings, 0, -1)] + [(1, fine)]


def _place(matrix: Tensor, side: int) -> Tensor:
    """[L | t] about the image centre; see `pyramid`."""
    centre = (side - 1) / 2
    turned = matrix[:, :, 0] * centre + matrix[:, :, 1] * centre
    return torch.cat([matrix[:, :, :2], (matrix[:, :, 2] + turned - centre)[:, :, None]], dim=2)


def _matrix(place: Tensor, side: int) -> Tensor:
    """Undo `_place`."""
    centre = (side - 1) / 2
    turned = place[:, :, 0] * centre + place[:, :, 1] * centre
    return torch.cat([place[:, :, :2], (place[:, :, 2] - turned + centre)[:, :, None]], dim=2)
