"""The detection limit: which planted copies this run found, and the weakest it would find."""

from __future__ import annotations

from typing import Any

from fingerprint.measure.limit import LEAST
from fingerprint.report import drawn
from fingerprint.report.blocks import Chart, Prose, Table, Value
from fingerprint.report.page import Page

KINDS = {
    "exact": "exact copy",
    "noise": "noise added",
    "blur": "blurred",
    "gamma": "other contrast (gamma)",
    "pose": "turned, resized, shifted",
    "elastic": "bent",
    "mirrored": "mirrored",
    "generator": "made by a generator",
    "tile": "a part of a slice",
    "blend": "mixed with a stranger",
}


def no_limit(page: Page) -> str:
    """Say why no copy was planted."""
    return "" if page.has("limit.kinds") else page.reason("limit.weakest")


def limits(page: Page) -> list[Any]:
    """Return the planted copies by kind and strength, and the limit of each kind."""
    kinds = page.findings["limit.kinds"]
    about: list[str | Value] = [
        "Copies of real slices were planted among the images, changed in known ways, and searched "
        "and compared exactly as the generated images were. A planted copy counts as found if its "
        "own patient is the most similar one and it would stand as the only finding: p at most ",
        page.value("limit.level", "p"), ", or identical. The limit of a kind is its weakest "
        f"strength of which all were found, at least {LEAST} planted, with nothing missed at an "
        "easier one. Copies made by a generator may be harder to find than planted ones.",
    ]  # fmt: skip
    shares = {kind: _shares(page, kind) for kind in kinds}
    return [
        Prose(about),
        _chart(shares),
        _by_kind(page, kinds),
        _cells(page, kinds),
    ]


def _shares(page: Page, kind: str) -> list[drawn.Bar]:
    cells = page.findings[f"limit.{kind}.cells"]
    return [drawn.Bar(_short(c["words"]), c["found"] / c["n"], c["first"] / c["n"]) for c in cells]


def _short(words: str) -> str:
    """Return the strength without what all strengths of its kind say."""
    for part in (" of 15\u00b0, 10 %, 40 px", "moved by ", "noise of ", "blur of ", "bent by "):
        words = words.replace(part, "")
    return words.replace(" grey levels", "")


def _by_kind(page: Page, kinds: list[str]) -> Table:
    rows: list[list[Any]] = []
    for kind in kinds:
        limit = page.has(f"limit.{kind}")
        why = "" if limit else page.reason(f"limit.{kind}")
        rows.append([
            KINDS.get(kind, kind),
            [page.value(f"limit.{kind}", "text")] if limit else [f"no limit: {why}"],
            page.cell(f"limit.{kind}.bound", "percent") if limit else "\u2013",
        ])  # fmt: skip
    note = ["At least so large a share of such copies is found, with 95 % confidence (one-sided, "
            "Clopper\u2013Pearson): 10 of 10 found speak for 74 %."]  # fmt: skip
    columns = ("Kind of copy", "Weakest found", "Share found, at least")
    return Table(["The limit of each kind"], columns, rows, note, text=True, beside=True)


def _cells(page: Page, kinds: list[str]) -> Table:
    rows: list[list[Any]] = []
    for kind in kinds:
        for i in range(len(page.findings[f"limit.{kind}.cells"])):
            key = f"limit.{kind}.cells.{i}"
            n = page.value(f"{key}.n")
            rows.append([
                page.value(f"{key}.words", "text"),
                [page.value(f"{key}.found"), " of ", n],
                [page.value(f"{key}.first"), " of ", n],
            ])  # fmt: skip
    columns = ("Planted copy", "Found", "Right patient first")
    return Table(["All planted copies"], columns, rows)


def _chart(shares: dict[str, list[drawn.Bar]]) -> Chart:
    named = {KINDS.get(kind, kind): bars for kind, bars in shares.items()}
    return Chart(
        "limit", "Share of planted copies found", drawn.limits(named),
        "Share of planted copies found, by kind and strength; outlined: right patient first.",
        ["By strength, easiest first. Filled: found. Outlined: the right patient was the most "
         "similar one, whatever its p. Dark: all were found."],
    )  # fmt: skip
