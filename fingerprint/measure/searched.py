"""What the search did, in numbers: who was compared with whom, at which poses, and how alike.

Five blocks (METHOD.md, section 3.0): generated and control queries against the real, the control
and the generated corpus. What was not compared says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from fingerprint.measure import fisher, rows
from fingerprint.measure.entries import (
    ITSELF,
    NO_CONTROLS,
    NO_HELD_OUT,
    NO_POSE,
    UNFINISHED,
    UNKNOWN_PATIENTS,
    Findings,
    entries,
    entry,
)

SEARCHED = (
    "queries.generated queries.control queries.excluded patients.searched slices.searched "
    "slices.excluded pairs.compared.generated pairs.compared.control"
).split()
IDENTICAL = "identical.images identical.slices identical.patients identical.list".split()
GRID = {"angle_deg": "angles_deg", "scale": "scales", "shift_px": "shifts_px"}
NOT_CAPPED = "slices per patient were not capped in this run"
NO_NEIGHBOUR = "there is no other generated image to compare with"
SAME_SET = (
    "a corpus was compared with itself: the most similar other images are those of the first row"
)


@dataclass(frozen=True)
class Block:
    """One query set against one reference: two of the five blocks have a matrix of their own."""

    name: str  # of its rows in Table 1
    query_set: str
    against: str


BLOCKS = (
    Block("generated", "generated", "real"),
    Block("control", "control", "real"),
    Block("generated_control", "generated", "control"),
    Block("control_control", "control", "control"),
    Block("generated_generated", "generated", "generated"),
)
AT_POSE = {"raw": "pose", "body": "pose_body", "highpass": "pose_highpass"}


@dataclass(frozen=True)
class Search:
    """The matrices of a run, by the name of their reference, and what the run was asked for."""

    matrices: Mapping[str, xr.Dataset]
    run: Mapping[str, Any]

    @property
    def real(self) -> xr.Dataset | None:
        """The matrix of the audit itself; None if the search did not get there."""
        return self.matrices.get("real")

    @property
    def itself(self) -> bool:
        """Whether a corpus was compared with itself."""
        if self.real is not None and rows.ranks_only(self.real):
            return True
        inputs = self.run.get("inputs") or {}
        real, generated = ((inputs.get(role) or {}).get("digest") for role in ("real", "generated"))
        return real is not None and real == generated

    @property
    def controls_given(self) -> bool:
        """Whether CONTROLS were supplied: patients who are not in the real corpus."""
        return bool((self.run.get("inputs") or {}).get("controls"))

    @property
    def no_pose(self) -> str:
        """Why no pose was searched; empty: poses were searched, and the search is finished."""
        if self.itself:
            return ITSELF
        if (self.run.get("settings") or {}).get("pose") is False:
            return NO_POSE
        done = self.real is not None and rows.has_stage(self.real, "pose")
        return "" if done else UNFINISHED

    def absent(self, block: Block) -> str:
        """Why a block was not compared; empty: it was."""
        matrix = self.matrices.get(block.against)
        if matrix is not None and rows.of_set(matrix, block.query_set).any():
            return ""
        if self.itself:
            return SAME_SET if block.against == "generated" else ITSELF
        if self.real is None:
            return UNFINISHED
        if block.against == "real":
            return NO_CONTROLS
        if block.against == "generated":
            return UNFINISHED if rows.of_set(self.real, "generated").sum() > 1 else NO_NEIGHBOUR
        return UNFINISHED if self.controls_given else NO_HELD_OUT


# -- who was compared with whom


def counted(search: Search, known: bool) -> Findings:
    """Count queries, patients, slices and pairs; `known`: whether patients are known as such."""
    matrix = search.real
    if matrix is None:
        return entries(dict.fromkeys(SEARCHED), UNFINISHED)
    kept = {s: int(np.isfinite(rows.best_r(matrix, s)).sum()) for s in ("generated", "control")}
    left_out = int(matrix.attrs.get("excluded_slices", 0))
    stored = ((search.run.get("inputs") or {}).get("real") or {}).get("n")
    patients = matrix.sizes["patient"]
    out = {
        "queries.generated": kept["generated"],
        "queries.excluded": int(matrix.attrs.get("excluded_queries", 0)),
        "slices.excluded": left_out,
    }
    out |= entry("queries.control", kept["control"] or None, NO_CONTROLS)
    out |= entry("patients.searched", patients if known else None, UNKNOWN_PATIENTS)
    out |= {} if known else {"groups.searched": patients}
    out |= entry("slices.searched", None if stored is None else int(stored) - left_out)
    for block in BLOCKS:
        there = search.matrices.get(block.against)
        pairs = None if there is None else rows.pairs_counted(there, block.query_set)
        out |= entry(f"pairs.compared.{block.name}", pairs, search.absent(block) or NO_CONTROLS)
    return out


def identical(search: Search, known: bool) -> Findings:
    """Return the first list of findings, and its counts."""
    if search.real is None:
        return entries(dict.fromkeys(IDENTICAL), UNFINISHED)
    found = rows.identical(search.real)
    patients = len({pair.participant for pair in found})
    return {
        "identical.images": len({pair.query for pair in found}),
        "identical.slices": len({pair.slice for pair in found}),
        "identical.list": [asdict(pair) for pair in found],
        **entry("identical.patients", patients if known else None, UNKNOWN_PATIENTS),
    }


# -- at which poses


def poses(search: Search) -> Findings:
    """Return how far and how closely other positions were searched, or why they were not."""
    why = search.no_pose
    if why:
        return entry("pose.poses", None, why)
    matrix, settings = search.matrices["real"], search.run.get("settings") or {}
    grid = search.run.get("grid") or {}
    out = entry("pose.poses", grid.get("poses"), "not recorded")
    for name, values in GRID.items():
        # steps are the centres of cells, and the cells cover the range of the settings
        reach, middle = settings.get(name), 1.0 if name == "scale" else 0.0
        ends = None if reach is None else [middle - float(reach), middle + float(reach)]
        out |= entry(f"pose.{name}", ends, "not recorded")
        out |= entry(f"pose.{name}.steps", len(grid.get(values) or []) or None, "not recorded")
    mirrored = 1 in grid["mirrors"] if "mirrors" in grid else None
    out |= entry("pose.mirrored", mirrored, "not recorded")
    out |= entry("pose.image", settings.get("image", matrix.attrs.get("image")), "not recorded")
    for px in (64, 128):
        out |= entry(f"pose.refined_{px}", settings.get(f"refine_{px}"), "not recorded")
    for block in BLOCKS:
        absent = search.absent(block)
        there = None if absent else search.matrices[block.against]
        screened = refined = None
        if there is not None:
            screened = rows.pairs_counted(there, f"{block.query_set}.screen")
            refined = int(rows.compared(there, block.query_set, image="raw").sum())
        out |= entry(f"pose.pairs_screened.{block.name}", screened, absent or UNFINISHED)
        out |= entry(f"pose.pairs_refined.{block.name}", refined, absent or UNFINISHED)
    return out


# -- how alike


def tables(search: Search) -> Findings:
    """Return the rows of Table 1 of paper 000: every block, as stored and at best pose."""
    out: Findings = {}
    for block in BLOCKS:
        absent, matrix = search.absent(block), search.matrices.get(block.against)
        out |= _row(block.name, block, matrix, absent)
        if block.against == "real":
            capped = absent or ("" if _has_capped(matrix) else NOT_CAPPED)
            out |= _row(f"{block.name}_capped", block, matrix, capped, slices="capped")
        for image, suffix in AT_POSE.items():
            why = absent or search.no_pose
            out |= _row(f"{block.name}_{suffix}", block, matrix, why, image=image)
    return out


def _has_capped(matrix: xr.Dataset | None) -> bool:
    return matrix is not None and "capped" in matrix["slices"].values.astype(object)


def _row(name: str, block: Block, matrix: xr.Dataset | None, absent: str, **which: str) -> Findings:
    if absent or matrix is None:
        return entry(f"table1.{name}.n", None, absent or UNFINISHED)
    table = asdict(fisher.fisher_table(rows.best_r(matrix, block.query_set, **which)))
    return {k: v for stat, x in table.items() for k, v in entry(f"table1.{name}.{stat}", x).items()}


def twins(search: Search) -> Findings:
    """Count the generated images that have an identical one among the other generated images."""
    block = BLOCKS[-1]
    absent = search.absent(block)
    if absent:
        return entry("duplicates.identical_images", None, absent)
    best = rows.best_r(search.matrices[block.against], block.query_set)
    return {"duplicates.identical_images": int((best == 1).sum())}


def rarefied(search: Search) -> Findings:
    """Return the mean over images of the best r that only N' of the patients would give."""
    matrix, out = search.real, Findings()
    if matrix is None or rows.ranks_only(matrix):
        return out
    for query_set in ("generated", "control"):
        counts = rows.compared(matrix, query_set)
        counts = counts[counts > 0]
        most = int(counts.min()) if len(counts) else 0
        sizes = [n for k in range(7) for n in (10**k, 2 * 10**k, 5 * 10**k) if n < most]
        sizes += [most] if most else []
        total = np.zeros(len(sizes))
        for band in rows.bands(matrix) if sizes else ():
            r = rows.cells(band)[rows.of_set(band, query_set)]
            r = r[np.isfinite(r).any(axis=1)]
            total += fisher.rarefied_maximum(r, sizes).sum(axis=0)
        for size, mean in zip(sizes, total / max(len(counts), 1), strict=True):
            out |= entry(f"rarefied.{query_set}.{size}", mean)
    return out
