"""The sections of the page of a membership run, in one list: title, content, what is absent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fingerprint.report.membership import data, features, methods, similar, texture
from fingerprint.report.membership.page import MembershipPage


@dataclass(frozen=True)
class Section:
    """One section: `absent` says why it cannot be shown, or nothing."""

    name: str
    title: str
    build: Callable[[MembershipPage], Sequence[Any]]
    absent: Callable[[MembershipPage], str] = lambda page: ""


SECTIONS = (
    Section("answer", "Methods beside constant predictors", methods.answer, methods.no_answer),
    Section("roc", "ROC", methods.roc, methods.no_roc),
    Section("predicted", "What was called used", methods.predicted, methods.no_predicted),
    Section("patients", "By patient", methods.by_patient, methods.no_patients),
    Section("cuts", "Cuts", methods.cuts, methods.no_cuts),
    Section("arms", "All arms", methods.arms, methods.no_arms),
    Section("paper001", "Paper 001: similarity of images", similar.section),
    Section("noise", "What noise does", similar.noise, similar.no_noise),
    Section("paper002", "Paper 002: similarity of features", features.section),
    Section("paper003", "Paper 003: texture of a shadow generator", texture.section),
    Section("counts", "What was read", data.counts, data.no_counts),
    Section("settings", "Settings and versions", data.settings),
    Section("words", "Words", data.words),
)  # fmt: skip
