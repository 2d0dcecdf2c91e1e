"""Main, baseline, control side by side: how alike images and patients are in each comparison.

main      generated images against the real corpus
baseline  generated images against held-out controls: what a generator owes to nobody's patients
control   controls against the real corpus, never with their own patient

Intervals are over clusters of duplicates (generated) and over patients (controls), never over
images (METHOD.md, section 3.11).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fingerprint.measure import fisher, intervals, judged, null, rows
from fingerprint.measure.entries import NO_CONTROLS, NO_HELD_OUT, Findings, entries, entry
from fingerprint.measure.verdict import Told

QUANTILE = 0.95  # of the controls' scores
COLUMNS = ("main", "baseline", "control")
STATS = ("r", "s_r", "s_gap", "above")
FEW_PATIENTS = "too few control patients for s_gap; give CONTROLS of more patients"
NOBODY = "no image could be compared"
FEW_UNITS = f"an interval needs {intervals.LEAST_CLUSTERS} patients or distinct images"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One comparison: float64 (images,) of each score, and the unit of each image."""

    r: Floats
    s_r: Floats
    s_gap: Floats
    unit: NDArray[Any]


def compared(told: Told, control: xr.Dataset | None, image: str) -> Findings:
    """Return every number of the three comparisons, as ``side.<column>.<statistic>``.

    Parameters
    ----------
    told : Told
    control : Dataset or None
        The matrix of all queries against held-out controls; None: no CONTROLS were given.
    image : str
        The image that is scored at best pose.
    """
    tested, strangers = told.generated, _controls(told)
    sides = {"main": _of_table(tested, _units(tested)),
             "control": _of_table(strangers, strangers["owner"].to_numpy(object))}  # fmt: skip
    if control is not None and len(tested):
        sides["baseline"] = _baseline(told, control, image)
    score = "s_gap" if told.spacings else "s_r"
    of_controls = getattr(sides["control"], score)
    least = float(np.quantile(of_controls, QUANTILE)) if len(of_controls) else float("nan")
    out = entry("side.quantile", least, NO_CONTROLS)
    for name in COLUMNS:
        if name in sides:
            out |= _column(name, sides[name], score, least, told.seed)
        else:
            out |= entries(dict.fromkeys(f"side.{name}.{s}" for s in ("n", *STATS)), NO_HELD_OUT)
    return out


def _controls(told: Told) -> pd.DataFrame:
    t = told.table
    kept = (t["query_set"] == "control") & t["score"].notna() & ~t["owner"].isin(told.left_out)
    return t[kept]


def _units(tested: pd.DataFrame) -> NDArray[Any]:
    """Return the cluster of each image; where images were not compared, each for itself."""
    cluster = tested["cluster"].to_numpy()
    return np.arange(len(cluster)) if (cluster < 0).any() else cluster


def _of_table(t: pd.DataFrame, unit: NDArray[Any]) -> Side:
    r, s_r, s_gap = (t[name].to_numpy(np.float64) for name in ("r", "s_r", "s_gap"))
    return Side(r, s_r, s_gap, unit)


def _baseline(told: Told, control: xr.Dataset, image: str) -> Side:
    """Score the tested images against held-out patients as they were against real ones."""
    which = judged.image_of(control, image)
    kept = ~np.isin(control["patient"].values.astype(object), told.left_out)
    place = {str(name): row for row, name in enumerate(control["query"].values)}
    mine = control.isel(query=[place[str(q)] for q in told.generated["query"]])
    r_best, best, gap = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for band in rows.bands(mine):
        r = rows.cells(band, image=which)[:, kept]
        z = fisher.z_of(r)
        best.append(null.s_r(z))
        r_best.append(null.s_r(r))
        nothing = np.full(len(z), np.nan)
        gap.append(null.s_gap(z, told.spacings) if told.spacings else nothing)
    r_all, best_all, gap_all = (np.concatenate(part) for part in (r_best, best, gap))
    return Side(r_all, best_all, gap_all, _units(told.generated))


def _column(name: str, side: Side, score: str, least: float, seed: int) -> Findings:
    out: Findings = {f"side.{name}.n": len(side.r)}
    compared_by = getattr(side, score)
    values = {
        "r": side.r,
        # r = 1 has no finite z: identical images are counted apart
        "s_r": np.where(fisher.is_identical(side.r), np.nan, side.s_r),
        "s_gap": side.s_gap,
        "above": np.where(np.isfinite(compared_by), compared_by > least, np.nan),
    }
    for stat, x in values.items():
        there = np.isfinite(x)
        why = FEW_PATIENTS if stat in ("s_gap", "above") else NOBODY
        mean = float(x[there].mean()) if there.any() else None
        low, high = intervals.cluster_bootstrap(x[there], side.unit[there], seed=seed)
        out |= entry(f"side.{name}.{stat}", mean, why)
        out |= entry(f"side.{name}.{stat}.low", low, why if mean is None else FEW_UNITS)
        out |= entry(f"side.{name}.{stat}.high", high, why if mean is None else FEW_UNITS)
    return out
