"""From a start on a coarse grid to the best pose of one query on many slices, and its exact r.

    coarse   at half of the size of `mid` (64 px): all candidates, on local contrast, first with a
             wide reach, then with a narrow one
    fine     at `mid` (128 px): the best of those, on the high-pass image; rounded to `LATTICE`
    r        of the query posed there, on each of `settings.IMAGES`, from integers

Why two reaches, measured on 120 planted copies of real slices, starts of the screen moved by
another 1.5 deg, 0.025, 6 px: the wide one alone brings all of them back, and their sources are 8.9
standard deviations above the strangers (in z); the narrow one alone loses a seventh of them, and
has 12.9; one after the other has 13.3 and loses none. Of 130 copies of 40 % of a slice in a
stranger both together rank 0.65 first, the wide one 0.50.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint import warp
from fingerprint.search.align import Floats, Limits, align
from fingerprint.search.images import AT_ONCE, local_contrast, score_image
from fingerprint.settings import IMAGES

VERSION = 2
WIDE_STEPS, NARROW_STEPS, FINE_STEPS = 2, 2, 3
# a pose is stored in these units: angle, scale, shifts. A step moves a corner by a fifth of a pixel
# of 512 at most, so a pose that two machines round differently in its last bit is stored the same
LATTICE = np.array([1 / 64, 1 / 1024, 1 / 16, 1 / 16])


@dataclass(frozen=True)
class Coarse:
    """Images of slices or queries as they are aligned first: int8, (n, h / 2, h / 2) each."""

    wide: NDArray[np.int8]
    narrow: NDArray[np.int8]

    def __getitem__(self, rows: Any) -> Coarse:
        return Coarse(self.wide[rows], self.narrow[rows])


@dataclass(frozen=True)
class Scored:
    """Images of slices or queries as they are scored: `IMAGES` -> (n, h, h)."""

    images: tuple[NDArray[Any], ...]

    def __getitem__(self, rows: Any) -> Scored:
        return Scored(tuple(image[rows] for image in self.images))

    def __len__(self) -> int:
        return len(self.images[0])


def coarse_images(mids: NDArray[np.uint8]) -> Coarse:
    """Return what `coarse` aligns, from `mid` (n, h, h): local contrast at half the size."""
    n, side, _ = mids.shape
    if side % 2:
        raise ValueError(f"coarse_images: images need an even side, got {mids.shape}")
    half = side // 2
    out = Coarse(np.empty((n, half, half), np.int8), np.empty((n, half, half), np.int8))
    for i in range(0, n, AT_ONCE):
        part = mids[i : i + AT_ONCE].astype(np.float32)
        pairs = part[:, ::2] + part[:, 1::2]  # sums of four pixels: not rounded
        grey, most = pairs[:, :, ::2] + pairs[:, :, 1::2], 4 * 255
        at = slice(i, i + AT_ONCE)
        out.wide[at] = local_contrast(grey, most=most, reach=half / 16, smooth=half / 64)
        out.narrow[at] = local_contrast(grey, most=most, reach=half / 32)
    return out


def scored_images(mids: NDArray[np.uint8]) -> Scored:
    """Return the images that `fine` aligns and that r is computed on."""
    return Scored(tuple(score_image(mids, name) for name in IMAGES))


def coarse(query: Coarse, slices: Coarse, starts: Floats, limits: Limits) -> tuple[Floats, Floats]:
    """Align a query with all of its candidates.

    Parameters
    ----------
    query : Coarse, 1 image
    slices : Coarse, c images
    starts : float64, shape (c, 5)

    Returns
    -------
    poses : float64, shape (c, 5)
    r : float64, shape (c,)
        On the narrow images: which candidates are worth a closer look.
    """
    near, _ = align(query.wide[0], slices.wide, starts, steps=WIDE_STEPS, limits=limits)
    return align(query.narrow[0], slices.narrow, near, steps=NARROW_STEPS, limits=limits)


def fine(
    query: Scored, slices: Scored, starts: Floats, limits: Limits
) -> tuple[Floats, NDArray[np.float64]]:
    """Align a query closely, round its poses to the lattice, and score it there or as stored.

    Parameters
    ----------
    query : Scored, 1 image
    slices : Scored, c images
    starts : float64, shape (c, 5)

    Returns
    -------
    poses : float64, shape (c, 5)
    r : float64, shape (3, c)
        Pearson on each of `IMAGES` over the common overlap, exact; NaN where an image is constant.
    """
    highpass = IMAGES.index("highpass")
    found, _ = align(
        query.images[highpass][0],
        slices.images[highpass],
        starts,
        steps=FINE_STEPS,
        limits=limits,
    )
    poses = on_lattice(found)
    r, stored = posed_r(query, slices, poses), stored_r(query, slices)
    # a copy that was not moved fits best as it is, and an alignment only comes close to that
    as_it_is = stored[highpass] >= r[highpass]
    poses[as_it_is], r[:, as_it_is] = warp.IDENTITY, stored[:, as_it_is]
    return poses, r


def on_lattice(poses: Floats) -> Floats:
    """Round poses (c, 5) to `LATTICE`."""
    out = poses.copy()
    out[:, :4] = np.rint(poses[:, :4] / LATTICE) * LATTICE + 0.0  # no negative zero
    return out


def best_of(r: Floats, keep: int) -> NDArray[np.int64]:
    """Return which `keep` are best, in rising order; on a tie the earlier."""
    return np.sort(np.lexsort((np.arange(len(r)), -r))[:keep])


def posed_r(query: Scored, slices: Scored, poses: Floats) -> NDArray[np.float64]:
    """Pearson r of a query at poses with one slice each, where both have pixels.

    The query is shown at the pose (bilinear) and rounded to whole grey levels, so that all sums are
    integers, and r takes one square root of one product (METHOD.md, section 3.1).

    Returns
    -------
    float64, shape (3, c)
    """
    out = np.empty((len(IMAGES), len(poses)))
    asked = np.stack([image[0].astype(np.float64) for image in query.images])
    for i, pose in enumerate(poses):
        y, x = warp.points(pose, asked.shape[1])
        overlap = inside(y, x).astype(np.float64)
        posed = np.rint(warp.sample(asked, y, x)) * overlap
        fixed = np.stack([image[i] for image in slices.images]) * overlap
        out[:, i] = _pearson(posed, fixed, overlap.sum())
    return out


def stored_r(query: Scored, slices: Scored) -> NDArray[np.float64]:
    """Pearson r of a query as it is stored with each slice: `posed_r` where nothing was moved."""
    asked = np.stack([image[0].astype(np.float64) for image in query.images])
    out = np.empty((len(IMAGES), len(slices)))
    for i in range(len(slices)):
        fixed = np.stack([image[i].astype(np.float64) for image in slices.images])
        out[:, i] = _pearson(asked, fixed, float(asked[0].size))
    return out


def inside(y: Floats, x: Floats) -> NDArray[np.bool_]:
    """Tell which points lie between the pixels of a query (h, h), not around them."""
    last = len(y) - 1
    within: NDArray[np.bool_] = (y >= 0) & (y <= last) & (x >= 0) & (x <= last)
    return within


def _pearson(x: Floats, y: Floats, n: float) -> Floats:
    """Correlate whole numbers held in float64, (3, h, h) of which `n` pixels count, the rest zero.

    Every sum is exact, in whatever order a library adds. einsum and not @: a product of vectors
    this long wakes the threads of a BLAS for nothing.
    """
    sx, sy = x.sum((1, 2)), y.sum((1, 2))
    sxx, syy, sxy = (np.einsum("ijk,ijk->i", p, q) for p, q in ((x, x), (y, y), (x, y)))
    a, b = n * sxx - sx * sx, n * syy - sy * sy
    there = (a > 0) & (b > 0)
    r = (n * sxy - sx * sy) / np.sqrt(np.where(there, a * b, 1.0))
    return np.where(there, r, np.nan)
