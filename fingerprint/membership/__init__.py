"""Was this real slice used for training? Methods that answer with a score, behind one interface.

A method only scores: larger means more likely used. Thresholds, ROC, intervals and the constant
predictors are computed once, for all of them, in `measure.classify`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]
"""Arm of a method -> one score per asked slice, float64 (n,): larger = more likely used."""

BLOCK = 256  # images in memory at a time


class Images(Protocol):
    """Grey slices of one size, in memory or in a corpus: uint8, shape (n, px, px)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, px, px)``."""

    def __len__(self) -> int:
        """Return n."""

    def __getitem__(self, part: slice, /) -> NDArray[np.uint8]:
        """Return some of them, uint8 (k, px, px)."""


@dataclass(frozen=True)
class Real:
    """Real slices, and of whom each is.

    Attributes
    ----------
    images : Images
    patient : int64, shape (n,)
        One number for each patient, or for each group of near-duplicates that stands in for one.
    """

    images: Images
    patient: NDArray[np.int64]


@dataclass(frozen=True)
class Dev:
    """Development data of one task: what a generator made, and slices of which it is known."""

    generated: Images
    used: Real
    not_used: Real


class Scorer(Protocol):
    """A method that has seen the development data."""

    def __call__(self, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
        """Score real slices.

        Parameters
        ----------
        asked : Images
            The real slices that are asked about.
        generated : Images
            What the generator in question made.
        control : Images
            Reference: real slices of other patients, known not to have been used.
        seed : int
            Of all chance in it.

        Returns
        -------
        mapping of arm to float64, shape (n asked,)
            Finite. Arms that look at all asked slices at once say so.
        """


class Membership(Protocol):
    """A method: its fields are its knobs."""

    def fit(self, dev: Dev) -> Scorer:
        """Learn from development data what the method learns from it; many learn nothing."""


def blocks(images: Images, size: int = BLOCK) -> Iterator[NDArray[np.uint8]]:
    """Yield images a block at a time, in order."""
    return (images[first : first + size] for first in range(0, len(images), size))
