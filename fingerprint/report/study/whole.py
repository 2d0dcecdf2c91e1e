"""Whole sets: Table 2 of paper 000 with its floor, and Fig. 4, which set made which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fingerprint.report import distances
from fingerprint.report.blocks import Chart, Prose, Table
from fingerprint.report.study import drawn
from fingerprint.report.study.first import FEATURES
from fingerprint.report.study.page import Parts, StudyPage, chunks, with_ends

# -- Table 2

ROWS = {
    "FID": ("fid.value", "z"),
    "FID of controls, the floor": ("fid.control", "z"),
    "Fr\u00e9chet, pixels": ("distance.pixels.generated", "z"),
    "of controls, the floor": ("distance.pixels.control", "z"),
    "Fr\u00e9chet, texture": ("distance.texture.generated", "z"),
    "of controls, the floor ": ("distance.texture.control", "z"),
    "KID, pixels [95 %]": ("distance.pixels.generated.kid", "share"),
    "KID of controls, the floor [95 %]": ("distance.pixels.control.kid", "share"),
}


def no_table_2(page: StudyPage) -> str:
    """Say why sets were not compared."""
    if any(page.has(f"{name}.distance.n") for name in page.points):
        return ""
    return page.reason(f"{page.points[0]}.distance.n") if page.points else "no size was audited"


def table_2(page: StudyPage) -> list[Any]:
    """Return the distances of each size with their floor, and the paper's as printed."""
    names = [name for name in page.audited if page.has(f"{name}.distance.n")]
    about: Parts = [
        "How far the generated images lie from their training set as a whole, and how far held-out "
        "slices do: only that floor gives a distance a meaning. Images of each set are as many in "
        "a column, n; below 2,049 images the covariances of FID have no full rank, and any such "
        "distance is biased by about 1/n (E10). ", *_across(page, names), " A small distance is no "
        "copying, and a large one no proof of none.",
    ]  # fmt: skip
    ours = [_table_2(page, part) for part in chunks(names)]
    return [Prose(about), *ours, distances._printed(page)[0]]


def _across(page: StudyPage, names: Sequence[str]) -> Parts:
    """Say that columns are not compared with each other, and why."""
    if len({page.findings[f"{name}.distance.n"] for name in names}) > 1:
        return ["n differs between the columns: a distance is compared with the floor of its own "
                "column, never with that of another size."]  # fmt: skip
    return ["n is the same in all columns, yet each is measured from another training set: a "
            "distance is read beside the floor of its own column."]  # fmt: skip


def _table_2(page: StudyPage, names: Sequence[str]) -> Table:
    least = page.slices(page.points[0])
    heads = [
        page.label(name) + (" (unstable)" if page.slices(name) == least else "") for name in names
    ]
    rows: list[list[Any]] = [["n, images of each set", *(page.value(f"{name}.distance.n")
                                                        for name in names)]]  # fmt: skip
    for text, (key, kind) in ROWS.items():
        rows.append([text, *(with_ends(page, f"{name}.{key}", kind) for name in names)])
    why = page.reason(f"{names[0]}.fid.value") if not page.has(f"{names[0]}.fid.value") else ""
    note: Parts = [
        "Fr\u00e9chet distance and KID on principal components of 64 px pixels and of local binary "
        "patterns, fitted to the training set; neither is FID. The smallest set is unstable: paper "
        "000 leaves it out.", *([f" FID: not run: {why}."] if why else []),
    ]  # fmt: skip
    return Table(["Table 2: distances"], ("Training slices", *heads), rows, note)


# -- Fig. 4


def no_figure_4(page: StudyPage) -> str:
    """Say why no sets were told apart."""
    return "" if page.has("figure4.features") else page.reason("figure4.features")


def figure_4(page: StudyPage) -> list[Any]:
    """Return a matrix for each kind of features beside the paper's, and what they show."""
    v = page.value
    about: Parts = [
        "Sets of slices of different patients, a generator trained on each: rows are training "
        "sets, columns what their generators made, ", v("figure4.slices"), " images of each. If "
        "each generated set is nearest to its own training set, the diagonal (outlined) has the "
        "smallest sum of all ways to pair them. That says which patients a set was trained on; "
        "the paper reads it as the distance being sensitive (E11).",
    ]  # fmt: skip
    order = [name for name in FEATURES if page.has(f"figure4.{name}.matrix")]
    charts = [_heat(page, name) for name in order] + [_paper(page)]
    return [Prose(about), *charts, _told(page, order, beside=len(charts) % 2 == 1)]


def _heat(page: StudyPage, name: str) -> Chart:
    key, text = f"figure4.{name}", FEATURES[name]
    svg = drawn.heat(page.findings[f"{key}.matrix"], f"{key}.matrix", "bits")
    title = "By FID" if name == "fid" else f"By Fr\u00e9chet distance of {text}"
    alt = f"Distances of training sets (rows) and generated sets (columns) by {text}."
    return Chart(f"figure4-{name}", title, svg, alt, _sums(page, key, "bits"))


def _paper(page: StudyPage) -> Chart:
    key = "paper000.figure4"
    alt = "Fig. 4 of paper 000: FID of seven training sets (rows) and generated sets (columns)."
    svg = drawn.heat(page.findings[key], key, "mean")
    caption = _sums(page, key, "mean")
    return Chart("figure4-paper", "Paper 000, as printed: FID", svg, alt, caption)


def _sums(page: StudyPage, key: str, kind: str) -> Parts:
    return [
        "Sum of the diagonal ", page.value(f"{key}.diagonal_sum", kind),
        ", of the next best pairing ", page.value(f"{key}.next_best_sum", kind), ".",
    ]  # fmt: skip


def _told(page: StudyPage, order: Sequence[str], *, beside: bool) -> Table:
    named = {f"figure4.{name}": FEATURES[name] for name in order}
    named["paper000.figure4"] = "paper 000, FID"
    rows = [
        [text,
         [page.value(f"{key}.row_hits"), " and ", page.value(f"{key}.column_hits"), " of ",
          page.value(f"{key}.k")],
         page.value(f"{key}.p", "p")]
        for key, text in named.items()
    ]  # fmt: skip
    note: Parts = ["Rows and columns whose smallest value is on the diagonal: one of each is "
                   "expected by chance. p is the share of all pairings whose sum is at most that "
                   "of the diagonal; with k sets it cannot be below 1/k!."]  # fmt: skip
    if "figure4.fid.matrix.reason" in page.findings:
        note.append(f" FID: not run: {page.reason('figure4.fid.matrix')}.")
    columns = ("Features", "Rows and columns hit", "p")
    title = ["Which set made which"]
    return Table(title, columns, rows, note, text=True, beside=beside)
