"""From one slice against many generated images to one number: largest, mean of the top, mean.

Paper 001 does not say which (METHOD.md, section 1.2): all three are arms, and development data
choose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fingerprint.membership import Floats

REDUCTIONS = ("max", "top", "mean")


def named(reduction: str, k: int) -> str:
    """Return how an arm is called: ``max``, ``top10``, ``mean``."""
    return f"top{k}" if reduction == "top" else reduction


@dataclass(frozen=True)
class Tops:
    """Running result over generated images, a block at a time; the order of blocks does not count.

    Attributes
    ----------
    best : float64, shape (..., k)
        Largest similarities, falling; -inf where there were fewer.
    total : float64, shape (...)
    n : int
        Generated images so far.
    """

    best: Floats
    total: Floats
    n: int

    @classmethod
    def empty(cls, shape: tuple[int, ...], k: int) -> Tops:
        """Return what nothing was added to."""
        return cls(np.full((*shape, k), -np.inf), np.zeros(shape), 0)

    def plus(self, similarity: Floats) -> Tops:
        """Add a block, float64 (..., g)."""
        k = self.best.shape[-1]
        both = np.concatenate([self.best, similarity], axis=-1)
        best = -np.sort(np.partition(-both, k - 1, axis=-1)[..., :k], axis=-1)
        return Tops(best, self.total + similarity.sum(-1), self.n + similarity.shape[-1])

    def reduced(self) -> dict[str, Floats]:
        """Return ``max``, ``top`` (of fewer images, if there are fewer) and ``mean``.

        Raises
        ------
        ValueError
            Nothing was added.
        """
        if not self.n:
            raise ValueError("reduced: there must be at least one generated image")
        top = self.best[..., : min(self.n, self.best.shape[-1])].mean(-1)
        return {"max": self.best[..., 0], "top": top, "mean": self.total / self.n}
