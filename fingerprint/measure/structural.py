"""Structural similarity of two images (METHOD.md, section 3.16): batches of pairs.

SSIM (Wang et al. 2004): local means, variances and covariance in a Gaussian window of 11 x 11
pixels, sd 1.5; the mean over the windows that lie inside the image. 3-SSIM (Li and Bovik 2009)
weighs the map by what the pixels are: edges, texture, smooth regions.
"""

from __future__ import annotations

import functools
import math

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
    found = _map("ssim", x, y, mask)
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
    found = _map("three_ssim", other, reference, None)
    o, d = (_cropped(_gradient(image)) for image in (reference, other))
    largest = o.flatten(1).amax(1)[:, None, None, None]
    high, low = EDGE * largest, SMOOTH * largest
    edges = (o > high) & (d > high) if both else (o > high) | (d > high)
    smooth = (o < low) & (d <= high) & ~edges
    parts = torch.stack([_mean(found, part) for part in (edges, ~edges & ~smooth, smooth)], dim=1)
    weights = parts.new_tensor(WEIGHTS) * parts.isfinite()
    score = (weights * parts.nan_to_num()).sum(1) / weights.sum(1)
    return torch.where(largest.flatten() > 0, score, torch.nan)


def _map(name: str, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """Return SSIM at every window inside the images: float32 (B, 1, H - 10, W - 10)."""
    checked(name, x, y, mask)
    if min(x.shape[2:]) < 2 * REACH + 1:
        raise ValueError(f"{name}: images must be at least 11 x 11, got {tuple(x.shape)}")
    middle = MOST / 2  # squares of grey levels about it are small enough for float32
    x, y = x - middle, y - middle
    m_x, m_y, xx, yy, xy = (_windowed(part) for part in (x, y, x * x, y * y, x * y))
    both, squares = m_x * m_y, m_x * m_x + m_y * m_y
    v, cov = xx + yy - squares, xy - both
    m_x, m_y = m_x + middle, m_y + middle
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


def _gradient(images: Tensor) -> Tensor:
    """Return |gx| + |gy| by Sobel's operator; images are continued at their border."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    out = torch.zeros_like(images)
    for across, along in ((2, 3), (3, 2)):
        smooth = padded.narrow(across, 0, images.shape[across])
        smooth = smooth + 2 * padded.narrow(across, 1, images.shape[across])
        smooth = smooth + padded.narrow(across, 2, images.shape[across])
        n = images.shape[along]
        out += (smooth.narrow(along, 2, n) - smooth.narrow(along, 0, n)).abs()
    return out


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of some pixels of each image, float64 (B,); NaN without any."""
    inside = counts.flatten(1)
    return (values.flatten(1).double() * inside).sum(1) / inside.sum(1)
