"""One size and run of a study: its sets, its training, and what its audit found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fingerprint.measure import findings, fisher, intervals
from fingerprint.measure.entries import TOO_FEW, Findings, entries, entry, flat

# of an audit, what stands under its point; pairs only the first, lists of images stay in the audit
COPIED = (
    *("table1.", "rarefied.", "identical.", "images.", "tail.", "patients.", "risk.", "set."),
    *("limit.", "distance.", "fid.", "side.", "slices.", "groups.", "queries.", "class.", "seen."),
    *("pose.", "register.", "duplicates.", "pairs.", "pair.1.", "settings.q", "run.digest"),
)
LISTS = ("identical.list", "images.list", "risk.list")
OF_AUDIT = (  # what is missing while there is no audit
    *("identical.images", "images.any", "images.found", "patients.found", "set.p_value"),
    *("limit.weakest", "flagged", "flagged.share", "excess", "excess.low", "excess.high"),
    *("table1.generated.n", "distance.n", "fid.value", "pairs.shown"),
)
CURVE = ("step", "images", "excess", "low", "high", "found", "nearest")

NOT_AUDITED = "the audit of this size has not ended: run the same command again"
BROUGHT = "images were brought by the user: nothing was trained here"
NO_CURVE = "no earlier state of the generator was kept: snapshots = 0 in the settings"
ALL_SAME = "every image is identical to a slice: r = 1 has no finite z"
UNDECIDED = "the audit did not decide which images are copies"


@dataclass(frozen=True)
class Point:
    """One size and run of a study, and all that was measured of it.

    Attributes
    ----------
    name : str
        ``n60``, or ``n60-s2`` where the same set was trained on again.
    asked : int
        Slices in the training set that were asked for.
    seed : int
        0, 1, .. of the generators trained on the same set.
    cohort : mapping
        Flat: ``slices, patients, women, age_min, age_mean, age_max, c1, c2, c3`` of the training
        set, and the same of held-out slices after ``held_out.``.
    training : mapping or None
        ``generator, px, steps, parameters, loss, seconds, weights, device``; None: images were
        brought by the user. ``loss`` is the last one, or a list of (step, loss).
    sampling : mapping or None
        ``pool, seconds, seed``.
    curve : sequence of mapping
        Of each state that was kept, `CURVE`: ``excess`` is mean best z of its images less that of
        held-out slices, with its 95 % interval; ``found`` images on the tail list, or None;
        ``nearest`` the share with r > 0.95 to a slice of the training set.
    findings : mapping or None
        ``findings.json`` of its audit; None: it was not run.
    audit_seconds : float or None
    """

    name: str
    asked: int
    seed: int
    cohort: Mapping[str, Any]
    training: Mapping[str, Any] | None = None
    sampling: Mapping[str, Any] | None = None
    curve: Sequence[Mapping[str, Any]] = ()
    findings: Mapping[str, Any] | None = None
    audit_seconds: float | None = None


def measured(point: Point) -> Findings:
    """Return every number of a point; keys as in the findings of its audit, and a few more."""
    out: Findings = {"asked": point.asked, "run": point.seed}
    out |= flat("cohort", point.cohort)
    out |= entry("cohort.slices", point.cohort.get("slices"), "the set is not sealed yet")
    slices = point.cohort.get("slices") or point.asked
    out["expected_maximum"] = fisher.expected_maximum(int(slices))
    out |= _training(point) | _curve(point.curve)
    audit = point.findings
    if audit is None:
        out |= entries(dict.fromkeys(OF_AUDIT), NOT_AUDITED)
        return out | {"levels": []} | _seconds(point)
    out |= {k: v for k, v in audit.items() if k.startswith(COPIED) and k not in LISTS}
    out |= {"levels": findings.levels_found(audit)} | _flagged(audit) | _excess(audit)
    return out | _seconds(point)


def _training(point: Point) -> Findings:
    told = dict(point.training or {})
    told.pop("snapshots", None)
    loss = told.get("loss")
    if isinstance(loss, Sequence) and not isinstance(loss, str):
        told["loss"] = loss[-1][1] if len(loss) else None
    out = entry("training.steps", told.get("steps"), BROUGHT)
    return out | flat("training", told) | flat("sampling", point.sampling or {})


def _curve(curve: Sequence[Mapping[str, Any]]) -> Findings:
    """Return the states of a training as lists, and the first that images are found of."""
    if not curve:
        return entries(dict.fromkeys(("curve.step", "curve.begins")), NO_CURVE)
    states = sorted(curve, key=lambda state: state["step"])
    out: Findings = {f"curve.{name}": [s.get(name) for s in states] for name in CURVE}
    begins = next((state["step"] for state in states if state.get("found")), None)
    told = any(state.get("found") is not None for state in states)
    why = "no image of any state that was kept is found" if told else TOO_FEW
    return out | entry("curve.begins", begins, why)


def _seconds(point: Point) -> Findings:
    parts = {
        "training": (point.training or {}).get("seconds"),
        "sampling": (point.sampling or {}).get("seconds"),
        "audit": point.audit_seconds,
    }
    out = entries({f"seconds.{name}": value for name, value in parts.items()}, "not recorded")
    known = [float(value) for value in parts.values() if value is not None]
    return out | entry("seconds", sum(known) if known else None, "not recorded")


def _flagged(audit: Mapping[str, Any]) -> Findings:
    """Return the images on any list, and their share with its exact interval.

    Given the generator its images are independent draws, so the interval is Clopper and Pearson's;
    that over clusters of duplicates is ``images.share.low`` and ``.high``, and how much another
    training differs only further runs show.
    """
    shown, n = audit.get("images.any"), audit.get("images.tested")
    if audit.get("images.found") is None or shown is None or not n:
        why = str(audit.get("images.found.reason", UNDECIDED))
        return entries(dict.fromkeys(("flagged", "flagged.share")), why)
    low, high = intervals.clopper_pearson(shown, n)
    ends = {"flagged.low": low, "flagged.high": high}
    return {"flagged": shown, "flagged.share": shown / n} | ends


def _excess(audit: Mapping[str, Any]) -> Findings:
    """Return mean best z of generated images less that of controls against the same slices.

    Their two intervals, over clusters of duplicates and over patients, are joined as those of
    independent estimates (Zou & Donner 2008, section 2).
    """
    where = "as stored"
    if audit.get("side.main.s_r") is None or audit.get("side.control.s_r") is None:
        if audit.get("side.main.n"):
            return entry("excess", None, ALL_SAME if audit.get("side.control.s_r") else TOO_FEW)
        means = [audit.get(f"table1.{who}.mean_z") for who in ("generated", "control")]
        if None in means:
            return entry("excess", None, str(audit.get("images.found.reason", TOO_FEW)))
        return {"excess": means[0] - means[1], "excess.at": where} | _no_interval()  # type: ignore[operator]
    if audit.get("pose.poses"):
        where = f"at best pose, {audit.get('pose.image') or 'raw'} image"
    main, control = (_with_ends(audit, f"side.{side}.s_r") for side in ("main", "control"))
    out: Findings = {"excess": main[0] - control[0], "excess.at": where}
    if any(end is None for end in (*main, *control)):
        return out | _no_interval()
    below = math.hypot(main[0] - main[1], control[2] - control[0])
    above = math.hypot(main[2] - main[0], control[0] - control[1])
    return out | {"excess.low": out["excess"] - below, "excess.high": out["excess"] + above}


def _with_ends(audit: Mapping[str, Any], key: str) -> tuple[Any, Any, Any]:
    return audit[key], audit.get(f"{key}.low"), audit.get(f"{key}.high")


def _no_interval() -> Findings:
    why = f"an interval needs {intervals.LEAST_CLUSTERS} patients or distinct images"
    return entries(dict.fromkeys(("excess.low", "excess.high")), why)
