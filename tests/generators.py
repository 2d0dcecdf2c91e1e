"""Small recipes and smooth images: what the tests of generators share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.models.recipe import Recipe

Images = NDArray[np.uint8]
QUICK: dict[str, dict[str, Any]] = {
    "ddpm": {"width": 8, "batch": 4, "learning_rate": 2e-3, "ema": 0.9, "sample_steps": 3},
    "dcgan": {"width": 16, "batch": 2, "learning_rate": 2e-4, "ema": 0.0},
    "mae": {"width": 32, "batch": 4, "learning_rate": 0.2, "ema": 0.0},
}


def quick(generator: str, **other: Any) -> Recipe:
    """Return a recipe that takes a second."""
    fields = {"generator": generator, "px": 32, "steps": 8, "seed": 1, "snapshots": (3,)}
    return Recipe(**(fields | QUICK[generator] | other))


def blobs(n: int, px: int = 32, seed: int = 0) -> Images:
    """Return smooth images that differ from one another."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:px, :px] / px
    waves = [
        np.cos(2 * np.pi * (a * x + b * y) + c)
        for a, b, c in zip(*rng.uniform((0, 0, 0), (2, 2, 6), (n, 3)).T, strict=True)
    ]
    return np.round(127.5 + 100 * np.array(waves)).astype(np.uint8)


def pearson(a: Images, b: Images) -> NDArray[np.float64]:
    """Return r of every image of a with every one of b."""
    return np.corrcoef(a.reshape(len(a), -1), b.reshape(len(b), -1))[: len(a), len(a) :]
