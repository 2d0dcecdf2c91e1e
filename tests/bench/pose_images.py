"""Other images than the one that the screen uses, for `pose_study.py`: float32, not rounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pose_copies import Data
from scipy import ndimage

from fingerprint.search.pose import Grid
from fingerprint.warp import points, sample

MARGIN_PX = 16  # of a canvas of 128 px: a shift by 64 of 512


@dataclass(frozen=True)
class Image:
    name: str
    kind: str = "contrast"  # raw, highpass, contrast
    side: int = 32
    sigma: float = 2.0
    floor: float = 3.0
    most: float = np.inf
    pixels: int = 0  # nearest the centre; 0: all


IMAGES_TRIED = (
    Image("raw, 32 px", "raw"),
    Image("high-pass, 32 px, sigma 2", "highpass"),
    Image("local contrast, 32 px, sigma 2, floor 3"),
    Image("the same, floor 16", floor=16),
    Image("sigma 1.5, floor 16", sigma=1.5, floor=16),
    Image("the same, 448 pixels nearest the centre", sigma=1.5, floor=16, pixels=448),
    Image("384 pixels", sigma=1.5, floor=16, pixels=384),
    Image("384 pixels, held within 1.5 (**used**)", "contrast", 32, 1.5, 16, 1.5, 384),
    Image("24 px, sigma 1.125, 216 pixels, held within 1.5", "contrast", 24, 1.125, 16, 1.5, 216),
    Image("40 px, sigma 1.875, 600 pixels, held within 1.5", "contrast", 40, 1.875, 16, 1.5, 600),
)


def tried(data: Data, mids: np.ndarray, image: Image, grid: Grid) -> np.ndarray:
    """Return r at the best pose on another image; the poses are those of the grid."""
    slices = _unit(image, _reduced(image, data.mids.astype(np.float32), (0, 0)))
    best = np.full((len(mids), len(slices)), -1.0, np.float32)
    for mirrored, angle, scale in grid.views:
        where = points((angle, scale, 0, 0, mirrored), 128, margin_px=MARGIN_PX)
        canvas = sample(mids, *where).astype(np.float32)
        for shift in grid.shifts:
            rows = _unit(image, _reduced(image, canvas, shift))
            np.maximum(best, rows @ slices.T, out=best)
    return best.astype(float)


def _reduced(image: Image, mids: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Area means of a canvas moved by a shift; a canvas without margin is a slice."""
    down, across = (_areas(image.side, mids.shape[1], s) for s in shift)
    return down @ mids @ across.T


def _areas(side: int, width: int, shift_px: float) -> np.ndarray:
    size, margin = 128 / side, (width - 128) / 2
    first = margin - shift_px / 4 + size * np.arange(side)[:, None]
    at = np.arange(width)[None, :]
    overlap = np.minimum(first + size, at + 1) - np.maximum(first, at)
    return (np.maximum(overlap, 0) / size).astype(np.float32)


def _unit(image: Image, x: np.ndarray) -> np.ndarray:
    """Turn thumbs (n, side, side) into rows of norm 1 and mean 0."""
    if image.kind != "raw":
        window = ndimage.gaussian_filter1d(np.eye(image.side), image.sigma, mode="constant")
        window = window.astype(np.float32)
        mean = window @ x @ window.T
        if image.kind == "contrast":
            spread = window @ (x * x) @ window.T - mean * mean
            x = (x - mean) / np.sqrt(np.maximum(spread, 0) + image.floor**2)
            x = np.clip(x, -image.most, image.most)
        else:
            x = x - mean
    away = np.arange(image.side) - (image.side - 1) / 2
    order = np.argsort((away[:, None] ** 2 + away**2).ravel(), kind="stable")
    rows = x.reshape(len(x), -1)[:, np.sort(order[: image.pixels or None])]
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
