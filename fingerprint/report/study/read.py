"""What a study left in its folder, finished or not: what cannot be read is named and left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from fingerprint.ledger import Damaged
from fingerprint.measure import rows, study
from fingerprint.report import build as audit
from fingerprint.report.build import Left, Open
from fingerprint.report.pairs import Slices
from fingerprint.report.study.page import Floats

log = logging.getLogger(__name__)

DOCUMENT, FINDINGS = "study.json", "findings.json"
SETS = ("generated", "control")
TOLD = {"training": "training.json", "sampling": "sampling.json", "curve": "curve.json"}
FIGURE_4 = "figure4.json"
PATIENTS = {"participants": "patients", "women": "women", "slices": "slices"}


@dataclass(frozen=True)
class Lies:
    """What lies in the folder of a study: documents, corpora, and what each audit left."""

    document: Mapping[str, Any]
    findings: Mapping[str, Any]
    audits: Mapping[str, Left]
    corpora: Mapping[str, Slices]  # cohorts/n60, pools/n60-s2
    reports: frozenset[str]
    missing: list[str]
    notes: list[str] = field(default_factory=list)


def read(out: Path, open_corpus: Open) -> Lies:
    """Read the folder of a study.

    Raises
    ------
    ValueError
        It holds no study.
    """
    if not (out / DOCUMENT).exists():
        raise ValueError(f"build: {out} is not a study (no {DOCUMENT}); make one with study")
    notes: list[str] = []
    document = _json(out / DOCUMENT, notes) or {}
    names = _names(out, document)
    corpora = _corpora(out, names, open_corpus)
    audits = {name: left for name in names if (left := _audit(out, name, open_corpus, notes))}
    findings = _json(out / FINDINGS, notes) if (out / FINDINGS).exists() else None
    if findings is None or not isinstance(findings.get("points"), list):
        findings = _collected(out, document, names, corpora, audits, notes)
    reports = frozenset(n for n in names if (out / "audits" / n / audit.NAME).exists())
    missing = _missing(out, document, findings["points"], audits)
    return Lies(document, findings, audits, corpora, reports, missing, notes)


def _json(path: Path, notes: list[str]) -> Any:
    if not path.exists():
        return None
    return audit.tried(path.name, lambda: json.loads(path.read_bytes()), notes, "study")


def _names(out: Path, document: Mapping[str, Any]) -> list[str]:
    """Return every size and run, by size: those in the folders, else those of the settings."""
    settings = document.get("settings") or {}
    folders = [f.name for kind in ("cohorts", "pools", "audits") for f in (out / kind).glob("n*")]
    there = {name for name in folders if study.NAME.fullmatch(name)}
    if not there:
        runs = 1 if document.get("brought") else int(settings.get("runs") or 1)
        sizes = settings.get("sizes") or []
        there = {f"n{n}" + (f"-s{k + 1}" if k else "") for n in sizes for k in range(runs)}
    return sorted(there, key=lambda name: (size_of(name), run_of(name)))


def size_of(name: str) -> int:
    """Return the size of a point."""
    return int(name[1:].split("-")[0])


def run_of(name: str) -> int:
    """Return which of the generators of its set a point is: 0, 1, .."""
    return int(name.split("-s")[1]) - 1 if "-s" in name else 0


def _corpora(out: Path, names: list[str], open_corpus: Open) -> dict[str, Slices]:
    wanted = [f"cohorts/{name.split('-')[0]}" for name in names]
    wanted += [f"pools/{name}" for name in names] + ["cohorts/held-out"]
    found = {}
    for place in dict.fromkeys(wanted):
        try:
            found[place] = open_corpus(out / place)
        except (ValueError, OSError, Damaged) as error:
            log.warning("%s cannot be opened (%s)", place, type(error).__name__)
    return found


def _audit(out: Path, name: str, open_corpus: Open, notes: list[str]) -> Left | None:
    """Read one audit; None while there is none."""
    path = out / "audits" / name
    if not (path / "run.json").exists():
        return None
    left: Left | None = audit.tried(
        f"audits/{name}", partial(audit.read, path, open_corpus), notes, "study"
    )
    if left is not None:
        notes += [f"Audit of {name}: {note}" for note in left.notes]
    return left


# -- the numbers of a study that did not get to its findings


def _collected(
    out: Path,
    document: Mapping[str, Any],
    names: list[str],
    corpora: Mapping[str, Slices],
    audits: Mapping[str, Left],
    notes: list[str],
) -> Mapping[str, Any]:
    told = {key: _json(out / file, notes) or {} for key, file in TOLD.items()}
    points = [
        study.Point(
            name=name,
            asked=size_of(name),
            seed=run_of(name),
            cohort=_described(corpora, name),
            training=_training(document, told["training"].get(name)),
            sampling=told["sampling"].get(name),
            curve=told["curve"].get(name) or [],
            findings=_done(out, audits, name),
        )
        for name in names
    ]
    crossed = _json(out / FIGURE_4, notes)
    return study.collect(document, points, _crossed(crossed) if crossed else None)


def _described(corpora: Mapping[str, Slices], name: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for prefix, place in (("", f"cohorts/{name.split('-')[0]}"), ("held_out.", "cohorts/held-out")):
        if place not in corpora:
            continue
        summary = corpora[place].summary
        out |= {prefix + ours: summary.get(theirs) for theirs, ours in PATIENTS.items()}
        out |= {f"{prefix}{c}": n for c, n in (summary.get("classes") or {}).items() if c != "none"}
    return out


def _training(document: Mapping[str, Any], told: Mapping[str, Any] | None) -> Any:
    if told is None:
        return None
    settings = document.get("settings") or {}
    of_settings = {"generator": "generator", "px": "train_px", "steps": "train_steps"}
    return {ours: settings.get(theirs) for ours, theirs in of_settings.items()} | dict(told)


def _crossed(told: Mapping[str, Any]) -> study.Crossed:
    names = dict.fromkeys(key.removesuffix(".reason") for key in told)
    names = {name: told.get(name, told.get(f"{name}.reason")) for name in names}
    sides = {k: F for k, F in names.items() if isinstance(F, str | list)}
    return study.Crossed(sides, told.get("images"))


def _done(out: Path, audits: Mapping[str, Left], name: str) -> Mapping[str, Any] | None:
    """Return the findings of an audit that has ended; numbers on the way are not shown."""
    ended = (out / "audits" / name / FINDINGS).exists()
    return audits[name].findings if name in audits and ended else None


def _missing(
    out: Path, document: Mapping[str, Any], names: list[str], audits: Mapping[str, Left]
) -> list[str]:
    """Name the phases that are not done and the audits that have not ended."""
    lines = audit.unfinished(document)
    for name in names:
        if not (out / "audits" / name / FINDINGS).exists():
            lines.append(f"The audit of {name} has not ended: the pool has not been searched.")
        elif name in audits and audits[name].missing:
            lines.append(f"The audit of {name} is not complete: {audits[name].missing[0]}")
    if not (out / FINDINGS).exists():
        lines.append(f"{FINDINGS} is not there: the numbers were put together for this page.")
    if document.get("status") != "complete" and not lines:
        lines.append(f"The study is marked {document.get('status', 'unreadable')}, not complete.")
    return lines


# -- what the drawings need


def best_r(left: Left) -> dict[str, Floats]:
    """Return the best r of every image of an audit over all slices, as stored, by set."""
    matrix: xr.Dataset | None = left.matrices.get("real")
    if matrix is None:
        return {}
    best = {who: rows.best_r(matrix, who) for who in SETS}
    return {who: r[np.isfinite(r)] for who, r in best.items() if np.isfinite(r).any()}


def only_first(left: Left) -> Left:
    """Return an audit of which one pair is shown."""
    first = {"pairs.shown": min(1, int(left.findings.get("pairs.shown") or 0))}
    return replace(left, findings=dict(left.findings) | first)
