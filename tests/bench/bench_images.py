"""Images to measure with: no patient, and they compress about as CT does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))  # the helpers of the tests

SIDE, BLOCK = 512, 256


def images(n: int, seed: int) -> np.ndarray:
    """Return uint8 (n, SIDE, SIDE): coarse blocks with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (n, 16, 16), dtype=np.uint8)
    noise = rng.integers(0, 12, (n, SIDE, SIDE), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, SIDE // 16, SIDE // 16), np.uint8)) + noise


def sums(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sum and sum of squares of each image, int64."""
    flat = pixels.reshape(len(pixels), -1)
    total = flat.sum(1, dtype=np.int64)
    return total, np.array([np.dot(row.astype(np.int64), row.astype(np.int64)) for row in flat])
