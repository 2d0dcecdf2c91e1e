"""What the page of a study is made from, and how it takes a number of one of its audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.measure import study
from fingerprint.report import blocks
from fingerprint.report.blocks import Value
from fingerprint.report.page import Page
from fingerprint.report.pairs import Shown

ACROSS = 5  # sizes side by side in a table; more go below
Floats = NDArray[np.float64]
Parts = list["str | Value"]


@dataclass(frozen=True)
class StudyPage(Page):
    """What a page is made from; a point is a size and a run, as in ``findings.json``.

    Attributes
    ----------
    curves : mapping
        Point -> set -> best r of every image over all slices, as stored, float64 (images,).
    examples : mapping
        Point -> picture of some slices and images by class.
    tops : mapping
        Point -> pictures of its most similar pair, or why there are none.
    between : mapping
        Point -> the difference of that pair as stored and after the affine map, where it was
        registered.
    reports : frozenset
        Points whose audit has a page of its own.
    """

    curves: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    tops: Mapping[str, Shown | str] = field(default_factory=dict)
    between: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    reports: frozenset[str] = frozenset()

    def value(self, key: str, kind: str = "n") -> Value:
        """Return one entry of the findings as it is shown; ``time`` is of seconds."""
        entry = blocks.lookup(self.findings, key)
        if kind == "time" and entry is not None:
            return Value(key, spent(entry))
        return blocks.value(self.findings, key, kind)

    @property
    def points(self) -> list[str]:
        """Every size and run, by size."""
        return list(self.findings["points"])

    @property
    def audited(self) -> list[str]:
        """Those whose audit has ended."""
        return [name for name in self.points if self.has(f"{name}.identical.images")]

    @property
    def once(self) -> list[str]:
        """Return one run of each size: that of the set, not those that repeat it."""
        return [name for name in self.points if not self.findings[f"{name}.run"]]

    def slices(self, name: str) -> int:
        """Return the size of a training set: what it holds, else what was asked for."""
        held = self.findings.get(f"{name}.cohort.slices")
        return int(held or self.findings[f"{name}.asked"])

    def label(self, name: str, of: str = "") -> str:
        """Return the head of a column or row: 60, or 60 slices, run 2."""
        run = self.findings[f"{name}.run"]
        words = [f"{self.slices(name):,}", *([of] if of else [])]
        return " ".join(words) + (f", run {run + 1}" if run else "")

    def of(self, name: str) -> Page:
        """Return the page of one audit, as far as the study keeps its numbers."""
        shown = {1: self.tops[name]} if name in self.tops else {}
        known = study.under(self.findings, name)
        known |= {"pairs.shown": 1} if known.get("pairs.shown") else {}
        return Page(known, None, shown, self.without_images)


def spent(seconds: float) -> str:
    """Return a time as people say it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}\u00a0{unit}"
    return f"{seconds:.0f}\u00a0s"


def rekeyed(block: Any, name: str) -> Any:
    """Return a block of an audit with every number under the key that it has in the study."""
    if isinstance(block, Value):
        return replace(block, key=f"{name}.{block.key}")
    if isinstance(block, Mapping):
        return {key: rekeyed(value, name) for key, value in block.items()}
    if isinstance(block, tuple | list):
        return type(block)(rekeyed(part, name) for part in block)
    if is_dataclass(block) and not isinstance(block, type):
        changed = {f.name: rekeyed(getattr(block, f.name), name) for f in fields(block)}
        return replace(block, **changed)
    return block


def chunks(names: Sequence[str]) -> list[Sequence[str]]:
    """Cut sizes into as many as stand side by side."""
    return [names[k : k + ACROSS] for k in range(0, len(names), ACROSS)]


def listed(parts: Sequence[Value]) -> Parts:
    """Return numbers as people list them: 6, 60 and 600."""
    out: Parts = []
    for k, part in enumerate(parts):
        if k:
            out.append(" and " if k == len(parts) - 1 else ", ")
        out.append(part)
    return out


def sizes(page: StudyPage, state: str) -> Parts:
    """Return the sizes of a state of `measure.study.STATES`."""
    key = f"study.sizes.{state}"
    return listed([page.value(f"{key}.{k}") for k in range(len(page.findings[key]))])


def with_ends(page: Page, key: str, kind: str, low: str = "", high: str = "") -> Any:
    """Return a number with its interval, a dash where it was not computed."""
    if not page.has(key):
        return "\u2013"
    low, high = low or f"{key}.low", high or f"{key}.high"
    if not page.has(low):
        return [page.value(key, kind)]
    ends = [" [", page.value(low, kind), ", ", page.value(high, kind), "]"]
    return [page.value(key, kind), *ends]
