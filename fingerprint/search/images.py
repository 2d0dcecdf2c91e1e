"""The images that a pair is scored on, and the one that it is aligned on.

    raw        the grey levels
    body       what lies outside the body is air: air, table and tubes make strangers alike
    highpass   less its own Gaussian blur, sigma 2 px at 128 (8 px at 512), in int8

A blur is a product with a matrix of whole numbers, rounded between its two directions: every sum
is an integer that float32 holds, whatever order a library adds in. The same bytes on every machine.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from fingerprint.settings import IMAGES

VERSION = 1
AT_ONCE = 32  # images made at a time: what is computed on the way stays in the cache
FLOOR = 10.0  # grey levels; less contrast than this is not blown up to the contrast of the rest
LEAST = 0.1  # share of the image that the smallest body fills

_PLANE = np.zeros((3, 3, 3), int)  # neighbours in one image of a stack, never across images
_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def score_image(images: NDArray[np.uint8], name: str) -> NDArray[Any]:
    """Return one of `IMAGES`, of the shape given: uint8, or int8 for ``highpass``.

    Parameters
    ----------
    images : uint8, shape (n, h, h)
    name : str

    Raises
    ------
    ValueError
        An unknown name, another dtype, images that are not square.
    """
    if name not in IMAGES:
        raise ValueError(f"score_image: name must be one of {', '.join(IMAGES)}, got {name!r}")
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(
            f"score_image: images must be uint8 (n, h, h), got {images.dtype} {images.shape}"
        )
    if name == "raw":
        return images
    out = np.empty(images.shape, np.int8 if name == "highpass" else np.uint8)
    for i in range(0, len(images), AT_ONCE):
        part = images[i : i + AT_ONCE]
        out[i : i + AT_ONCE] = highpass(part) if name == "highpass" else body(part)
    return out


def body(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show air outside the body, images (n, h, w)."""
    return np.where(body_mask(images), images, np.uint8(0))


def highpass(images: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Take the blur (sigma: a 64th of the side) from images (n, h, h); held at -127 and 127."""
    away = highpass_of(torch.from_numpy(images.astype(np.float32)))
    out: NDArray[np.int8] = away.to(torch.int8).numpy()
    return out


def highpass_of(grey: Tensor, sigma: float | None = None) -> Tensor:
    """Return `highpass` as a tensor: whole grey levels (..., h, h), float32, on their device."""
    away = grey - _blur(grey, sigma or grey.shape[-1] / 64, most=255)
    return away.round().clamp(-127, 127)


def local_contrast(
    grey: NDArray[np.float32], *, most: int, reach: float, smooth: float = 0.0
) -> NDArray[np.int8]:
    """Return what poses are refined on: less its local mean, over its local spread.

    Parameters
    ----------
    grey : float32, shape (n, h, h)
        Whole numbers 0 .. `most`.
    reach : float
        Sigma in pixels of what is local.
    smooth : float
        Sigma of a blur before all that: it widens the range of starts that are brought back.

    Returns
    -------
    int8, shape (n, h, h)
        A local standard deviation is 32; contrast below `FLOOR` is not blown up to it.
    """
    shown = blurred(grey, smooth, most=most) if smooth else grey
    shown = shown * np.float32(255 / most)
    away = np.rint(shown - blurred(np.rint(shown), reach, most=255))
    spread = blurred(away * away, reach, most=255 * 255)
    return _int8(32 * away / np.sqrt(spread + np.float32(FLOOR * FLOOR)))


def _int8(values: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.clip(np.rint(values), -127, 127).astype(np.int8)


def blurred(grey: NDArray[np.float32], sigma: float, *, most: int) -> NDArray[np.float32]:
    """Gaussian blur of images whose border is continued.

    Parameters
    ----------
    grey : float32, shape (n, h, h)
        Whole numbers of at most `most` in size; `most` <= 65,535.
    sigma : float
        Pixels.

    Returns
    -------
    float32, shape (n, h, h)
        Within a few hundredths of `most` / 255 of the blur in real numbers.
    """
    out: NDArray[np.float32] = _blur(torch.from_numpy(grey), sigma, most=most).numpy()
    return out


def _blur(grey: Tensor, sigma: float, *, most: int) -> Tensor:
    """`blurred` by torch, which keeps to the threads that a worker was given."""
    one = 2 ** min(12, int(math.log2(2**24 / most)))  # weights are whole numbers; this is their sum
    weights = torch.from_numpy(_weights(grey.shape[-1], sigma, one)).to(grey.device)
    # between the directions: as many steps of a grey level as the second sum can hold
    step = 2.0 ** -int(math.log2(2**24 / (most * one)))
    across = (grey @ weights.T / (one * step)).round()
    return weights @ across * (step / one)


@functools.lru_cache(maxsize=16)
def _weights(side: int, sigma: float, one: int) -> NDArray[np.float32]:
    """Return the matrix of a blur: each row sums to `one`, exactly."""
    reach = math.ceil(3 * sigma)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    row = np.rint(bell / bell.sum() * one)
    row[reach] += one - row.sum()
    matrix = np.zeros((side, side), np.float32)
    for i in range(side):
        np.add.at(matrix[i], np.clip(np.arange(i - reach, i + reach + 1), 0, side - 1), row)
    return matrix


def body_mask(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell the body from what is around it: threshold, thin parts off, largest part, holes filled.

    Parameters
    ----------
    images : uint8, shape (n, h, w)

    Returns
    -------
    bool, shape (n, h, w)
        True everywhere where no part fills `LEAST` of the image: there is no body to be seen.
    """
    dense = images > thresholds(images)[:, None, None]
    steps = max(1, images.shape[-1] // 128)
    for _ in range(steps):
        dense = _shrunk(dense)
    largest = _largest(dense)
    for _ in range(steps):
        largest = ~_shrunk(~largest)
    filled = ~_touching(~largest)
    # a window that shows bone alone leaves the spine or the table: then nothing is taken away
    filled[filled.mean(axis=(1, 2)) < LEAST] = True
    return filled


def thresholds(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Otsu's threshold of each image, in integers: it follows the window that the image shows."""
    n = len(images)
    offset = np.arange(n)[:, None] * 256
    counts = np.bincount((images.reshape(n, -1) + offset).ravel(), minlength=256 * n)
    counts = counts.reshape(n, 256).astype(np.int64)
    below = np.cumsum(counts, axis=1)
    sums = np.cumsum(counts * np.arange(256), axis=1)
    total, whole = below[:, -1:], sums[:, -1:]
    # between-class variance times total^2: (total sums - whole below)^2 / (below above)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total * sums - whole * below).astype(np.float64) ** 2 / (
            below * (total - below)
        ).astype(np.float64)
    chosen: NDArray[np.int64] = np.argmax(np.nan_to_num(between, nan=-1.0), axis=1)
    return np.where(np.ptp(images.reshape(n, -1), axis=1) > 0, chosen, 255)


def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take a pixel off the edge; the border of the image is no edge."""
    out = mask.copy()
    out[:, 1:] &= mask[:, :-1]
    out[:, :-1] &= mask[:, 1:]
    out[:, :, 1:] &= mask[:, :, :-1]
    out[:, :, :-1] &= mask[:, :, 1:]
    return out


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest part of each image, the first of equals."""
    parts, count = ndimage.label(mask, _PLANE)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    image = np.zeros(count + 1, np.int64)
    image[parts.reshape(len(mask), -1)] = np.arange(len(mask))[:, None]
    order = np.lexsort((np.arange(count), -sizes, image[1:]))
    _, first = np.unique(image[1:][order], return_index=True)
    keep = np.zeros(count + 1, bool)
    keep[order[first] + 1] = True
    return np.asarray(keep[parts], bool)


def _touching(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the parts that touch the border of their image."""
    parts, count = ndimage.label(mask, _PLANE)
    keep = np.zeros(count + 1, bool)
    for edge in (parts[:, 0], parts[:, -1], parts[:, :, 0], parts[:, :, -1]):
        keep[edge] = True
    keep[0] = False
    return np.asarray(keep[parts], bool)
