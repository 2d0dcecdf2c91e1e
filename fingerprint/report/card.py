"""A card in Markdown, to paste into a model card or a data sheet: counts only, nobody's name.

It says what was found, above which limit, and what was not tested, in the words of the page; it
holds no pseudonym of a patient and no name of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fingerprint.report import first
from fingerprint.report.blocks import Code, Prose, Value
from fingerprint.report.page import Page

NAME = "card.md"
MARKS = "\\|<>`*_[]"  # what Markdown would read as more than text


def section(page: Page) -> list[Any]:
    """Return the card as a block that can be copied."""
    about = f"In {NAME} beside this page too. It names no patient and no image."
    return [Prose([about]), Code("Markdown", text(page.findings))]


def text(findings: Mapping[str, Any]) -> str:
    """Return the card of a run, finished or not; pure, the same for the same findings."""
    page = Page(findings, None, {}, "")
    told = first.verdict(page)
    rows = [("Question", _plain(["Answer"])), ("---", "---")]
    rows += [(_escaped(label), _plain(parts)) for label, parts in [*_rows(page), *told.levels]]
    table = [f"| {label} | {answer} |" for label, answer in rows]
    lines = ["## Audit for copies of real patients", "", _plain(told.lead), "", *table, ""]
    lines += [_about(page), ""]
    return "\n".join(lines)


def _rows(page: Page) -> list[tuple[str, list[str | Value]]]:
    v = page.value
    where = "patients" if page.has("patients.searched") else "groups of near-duplicates"
    number = "patients.searched" if page.has("patients.searched") else "groups.searched"
    out: list[tuple[str, list[str | Value]]] = [
        ("Generated images audited", [v("queries.generated")]),
        ("Searched", [v("slices.searched"), " real slices of ", v(number), f" {where}"]),
    ]
    if page.has("images.controls"):
        out.append(("Controls", [v("images.controls"), " slices of ", v("images.control_patients"),
                                 " patients: ", page.controls]))  # fmt: skip
    out.append(("Detection limit", [v("limit.weakest", "text")]))
    return out


def _about(page: Page) -> str:
    """Say what made the card, so that it can be made again."""
    f = page.findings
    version = f.get("versions.fingerprint")
    run = f.get("run.digest")
    made = "Made by fingerprint" + (f" {version}" if version else "")
    return (
        made + (f", run {str(run)[:12]}" if run else "")
        + ". What is said rests on the controls being like the patients of the corpus; copies "
        "weaker than the detection limit, and slices that are not in the corpus, are outside of it."
    )  # fmt: skip


def _plain(parts: list[str | Value]) -> str:
    return _escaped("".join(_word(part) for part in parts))


def _word(part: str | Value) -> str:
    if isinstance(part, str):
        return part
    return f"{part.text}: {part.why}" if part.why else part.text


def _escaped(words: str) -> str:
    """Keep a text inside its cell, and as text."""
    for sign in MARKS:
        words = words.replace(sign, f"\\{sign}")
    return " ".join(words.split())
