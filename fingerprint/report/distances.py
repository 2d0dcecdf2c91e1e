"""Distances between whole sets, and what paper 000 prints of them: its Table 2 and Fig. 4."""

from __future__ import annotations

from typing import Any

from fingerprint.report.blocks import Prose, Table, Value
from fingerprint.report.page import Page

FEATURES = {"pixels": "pixels, 64 px", "texture": "texture (local binary patterns)"}
SETS = {"generated": "generated from real", "control": "controls from real: the floor"}
PRINTED = (60, 600, 6000, 60000)


def no_distances(page: Page) -> str:
    """Say why sets were not compared."""
    return "" if page.has("distance.n") else page.reason("fid.value")


def distances(page: Page) -> list[Any]:
    """Return our distances with their floor, and the paper's with what is wrong in them."""
    v = page.value
    about: list[str | Value] = [
        "How far the generated set lies from the real one as a whole, and how far controls do, at "
        "the same number of images, ", v("distance.n"), ": only that floor makes a distance mean "
        "something. Fr\u00e9chet distance and KID on principal components that were fitted to the "
        "real images; neither is FID. A small distance is no copying, and a large one no proof of "
        "none: lists of images and the test of the whole set decide that. "
        "FID: ", v("fid.value", "z"), *_why(page, "fid.value"),
    ]  # fmt: skip
    return [Prose(about), _ours(page), *_printed(page)]


def _why(page: Page, key: str) -> list[str | Value]:
    if not page.has(key):
        return [": ", page.reason(key), "."]
    return [
        "; controls ", page.value("fid.control", "z"), ", n = ", page.value("fid.n"), ", by ",
        page.value("fid.with.file", "text"), ".",
    ]  # fmt: skip


def _ours(page: Page) -> Table:
    rows: list[list[Any]] = []
    for name, text in FEATURES.items():
        for who, words in SETS.items():
            key = f"distance.{name}.{who}"
            ends: list[str | Value] = [page.value(f"{key}.kid", "share")]
            if page.has(f"{key}.kid.low"):
                ends += [
                    " [", page.value(f"{key}.kid.low", "share"), ", ",
                    page.value(f"{key}.kid.high", "share"), "]",
                ]  # fmt: skip
            cells = [page.value(key, "z"), page.value(f"{key}.infinite", "z"), ends]
            rows.append([f"{text}: {words}", *cells])
    columns = ("", "Fr\u00e9chet", "extrapolated to infinitely many", "KID [95 %]")
    note = [
        "Intervals over patients and over clusters of images that repeat each other. KID may be "
        "negative: it is unbiased around 0 for two sets of one kind."
    ]
    return Table(["Distances of whole sets"], columns, rows, note)


def _printed(page: Page) -> list[Any]:
    v = page.value
    if not page.has("paper000.figure4.p"):
        return []
    table_2 = Table(
        ["Table 2 of paper 000, as printed"],
        ("training slices", *(f"{n:,}" for n in PRINTED)),
        [["FID", *(v(f"paper000.table2.{n}", "z") for n in PRINTED)]],
        ["The number of generated images is not stated; below 2,049 the covariances have no full "
         "rank and FID is biased by about 1/n, and the age band changes at 60,000. Such values are "
         "not compared across n."],
    )  # fmt: skip
    matrix = page.findings["paper000.figure4"]
    rows = [[f"Real-{i + 1}", *(f"{x:.1f}" for x in row)] for i, row in enumerate(matrix)]
    figure_4 = Table(
        ["Fig. 4 of paper 000, as printed: FID of seven sets"],
        ("", *(f"Gen-{i + 1}" for i in range(len(matrix)))),
        rows,
        ["Each generated set is closest to its own training set: ",
         v("paper000.figure4.row_hits"), " of 7 rows and ", v("paper000.figure4.column_hits"),
         " of 7 columns; the diagonal sum ", v("paper000.figure4.diagonal_sum", "mean"),
         " is the smallest of all 5,040 permutations, p = ", v("paper000.figure4.p", "p"),
         ". It shows which patients a set was trained on, not that the distance is sensitive."],
    )  # fmt: skip
    return [table_2, figure_4]
