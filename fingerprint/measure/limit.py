"""The detection limit: the weakest planted copies that this run on this corpus found (METHOD 3.12).

A canary is found if its patient is the most similar one and it would stand as the only finding:
its p is at most q / M, the level of a single one among M images (divided once more where lists must
hold under any dependence). An exact copy is found by its pixels alone as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fingerprint.measure import intervals

LEAST = 10  # canaries of a cell for a limit
UNITS = {
    "noise": "noise of SD {} grey levels",
    "blur": "blur of sigma {} px",
    "gamma": "gamma {}",
    "pose": "moved by {} of 15\u00b0, 10 %, 40 px",
    "elastic": "bent by {} px",
    "tile": "{} of the area",
    "blend": "{} of the mixture",
    "exact": "exact",
    "mirrored": "mirrored",
    "generator": "made by a generator",
}


@dataclass(frozen=True)
class Cell:
    """Canaries of one kind and level: how many were planted and found."""

    kind: str
    level: float
    n: int
    found: int
    first: int  # whose patient was the most similar one, whatever p

    @property
    def bound(self) -> float:
        """One-sided 95 % lower bound of the share that is found."""
        return intervals.at_least(self.found, self.n)

    @property
    def words(self) -> str:
        """The kind and level as a person reads them."""
        return UNITS[self.kind].format(f"{self.level:g}")


@dataclass(frozen=True)
class Limit:
    """The weakest level of a kind that was found n of n; None beside `why` there is none."""

    cells: tuple[Cell, ...]
    weakest: Cell | None
    why: str


def limits(planted: pd.DataFrame, level: float, no_tail: str) -> dict[str, Limit]:
    """Return the limit of each kind.

    Parameters
    ----------
    planted : DataFrame
        One row for each canary, easiest grade of a kind first: ``kind, level, source`` (whose slice
        it copies), ``participant`` (who is most similar), ``identical``, ``p_value``.
    level : float
        p at which a canary would stand alone: q / M.
    no_tail : str
        Why no p below the ranks is known; empty: it is.
    """
    out = {}
    for kind, of_kind in planted.groupby("kind", sort=False):
        cells = tuple(
            _cell(str(kind), g, part, level) for g, part in of_kind.groupby("level", sort=False)
        )
        out[str(kind)] = _limit(cells, no_tail)
    return out


def _cell(kind: str, grade: float, part: pd.DataFrame, level: float) -> Cell:
    right = (part["participant"] == part["source"]).to_numpy()
    p = part["p_value"].to_numpy(np.float64)
    alone = np.nan_to_num(p, nan=1.0) <= level
    alone |= part["identical"].to_numpy(bool)
    return Cell(kind, float(grade), len(part), int((right & alone).sum()), int(right.sum()))


def _limit(cells: tuple[Cell, ...], no_tail: str) -> Limit:
    """Walk from the easiest grade while all are found: a limit has nothing missed above it."""
    weakest = None
    for cell in cells:
        if cell.found < cell.n:
            break
        weakest = cell
    if cells[0].n < LEAST:
        return Limit(cells, None, f"too few canaries: {cells[0].n} of each grade, {LEAST} needed")
    if weakest is None and no_tail:
        return Limit(cells, None, f"too few controls: {no_tail}")
    why = "" if weakest else f"not found: {cells[0].found} of {cells[0].n} at the easiest grade"
    return Limit(cells, weakest, why)
