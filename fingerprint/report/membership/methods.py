"""The answer: every method beside the constant predictors, ROC, all arms, by patient, cuts."""

from __future__ import annotations

from typing import Any

from fingerprint.report.blocks import Chart, Prose, Table
from fingerprint.report.membership import drawn
from fingerprint.report.membership.page import (
    CONSTANTS,
    METHODS,
    METRIC,
    SPLIT,
    MembershipPage,
    Parts,
    named,
)

SHOWN = ("auc", "kappa", "f1", "balanced_accuracy", "tpr_at_fpr_0.1")
CHOSEN = "DEV: arms and cuts were chosen on these slices; read TEST for the result."


def no_answer(page: MembershipPage) -> str:
    """Say why there is no answer."""
    if any(page.methods(scope, split) for scope in page.scopes for split in SPLIT):
        return ""
    return "no method has been judged"


def splits(page: MembershipPage) -> list[str]:
    """Return where metrics are known, the result first."""
    return ["test", "dev"] if page.split == "test" else ["dev"]


def answer(page: MembershipPage) -> list[Any]:
    """Return a row for each method and each constant predictor, per task and averaged."""
    about: Parts = [
        "Each method gives every real slice a score; arm and cut were chosen on DEV alone. A "
        "constant predictor looks at nothing: calling every slice used has kappa 0, and yet an F1 "
        "of 2\u03c0/(1 + \u03c0) at a share \u03c0 of used slices. F1 alone says little: a method "
        "below that F1 may still have kappa above 0 (E23). Intervals: 95 %, patients drawn, never "
        "slices.",
    ]  # fmt: skip
    tables = [_answer(page, s, x) for x in splits(page) for s in page.scopes]
    return [Prose(about), *tables]


def _answer(page: MembershipPage, scope: str, split: str) -> Table:
    path = page.metrics(scope, split)
    rows: list[list[Any]] = []
    for name in page.methods(scope, split):
        arm = page.at(*path, name, "arm")
        rows.append([name, *_cells(page, (*path, name), arm if isinstance(arm, str) else "")])
    for name, text in CONSTANTS.items():
        if page.at(*path, name):
            rows.append([text, *_cells(page, (*path, name), "")])
    columns = ("Method", "Arm", *(METRIC[name] for name in SHOWN), "Above a constant")
    note: Parts = [CHOSEN, " "] if split == "dev" else []
    note += page.reasons([(*path, row) for row in page.at(*path) or {} if "/" not in row])
    return Table([f"{named(scope)}, {SPLIT[split]}"], columns, rows, note, text=True)


def _cells(page: MembershipPage, path: tuple[str, ...], arm: str) -> list[Any]:
    if not page.ran(path):
        why = page.why(*path)
        return [f"not run: {why}", *[""] * len(SHOWN), ""]
    known = page.at(*path, "kappa", "interval") is not None
    above = ("yes" if page.beats(path) else "no") if known else "no interval"
    above = "" if path[-1] in CONSTANTS else above
    return [arm, *_shown(page, path), above]


def _shown(page: MembershipPage, path: tuple[str, ...]) -> list[Any]:
    """Return the metrics of a row, the first three with their intervals."""
    return [page.metric(path, name, ends=k < 3) for k, name in enumerate(SHOWN)]


# -- ROC


def no_roc(page: MembershipPage) -> str:
    """Say why there is no curve."""
    return "" if page.at("roc") else "no method has been judged"


def roc(page: MembershipPage) -> list[Any]:
    """Return a curve for each method, one drawing for each task and split."""
    return [
        chart for split in splits(page) for task in page.tasks
        if (chart := _roc(page, task, split)) is not None
    ]  # fmt: skip


def _roc(page: MembershipPage, task: str, split: str) -> Chart | None:
    held = page.at("roc", task, split) or {}
    curves = {name: (held[name]["fpr"], held[name]["tpr"])
              for name in METHODS if (held.get(name) or {}).get("fpr")}  # fmt: skip
    if not curves:
        return None
    name = f"roc-{split}-{page.tasks.index(task)}"
    caption: Parts = ["All cuts of each method. On the diagonal a score says nothing."]
    caption += [f" {CHOSEN}"] if split == "dev" else []
    title = f"{task}, {SPLIT[split]}"
    return Chart(name, title, drawn.roc(curves, name), f"ROC of {title}.", caption)


# -- all arms


def arms(page: MembershipPage) -> list[Any]:
    """Return every arm of every method, folded: many looks at the same slices."""
    about: Parts = [
        "Every arm that was computed. The largest of many numbers is large by chance: the result "
        "is the row of the arm that was chosen on DEV, never the best row on TEST."
    ]
    tables = [_arms(page, s, x) for x in splits(page) for s in page.scopes]
    return [Prose(about), *[table for table in tables if table.rows]]


def _arms(page: MembershipPage, scope: str, split: str) -> Table:
    path = page.metrics(scope, split)
    rows: list[list[Any]] = []
    for name in page.arms(scope, split):
        at = (*path, name)
        if not page.ran(at):
            rows.append([name, f"not run: {page.why(*at)}", *[""] * (len(METRIC) - 1)])
            continue
        with_ends = ("auc", "kappa")
        rows.append([name, *(page.metric(at, m, ends=m in with_ends) for m in METRIC)])
    columns = ("Arm", *METRIC.values())
    caption = f"{named(scope)}, {SPLIT[split]}: {len(rows)} arms"
    return Table([caption], columns, rows, [CHOSEN] if split == "dev" else [], text=True,
                 folded=True)  # fmt: skip


def no_arms(page: MembershipPage) -> str:
    """Say why there are no arms."""
    there = any(page.arms(scope, split) for scope in page.scopes for split in SPLIT)
    return "" if there else "no arm has been judged"


# -- by patient


def no_patients(page: MembershipPage) -> str:
    """Say why patients were not judged."""
    held = page.at("by_patient")
    if not held:
        return "patients are not known, or no method has been judged"
    return held["reason"] if isinstance(held.get("reason"), str) else ""


def by_patient(page: MembershipPage) -> list[Any]:
    """Return the metrics of the mean score of each patient."""
    out: list[Any] = [Prose([
        "The score of a patient is the mean over the slices of that patient; where patients are "
        "not known, groups of near-duplicates stand in for them."
    ])]  # fmt: skip
    for split in splits(page):
        for task in page.tasks:
            path = ("by_patient", task, split)
            names = [n for n in (*METHODS, *CONSTANTS) if page.at(*path, n)]
            rows = [[CONSTANTS.get(n, n), *_of_patients(page, (*path, n))] for n in names]
            if rows:
                note = page.reasons([(*path, name) for name in names])
                columns = ("Method", *(METRIC[m] for m in SHOWN))
                title = [f"{task}, {SPLIT[split]}, by patient"]
                out.append(Table(title, columns, rows, note, text=True))
    return out


def _of_patients(page: MembershipPage, path: tuple[str, ...]) -> list[Any]:
    if page.ran(path):
        return _shown(page, path)
    return [f"not run: {page.why(*path)}", *[""] * (len(SHOWN) - 1)]


# -- cuts


def no_cuts(page: MembershipPage) -> str:
    """Say why there are no cuts."""
    return "" if page.at("cuts") else "no cut has been chosen"


def cuts(page: MembershipPage) -> list[Any]:
    """Return the cut of each method, and the two that are not used."""
    out: list[Any] = [Prose([
        "A slice is called used if its score is at least the cut: that of the largest balanced "
        "accuracy on DEV. Beside it the cut of the largest F1 and the share of slices that it "
        "calls used, near 1 for useless scores; and the median of TEST, which supposes that half "
        "of its slices were used and is not used here."
    ])]  # fmt: skip
    for task in page.tasks:
        rows = [
            [name, *(page.number("cuts", task, name, cut, kind="q")
                     for cut in ("balanced", "f1")),
             page.number("cuts", task, name, "f1_share_called_used", kind="percent"),
             page.number("cuts", task, name, "median", kind="q")]
            for name in METHODS if page.at("cuts", task, name)
        ]  # fmt: skip
        columns = ("Method", "Cut", "Of largest F1", "Calls used", "Median of TEST")
        out.append(Table([task], columns, rows, text=True))
    return out


def predicted(page: MembershipPage) -> list[Any]:
    """Return how many slices of TEST each method calls used."""
    rows = [
        [task, name, page.number("predicted", task, name, "used", kind="n"),
         page.number("predicted", task, name, "not_used", kind="n")]
        for task in page.tasks for name in METHODS if page.at("predicted", task, name)
    ]  # fmt: skip
    columns = ("Task", "Method", "Called used", "Called not used")
    note: Parts = ["One file for each task and method, a line for each slice: in the folder of the "
                   "run, not on this page."]  # fmt: skip
    return [Table(["Slices of TEST"], columns, rows, note, text=True)]


def no_predicted(page: MembershipPage) -> str:
    """Say why nothing was predicted."""
    return "" if page.at("predicted") else "TEST was not scored yet"
