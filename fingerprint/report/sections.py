"""The sections of a report, in one list: title, what is in it, and what is absent and why.

Each builder turns the findings into blocks; numbers come from ``findings.json`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fingerprint.report import (
    card,
    classes,
    curves,
    decision,
    distances,
    evidence,
    found,
    limits,
    page,
    registered,
    rests,
    searched,
    sides,
    similar,
    tables,
)
from fingerprint.report.page import Page


@dataclass(frozen=True)
class Section:
    """One section: `absent` says why it cannot be shown, or nothing."""

    name: str
    title: str | Callable[[Page], str]
    build: Callable[[Page], Sequence[Any]]
    absent: Callable[[Page], str] = lambda made: ""

    def titled(self, made: Page) -> str:
        """Return the title, which may depend on what was run."""
        return self.title if isinstance(self.title, str) else self.title(made)


def not_finished(key: str) -> Callable[[Page], str]:
    """Make a section absent while a number is missing."""
    return lambda made: "" if made.has(key) else made.reason(key)


SECTIONS = (
    Section("decision", "For the decision", decision.decision),
    Section("findings", "Findings", found.findings, found.no_findings),
    Section("risk", "Risk register", found.risk, found.no_risk),
    Section("limit", "Detection limit", limits.limits, limits.no_limit),
    Section("side", "Control, baseline, main", sides.sides, sides.no_sides),
    Section("null", "What p rests on", rests.null, rests.no_null),
    Section("set", "The whole set", rests.whole, rests.no_set),
    Section("distances", "Distances of whole sets", distances.distances, distances.no_distances),
    Section("tested", "What was tested, and what was not", page.tested),
    Section("identical", "Identical images", evidence.identical, not_finished("identical.list")),
    Section("matrix", "Every image against every patient", evidence.matrix, evidence.no_matrix),
    Section("curves", "How similar the most similar slices are", curves.curves, curves.no_curves),
    Section(
        "table1",
        "Statistics of the correlation",
        tables.table1,
        not_finished("table1.generated.n"),
    ),
    Section(
        "registered",
        "Likeness and warp after registration",
        registered.overview,
        not_finished("register.pairs"),
    ),
    Section("pairs", similar.title, similar.pairs, not_finished("pairs.shown")),
    Section(
        "blocks",
        "Who was compared with whom",
        searched.blocks,
        not_finished("table1.generated.n"),
    ),
    Section(
        "search", "How the search was done", searched.search, not_finished("table1.generated.n")
    ),
    Section("classes", "Slices by class", classes.classes, not_finished("class.real.none")),
    Section("data", "The data", tables.data, tables.no_data),
    Section("refused", "Files left out or refused", tables.refused, tables.no_data),
    Section("methods", "Methods", tables.methods),
    Section("settings", "Settings and versions", tables.settings),
    Section("card", "Card for the model or data set", card.section),
    Section("words", "Words", tables.words),
)
