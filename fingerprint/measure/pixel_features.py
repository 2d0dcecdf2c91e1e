"""Features that need no network: principal components of pixels and of texture (METHOD.md, 3.14).

Their Fréchet and kernel distances can always be computed. They are never called FID or KID: those
names belong to the Inception network, and a distance means nothing across feature spaces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.feature import local_binary_pattern

from fingerprint.corpus.window import area_mean
from fingerprint.measure.frechet import RankDeficient, checked

SIDE = 64  # of the images whose pixels are features
TEXTURE_SIDE = 128
CELLS = 4  # along each side
PATTERNS = ((8, 1), (16, 2), (24, 3))  # points, radius in pixels of 128
BINS = tuple(points + 2 for points, _ in PATTERNS)  # 10, 18, 26
MOST = 64  # components


def pixels_64(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the grey levels of 64 x 64 area means, row after row: float64 (n, 4096), 0 .. 255.

    Parameters
    ----------
    images : uint8, shape (n, s, s), s a multiple of 64

    Raises
    ------
    ValueError
        Another shape or dtype.
    """
    _square_of("pixels_64", images, SIDE)
    return area_mean(images, (SIDE, SIDE)).reshape(len(images), SIDE**2)


def _square_of(name: str, images: NDArray[np.uint8], side: int) -> None:
    if images.dtype != np.uint8:
        raise ValueError(f"{name}: images must be uint8, got {images.dtype}")
    shape = images.shape
    if images.ndim != 3 or shape[1] != shape[2] or not shape[1] or shape[1] % side:
        raise ValueError(f"{name}: images must be (n, s, s), s a multiple of {side}, got {shape}")


def lbp(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return histograms of local binary patterns, in cells: float64 (n, 864).

    Patterns are uniform and rotation invariant, at (points, radius) = (8, 1), (16, 2), (24, 3) on
    the area mean of 128 x 128 pixels, rounded to whole grey levels. Outside the image is grey
    level 0, which is air.

    Parameters
    ----------
    images : uint8, shape (n, s, s), s a multiple of 128

    Returns
    -------
    float64, shape (n, 4 * 4 * (10 + 18 + 26))
        Cell after cell, row by row; in each the three scales one after the other, each adding up
        to 1.

    Raises
    ------
    ValueError
        Another shape or dtype.

    References
    ----------
    Ojala, Pietikainen and Maenpaa 2002; METHOD.md, section 1.4 for the three scales.
    """
    _square_of("lbp", images, TEXTURE_SIDE)
    small = np.rint(area_mean(images, (TEXTURE_SIDE, TEXTURE_SIDE))).astype(np.uint8)
    out = np.empty((len(images), CELLS**2, sum(BINS)))
    for i, image in enumerate(small):
        scales = [_cell_histograms(image, points, radius) for points, radius in PATTERNS]
        out[i] = np.concatenate(scales, axis=1)
    return out.reshape(len(images), CELLS**2 * sum(BINS))


def _cell_histograms(image: NDArray[np.uint8], points: int, radius: int) -> NDArray[np.float64]:
    """Return the share of each pattern in each cell: float64 (16, points + 2)."""
    bins, side = points + 2, TEXTURE_SIDE // CELLS
    pattern = local_binary_pattern(image, points, radius, method="uniform").astype(np.intp)
    cell = np.arange(TEXTURE_SIDE) // side
    cell = cell[:, None] * CELLS + cell
    counts = np.bincount((cell * bins + pattern).ravel(), minlength=CELLS**2 * bins)
    return counts.reshape(CELLS**2, bins) / float(side**2)


def components(n_min: int, most: int = MOST) -> int:
    """Return how many components sets of `n_min` rows can be compared in: ``n_min / 2 - 1``.

    The largest k, up to `most`, with ``n_min >= 2 (k + 1)``: twice what a covariance of full rank
    needs, and just what the extrapolation of `fid_infinite` needs.

    Parameters
    ----------
    n_min : int
        Rows of the smallest set that is compared, and of the rows that the basis is fitted on.
    most : int
        At least 2.

    Raises
    ------
    RankDeficient
        Fewer than 6 rows: not even two components.
    ValueError
        `most` below 2.
    """
    if most < 2:
        raise ValueError(f"components: most must be at least 2, got {most}")
    k = min(most, n_min // 2 - 1)
    if k < 2:
        raise RankDeficient(f"components: 2 components need at least 6 rows in a set, got {n_min}")
    return k


@dataclass(frozen=True, eq=False)
class Basis:
    """Principal components of some features, the strongest first.

    Attributes
    ----------
    mean : float64, shape (p,)
    components : float64, shape (p, k)
        Orthonormal columns; the largest entry of each, by its size, is positive.
    scale : float
        What projections are divided by: the root of the mean variance along the components, of the
        rows fitted on. One number for all, so that no direction weighs more than it did; with it
        a gain of the images changes no distance, and the kernel's ``x.y / d`` is about 1.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    scale: float

    def project(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the scaled coordinates of features (n, p) along the components: float64 (n, k).

        Raises
        ------
        ValueError
            Another shape, or a value that is not finite.
        """
        x = checked("project", "features", features)
        if x.shape[1] != len(self.mean):
            raise ValueError(f"project: features must have {len(self.mean)} columns, got {x.shape}")
        return (x - self.mean) @ self.components / self.scale


def fit(features: ArrayLike, k: int = MOST) -> Basis:
    """Fit a basis: on the reference (real slices) alone, so that what it is compared with is new.

    Parameters
    ----------
    features : array_like, shape (n, p)
        At least k + 1 rows.
    k : int
        Components wanted, see `components`; fewer come back where the rows span fewer, since any
        more would point anywhere.

    Raises
    ------
    RankDeficient
        Fewer than k + 1 rows, or all rows the same.
    ValueError
        Another shape, a value that is not finite, k below 1.

    Warnings
    --------
    A basis follows the rows it was fitted on: along it they vary more than new rows of the same
    law. Fitted on real and control slices, a new set of their law was 0.83 to 0.85 times as far
    from the real ones as the control was (n = 60 and 130, variances falling as 1/i); fitted on the
    real ones alone, 0.99 to 1.00 times. The kernel distance of one law is then a little below 0
    (-0.04 and -0.02): it too is read beside that of the control.

    A full decomposition: a second for a thousand rows of 4096, a minute for a few thousand.
    """
    x = checked("fit", "features", features)
    if k < 1:
        raise ValueError(f"fit: k must be at least 1, got {k}")
    if len(x) < k + 1:
        raise RankDeficient(f"fit: {k} components need at least {k + 1} rows, got {len(x)}")
    mean = x.mean(0)
    _, s, rows = np.linalg.svd(x - mean, full_matrices=False)
    rounding = np.finfo(float).eps * max(x.shape) * max(s[0], np.abs(x).max())
    kept = min(k, int(np.sum(s > rounding)))
    if not kept:
        raise RankDeficient(f"fit: the rows must differ, got {len(x)} that are the same")
    scale = float(np.sqrt(np.mean(s[:kept] ** 2) / (len(x) - 1)))
    return Basis(mean, _signed(rows[:kept]).T.copy(), scale)


def _signed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn each row so that its largest entry is positive: a sign that no library chose."""
    largest = np.abs(rows).argmax(1)
    return rows * np.sign(rows[np.arange(len(rows)), largest])[:, None]
