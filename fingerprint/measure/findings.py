"""Every number of a report, as one flat dictionary: what ``findings.json`` holds.

A key is ``metric.set.detail``. A value that was not computed is None, and ``<key>.reason`` says why
and what to supply: nothing is left out silently. The first list of findings are the identical
images (``r = 1``): copies of a slice pixel for pixel, or up to brightness and contrast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fingerprint.measure import fisher

FORMAT = "1.0"
PAIRS_SHOWN = 50
COPIES_FOUND = 10  # exit code
SETS = {"real": "real", "generated": "generated", "control": "controls"}  # ours -> run.json

# Not computed by this version, and what each will need. A number that comes alive leaves this list.
NOT_RUN = {
    "patients.found": "this version counts identical images only; {controls}",
    "images.found": "this version counts identical images only; {controls}",
    "set.p_value": "this version does not compare the whole set with held-out patients; {controls}",
    "limit.weakest": "this version plants no copies, so how weak a copy it would still find is "
    "unknown; nothing to supply",
    "pose.poses": "only the stored position was compared: this version does not turn, resize or "
    "shift images before comparing; nothing to supply",
    "register.pairs": "this version does not align pairs (affine, elastic); nothing to supply",
    "fid.value": "set distances (FID, KID) need the weights of a feature network, and this version "
    "does not compute them",
}
CONTROLS = {
    False: "calibrated findings need CONTROLS: scans of patients who were never used for training",
    True: "the CONTROLS that calibrated findings need are there",
}
DATA_TABLE = (
    "seen accepted scans series participants men women slices slices_m slices_f slices_per_scan "
    "no_age no_sex bytes_in bytes_out"
).split()
SEARCHED = (
    "queries.generated queries.control queries.excluded patients.searched slices.searched "
    "slices.excluded pairs.compared.generated pairs.compared.control"
).split()
IDENTICAL = "identical.images identical.slices identical.patients identical.list".split()
PAIR_NAMES = ("query", "participant", "scan", "query_digest", "slice_digest")
PAIR_SCORES = (
    "r_raw r_pose s_gap s_r s_diff angle_deg scale shift_y_px shift_x_px r_affine r_elastic "
    "deformation_energy min_jacobian p_value q_value"
).split()
UNFINISHED = "the search did not finish: run the same command again"
NO_CONTROLS = (
    "no control images in this run: give CONTROLS, scans of patients who were never used for "
    "training"
)
UNKNOWN_PATIENTS = (
    "patients unknown: groups of near-duplicate slices stand in for them; give slices.tsv with a "
    "participant column, or --participant-from"
)
TOO_FEW = "too few images for this number"

Findings = dict[str, Any]


@dataclass(frozen=True, order=True)
class Identical:
    """A generated image, a real slice with r = 1 exactly, and whose slice it is."""

    query: str
    slice: int
    participant: str


def identical(matrix: xr.Dataset) -> list[Identical]:
    """List every (generated query, patient) whose best raw r is exactly 1, with the slice.

    Where several slices of one patient are the same image, the lowest is named.
    """
    raw = matrix.sel(stage="raw", slices="all")
    rows, columns = np.nonzero(_of_set(raw, "generated")[:, None] & (raw["r"].values == 1))
    queries, patients = raw["query"].values, raw["patient"].values
    at = raw["slice"].values
    return sorted(
        Identical(str(queries[i]), int(at[i, j]), str(patients[j]))
        for i, j in zip(rows, columns, strict=True)
    )


def best_r(matrix: xr.Dataset, query_set: str, slices: str = "all") -> NDArray[np.float64]:
    """Return the best raw r of each query of a set: float64 (queries,), NaN where excluded."""
    r = matrix["r"].sel(stage="raw", slices=slices).values[_of_set(matrix, query_set)]
    if r.size == 0:
        return np.empty(len(r))
    best: NDArray[np.float64] = np.fmax.reduce(r, axis=1)
    return best


def _of_set(matrix: xr.Dataset, query_set: str) -> NDArray[np.bool_]:
    return np.asarray(matrix["query_set"].values.astype(object) == query_set)


def exit_code(findings: Mapping[str, Any]) -> int:
    """10 if a list of findings is not empty, else 0.

    Raises
    ------
    ValueError
        If the search did not finish: an unfinished run is never "nothing found".
    """
    images = findings.get("identical.images")
    if images is None:
        raise ValueError("exit_code: identical.images must be a number; the search did not finish")
    return COPIES_FOUND if images else 0


def collect(
    matrix: xr.Dataset | None,
    matches: pd.DataFrame | None,
    run: Mapping[str, Any],
    summaries: Mapping[str, Mapping[str, Any] | None],
) -> Findings:
    """Return every number of the report; pure, the same for the same inputs.

    Parameters
    ----------
    matrix : Dataset or None
        ``correlation.zarr`` of the run; None if the search did not get there.
    matches : DataFrame or None
        ``matches.parquet`` of the run.
    run : mapping
        ``run.json``.
    summaries : mapping
        The data table of each corpus, by its name in ``run.json`` (``real, generated, controls``).

    Returns
    -------
    dict
        Flat; strings, numbers, lists of them, or None beside ``<key>.reason``.
    """
    known = (summaries.get("real") or {}).get("participants_known", True) in (True, "known")
    out: Findings = {"format": FORMAT}
    out |= _of_run(run)
    for name, input_name in SETS.items():
        out |= _of_corpus(name, summaries.get(input_name))
    out |= _searched(matrix, run, known)
    out |= _identical(matrix, known)
    for row, (query_set, slices) in {
        "generated": ("generated", "all"),
        "generated_capped": ("generated", "capped"),
        "control": ("control", "all"),
        "control_capped": ("control", "capped"),
    }.items():
        out |= _table1(row, matrix, query_set, slices)
    out |= _rarefied(matrix)
    out |= _pairs(matches)
    out |= _paper_000()
    given = bool((run.get("inputs") or {}).get("controls"))
    for key, reason in NOT_RUN.items():
        out |= _entry(key, None, reason.format(controls=CONTROLS[given]))
    return out


def _entry(key: str, value: Any, reason: str = TOO_FEW) -> Findings:
    """One entry; NaN and None become None beside their reason."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    return {key: value} if value is not None else {key: None, f"{key}.reason": reason}


def _of_run(run: Mapping[str, Any]) -> Findings:
    """Return settings, versions, hardware, seeds and digests; no path, and nothing still moving."""
    out: Findings = {"notes": [str(note) for note in run.get("notes") or []]}
    out |= _entry("run.digest", run.get("run"), "not recorded")
    out |= _entry("run.started", run.get("started"), "not recorded")
    for name, entry in (run.get("inputs") or {}).items():
        for field in ("digest", "key_id"):
            if entry and field in entry:
                out |= _entry(f"input.{name}.{field}", entry[field], "not recorded")
    for name in ("settings", "versions", "hardware", "seeds"):
        out |= _flat(name, run.get(name) or {})
    return out


def _flat(prefix: str, value: Any) -> Findings:
    if isinstance(value, Mapping):
        parts = (_flat(f"{prefix}.{key}", inner) for key, inner in value.items())
        return {key: entry for part in parts for key, entry in part.items()}
    return _entry(prefix, list(value) if isinstance(value, tuple) else value, "not set")


def _of_corpus(name: str, summary: Mapping[str, Any] | None) -> Findings:
    """Return the data table of one corpus: what was seen, kept, left out and refused."""
    if summary is None:
        reason = NO_CONTROLS if name == "control" else "the corpus could not be opened"
        return _entry(f"seen.{name}", None, reason)
    out: Findings = {}
    for field in DATA_TABLE:
        if field in summary:
            out |= _entry(f"{field}.{name}", summary[field])
    for field in ("excluded", "rejected", "flags"):
        counts = summary.get(field) or {}
        out[f"{field}.{name}"] = sum(counts.values())
        out |= {f"{field}.{name}.{reason}": int(n) for reason, n in counts.items()}
    return out | {f"notes.{name}": [str(note) for note in summary.get("notes") or []]}


def _searched(matrix: xr.Dataset | None, run: Mapping[str, Any], known: bool) -> Findings:
    """Who was compared with whom: queries, patients, slices, pairs."""
    if matrix is None:
        return {k: v for name in SEARCHED for k, v in _entry(name, None, UNFINISHED).items()}
    kept = {s: int(np.isfinite(best_r(matrix, s)).sum()) for s in ("generated", "control")}
    left_out = int(matrix.attrs.get("excluded_slices", 0))
    stored = ((run.get("inputs") or {}).get("real") or {}).get("n")
    patients = matrix.sizes["patient"]
    out = {
        "queries.generated": kept["generated"],
        "queries.excluded": int(matrix.attrs.get("excluded_queries", 0)),
        "slices.excluded": left_out,
    }
    out |= _entry("queries.control", kept["control"] or None, NO_CONTROLS)
    out |= _entry("patients.searched", patients if known else None, UNKNOWN_PATIENTS)
    out |= {} if known else {"groups.searched": patients}
    out |= _entry("slices.searched", None if stored is None else int(stored) - left_out)
    for query_set in kept:
        out |= _entry(
            f"pairs.compared.{query_set}", _pairs_compared(matrix, query_set), NO_CONTROLS
        )
    return out


def _pairs_compared(matrix: xr.Dataset, query_set: str) -> int | None:
    if "histogram" not in matrix or query_set not in matrix["histogram_of"].values.astype(object):
        return None
    return int(matrix["histogram"].sel(histogram_of=query_set).sum()) or None


def _identical(matrix: xr.Dataset | None, known: bool) -> Findings:
    """Return the first list of findings, and its counts."""
    if matrix is None:
        return {k: v for name in IDENTICAL for k, v in _entry(name, None, UNFINISHED).items()}
    found = identical(matrix)
    patients = len({pair.participant for pair in found})
    return {
        "identical.images": len({pair.query for pair in found}),
        "identical.slices": len({pair.slice for pair in found}),
        "identical.list": [asdict(pair) for pair in found],
        **_entry("identical.patients", patients if known else None, UNKNOWN_PATIENTS),
    }


def _table1(row: str, matrix: xr.Dataset | None, query_set: str, slices: str) -> Findings:
    """Return one row of Table 1 of paper 000 for this run."""
    if matrix is None:
        return _entry(f"table1.{row}.n", None, UNFINISHED)
    if slices not in matrix["slices"].values.astype(object):
        return _entry(f"table1.{row}.n", None, "slices per patient were not capped in this run")
    if not _of_set(matrix, query_set).any():
        return _entry(f"table1.{row}.n", None, NO_CONTROLS)
    table = asdict(fisher.fisher_table(best_r(matrix, query_set, slices)))
    return {k: v for name, x in table.items() for k, v in _entry(f"table1.{row}.{name}", x).items()}


def _rarefied(matrix: xr.Dataset | None) -> Findings:
    """Return the mean over images of the best r that only N' of the patients would give."""
    if matrix is None:
        return {}
    out: Findings = {}
    raw = matrix["r"].sel(stage="raw", slices="all").values
    for query_set in ("generated", "control"):
        r = raw[_of_set(matrix, query_set)]
        r = r[np.isfinite(r).any(axis=1)]
        most = int(np.isfinite(r).sum(axis=1).min()) if len(r) else 0
        sizes = [n for k in range(7) for n in (10**k, 2 * 10**k, 5 * 10**k) if n < most]
        sizes += [most] if most else []
        means = fisher.rarefied_maximum(r, sizes).mean(axis=0) if sizes else []
        for size, mean in zip(sizes, means, strict=True):
            out |= _entry(f"rarefied.{query_set}.{size}", mean)
    return out


def _pairs(matches: pd.DataFrame | None) -> Findings:
    """Return the most similar pairs: the best patient of each generated image, best first."""
    if matches is None:
        return _entry("pairs.shown", None, UNFINISHED)
    best = matches[(matches["query_set"] == "generated") & (matches["rank"] == 1)]
    best = best.sort_values(["r_raw", "query"], ascending=[False, True]).head(PAIRS_SHOWN)
    out: Findings = {"pairs.shown": len(best)}
    for place, row in enumerate(best.to_dict("records"), start=1):
        key = f"pair.{place}"
        out |= {f"{key}.{name}": str(row[name]) for name in PAIR_NAMES}
        out[f"{key}.slice"] = int(row["slice"])
        out[f"{key}.same_pixels"] = out[f"{key}.query_digest"] == out[f"{key}.slice_digest"]
        same = bool(fisher.is_identical(row["r_raw"]))
        z = None if same else float(fisher.z_of(row["r_raw"]))
        out |= _entry(f"{key}.z", z, "r = 1 has no finite z")
        for name in PAIR_SCORES:
            if name in row and pd.notna(row[name]):
                out[f"{key}.{name}"] = float(row[name])
    return out


def _paper_000() -> Findings:
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
