"""The sections of the page of a study, in one list: title, content, what is absent and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fingerprint.report.study import cohorts, pictures, results, statistics, training, whole
from fingerprint.report.study.page import StudyPage


@dataclass(frozen=True)
class Section:
    """One section: `absent` says why it cannot be shown, or nothing."""

    name: str
    title: str
    build: Callable[[StudyPage], Sequence[Any]]
    absent: Callable[[StudyPage], str] = lambda page: ""


def no_audit(page: StudyPage) -> str:
    """Say that nothing was audited yet."""
    if page.audited:
        return ""
    return page.reason(f"{page.points[0]}.identical.images") if page.points else "no size"


SECTIONS = (
    Section("results", "Result by size", results.results),
    Section("examples", "Real and generated slices", pictures.examples, pictures.no_examples),
    Section("curves", "How similar the most similar slices are", statistics.curves,
            statistics.no_curves),
    Section("table1", "Statistics of the correlation", statistics.table_1, statistics.no_table_1),
    Section("size", "Against the size of the training set", results.against_size, no_audit),
    Section("steps", "When copying begins", training.curve, training.no_curve),
    Section("limit", "Detection limit", results.limits, results.no_limit),
    Section("table2", "Distances of whole sets", whole.table_2, whole.no_table_2),
    Section("figure4", "Which training set made which images", whole.figure_4, whole.no_figure_4),
    Section("pairs", "The most similar pair of each size", pictures.tops, pictures.no_tops),
    Section("cohorts", "Training sets", cohorts.cohorts),
    Section("cost", "Generators and their cost", training.cost),
    Section("differs", "What differs from paper 000, and why", cohorts.differs),
    Section("notrun", "What was not run, and what to supply", cohorts.not_run),
    Section("audits", "The audit of each size", cohorts.links),
    Section("settings", "Settings and versions", cohorts.settings),
    Section("words", "Words", cohorts.words),
)  # fmt: skip
