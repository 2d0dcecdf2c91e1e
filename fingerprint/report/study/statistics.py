"""How alike images and slices are at each size: Fig. 2, Table 1 and Fig. 3 of paper 000."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fingerprint.measure import fisher
from fingerprint.report import tables
from fingerprint.report.blocks import Chart, Prose, Table
from fingerprint.report.study import drawn
from fingerprint.report.study.drawn import Mark
from fingerprint.report.study.page import Parts, StudyPage, chunks

SETS = {"generated": "Generated", "control": "Controls"}

# -- Fig. 2


def no_curves(page: StudyPage) -> str:
    """Say why no curve is drawn."""
    if page.curves:
        return ""
    return page.reason(f"{page.points[0]}.table1.generated.n") if page.points else "no size"


def curves(page: StudyPage) -> list[Any]:
    """Return the sorted best r of every size beside its controls, and both at equal numbers."""
    shown = [(page.label(name), page.curves[name]) for name in page.once if name in page.curves]
    about: Parts = [
        "Under no copying the best r of an image rises with the number of slices that it is "
        "compared with (E13): the best of 6, 60, 600, 6,000 and 60,000 strangers lies 1.27, 2.32, "
        "3.09, 3.72 and 4.27 standard deviations above the mean. So no curve is read against that "
        "of another size, only against the controls of its own size, which met the same training "
        "set and so as many slices. A curve that falls with the size towards its controls is "
        "copying at small sizes.",
    ]  # fmt: skip
    out: list[Any] = [Prose(about), Chart(
        "sorted", "Best correlation of every image", drawn.sorted_curves(shown),
        "Best r of every image, sorted, for each size; dashed: controls against the same slices.",
        ["As Fig. 2 of paper 000, as stored; dashed: controls against the same training set. "
         "Smallest best r of the largest size: ", *_least(page), "."],
    )]  # fmt: skip
    return [*out, *_equal(page), _expected(page)]


def _least(page: StudyPage) -> Parts:
    name = [name for name in page.once if name in page.curves][-1]
    return [
        page.value(f"{name}.table1.generated.min_r", "r"), " generated, ",
        page.value(f"{name}.table1.control.min_r", "r"),
        " controls; paper 000 prints ", page.value("paper000.table1.60000.min_r", "r"),
        " at 60,000 slices",
    ]  # fmt: skip


def _equal(page: StudyPage) -> list[Any]:
    """Return the curves of fewer patients: sizes side by side at equal numbers."""
    lines = []
    for name in page.once:
        sets = {who: _rarefied(page, name, who) for who in SETS}
        sets = {who: points for who, points in sets.items() if len(points) > 1}
        if sets:
            lines.append((page.label(name), sets))
    if not lines:
        return []
    return [Chart(
        "equal", "At an equal number of patients", drawn.equal_numbers(lines),
        "Expected best r against the number of patients searched, for each size and its controls.",
        ["Expected best r if only so many patients of the training set were searched (exact "
         "rarefaction, mean over images). Only at an equal number of patients are sizes read "
         "against each other: the largest number that all share is ",
         page.value("study.equal_patients"), "."],
    )]  # fmt: skip


def _rarefied(page: StudyPage, name: str, who: str) -> dict[int, float]:
    prefix = f"{name}.rarefied.{who}."
    found = {int(k[len(prefix) :]): x for k, x in page.findings.items() if k.startswith(prefix)}
    return {n: x for n, x in sorted(found.items()) if x is not None}


def _expected(page: StudyPage) -> Table:
    n = page.findings.get("study.equal_patients")
    rows = []
    for name in page.points:
        equal = [page.cell(f"{name}.rarefied.{who}.{n}", "r") for who in SETS]
        rows.append([
            page.label(name),
            *(page.cell(f"{name}.table1.{who}.mean_r", "r") for who in SETS), *equal,
            page.value(f"{name}.expected_maximum", "bits"),
        ])  # fmt: skip
    columns = ("Training slices", "Generated", "Controls", "Generated, equal number",
               "Controls, equal number", "Best of as many strangers, SD")  # fmt: skip
    equal_n = page.value("study.equal_patients")
    note: Parts = [
        "Mean best r, as stored. Equal number: as if ", equal_n, " patients were searched. The "
        "last column is what chance alone adds to the best of so many independent values.",
    ]  # fmt: skip
    return Table(["Mean best r"], columns, rows, note)


# -- Table 1 and Fig. 3


def table_1(page: StudyPage) -> list[Any]:
    """Return Table 1 as printed and as correct, Fig. 3, and the paper's own numbers."""
    out: list[Any] = []
    for names in chunks(page.audited):
        out += [_table_1(page, names, who) for who in SETS]
    return [*_effect(page), *out, tables.printed(page)]


def no_table_1(page: StudyPage) -> str:
    """Say why there is no table."""
    if page.audited:
        return ""
    return page.reason(f"{page.points[0]}.table1.generated.n") if page.points else "no size"


def _table_1(page: StudyPage, names: Sequence[str], who: str) -> Table:
    rows = [
        [text, *(page.cell(f"{name}.table1.{who}.{stat}", kind) for name in names)]
        for stat, (text, kind) in tables.STATISTICS.items()
    ]
    note: Parts = [] if who == "control" else [
        "Best r of every image over all slices of its training set, as stored. Identical images "
        "have no finite z and are in the rows of r only. In print mean r is tanh(mean z), a "
        "location and not the mean of r (E04), and STD r is tanh(SD z), the spread of nothing "
        "(E02, E03): here they stand beside the mean and the SD of the r themselves."
    ]  # fmt: skip
    title = f"Table 1: {SETS[who].lower()}" + (" against the same sets" if who == "control" else "")
    heads = [page.label(name) for name in names]
    return Table([title], ("Training slices", *heads), rows, note)


def _effect(page: StudyPage) -> list[Any]:
    sets = {who: _marks(page, who) for who in SETS}
    sets = {who: marks for who, marks in sets.items() if marks}
    if not sets:
        return []
    printed = [Mark(row.n, 0, row.mean_z, row.min_z, row.max_z) for row in fisher.PRINTED]
    last = page.audited[-1]
    return [Chart(
        "effect", "Effect size", drawn.effect_sizes(sets, printed),
        "Mean, smallest and largest Fisher z against the size of the training set.",
        ["As Fig. 3 of paper 000, whose title calls z a significance: it is an effect size (E06), "
         "and a test needs controls. Mean z at ", page.value(f"{last}.asked"), " slices: ",
         "generated ",
         page.value(f"{last}.table1.generated.mean_z", "z"), ", controls ",
         page.value(f"{last}.table1.control.mean_z", "z"), ". Bars reach from the smallest to the "
         "largest z of an image; identical images have none."],
    ), _effects(page)]  # fmt: skip


def _effects(page: StudyPage) -> Table:
    rows = [
        [page.label(name), *(page.cell(f"{name}.table1.{who}.mean_z", "z") for who in SETS),
         page.cell(f"paper000.table1.{page.slices(name)}.mean_z", "z")]
        for name in page.audited
    ]  # fmt: skip
    columns = ("Training slices", "Generated", "Controls", "Paper 000, printed")
    note: Parts = ["As stored, all images that are not identical. Controls met the same slices."]
    return Table(["Mean z"], columns, rows, note, text=True, beside=True)


def _marks(page: StudyPage, who: str) -> list[Mark]:
    f = page.findings
    return [
        Mark(page.slices(name), f[f"{name}.run"],
             *(float(f[f"{name}.table1.{who}.{x}_z"]) for x in ("mean", "min", "max")))
        for name in page.audited if page.has(f"{name}.table1.{who}.mean_z")
    ]  # fmt: skip
