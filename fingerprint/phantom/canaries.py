"""Which copies an audit plants to learn what it would find: kinds, grades, sources (METHOD 3.12).

Canaries are copies of real slices. They go through every step as generated images do and count in
no test: the weakest that is found is the detection limit of this run on this corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.phantom import copies
from fingerprint.search.draw import Ints, spread, turns

# from the copy that is easiest to find to the hardest; levels in the unit of `copies.plant`
GRADES: dict[str, tuple[float, ...]] = {
    "exact": (0.0,),
    "noise": (8.0, 16.0, 32.0),
    "blur": (1.0, 2.0, 4.0),
    "gamma": (1.25, 1.6, 2.0),
    "pose": (0.25, 0.5, 1.0),
    "elastic": (4.0, 8.0, 16.0),
    "mirrored": (0.0,),
    "tile": (0.5, 0.25, 0.1),
    "blend": (0.75, 0.5, 0.3),
}
IN_PIXELS = ("blur", "elastic")  # levels are of a 512 x 512 image
SAMPLED = "generator"  # kind of an image that a generator copied; it has no grades
NAMED = "query kind level slice participant".split()  # columns of canaries.tsv


@dataclass(frozen=True)
class Canary:
    """One planted copy.

    Attributes
    ----------
    kind, level
        As `copies.plant`; levels in pixels are of a 512 x 512 image.
    source : int
        Slice of the real corpus that is copied.
    stranger : int
        Slice of another patient: what ``tile`` and ``blend`` are mixed with.
    seed : int
    """

    kind: str
    level: float
    source: int
    stranger: int
    seed: int


def chosen(
    patient: NDArray[Any], region: NDArray[Any], wanted: NDArray[Any], each: int, seed: int
) -> list[Canary]:
    """Choose the sources of `each` canaries of every kind and grade.

    Parameters
    ----------
    patient, region : shape (s,)
        Of each slice that may be copied; a patient of "" is nobody's.
    wanted : shape (w,)
        Regions of the generated images.

    Returns
    -------
    list of Canary
        None where there are not two patients: a copy must be told from a stranger.
    """
    names, who = np.unique(patient, return_inverse=True)
    if len(names) < 2:
        return []
    rng = np.random.default_rng(seed)
    grades = [cell for cell in cells() for _ in range(each)]
    drawn = _dealt(spread(who, region, wanted, len(grades), rng), who, rng)
    out = []
    for k, (kind, level) in enumerate(grades):
        source = int(drawn[k % len(drawn)])  # a small corpus is copied more than once
        stranger = rng.choice(np.flatnonzero(who != who[source]))
        out.append(Canary(kind, level, source, int(stranger), int(rng.integers(2**31))))
    return out


def _dealt(drawn: Ints, who: Ints, rng: np.random.Generator) -> Ints:
    """Return slices so that those of one kind and grade, side by side, are of many patients."""
    shuffled = rng.permutation(drawn)
    return shuffled[turns(who[shuffled])]


def cells() -> Iterator[tuple[str, float]]:
    """Yield every kind and grade, easiest first."""
    for kind, grades in GRADES.items():
        yield from ((kind, level) for level in grades)


def made(canary: Canary, source: NDArray[np.uint8], stranger: NDArray[np.uint8]) -> copies.Image:
    """Make the image of a canary, uint8 (h, w), from its slices."""
    level = canary.level * (len(source) / 512 if canary.kind in IN_PIXELS else 1)
    return copies.plant(source, canary.kind, level, seed=canary.seed, stranger=stranger)
