"""The screen image: what the search at every pose multiplies, 32 x 32 int8, made from the thumb.

Each pixel of the thumb has its local mean removed and is divided by its local standard deviation
(Gaussian window, sigma 1.5 px, with a floor of 16 grey levels), and is then held within 1.5 of
them: the outline of the body and the grey of air and table, which make strangers alike, weigh no
more than anything else. Only the 384 pixels nearest the centre are kept, the others are 0: outside
lie skin, arms and table, and there a small error of angle or scale moves most. The choices are
measured in docs/pose.md.

The kept pixels are centred, brought to one norm and rounded to int8 so that they sum to zero: a
product of two rows over their norms is their Pearson r, and no sums need to be subtracted for each
pair. Sums over a window are sums of integers below 2^53, so they are exact in any order; what
follows is float64, element by element: the same bytes on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 32
PIXELS = 384  # a multiple of 64: what processors and tensor cores take at a time
NORM = 512  # a standard deviation of 26: rows of real slices reach 4.7 of them, and 127 is the end
VERSION = 1

UNIT = 64  # of a grey level: what `normalised` takes
_STEPS = 65_536  # of a normalised grey level: what it gives
_HALF = (272, 218, 112, 37, 8, 1)  # exp(-k^2 / 4.5), k = 0 .. 5, so that all eleven sum to 1024
_ONE = 1024.0 * 1024.0
_FLOOR = 16.0 * UNIT * _ONE  # noise is not contrast
_MOST = 1.5 * _STEPS


def _inside() -> NDArray[np.int64]:
    """Return the flat places of the `PIXELS` nearest to the centre; ties in reading order."""
    away = 2 * np.arange(SIDE) - (SIDE - 1)
    squared = (away[:, None] ** 2 + away[None, :] ** 2).ravel()
    return np.sort(np.argsort(squared, kind="stable")[:PIXELS])


INSIDE = _inside()


def screen_of(thumbs: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Return the screen images of thumbs.

    Parameters
    ----------
    thumbs : uint8, shape (n, 32, 32)

    Returns
    -------
    int8, shape (n, 32, 32)
        Each sums to zero and has a norm of about `NORM`; 0 outside of `INSIDE`. A constant thumb
        gives zeros.

    Raises
    ------
    ValueError
        Another dtype or shape.
    """
    if thumbs.dtype != np.uint8 or thumbs.ndim != 3 or thumbs.shape[1:] != (SIDE, SIDE):
        raise ValueError(
            f"screen_of: thumbs must be uint8 (n, {SIDE}, {SIDE}), "
            f"got {thumbs.dtype} {thumbs.shape}"
        )
    out = np.zeros((len(thumbs), SIDE * SIDE), np.int8)
    for i in range(0, len(thumbs), 256):  # what stays in the cache
        part = normalised(thumbs[i : i + 256].astype(np.float64) * UNIT)
        out[i : i + 256, INSIDE] = rows_of(part.reshape(len(part), -1)[:, INSIDE])
    out[np.ptp(thumbs, axis=(1, 2)) == 0] = 0  # its border is all the contrast that it has
    return out.reshape(thumbs.shape)


def inside(screens: NDArray[np.int8]) -> NDArray[np.int8]:
    """Take the pixels that are multiplied: (n, 32, 32) -> (n, `PIXELS`), contiguous."""
    return screens.reshape(len(screens), SIDE * SIDE)[:, INSIDE]


def normalised(images: NDArray[np.float64]) -> NDArray[np.int64]:
    """Remove the local mean and divide by the local standard deviation.

    Parameters
    ----------
    images : float64, shape (..., h, w)
        Grey levels in steps of 1 / `UNIT`: integers up to 255 x 64. Outside is air.

    Returns
    -------
    int64, shape (..., h, w)
        In steps of 1 / 65,536, within 1.5.
    """
    mean = _windowed(images)
    spread = _windowed(images * images) * _ONE - mean * mean + _FLOOR * _FLOOR
    away = (images * _ONE - mean) / np.sqrt(spread)
    return np.rint(np.clip(away * _STEPS, -_MOST, _MOST)).astype(np.int64)


def rows_of(values: NDArray[np.int64]) -> NDArray[np.int8]:
    """Centre rows, bring them to `NORM`, round them with the remainder carried to the next pixel.

    Parameters
    ----------
    values : int64, shape (n, p)
        As `normalised` gives them.

    Returns
    -------
    int8, shape (n, p)
        Every row sums to zero. A row so sparse that a pixel would not fit has a smaller norm; a
        constant row is zeros.
    """
    n = values.shape[1]
    total = values.sum(1)
    squares = n * (values * values).sum(1) - total * total
    centred = n * values - total[:, None]
    norm = np.sqrt(n * squares.astype(np.float64))
    most = np.abs(centred).max(1).astype(np.float64)
    with np.errstate(divide="ignore"):
        gain = np.minimum(NORM / norm, 126 / most)  # the remainder adds at most one to 126
    gain[squares == 0] = 0.0
    # the running sum ends at exactly zero, and so do the rounded differences
    run = np.rint(np.cumsum(centred, axis=1) * gain[:, None])
    return np.diff(run, axis=1, prepend=0.0).astype(np.int8)


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sums over a window of 11 x 11 pixels; the weights sum to 1024 x 1024."""
    return _weights(values.shape[-2]) @ values @ _weights(values.shape[-1])


def _weights(n: int) -> NDArray[np.float64]:
    apart = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :])
    return np.array([*_HALF, 0.0])[np.minimum(apart, len(_HALF))]
