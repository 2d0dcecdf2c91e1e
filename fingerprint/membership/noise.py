"""Noise as paper 001 adds it to images before it compares them (METHOD.md, section 1.2).

It brings no information: independent noise of variance v on both images multiplies Pearson r by
``sqrt(vx / (vx + v)) * sqrt(vy / (vy + v))``. So the arms are an ablation, told as differences.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal["none", "gaussian", "salt-and-pepper"]
MOST = 255


@dataclass(frozen=True)
class Noise:
    """One arm.

    Attributes
    ----------
    kind : ``none``, ``gaussian`` or ``salt-and-pepper``
    level : float
        SD in grey levels, or the share of pixels that become 0 or 255.
    both : bool
        On real and on generated images; else on generated ones alone.
    """

    kind: Kind = "none"
    level: float = 0.0
    both: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError with the field, its rule and its value."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"Noise: kind must be one of {get_args(Kind)}, got {self.kind!r}")
        most = 1.0 if self.kind == "salt-and-pepper" else MOST
        if not 0 <= self.level <= most:
            raise ValueError(f"Noise: level must be from 0 to {most:g}, got {self.level}")

    @property
    def name(self) -> str:
        """``none``, ``gaussian-10-both``, ``salt-and-pepper-0.05-one``."""
        if self.kind == "none":
            return "none"
        return f"{self.kind}-{self.level:g}-{'both' if self.both else 'one'}"


ARMS = (
    Noise(),
    *(Noise("gaussian", sd, both) for sd in (5, 10, 20) for both in (True, False)),
    *(Noise("salt-and-pepper", share, both) for share in (0.01, 0.05) for both in (True, False)),
)


def noisy(images: NDArray[np.uint8], noise: Noise, seed: int) -> NDArray[np.uint8]:
    """Return images with noise, clipped to grey levels: uint8, the same shape.

    An image has the same noise wherever it stands: it is drawn from the seed and from the pixels.
    """
    if noise.kind == "none":
        return images
    return np.stack([_one(image, noise, seed) for image in images]) if len(images) else images


def _one(image: NDArray[np.uint8], noise: Noise, seed: int) -> NDArray[np.uint8]:
    own = hashlib.sha256(np.ascontiguousarray(image).data).digest()[:8]
    rng = np.random.default_rng([seed, int.from_bytes(own, "little")])
    if noise.kind == "gaussian":
        more = image + noise.level * rng.standard_normal(image.shape, np.float32)
        return np.clip(np.rint(more), 0, MOST).astype(np.uint8)
    hit = rng.random(image.shape) < noise.level
    return np.where(hit, MOST * rng.integers(0, 2, image.shape, np.uint8), image).astype(np.uint8)


def attenuated(r: float, variance: tuple[float, float], noise: float) -> float:
    """Return Pearson r of two images once each has independent noise: the closed form.

    Parameters
    ----------
    r : float
    variance : (float, float)
        Of both images, grey levels squared.
    noise : float
        Variance of the noise on each.
    """
    x, y = (math.sqrt(v / (v + noise)) for v in variance)
    return r * x * y
