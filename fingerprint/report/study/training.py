"""When copying begins in a training, and what everything cost."""

from __future__ import annotations

from typing import Any

from fingerprint.report.blocks import Chart, Prose, Table
from fingerprint.report.study import drawn
from fingerprint.report.study.drawn import Line
from fingerprint.report.study.page import Parts, StudyPage


def no_curve(page: StudyPage) -> str:
    """Say why no training can be followed."""
    if any(page.has(f"{name}.curve.step") for name in page.points):
        return ""
    return page.reason(f"{page.points[0]}.curve.step") if page.points else "no size"


def curve(page: StudyPage) -> list[Any]:
    """Return how alike images of earlier states of each generator are, and when copies appear."""
    names = [name for name in page.once if page.has(f"{name}.curve.step")]
    about: Parts = [
        "States of each generator were kept during its training, and images of each compared with "
        "the training set at the size it was trained at, as stored, beside held-out slices: a "
        "small audit without poses. It shows when copying begins; the audits of the last state "
        "show whether it does."
    ]  # fmt: skip
    out: list[Any] = [Prose(about)]
    f = page.findings
    lines = [Line(page.label(n), *(f[f"{n}.curve.{x}"] for x in ("step", "excess", "low", "high")))
             for n in names]  # fmt: skip
    out.append(Chart(
        "steps-excess", "Excess over the null", drawn.training(lines, "steps-excess",
                                                               "mean best z above controls"),
        "Mean best z above held-out slices against training steps, for each size.",
        ["Mean best z of the images of a state less that of held-out slices against the same "
         "training set, with 95 % intervals: at 0 they are as alike as strangers."],
    ))  # fmt: skip
    lines = [Line(page.label(n), f[f"{n}.curve.step"], [100 * x for x in f[f"{n}.curve.nearest"]])
             for n in names]  # fmt: skip
    out.append(Chart(
        "steps-nearest", "Images that nearly equal a slice", drawn.training(
            lines, "steps-nearest", "images with r > 0.95 (%)"),
        "Share of images with r above 0.95 to a training slice against steps, for each size.",
        ["r above 0.95 with a slice of the training set, at the size it was trained at. A fixed "
         "threshold is no test: smooth images pass it more easily."],
    ))  # fmt: skip
    return [*out, _begins(page)]


def _begins(page: StudyPage) -> Table:
    rows = []
    for name in page.points:
        last = len(page.findings.get(f"{name}.curve.step") or []) - 1
        key = f"{name}.curve"
        found: Any = "\u2013"
        if page.has(f"{key}.found.{last}"):
            found = [page.value(f"{key}.found.{last}"), " of ", page.value(f"{key}.images.{last}")]
        ends = [page.cell(f"{key}.excess.{k}", "z") for k in (0, max(last, 0))]
        begins: Any = page.cell(f"{key}.begins")
        if found != "\u2013" and not page.has(f"{key}.begins"):
            begins = "none"
        rows.append([page.label(name), begins, found, *ends])
    columns = ("Training slices", "First step with copies found", "Found in the last state",
               "z above controls, first state", "last state")  # fmt: skip
    note: Parts = ["Found: on the tail list at the q of the study, among the images of one state. "
                   "States are kept at steps that double, so the first is known up to a factor "
                   "of 2."]  # fmt: skip
    return Table(["When copying begins"], columns, rows, note)


# -- cost

COST = {
    "generator": ("training.generator", "text"),
    "side, px": ("training.px", "n"),
    "parameters": ("training.parameters", "n"),
    "steps": ("training.steps", "n"),
    "last loss": ("training.loss", "sd"),
    "trained on": ("training.device", "text"),
    "images drawn": ("sampling.pool", "n"),
    "time of the training": ("seconds.training", "time"),
    "time of drawing": ("seconds.sampling", "time"),
    "time of the audit": ("seconds.audit", "time"),
    "time in all": ("seconds", "time"),
}


def cost(page: StudyPage) -> list[Any]:
    """Return how each generator was made, and how long each step took."""
    kept = [
        (text, key, kind) for text, (key, kind) in COST.items()
        if any(page.has(f"{name}.{key}") for name in page.points)
    ]  # fmt: skip
    rows = [
        [page.label(name), *(page.cell(f"{name}.{key}", kind) for _, key, kind in kept)]
        for name in page.points
    ]
    columns = ("Training slices", *(text for text, _, _ in kept))
    note: Parts = ["Times are of this machine and add all tries together; they decide no number."]
    return [Table(["Generators and their cost"], columns, rows, note, text=True)]
