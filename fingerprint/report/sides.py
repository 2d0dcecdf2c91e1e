"""Control, baseline and main side by side, with intervals."""

from __future__ import annotations

from typing import Any

from fingerprint.report.blocks import Prose, Table, Value
from fingerprint.report.page import Page

COLUMNS = {
    "main": "Main: generated against real",
    "baseline": "Baseline: generated against held-out controls",
    "control": "Control: controls against real",
}
ROWS = {
    "r": ("mean best r", "r"),
    "s_r": ("mean s_r (best z)", "z"),
    "s_excess": ("mean s_excess", "z"),
    "above": ("share above the 95 % quantile of the controls", "percent"),
}


def no_sides(page: Page) -> str:
    """Say why the comparisons cannot be set side by side."""
    return "" if page.has("side.main.n") else page.reason("images.found")


def sides(page: Page) -> list[Any]:
    """Return the table of the three comparisons."""
    v = page.value
    about: list[str | Value] = [
        "If the generator copies, main stands above both others: above control, because strangers "
        "are less alike to patients of the corpus; above baseline, because the same images are "
        "less alike to patients who were never used. If main is as baseline, the images resemble "
        "everybody. Mean r and s_r rise with the number of patients searched, so they compare only "
        "at equal numbers; s_excess, less the level of the next ten, hardly does.",
    ]
    rows: list[list[Any]] = [["images", *(page.cell(f"side.{name}.n") for name in COLUMNS)]]
    for stat, (text, kind) in ROWS.items():
        rows.append([text, *(_cell(page, f"side.{name}.{stat}", kind) for name in COLUMNS)])
    note: list[str | Value] = [
        "95 % intervals over duplicate clusters of the generated images and over control patients. "
        "Identical images have no finite z: they are left out of s_r. The quantile is that of the ",
        "score that is tested: ", v("side.quantile", "z"), ".",
    ]  # fmt: skip
    if not page.has("side.baseline.n"):
        note += [" Baseline: not run: ", page.reason("side.baseline.n"), "."]
    return [Prose(about), Table(["Three comparisons"], ("", *COLUMNS.values()), rows, note)]


def _cell(page: Page, key: str, kind: str) -> Any:
    """Return a mean with its interval below it; a dash where it was not computed."""
    if not page.has(f"{key}.low"):
        return page.cell(key, kind)
    v = page.value
    ends = ["\u2009[", v(f"{key}.low", kind), ", ", v(f"{key}.high", kind), "]"]
    return [v(key, kind), " ", *ends]
