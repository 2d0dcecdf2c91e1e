"""Slices with their edges or their contrast brought out, before they are compared.

Nothing is learnt from other slices: each becomes another one by itself, the same for real and for
generated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from skimage.exposure import equalize_adapthist
from skimage.filters import unsharp_mask

Slices = NDArray[np.uint8]
RADIUS_PX = 2.0  # SD of the blur
AMOUNT = 1.0
MOST = 255


def plain(images: Slices) -> Slices:
    """Return slices as they are: uint8 (n, h, w)."""
    return images


def unsharp(images: Slices) -> Slices:
    """Add to each slice what a Gaussian blur takes from it: its edges, and its noise.

    Parameters
    ----------
    images : uint8, shape (n, h, w)

    Returns
    -------
    uint8, shape (n, h, w)
        x + (x - blurred x), SD 2 px, the slice mirrored at its border; to whole grey levels, those
        outside 0 .. 255 cut off.

    Raises
    ------
    ValueError
        Another shape or dtype.
    """
    _check("unsharp", images)
    out = np.empty_like(images)
    for i, image in enumerate(images):  # of a whole block the float64 would be large
        out[i] = np.rint(unsharp_mask(image, RADIUS_PX, AMOUNT) * MOST)
    return out


def clahe(images: Slices) -> Slices:
    """Equalise the histogram of each neighbourhood, an eighth of a side, up to a limit of contrast.

    Parameters and errors as `unsharp`; the settings are those of skimage (limit 0.01).

    References
    ----------
    Zuiderveld 1994, Graphics Gems IV, VIII.5.
    """
    _check("clahe", images)
    out = np.empty_like(images)
    for i, image in enumerate(images):
        out[i] = np.rint(equalize_adapthist(image) * MOST)
    return out


ENHANCED: Mapping[str, Callable[[Slices], Slices]] = {
    "plain": plain,
    "unsharp": unsharp,
    "clahe": clahe,
}


def _check(function: str, images: Slices) -> None:
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape[1:]:
        raise ValueError(
            f"{function}: images must be (n, h, w) uint8, got {images.shape} {images.dtype}"
        )
