"""Counts, files refused, patients, duplicates, settings and words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fingerprint.corpus.scan import CODES
from fingerprint.report.blocks import Prose, Table
from fingerprint.report.membership.page import ROLE, SPLIT, MembershipPage, Parts


def no_counts(page: MembershipPage) -> str:
    """Say why there are no counts."""
    return "" if page.at("counts") else "no folder has been read"


def counts(page: MembershipPage) -> list[Any]:
    """Return images by role, refused files, and patients."""
    rows = []
    for task in page.tasks:
        for split, text in reversed(SPLIT.items()):
            path = ("counts", task, split)
            if not page.at(*path):
                continue
            rows.append([f"{task}, {text}", *(_count(page, (*path, role)) for role in ROLE),
                         _refused(page, task, split), _patients(page, task, split)])  # fmt: skip
    columns = ("Set", *(f"{text} images" if role == "generated" else f"{text} slices"
                        for role, text in ROLE.items()), "refused", "patients")  # fmt: skip
    note: Parts = [
        "Where patients are not given, groups of near-duplicates stand in for them: everything is "
        "split and resampled by patient or group (E27)."
    ]
    return [Table(["What was read"], columns, rows, note, text=True), *duplicates(page)]


def _count(page: MembershipPage, path: tuple[str, ...]) -> Any:
    return page.number(*path, kind="n") if page.at(*path) is not None else ""


def _refused(page: MembershipPage, task: str, split: str) -> Any:
    held = page.at("rejected", task, split)
    if not isinstance(held, Mapping) or not held:
        return "none"
    out: Parts = []
    for name, entry in held.items():
        path = ("rejected", task, split, name)
        label = ROLE.get(name) or CODES.get(name, str(name))
        if isinstance(entry, Mapping):
            for code in entry:
                out += ["; " if out else "", f"{label}, {CODES.get(code, code)}: ",
                        page.number(*path, code, kind="n")]  # fmt: skip
        else:
            out += ["; " if out else "", f"{label}: ", page.number(*path, kind="n")]
    return out


def _patients(page: MembershipPage, task: str, split: str) -> Any:
    path = ("patients", task, split)
    if page.at(*path, "n") is None:
        return ""
    known = page.at(*path, "known")
    return [page.number(*path, "n", kind="n"), "" if known else " groups of near-duplicates"]


def duplicates(page: MembershipPage) -> list[Any]:
    """Return pairs of equal pixels between sets: a slice in two sets has its answer on file."""
    rows = []
    for task in page.tasks:
        for name in page.at("duplicates", task) or {}:
            value = page.number("duplicates", task, name, kind="n")
            words = " and ".join(_set(part) for part in name.split("~"))
            rows.append([task, words, value])
    if not rows:
        return [Prose(["Duplicates across sets: none were recorded."])]
    columns = ("Task", "Sets", "Pairs of equal pixels")
    return [Table(["Duplicates across sets"], columns, rows, text=True)]


def _set(name: str) -> str:
    split, _, role = name.partition(".")
    return f"{SPLIT.get(split, split)} {ROLE.get(role, role)}"


# -- settings and words


def settings(page: MembershipPage) -> list[Any]:
    """Return settings, versions and digest of the run."""
    rows: list[list[Any]] = []
    for block in ("settings", "versions", "hardware"):
        rows += [[f"{block}.{key}", _told(value)]
                 for key, value in _flat(page.at("document", block) or {})]  # fmt: skip
    rows += [["run", _told(page.at("document", "run"))], ["seed", _told(page.at("seed"))]]
    return [Table(["As in membership.json"], ["Name", "Value"], rows, text=True)]


def _flat(held: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key in sorted(held):
        value = held[key]
        inner = isinstance(value, Mapping) and value
        out += _flat(value, f"{prefix}{key}.") if inner else [(f"{prefix}{key}", value)]
    return out


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)


WORDS = (
    ("used", "a real slice on which the generator was trained"),
    ("DEV", "development data: generated images, and slices of which it is known whether they "
            "were used; arms and cuts are chosen on it alone"),
    ("TEST", "the slices that are asked about, and images of the generator in question"),
    ("task", "one generator with its data"),
    ("method, arm", "a way to score slices, and one choice of its knobs"),
    ("score", "larger means more likely used; it has no unit and is no chance"),
    ("cut", "a slice is called used if its score is at least the cut"),
    ("constant predictor", "one that looks at nothing: always used, never used, a tossed coin"),
    ("kappa", "agreement of answers and truth beyond that of chance: 0 for every constant "
              "predictor, 1 for a perfect one"),
    ("AUC", "the chance that a used slice scores above one that was not used; 0.5 says nothing"),
    ("TPR at FPR", "share of used slices found, while so many of the others are called used"),
    ("F1", "2PR/(P + R) of precision and recall; 0.667 for calling every slice used where half "
           "of them were"),
    ("as printed", "a number of a paper with the digits that stand there"),
    ("implied", "what other printed numbers of the same row leave as the only value"),
    ("not run", "not computed; what is missing stands beside it"),
)  # fmt: skip


def words(page: MembershipPage) -> list[Any]:
    """Return the words of the page."""
    del page
    return [Table(["Words of this page"], ["Word", "Meaning"], WORDS, text=True)]
