"""Folders as ImageCLEF gives them, of phantoms: a generator that copies, or one that does not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from study_world import SLICES, world

PEOPLE = 36
PX = 32
COPIES = 2  # images of each slice that was used


def slices_of(people: Iterable[int], every: int = 4) -> np.ndarray:
    """Return some slices of some people, area means of PX pixels."""
    images, _ = world(PEOPLE)
    who = np.arange(len(images)) // SLICES
    chosen = images[np.isin(who, list(people))][::every].astype(float)
    n, side, _ = chosen.shape
    k = side // PX
    return chosen.reshape(n, PX, k, PX, k).mean((2, 4)).round().astype(np.uint8)


def noised(images: np.ndarray, seed: int, sd: float = 6.0) -> np.ndarray:
    """Return what a generator makes that has learnt its slices by heart: slices and noise."""
    rng = np.random.default_rng(seed)
    more = np.concatenate([images] * COPIES).astype(float)
    return np.clip(np.rint(more + rng.normal(0, sd, more.shape)), 0, 255).astype(np.uint8)


def save(folder: Path, images: np.ndarray, name: str = "slice") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name}_{k:03d}.png")


def side(root: Path, people: range, seed: int, *, copies: bool, labelled: bool = True) -> None:
    """Write one side of a task: half of the people were used, the other half not.

    Without copies the generator makes other people, whom nobody asks about.
    """
    half = len(people) // 2
    used, others = slices_of(people[:half]), slices_of(people[half:])
    stranger = slices_of(range(PEOPLE - 6, PEOPLE))
    save(root / "generated", noised(used if copies else stranger, seed), "made")
    if labelled:
        save(root / "real_used", used)
        save(root / "real_not_used", others)
    else:
        order = np.random.default_rng(seed).permutation(len(used) + len(others))
        save(root / "real_unknown", np.concatenate([used, others])[order])


def task(root: Path, *, copies: bool = True, labelled: bool = True, seed: int = 1) -> None:
    """Write DEV and TEST of one task below `root`."""
    side(root / "dev", range(0, 16), seed, copies=copies)
    side(root / "test", range(16, 30), seed + 1, copies=copies, labelled=labelled)
