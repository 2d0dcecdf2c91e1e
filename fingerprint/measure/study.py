"""Every number of a study, as one flat dictionary: what its ``findings.json`` holds.

A study trains generators on sets of growing size and audits what they make (paper 000). A key is
``<point>.<key>``: a point is a size and a run, ``n60`` or ``n60-s2``, and what follows is a key of
the ``findings.json`` of its audit, or ``cohort``, ``training``, ``sampling``, ``curve``. All points
together are ``study.*``, the sets that are told apart ``figure4.*``; ``paper000.*`` is as printed.
Under no copying the best r of an image rises with the size of the set that is searched (E13): what
is compared across sizes is therefore always a difference from controls against the same set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fingerprint.measure import attribution, distances, findings
from fingerprint.measure.entries import Findings, entry, flat
from fingerprint.measure.points import Point, measured

FORMAT = "1.0"
NAME = re.compile(r"n[1-9][0-9]*(-s[1-9][0-9]*)?")

NO_SETS = "no further sets were trained: give sets in the settings (paper 000 has 7 of 600 slices)"
NOT_FINITE = "the matrix of distances holds a value that is not finite"


@dataclass(frozen=True)
class Crossed:
    """Every training set of Fig. 4 against every generated set.

    Attributes
    ----------
    matrices : mapping
        Kind of features (``pixels, texture, fid``) -> distances (k, k), rows training sets, columns
        generated sets; or the reason why there are none.
    slices : int or None
        Images of each set.
    """

    matrices: Mapping[str, Any] = field(default_factory=dict)
    slices: int | None = None


def exit_code(found: Mapping[str, Any]) -> int:
    """10 if the audit of any size found something, else 0.

    Raises
    ------
    ValueError
        Nothing was found, and some audit is missing: that is never "nothing found".
    """
    if any(found.get(f"{name}.levels") for name in found["points"]):
        return findings.COPIES_FOUND
    missing = [name for name in found["points"] if found.get(f"{name}.identical.images") is None]
    if missing or not found["points"]:
        raise ValueError(f"exit_code: every audit must be done; missing: {', '.join(missing)}")
    return 0


def collect(
    study: Mapping[str, Any], points: Sequence[Point], crossed: Crossed | None = None
) -> Findings:
    """Return every number of a study; pure, the same for the same inputs.

    Parameters
    ----------
    study : mapping
        ``study.json``.
    points : sequence of Point
        By size, then by run.
    crossed : Crossed, optional
        None: no sets were told apart.

    Raises
    ------
    ValueError
        A point has a name that is no size, or a name twice.
    """
    names = [point.name for point in points]
    if bad := [name for name in names if not NAME.fullmatch(name) or names.count(name) > 1]:
        raise ValueError(f"collect: points must be named n60 or n60-s2, each once, got {bad[0]!r}")
    out: Findings = {"format": FORMAT, "points": names}
    out["notes"] = [str(note) for note in study.get("notes") or []]
    out |= _of_study(study)
    for point in points:
        out |= {f"{point.name}.{key}": value for key, value in measured(point).items()}
    out |= _together(out, points)
    return out | _figure_4(crossed) | dict(_paper_000())


def under(found: Mapping[str, Any], name: str) -> Findings:
    """Return what is known of one point, as its audit names it."""
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in found.items() if key.startswith(prefix)}


def _of_study(study: Mapping[str, Any]) -> Findings:
    """Return settings, versions and digests; no path, and nothing that is still moving."""
    out = entry("study.digest", study.get("study"), "not recorded")
    out |= entry("study.started", study.get("started"), "not recorded")
    out |= {"study.brought": bool(study.get("brought"))}
    for name in ("digest", "key_id"):
        known = ((study.get("inputs") or {}).get("corpus") or {}).get(name)
        out |= entry(f"study.corpus.{name}", known, "not recorded")
    for name in ("copies", "settings", "versions", "hardware", "seeds"):
        out |= flat(f"study.{name}", study.get(name) or {})
    return out


# -- all sizes together

STATES = ("found", "set", "none", "undecided", "missing")


def _together(out: Mapping[str, Any], points: Sequence[Point]) -> Findings:
    """Return at which sizes copies were found, and from which size on none were."""
    sizes = sorted({point.asked for point in points})
    state = {n: _state([_of_audit(out, p.name) for p in points if p.asked == n]) for n in sizes}
    found: Findings = {"study.sizes": sizes}
    found |= {f"study.sizes.{s}": [n for n in sizes if state[n] == s] for s in STATES}
    found["study.generators"] = len(points)
    found["study.audited"] = sum(p.findings is not None for p in points)
    none = "no audit found a copy" if "none" in state.values() else "no size was decided on"
    found |= entry("study.found_up_to", max(found["study.sizes.found"], default=None), none)
    beyond = None
    for n in reversed(sizes):
        if state[n] != "none":
            break
        beyond = n
    why = "the largest size was not decided on, or something was found there"
    found |= entry("study.none_from", beyond, why)
    return found | _equal(out, [p.name for p in points if p.findings is not None])


def _of_audit(out: Mapping[str, Any], name: str) -> str:
    levels = out[f"{name}.levels"]
    if set(levels) & {"identical", "image", "patient"}:
        return "found"
    if levels:
        return "set"
    if out.get(f"{name}.identical.images") is None:
        return "missing"
    return "none" if out.get(f"{name}.images.found") is not None else "undecided"


def _state(of_runs: Iterable[str]) -> str:
    """Return the state of a size from those of its runs: none only if every run says none."""
    runs = set(of_runs)
    order = ("found", "set", "missing", "undecided", "none")
    return next(state for state in order if state in runs)


def _equal(out: Mapping[str, Any], names: Sequence[str]) -> Findings:
    """Return the largest number of patients that every size can be brought down to."""
    common: set[int] | None = None
    for name in names:
        for who in ("generated", "control"):
            prefix = f"{name}.rarefied.{who}."
            there = {
                int(key[len(prefix) :])
                for key, value in out.items()
                if key.startswith(prefix) and value is not None
            }
            common = there if common is None else common & there
    most = max(common, default=None) if common else None
    return entry("study.equal_patients", most, "the sizes share no number of patients")


@cache
def _paper_000() -> Mapping[str, Any]:
    """Return Tables 1 and 2 and Fig. 4 of paper 000 as printed, and what they show."""
    told = attribution.attribution(attribution.FIGURE_4)
    out = findings.table_000() | distances.paper_000()
    return out | {
        f"paper000.figure4.{name}": getattr(told, name) for name in ("next_best_sum", "k")
    }


# -- Fig. 4


def _figure_4(crossed: Crossed | None) -> Findings:
    """Return which training set made which generated set, by each kind of features."""
    if crossed is None:
        return entry("figure4.features", None, NO_SETS)
    known = {k: F for k, F in crossed.matrices.items() if F is not None and not isinstance(F, str)}
    out = entry("figure4.features", list(known) or None, NO_SETS)
    out |= entry("figure4.slices", crossed.slices, "not recorded")
    for name, F in crossed.matrices.items():
        if name not in known:
            out |= entry(f"figure4.{name}.matrix", None, str(F or NO_SETS))
            continue
        rows = [[float(x) for x in row] for row in F]
        if not all(math.isfinite(x) for row in rows for x in row):
            out |= entry(f"figure4.{name}.matrix", None, NOT_FINITE)
            continue
        told = attribution.attribution(rows)
        out |= {f"figure4.{name}.matrix": rows}
        out |= {f"figure4.{name}.{key}": value for key, value in vars(told).items()}
    return out
