"""What is drawn as pixels: the matrix with its colours, and the difference of two images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

WIDEST, TALLEST = 1000, 480  # cells of a matrix that are drawn before neighbours are joined

# -- the matrix


def join(
    parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float64]]], rows: int, columns: int
) -> tuple[NDArray[np.float64], int, int]:
    """Join a matrix that comes in parts until it is small enough to be drawn.

    Parameters
    ----------
    parts : iterable of (place, r)
        Which rows of the drawing these are, int64 (k,), and their r, float64 (k, columns).
    rows, columns : int
        Of the whole.

    Returns
    -------
    (joined, rows, columns)
        A cell of `joined` is the maximum of rows x columns cells, so that no high r is lost; NaN
        where all of them are.
    """
    tall, wide = max(1, -(-rows // TALLEST)), max(1, -(-columns // WIDEST))
    joined = np.full((-(-rows // tall), -(-columns // wide)), np.nan)
    for place, r in parts:
        narrow = np.fmax.reduceat(r, np.arange(0, columns, wide), axis=1)
        np.fmax.at(joined, place // tall, narrow)
    return joined, tall, wide


def matrix_image(r: NDArray[np.float64], low: float) -> str:
    """Colour a matrix of r from `low` to 1, as a PNG data URI; NaN is grey."""
    level = np.clip(np.round((r - low) / max(1 - low, 1e-9) * 254), 0, 254)
    image = Image.fromarray(np.where(np.isnan(r), 255, level).astype(np.uint8), mode=None)
    image.putpalette(_palette())
    return png(image)


def _palette() -> list[int]:
    colours = mpl.colormaps["cividis"](np.linspace(0, 1, 255))[:, :3]
    return [*np.round(colours * 255).astype(int).ravel().tolist(), 205, 210, 215]


def colour_bar() -> str:
    """Return the colours of the matrix, lowest first, as a data URI."""
    image = Image.fromarray(np.arange(255, dtype=np.uint8)[None])
    image.putpalette(_palette())
    return png(image)


def png(image: Image.Image) -> str:
    """Return a lossless data URI."""
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def ticks(n: int) -> list[tuple[float, str]]:
    """Return about five places along `n` cells, in per cent of the side, and their numbers."""
    step = next(s * 10**k for k in range(12) for s in (1, 2, 5) if n <= 6 * s * 10**k)
    numbers = [1, *range(step, n + 1, step)] if step > 1 else list(range(1, n + 1))
    return [((k - 0.5) / n * 100, f"{k:,}") for k in numbers]


# -- differences of two images

FULL_COLOUR = 50  # grey levels of difference that are drawn at full colour
BRIGHTER, DARKER = (255, 176, 64), (96, 176, 255)  # orange and blue on black: not red and green
OUTSIDE = (88, 96, 104)


def difference(
    generated: NDArray[np.uint8],
    real: NDArray[np.uint8],
    inside: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Colour generated minus real: black is equal, orange brighter, blue darker.

    Parameters
    ----------
    generated, real : uint8, shape (y, x)
    inside : bool, shape (y, x), optional
        Where the generated image lies after it was moved; the rest is grey.

    Returns
    -------
    uint8, shape (y, x, 3)
    """
    colours = _coloured(generated.astype(np.float64) - real)
    if inside is not None:
        colours[~inside] = OUTSIDE
    return colours


def difference_bar() -> str:
    """Return the colours of a difference, from darker to brighter, as a data URI."""
    return png(Image.fromarray(_coloured(np.linspace(-FULL_COLOUR, FULL_COLOUR, 256)[None])))


def _coloured(d: NDArray[np.float64]) -> NDArray[np.uint8]:
    d = np.clip(d / FULL_COLOUR, -1, 1)[..., None]
    colour = np.where(d > 0, np.array(BRIGHTER), np.array(DARKER)) * np.abs(d)
    return np.round(colour).astype(np.uint8)


# -- regions

COPIED, DIFFERS = BRIGHTER, DARKER
EDGE_PX = 3


def outlined(image: NDArray[np.uint8], regions: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8]:
    """Draw the outlines of regions on a slice: orange copied, blue and dashed where it differs.

    Parameters
    ----------
    image : uint8, shape (h, h)
    regions : sequence of mapping
        ``kind``: copied or differs; ``tiles``: [row, column] of each; ``tile_px``.

    Returns
    -------
    uint8, shape (h, h, 3)
    """
    out = np.repeat(image[..., None], 3, axis=2)
    y, x = np.indices(image.shape)
    for region in regions:
        inside = np.zeros(image.shape, bool)
        px = int(region["tile_px"])
        for row, column in region["tiles"]:
            inside[row * px : (row + 1) * px, column * px : (column + 1) * px] = True
        edge = inside & ~ndimage.binary_erosion(inside, iterations=EDGE_PX)
        copied = region["kind"] == "copied"
        if not copied:
            edge &= (y + x) // 8 % 2 == 0
        out[edge] = COPIED if copied else DIFFERS
    return out
