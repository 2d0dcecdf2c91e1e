"""Structural similarity of two images (METHOD.md, section 3.16): batches of pairs.

SSIM (Wang et al. 2004): local means, variances and covariance in a Gaussian window of 11 x 11
pixels, sd 1.5; the mean over the windows that lie inside the image. 3-SSIM (Li and Bovik 2009)
weighs the map by what the pixels are: edges, texture, smooth regions.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fingerprint.measure.similarity import MOST, checked

REACH = 5  # pixels on each side of a window
SIGMA = 1.5
C1, C2 = (0.01 * MOST) ** 2, (0.03 * MOST) ** 2
EDGE, SMOOTH = 0.12, 0.06  # of the largest gradient of the reference
WEIGHTS = (0.5, 0.25, 0.25)  # edges, texture, smooth


def ssim(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean SSIM of each pair, float64 (B,).

    Parameters
    ----------
    x, y : Tensor, shape (B, 1, H, W), float32
        Grey levels 0 .. 255; H and W at least 11.
    mask : Tensor, shape (B, 1, H, W), bool, optional
        Windows whose centre counts; what they reach into counts with them.

    Returns
    -------
    Tensor
        NaN where no window counts.

    Raises
    ------
    ValueError
        Shapes or dtypes that do not fit, images smaller than a window.
    """
    _large_enough("ssim", x, y, mask)
    found = similarity_map(windows(x), windows(y))
    counts = torch.ones_like(found, dtype=torch.bool) if mask is None else _cropped(mask)
    return _mean(found, counts)


def three_ssim(other: Tensor, reference: Tensor, *, both: bool = False) -> Tensor:
    """Return the 3-SSIM of each pair, float64 (B,): not symmetric.

    Edges: the gradient of either image is above 0.12 of the largest one of the reference; smooth:
    the reference below 0.06 and the other image not above 0.12; texture: the rest. The mean SSIM of
    each, times 0.5, 0.25 and 0.25; what an image lacks gives its weight to the rest.

    Parameters
    ----------
    other, reference : Tensor, shape (B, 1, H, W), float32
        Grey levels; the reference is the real image.
    both : bool
        Edges only where both images have one, as in a public implementation.

    Returns
    -------
    Tensor
        NaN where the reference has no gradient.

    Raises
    ------
    ValueError
        Shapes or dtypes that do not fit, images smaller than a window.

    References
    ----------
    Li and Bovik 2009, "Three-component weighted structural similarity index".
    """
    _large_enough("three_ssim", other, reference, None)
    found = similarity_map(windows(other), windows(reference))
    return weighed(found, gradient(other), gradient(reference), both=both)


def weighed(found: Tensor, d: Tensor, o: Tensor, *, both: bool = False) -> Tensor:
    """Return 3-SSIM, float64 (B,), of SSIM maps and the `gradient` of both images.

    Parameters
    ----------
    found : Tensor, shape (B, 1, H - 10, W - 10)
    d, o : Tensor, of that shape, or of one image where all pairs share it
        Of the other image, and of the reference.
    both : bool
        See `three_ssim`.
    """
    largest = o.flatten(1).amax(1)[:, None, None, None]
    high, low = EDGE * largest, SMOOTH * largest
    edges = (o > high) & (d > high) if both else (o > high) | (d > high)
    smooth = (o < low) & (d <= high) & ~edges
    parts = torch.stack([_mean(found, part) for part in (edges, ~edges & ~smooth, smooth)], dim=1)
    weights = parts.new_tensor(WEIGHTS) * parts.isfinite()
    score = (weights * parts.nan_to_num()).sum(1) / weights.sum(1)
    return torch.where(largest.flatten() > 0, score, torch.nan)


def _large_enough(name: str, x: Tensor, y: Tensor, mask: Tensor | None) -> None:
    checked(name, x, y, mask)
    if min(x.shape[2:]) < 2 * REACH + 1:
        raise ValueError(f"{name}: images must be at least 11 x 11, got {tuple(x.shape)}")


@dataclass(frozen=True)
class Windows:
    """Images with what SSIM needs of each alone; grey levels are about the middle of their range.

    Attributes
    ----------
    grey : Tensor, shape (B, 1, H, W), float32
    mean, square : Tensor, shape (B, 1, H - 10, W - 10), float32
        Of every window inside the image: of the grey levels, and of their squares.
    """

    grey: Tensor
    mean: Tensor
    square: Tensor

    def __getitem__(self, rows: slice) -> Windows:
        return Windows(self.grey[rows], self.mean[rows], self.square[rows])


def windows(images: Tensor) -> Windows:
    """Prepare images, float32 (B, 1, H, W), that are compared with many others."""
    grey = images - MOST / 2  # squares about the middle are small enough for float32
    return Windows(grey, _windowed(grey), _windowed(grey * grey))


def similarity_map(x: Windows, y: Windows) -> Tensor:
    """Return SSIM at every window inside the images: float32 (B, 1, H - 10, W - 10).

    Of pairs, or of one image with many.
    """
    both, squares = x.mean * y.mean, x.mean * x.mean + y.mean * y.mean
    v, cov = x.square + y.square - squares, _windowed(x.grey * y.grey) - both
    m_x, m_y = x.mean + MOST / 2, y.mean + MOST / 2
    return (2 * m_x * m_y + C1) / (m_x * m_x + m_y * m_y + C1) * ((2 * cov + C2) / (v + C2))


def _windowed(images: Tensor) -> Tensor:
    """Return the Gaussian mean of every window inside images: shifted and added, one tap a time."""
    for dim in (2, 3):
        size = images.shape[dim] - 2 * REACH
        out = torch.zeros_like(images.narrow(dim, 0, size))
        for k, weight in enumerate(_bell()):
            out.add_(images.narrow(dim, k, size), alpha=weight)
        images = out
    return images


@functools.lru_cache(maxsize=1)
def _bell() -> tuple[float, ...]:
    weights = [math.exp(-0.5 * (k / SIGMA) ** 2) for k in range(-REACH, REACH + 1)]
    return tuple(w / sum(weights) for w in weights)


def _cropped(images: Tensor) -> Tensor:
    return images[:, :, REACH:-REACH, REACH:-REACH]


def gradient(images: Tensor) -> Tensor:
    """Return |gx| + |gy| by Sobel's operator at every window; images are continued at borders."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    out = torch.zeros_like(images)
    for across, along in ((2, 3), (3, 2)):
        smooth = padded.narrow(across, 0, images.shape[across])
        smooth = smooth + 2 * padded.narrow(across, 1, images.shape[across])
        smooth = smooth + padded.narrow(across, 2, images.shape[across])
        n = images.shape[along]
        out += (smooth.narrow(along, 2, n) - smooth.narrow(along, 0, n)).abs()
    return _cropped(out)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of some pixels of each image, float64 (B,); NaN without any."""
    inside = counts.flatten(1)
    return (values.flatten(1).double() * inside).sum(1) / inside.sum(1)
