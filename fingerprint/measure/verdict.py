"""The verdict in numbers, at three levels: image, patient, set; and what this run would have found.

Every number says how many controls it rests on, and one that could not be computed says what is
missing (METHOD.md, sections 3.6 to 3.12 and 3.20).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fingerprint.measure import fdr, intervals, judged, labels, limit, null, patients
from fingerprint.measure.entries import (
    NO_CONTROLS,
    NO_HELD_OUT,
    UNKNOWN_PATIENTS,
    Findings,
    entries,
    entry,
)
from fingerprint.measure.null import Controls

LISTED = 1_000  # images written out in findings.json; all are in queries.parquet
P_NAMES = ("p_patient", "p_pooled", "p_tail", "p_value", "q_patient", "q_value")
NOT_COMPARED = (
    "no generated image was compared with enough patients of both corpora: their slices, or those "
    "of the controls that are left, have one grey level"
)
NO_CANARIES = "canaries = 0 in the settings: no copy was planted; raise it, and choose another OUT"


@dataclass(frozen=True)
class Told:
    """What the judgement of a run left.

    Attributes
    ----------
    table : DataFrame
        ``queries.parquet``.
    planted : DataFrame or None
        ``canaries.tsv`` beside the rows of the canaries; None: none were planted.
    score : str
        Which score was tested.
    ranks : int
        Patients below the best that s_excess compares with.
    left_out : sequence of str
        Control patients that leak.
    given : bool
        Whether CONTROLS were given.
    q : float
    seed : int
    """

    table: pd.DataFrame
    planted: pd.DataFrame | None
    score: str
    ranks: int
    left_out: tuple[str, ...]
    given: bool
    q: float
    seed: int

    @property
    def generated(self) -> pd.DataFrame:
        """The images that are tested."""
        mine = (self.table["query_set"] == "generated") & self.table["score"].notna()
        return self.table[mine]

    @property
    def controls(self) -> Controls:
        """The null."""
        t = self.table
        asked = judged.Asked(t["owner"].to_numpy(object), t["region"].to_numpy(object))
        score, sets = t["score"].to_numpy(np.float64), t["query_set"].to_numpy(object)
        return judged.controls_of(score, sets, asked, np.array(self.left_out, object))


# -- images


def images(told: Told) -> Findings:
    """Return the lists of images, and what they rest on."""
    tested, controls = told.generated, told.controls
    m, k = len(tested), controls.patients
    out: Findings = {
        "images.tested": m,
        "images.identical": int(tested["identical"].sum()),
        "images.controls": len(controls),
        "images.control_patients": k,
        "images.left_out_patients": len(told.left_out),
        "images.score": told.score,
        "images.ranks": told.ranks,
    }
    if not len(controls) or not m:
        reason = NO_CONTROLS if m else "every image has one grey level"
        return out | entries(dict.fromkeys(_COUNTS), reason)
    why = null.no_tail(controls)
    effective = _effective(tested)
    repeating = effective < judged.REPEATED * m
    factor = fdr.harmonic(m) if repeating else 1.0
    least = fdr.findings_needed(m, told.q / factor, k)
    out |= {
        "images.guaranteed": int(tested["guaranteed"].sum()),
        "images.any": int(tested["list"].notna().sum()),
        "images.own_region": int(tested["own_region"].sum()),
        "images.own_tail": int(tested["own_tail"].sum()),
        "images.effective": effective,
        "images.method": "Benjamini-Yekutieli" if repeating else "Benjamini-Hochberg",
        "images.controls_needed": fdr.controls_needed(m, told.q / factor),
        "images.findings_needed": least,
        "images.no_tail": why,
    }
    both = (tested["guaranteed"] | tested["tail"]).to_numpy(bool)
    mute = bool(why) and least > m
    found = None if mute else int(both.sum())
    out |= entry("images.found", found, f"{why}; ranks among {k} control patients cannot speak")
    out |= entry("images.tail", None if why else int(tested["tail"].sum()), why)
    out |= entry("images.intraclass", null.intraclass(controls))
    by = fdr.benjamini_yekutieli(tested["p_value"].to_numpy(np.float64), told.q)
    out |= entry("images.tail_any_dependence", None if why else int(by.sum()), why)
    low, high = intervals.cluster_bootstrap(
        both.astype(np.float64), tested["cluster"].to_numpy(), seed=told.seed
    )
    out |= entry("images.share", None if mute else float(both.mean()), why)
    out |= entry("images.share.low", None if mute else low) | entry("images.share.high", high)
    return out | _tail(controls) | {"images.list": _listed(tested)}


_COUNTS = (
    "images.guaranteed images.found images.tail images.share images.effective images.list"
).split()


def _effective(tested: pd.DataFrame) -> float:
    sizes = tested["cluster"].value_counts().to_numpy()
    return float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum())


def _tail(controls: Controls) -> Findings:
    tail = null.fitted_tail(controls.score) if not null.no_tail(controls) else None
    if tail is None:
        return entry("tail.xi", None, null.no_tail(controls))
    values = {"start": tail.start, "share": tail.share, "xi": tail.xi, "sigma": tail.sigma}
    return {f"tail.{name}": value for name, value in values.items()}


def _listed(tested: pd.DataFrame) -> list[dict[str, Any]]:
    """Write out the most extreme images with all their p, most extreme first."""
    keys = ["list", "p_value", "p_pooled", "query"]
    order = tested.assign(list=tested["list"].isna()).sort_values(keys, kind="stable")
    names = (
        "query",
        "participant",
        "slice",
        "r",
        "s_excess",
        "s_gap",
        "s_r",
        "s_diff",
        *P_NAMES,
        "list",
    )
    return [
        {name: _plain(row[name]) for name in names}
        for row in tested.loc[order.index[:LISTED]].to_dict("records")
    ]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


# -- set and patients


@dataclass(frozen=True)
class Held:
    """z of the judged images with all patients of T and H, equal slices per patient."""

    z: np.ndarray
    query: np.ndarray
    trained: np.ndarray
    patient: np.ndarray
    stratum: np.ndarray


def whole(told: Told, held: Held | None) -> Findings:
    """Return the set level, or why it was not run."""
    names = dict.fromkeys(("set.p_value", "set.w", "set.share"))
    if held is None or not len(held.z):
        return entries(names, NOT_COMPARED if told.given else NO_HELD_OUT)
    found = labels.set_level(held.z, held.trained, held.stratum, seed=told.seed)
    spread = intervals.cluster_bootstrap(found.difference, np.arange(len(held.z)), seed=told.seed)
    return {
        "set.p_value": found.p,
        "set.w": found.w,
        "set.queries": len(held.z),
        "set.permutations": found.permutations,
        "set.trained": int(held.trained.sum()),
        "set.held_out": int((~held.trained).sum()),
        "set.strata": len(np.unique(held.stratum)),
        "set.share": found.share,
        "set.share.expected": found.share_expected,
        "set.share.sd": found.share_sd,
        "set.difference.mean": float(found.difference.mean()),
        **entry("set.difference.low", spread[0]),
        **entry("set.difference.high", spread[1]),
        "set.found": bool(found.p <= told.q),
    }


def people(told: Told, held: Held | None, known: bool) -> Findings:
    """Return the patients that the set shows, each tested; and the risk register."""
    risk = _register(told)
    names = dict.fromkeys(("patients.found", "patients.tail"))
    if held is None or not len(held.z):
        why = NOT_COMPARED if told.given else NO_HELD_OUT
        out = entries(names, why if known else UNKNOWN_PATIENTS)
        return out | _registered(told, risk, known)
    found = patients.patient_level(held.z, held.trained, seed=told.seed)
    who, k = held.patient[held.trained], int((~held.trained).sum())
    rank = fdr.benjamini_hochberg(found.p, told.q)
    tail = fdr.benjamini_hochberg(found.tail, told.q)
    q_rank, q_tail = fdr.adjusted(found.p), fdr.adjusted(found.tail)
    for at in np.flatnonzero(rank | tail):
        query = str(held.query[found.query[at]])
        risk.setdefault(str(who[at]), []).append((query, "patient", float(found.p[at])))
    lines = {
        str(name): {"p": _plain(found.p[j]), "q": _plain(q_rank[j]), "q_tail": _plain(q_tail[j])}
        for j, name in enumerate(who)
    }
    count = int((rank | tail).sum())
    low, high = intervals.clopper_pearson(count, len(who))
    out = {
        "patients.found": count,
        "patients.tested": len(who),
        "patients.guaranteed": int(rank.sum()),
        "patients.share.low": low,
        "patients.share.high": high,
        "patients.controls": k,
        "patients.findings_needed": fdr.findings_needed(len(who), told.q, k),
        **entry("patients.tail", None if found.no_tail else int(tail.sum()), found.no_tail),
    }
    return out | _registered(told, risk, known, lines)


def _register(told: Told) -> dict[str, list[tuple[str, str, float]]]:
    """Return patient -> (image, list, p) of the images that are findings."""
    risk: dict[str, list[tuple[str, str, float]]] = {}
    found = told.generated[told.generated["list"].notna()]
    for row in found.to_dict("records"):
        p = {"identical": 0.0, "guaranteed": row["p_patient"]}.get(row["list"], row["p_value"])
        risk.setdefault(str(row["participant"]), []).append((row["query"], row["list"], float(p)))
    return risk


def _registered(
    told: Told,
    risk: Mapping[str, list[tuple[str, str, float]]],
    known: bool,
    lines: Mapping[str, Mapping[str, Any]] | None = None,
) -> Findings:
    """Return the risk register: one line for each patient, most images first."""
    order = {name: k for k, name in enumerate((*judged.LISTS, "patient"))}
    score = told.generated.set_index("query")
    out = []
    for who, evidence in risk.items():
        best = min(evidence, key=lambda one: (order[one[1]], one[2], one[0]))
        shown = score.loc[best[0]]
        theirs = shown["participant"] == who  # else the image resembles another patient more
        line: dict[str, Any] = {
            "participant": who,
            "images": sorted({query for query, _, _ in evidence}),
            "query": best[0],
            "list": best[1],
            "slice": int(shown["slice"]) if theirs else None,
            "r": _plain(shown["r"]) if theirs else None,
            "q_value": _plain(shown["q_value"]) if theirs else None,
        }
        out.append(line | {f"patient_{k}": v for k, v in ((lines or {}).get(who) or {}).items()})
    out.sort(key=lambda line: (-len(line["images"]), order[line["list"]], line["participant"]))
    return {
        "risk.list": out,
        **entry("risk.patients", len(out) if known else None, UNKNOWN_PATIENTS),
    }


# -- what would have been found


def detection(told: Told) -> Findings:
    """Return the detection limit of each kind of copy."""
    if told.planted is None or told.planted.empty:
        return entry("limit.weakest", None, NO_CANARIES)
    controls, m = told.controls, len(told.generated)
    why = null.no_tail(controls) if len(controls) else NO_CONTROLS
    repeating = m > 0 and _effective(told.generated) < judged.REPEATED * m
    level = told.q / max(m, 1) / (fdr.harmonic(m) if repeating else 1.0)
    found = limit.limits(told.planted, level, why)
    out: Findings = {"limit.level": level, "limit.kinds": list(found)}
    for kind, one in found.items():
        weakest = one.weakest
        out |= entry(f"limit.{kind}", weakest.words if weakest else None, one.why)
        out |= entry(f"limit.{kind}.bound", weakest.bound if weakest else None, one.why)
        out[f"limit.{kind}.cells"] = [
            {"level": c.level, "n": c.n, "found": c.found, "first": c.first, "words": c.words}
            for c in one.cells
        ]
    named = [one.weakest.words for one in found.values() if one.weakest]
    reason = next((one.why for one in found.values() if one.why), NO_CANARIES)
    return out | entry("limit.weakest", "; ".join(named) or None, reason)
