"""Every number of a report, as one flat dictionary: what ``findings.json`` holds.

A key is ``metric.set.detail``. A value that was not computed is None, and ``<key>.reason`` says why
and what to supply: nothing is left out silently. The first list of findings are the identical
images (``r = 1``): copies of a slice pixel for pixel, or up to brightness and contrast. A high r at
best pose is no finding by itself: it is compared with that of the controls (`verdict`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
import xarray as xr

from fingerprint.measure import fisher, pairs, registered, searched, side_by_side, verdict
from fingerprint.measure.entries import (
    ITSELF,
    NO_CONTROLS,
    UNFINISHED,
    Findings,
    entries,
    entry,
    flat,
)
from fingerprint.measure.verdict import Held, Told

FORMAT = "1.3"
COPIES_FOUND = 10  # exit code
SETS = {"real": "real", "generated": "generated", "control": "controls"}  # ours -> run.json

# the verdict of a run that was not judged, and why
VERDICT = ("images.found", "patients.found", "set.p_value", "limit.weakest", "fid.value")
CLASSES = ("c1", "c2", "c3", "none")
NO_CLASSES = "an earlier version ingested this corpus and told no classes; ingest it again"
DATA_TABLE = (
    "seen accepted scans series participants men women slices slices_m slices_f slices_per_scan "
    "no_age no_sex bytes_in bytes_out"
).split()


def exit_code(findings: Mapping[str, Any]) -> int:
    """10 if a list of findings is not empty or the set stands out as a whole, else 0.

    Raises
    ------
    ValueError
        If the search did not finish: an unfinished run is never "nothing found".
    """
    images = findings.get("identical.images")
    if images is None:
        raise ValueError("exit_code: identical.images must be a number; the search did not finish")
    return COPIES_FOUND if levels_found(findings) else 0


def levels_found(findings: Mapping[str, Any]) -> list[str]:
    """Name the levels at which something was found: ``identical, image, patient, set``."""
    found = {
        "identical": findings.get("identical.images"),
        "image": findings.get("images.found"),
        "patient": findings.get("patients.found"),
        "set": findings.get("set.found"),
    }
    return [name for name, count in found.items() if count]


def collect(
    matrices: Mapping[str, xr.Dataset],
    matches: pd.DataFrame | None,
    run: Mapping[str, Any],
    summaries: Mapping[str, Mapping[str, Any] | None],
    *,
    best: pd.DataFrame | None = None,
    parts: Mapping[int, Findings] | None = None,
    told: Told | None = None,
    held: Held | None = None,
    apart: Findings | None = None,
) -> Findings:
    """Return every number of the report; pure, the same for the same inputs.

    Parameters
    ----------
    matrices : mapping
        ``correlation.zarr`` of the run: a group for each reference, ``real`` and, where they were
        searched, ``control`` and ``generated``. Empty if the search did not get there.
    matches : DataFrame or None
        ``matches.parquet`` of the run, or at least its `pairs.most_similar` rows.
    run : mapping
        ``run.json``.
    summaries : mapping
        The data table of each corpus, by its name in ``run.json`` (``real, generated, controls``).
    best : DataFrame, optional
        `registered.best_pairs` of ``matches.parquet``.
    parts : mapping, optional
        Place of a most similar pair -> what is known of its regions.
    told, held : optional
        What was judged, and z with all patients where CONTROLS were given.
    apart : mapping, optional
        `distances.measured` of whole sets.

    Returns
    -------
    dict
        Flat; strings, numbers, lists of them, or None beside ``<key>.reason``.
    """
    known = (summaries.get("real") or {}).get("participants_known", True) in (True, "known")
    search = searched.Search(matrices, run)
    out: Findings = {"format": FORMAT}
    out |= _of_run(run)
    for name, input_name in SETS.items():
        out |= _of_corpus(name, summaries.get(input_name))
        out |= _classes(name, summaries.get(input_name))
    out |= searched.counted(search, known)
    out |= searched.identical(search, known)
    out |= searched.poses(search)
    out |= searched.tables(search)
    out |= searched.twins(search)
    out |= searched.rarefied(search)
    out |= pairs.found(matches, primary_image(run))
    out |= registered.found(best, run, search.itself)
    for place, regions in (parts or {}).items():
        out |= {f"pair.{place}.regions.{name}": value for name, value in regions.items()}
    out |= table_000()
    if told is None:
        return out | entries(dict.fromkeys(VERDICT), ITSELF if search.itself else UNFINISHED)
    out |= verdict.images(told) | verdict.whole(told, held) | verdict.people(told, held, known)
    out |= side_by_side.compared(told, matrices.get("control"), primary_image(run))
    return out | verdict.detection(told) | (apart or entry("fid.value", None, UNFINISHED))


def primary_image(run: Mapping[str, Any]) -> str:
    """Return the image whose r at best pose orders the pairs."""
    return str((run.get("settings") or {}).get("image") or "raw")


def _of_run(run: Mapping[str, Any]) -> Findings:
    """Return settings, versions, hardware, seeds and digests; no path, and nothing still moving."""
    out: Findings = {"notes": [str(note) for note in run.get("notes") or []]}
    out |= entry("run.digest", run.get("run"), "not recorded")
    out |= entry("run.started", run.get("started"), "not recorded")
    for name, found in (run.get("inputs") or {}).items():
        for field in ("digest", "key_id"):
            if found and field in found:
                out |= entry(f"input.{name}.{field}", found[field], "not recorded")
    for name in ("settings", "versions", "hardware", "seeds"):
        out |= flat(name, run.get(name) or {})
    return out


def _of_corpus(name: str, summary: Mapping[str, Any] | None) -> Findings:
    """Return the data table of one corpus: what was seen, kept, left out and refused."""
    if summary is None:
        reason = NO_CONTROLS if name == "control" else "the corpus could not be opened"
        return entry(f"seen.{name}", None, reason)
    out: Findings = {}
    for field in DATA_TABLE:
        if field in summary:
            out |= entry(f"{field}.{name}", summary[field])
    for field in ("excluded", "rejected", "flags"):
        counts = summary.get(field) or {}
        out[f"{field}.{name}"] = sum(counts.values())
        out |= {f"{field}.{name}.{reason}": int(n) for reason, n in counts.items()}
    return out | {f"notes.{name}": [str(note) for note in summary.get("notes") or []]}


def _classes(name: str, summary: Mapping[str, Any] | None) -> Findings:
    """Return how many slices of a corpus are of each class."""
    counts = (summary or {}).get("classes")
    if counts is None:
        reason = NO_CONTROLS if summary is None and name == "control" else NO_CLASSES
        return entry(f"class.{name}.none", None, reason)
    return {f"class.{name}.{region}": int(counts.get(region, 0)) for region in CLASSES}


def table_000() -> Findings:
    """Table 1 of paper 000 as printed, and what can be recovered of the right columns."""
    out: Findings = {}
    for row in fisher.PRINTED:
        mean_r, sd_r = fisher.r_of_truncated_normal(row.mean_z, row.sd_z, row.min_z, row.max_z)
        correct = {
            "largest_sd_r": fisher.largest_sd(math.tanh(row.min_z), math.tanh(row.max_z)),
            "sd_r_delta": fisher.sd_r_delta(row.mean_z, row.sd_z),
            "sd_r_normal": sd_r,
            "mean_r_normal": mean_r,
            "tanh_mean_z": math.tanh(row.mean_z),
        }
        for name, value in (asdict(row) | correct).items():
            out[f"paper000.table1.{row.n}.{name}"] = value
    return out
