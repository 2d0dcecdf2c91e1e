"""Which parts of a slice were copied, and which differ: tiles that stand out from strangers'.

The null of a tile are the best pairs of the controls, which were chosen and registered in the same
way (METHOD.md, section 3.18): the same tile in them, each patient of equal weight; or, where too
few patients show it for a few tiles to stand out alone (`enough`), all their tiles of the same
tissue together. Then Benjamini-Hochberg over the tiles of the pair, on either side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fingerprint.measure.fdr import benjamini_hochberg

ENOUGH = 100  # control patients of a tile, at least; else its tissue is pooled
FEW = 8  # tiles of a pair that must be able to stand out alone
KINDS = ("copied", "differs")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Null:
    """The tiles of the controls' best pairs.

    Attributes
    ----------
    z : float64, shape (k, t, t)
        From `tiles.local_z`; NaN where a tile was not scored.
    tissue : int64, shape (k, t, t)
        From `tiles.tissue`.
    patients : shape (k,)
        Whose slice each control is, anything that can be compared.
    """

    z: Floats
    tissue: Ints
    patients: NDArray[Any]


@dataclass(frozen=True)
class Tested:
    """What the tiles of one pair gave.

    Attributes
    ----------
    p_copied, p_differs : float64, shape (t, t)
        Share of the null that is as much alike or more; or less. NaN where there is no test.
    null : str
        ``tile``, ``tissue``, or both where some tiles had enough controls of their own.
    least : float64, shape (t, t)
        Smallest p that each tile could have had.
    """

    p_copied: Floats
    p_differs: Floats
    null: str
    least: Floats

    def resolves(self, q: float) -> bool:
        """Whether so many controls could let any tile stand out at rate `q`."""
        return bool(benjamini_hochberg(self.least.ravel(), q).any())


@dataclass(frozen=True)
class Region:
    """Tiles that touch; places in pixels of the slice, sides those of the patient."""

    kind: str
    tiles: list[list[int]]
    tile_px: int
    area_px: int
    y_px: float
    x_px: float
    organ: str
    side: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def enough(tiles: int, q: float) -> int:
    """Return how many control patients a tile needs to be compared with itself alone.

    METHOD.md, section 3.18, says 100. But the smallest p is 1 / (K + 1): at K = 100 no fewer than
    a fifth of 100 tiles can stand out at 0.05, and a patch that all of them show would be lost.
    """
    return max(ENOUGH, math.ceil(tiles / (FEW * q)) - 1) if q else ENOUGH


def compared(z: Floats, tissue: Ints, null: Null, patients: int = ENOUGH) -> Tested:
    """Return the p-values of the tiles of one pair.

    Parameters
    ----------
    z : float64, shape (t, t)
    tissue : int64, shape (t, t)
    null : Null
    patients : int
        That a tile needs to be compared with itself alone: `enough`.

    Notes
    -----
    The same tile: ``p = (1 + sum_k w_k) / (K + 1)``, w_k the share of patient k's as extreme
    (METHOD.md, section 3.6). A tissue: ``p = (1 + count) / (m + 1)`` over its m tiles.
    """
    p, least = np.full((2, *z.shape), np.nan), np.full(z.shape, np.nan)
    kinds = set()
    for at in zip(*np.nonzero(~np.isnan(z)), strict=True):
        own = null.z[(slice(None), *at)]
        there = ~np.isnan(own)
        known = len(np.unique(null.patients[there]))
        if known >= patients:
            kinds.add("tile")
            least[at] = 1 / (known + 1)
            p[(slice(None), *at)] = _weighted(z[at], own[there], null.patients[there])
        else:
            same = (null.tissue == tissue[at]) & ~np.isnan(null.z)
            if same.any():
                kinds.add("tissue")
                least[at] = 1 / (same.sum() + 1)
                p[(slice(None), *at)] = _pooled(z[at], null.z[same])
    return Tested(p[0], p[1], " and ".join(sorted(kinds)), least)


def _weighted(z: float, null: Floats, patients: NDArray[Any]) -> tuple[float, float]:
    """Return p of the high and of the low side, every patient of equal weight."""
    _, who, count = np.unique(patients, return_inverse=True, return_counts=True)
    shares = (np.bincount(who, side, len(count)) / count for side in (null >= z, null <= z))
    high, low = (float((1 + share.sum()) / (len(count) + 1)) for share in shares)
    return high, low


def _pooled(z: float, null: Floats) -> tuple[float, float]:
    n = len(null) + 1
    return float((1 + (null >= z).sum()) / n), float((1 + (null <= z).sum()) / n)


def found(
    result: Tested,
    q: float,
    *,
    tile_px: int,
    organs: NDArray[np.uint8] | None = None,
    named: Callable[[int], tuple[str, str]] = lambda code: ("", ""),
) -> list[Region]:
    """Return the regions of a pair: copied, then what differs, the largest first.

    Parameters
    ----------
    result : Tested
    q : float
        False-discovery rate over the tiles of this pair, on each side.
    tile_px : int
        Side of a tile.
    organs : uint8, shape (h, h), optional
        Codes, 0 outside the body; h a multiple of the tiles along a side.
    named : callable
        Code -> organ and side.
    """
    out = []
    for kind, p in zip(KINDS, (result.p_copied, result.p_differs), strict=True):
        chosen = benjamini_hochberg(p.ravel(), q).reshape(p.shape)
        parts, count = ndimage.label(chosen)
        regions = [
            _region(kind, np.argwhere(parts == k), tile_px, organs, len(p), named)
            for k in range(1, count + 1)
        ]
        out += sorted(regions, key=lambda region: (-region.area_px, region.tiles))
    return out


def _region(
    kind: str,
    tiles: Ints,
    tile_px: int,
    organs: NDArray[np.uint8] | None,
    along: int,
    named: Callable[[int], tuple[str, str]],
) -> Region:
    y, x = (tiles + 0.5).mean(axis=0) * tile_px - 0.5
    organ, side = ("", "") if organs is None else named(_most(organs, tiles, along))
    area = len(tiles) * tile_px**2
    places = [[int(i), int(j)] for i, j in tiles]
    return Region(kind, places, tile_px, area, float(y), float(x), organ, side)


def _most(organs: NDArray[np.uint8], tiles: Ints, along: int) -> int:
    """Return the organ that fills most of some tiles; outside the body is none."""
    px = len(organs) // along
    counts = np.zeros(256, np.int64)
    for i, j in tiles:
        part = organs[i * px : (i + 1) * px, j * px : (j + 1) * px]
        counts += np.bincount(part.ravel(), minlength=256)
    counts[0] = 0
    return int(counts.argmax())
