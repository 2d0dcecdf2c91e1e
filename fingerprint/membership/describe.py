"""What sets look like before anything is asked: similarities between sets, histograms, a check.

Table 1 of paper 001 with 3-SSIM on its own scale, [-1, 1]; Figure 1 of paper 002 with a number
beside it; the check of paper 003 for what it is (METHOD.md, sections 1.2 to 1.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint.measure.structural import gradient, similarity_map, weighed, windows
from fingerprint.membership import Images, blocks
from fingerprint.membership.shadow import Grey, small
from fingerprint.search import device

LEVELS = 256
TOGETHER = 64


@dataclass(frozen=True)
class Spread:
    """Mean, smallest and largest of the 3-SSIM of pairs; sums of two are those of both."""

    total: float = 0.0
    least: float = np.inf
    most: float = -np.inf
    pairs: int = 0

    def __add__(self, other: Spread) -> Spread:
        return Spread(
            self.total + other.total,
            min(self.least, other.least),
            max(self.most, other.most),
            self.pairs + other.pairs,
        )

    def told(self) -> dict[str, float | int | None]:
        """Return ``mean, min, max, pairs``; None without a pair."""
        if not self.pairs:
            return {"mean": None, "min": None, "max": None, "pairs": 0}
        mean = self.total / self.pairs
        return {"mean": mean, "min": self.least, "max": self.most, "pairs": self.pairs}


def drawn(images: Images, most: int, seed: int) -> Images | Grey:
    """Return all images, or as many as asked, drawn without replacement, in their order."""
    if len(images) <= most:
        return images
    rows = np.sort(np.random.default_rng(seed).choice(len(images), most, replace=False))
    return np.concatenate([images[int(k) : int(k) + 1] for k in rows])


def between(others: Grey, references: Grey, *, same: bool = False) -> Spread:
    """Compare every image with every reference by 3-SSIM; pairs of an image with itself left out.

    Parameters
    ----------
    others, references : uint8, shape (n, h, w), (m, h, w)
    same : bool
        Both are one set.
    """
    where, out = device.chosen(), Spread()
    d = torch.from_numpy(others).to(where)[:, None].float()
    o = torch.from_numpy(references).to(where)[:, None].float()
    of_d, of_o, slope_d, slope_o = windows(d), windows(o), gradient(d), gradient(o)
    for k in range(len(o)):
        one, found = slice(k, k + 1), []
        for first in range(0, len(d), TOGETHER):
            some = slice(first, first + TOGETHER)
            maps = similarity_map(of_d[some], of_o[one])
            found.append(weighed(maps, slope_d[some], slope_o[one]))
        row = torch.cat(found).cpu().numpy() if found else np.empty(0)
        out += _spread(np.delete(row, k) if same else row)
    return out


def _spread(values: NDArray[np.float64]) -> Spread:
    there = values[np.isfinite(values)]
    if not len(there):
        return Spread()
    return Spread(float(there.sum()), float(there.min()), float(there.max()), len(there))


def table_1(sets: Mapping[str, Grey]) -> dict[str, dict[str, float | int | None]]:
    """Return the rows of Table 1 of paper 001, and those that its text speaks of.

    Parameters
    ----------
    sets : mapping
        ``generated`` and ``used`` with ``not_used``, or ``unknown``: uint8 (n, h, w), of one size.
        The rows of the whole are put together of its parts, so that they obey what a mean and a
        minimum obey (E12).
    """
    real = {name: images for name, images in sets.items() if name != "generated"}
    generated = sets["generated"]
    parts = {name: between(generated, images) for name, images in real.items()}
    everything = np.concatenate(list(real.values()))
    rows = {
        "real-real": between(everything, everything, same=True),
        "generated-real": sum(parts.values(), Spread()),
        "generated-generated": between(generated, generated, same=True),
    }
    if len(real) > 1:
        rows |= {f"generated-{name}": part for name, part in parts.items()}
    return {name: row.told() for name, row in rows.items()}


def histogram(images: Images) -> NDArray[np.float64]:
    """Return the share of every grey level in all pixels: float64 (256,)."""
    counts = np.zeros(LEVELS)
    for block in blocks(images):
        counts += np.bincount(block.ravel(), minlength=LEVELS)
    return counts / max(1.0, counts.sum())


def total_variation(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Return half of the sum of absolute differences of two distributions: 0 alike, 1 apart."""
    return float(np.abs(p - q).sum() / 2)


def reduced(images: Images, px: int, most: int, seed: int) -> Grey:
    """Return some images, drawn, as area means."""
    return small(drawn(images, most, seed), px)
