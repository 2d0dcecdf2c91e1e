"""Where the body is in a slice: threshold, thin parts off, largest part, holes filled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LEAST = 0.1  # share of the image that the smallest body fills

_PLANE = np.zeros((3, 3, 3), int)  # neighbours in one image of a stack, never across images
_PLANE[1] = ndimage.generate_binary_structure(2, 1)


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
