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
from torch import Tensor

from fingerprint.corpus.body import body_mask
from fingerprint.settings import IMAGES

VERSION = 1
AT_ONCE = 32  # images made at a time: what is computed on the way stays in the cache
FLOOR = 10.0  # grey levels; less contrast than this is not blown up to the contrast of the rest


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
