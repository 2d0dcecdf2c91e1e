"""The training sets, what differs from paper 000 and why, and what was not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from fingerprint.report import tables
from fingerprint.report.blocks import Items, Prose, Table
from fingerprint.report.study.first import FEATURES
from fingerprint.report.study.page import Parts, StudyPage, chunks

ROWS = {
    "asked": ("slices asked for", "n"),
    "cohort.slices": ("slices", "n"),
    "cohort.patients": ("patients", "n"),
    "cohort.women": ("women", "n"),
    "cohort.slices_f": ("slices of women", "n"),
    "cohort.age_min": ("youngest, years", "n"),
    "cohort.age_mean": ("mean age, years", "mean"),
    "cohort.age_max": ("oldest, years", "n"),
    "cohort.c1": ("c1, upper liver", "n"),
    "cohort.c2": ("c2, heart", "n"),
    "cohort.c3": ("c3, shoulders", "n"),
    "cohort.held_out.slices": ("held-out slices", "n"),
    "cohort.held_out.patients": ("held-out patients", "n"),
    "cohort.held_out.women": ("held-out women", "n"),
    "cohort.held_out.age_min": ("held-out, youngest", "n"),
    "cohort.held_out.age_max": ("held-out, oldest", "n"),
}


def cohorts(page: StudyPage) -> list[Any]:
    """Return what each training set holds, and the held-out slices that it is compared with."""
    about: Parts = [
        "Patients were divided first: nobody is both trained on and held out. ", *_equal(page),
        "Patients take turns, so that a set is of as many patients as can be had. ", _ages(page),
    ]  # fmt: skip
    out = [_cohorts(page, names) for names in chunks(page.once)]
    return [Prose(about), *out]


def _equal(page: StudyPage) -> Parts:
    f = page.findings
    parts = [
        *(["sexes"] if f.get("study.settings.balance_sex") else []),
        *(["classes"] if f.get("study.settings.classes") else []),
    ]
    equal = f"In equal parts: {' and '.join(parts)}. " if parts else ""
    nested = f.get("study.settings.nested")
    return [equal, "Each set lies within the next larger one. " if nested else
            "Each set is drawn anew. "]  # fmt: skip


def other_ages(page: StudyPage) -> bool:
    """Whether the largest set has other ages than the others (E14)."""
    f = page.findings
    largest, others = (f.get(f"study.settings.{name}") for name in ("ages_largest", "ages"))
    return largest is not None and largest != others


def _ages(page: StudyPage) -> str:
    if other_ages(page):
        return ("The largest set has other ages than the others, as in paper 000: size and age are "
                "confounded (E14), and what differs there may be due to either.")  # fmt: skip
    return "All sets are of the same ages, so that size and age are not confounded (E14)."


def _cohorts(page: StudyPage, names: Sequence[str]) -> Table:
    rows = [
        [text, *(page.cell(f"{name}.{key}", kind) for name in names)]
        for key, (text, kind) in ROWS.items()
        if any(page.has(f"{name}.{key}") for name in names)
    ]
    return Table(["Training sets"], ("", *(page.label(name) for name in names)), rows)


# -- what differs from the paper


def differs(page: StudyPage) -> list[Any]:
    """Return what is done in another way than in paper 000, and why."""
    v = page.value
    ages: Parts = ["Ages (E14): paper 000 has patients of 26 years in four sets and of 24 to 39 in "
                   "the largest, so size and age are confounded there. ", _ages(page)]  # fmt: skip
    rows: list[Parts] = [
        ["Order (E09): the paper aligns images before they are correlated in one place and after "
         "it in another, and states no cost. Here every image is compared with every slice as "
         "stored and at every pose of a grid, and only the best pairs are registered, affine and "
         "then elastic."],
        ["FID (E10): the paper does not say how many generated images its FID is of. Here n is "
         "stated and equal within a column, controls give the floor, and no value is compared with "
         "that of another n."],
        ["Sizes (E13): the paper compares the largest r across sizes. Under no copying it rises "
         "with the number of slices, so a fall is copying at small sizes; here each size stands "
         "beside controls against the same slices, and sizes meet at an equal number of patients "
         "only."],
        ages,
        ["Generator: the paper states no architecture, resolution or number of steps. Here: ",
         v("study.settings.generator", "text"), ", ", v("study.settings.train_px"), " px, ",
         v("study.settings.train_steps"), " steps for every size. Another generator, or more "
         "steps, may copy at other sizes."],
        ["Conclusion: the paper says that generators trained on about 100 images or fewer make "
         "near duplicates; it ran none on 100. Here only the sizes of this page are spoken of."],
    ]  # fmt: skip
    if page.findings.get("study.brought"):
        rows[4] = ["Generators: the images were brought, so nothing is known here of how they were "
                   "trained."]  # fmt: skip
    return [Items(rows)]


# -- what was not run

QUESTIONS = {
    "identical.images": "Audit",
    "images.found": "Images that show a patient",
    "patients.found": "Patients that are shown, one by one",
    "set.p_value": "The whole set against strangers",
    "limit.weakest": "Detection limit",
    "limit.generator.cells": "Copies made by a generator, planted",
    "excess": "Excess over the null",
    "fid.value": "FID",
    "distance.pixels.generated": "Distances without a network",
    "register.pairs": "Registration",
    "training.steps": "Training",
    "curve.step": "When copying begins",
}
PLANTED = (
    "copies by the generator of the smallest set are planted in the audits of larger sets, if it "
    "made any"
)


def not_run(page: StudyPage) -> list[Any]:
    """Return every question without an answer, at which sizes, and what to supply."""
    open_: dict[tuple[str, str], list[str]] = {}
    keys: dict[tuple[str, str], str] = {}
    least = min(map(page.slices, page.points), default=0)
    for name in page.points:
        audited = name in page.audited
        for key, text in QUESTIONS.items():
            if key.startswith("limit.generator") and page.slices(name) == least:
                continue  # its own images are audited, not planted
            of_audit = key not in ("identical.images", "training.steps", "curve.step")
            if page.has(f"{name}.{key}") or (of_audit and not audited):
                continue
            why = page.findings.get(f"{name}.{key}.reason")
            why = PLANTED if why is None and key.startswith("limit.generator") else why
            open_.setdefault((text, str(why or "not recorded")), []).append(page.label(name))
            keys.setdefault((text, str(why or "not recorded")), f"{name}.{key}")
    rows: list[list[Any]] = []
    for at, labels in open_.items():
        known = f"{keys[at]}.reason" in page.findings
        answer = page.value(keys[at]) if known else f"not run: {at[1]}"
        rows.append([at[0], "; ".join(labels), answer])
    for name in FEATURES:
        if f"figure4.{name}.matrix.reason" in page.findings:
            rows.append([f"Fig. 4 by {FEATURES[name]}", "", page.value(f"figure4.{name}.matrix")])
    if not page.has("figure4.features"):
        rows.append(["Fig. 4", "", page.value("figure4.features")])
    rows.append(["Whether single slices were used for training", "all",
                 "not run: membership is another command"])  # fmt: skip
    columns = ("Question", "Training slices", "Answer, and what to supply")
    return [Table([], columns, rows, text=True)]


# -- where the audits are, settings, words


def links(page: StudyPage) -> list[Any]:
    """Return the way to the page of every audit."""
    rows = [[page.label(name), _link(page, name), page.cell(f"{name}.run.digest", "text")]
            for name in page.points]  # fmt: skip
    about: Parts = ["Every image with its p-values, the risk register, the matrix and all pairs "
                    "stand on the page of the audit of each size."]  # fmt: skip
    columns = ("Training slices", "Page", "Audit")
    return [Prose(about), Table([], columns, rows, text=True)]


def _link(page: StudyPage, name: str) -> str:
    if name not in page.reports:
        return "not there"
    path = f"audits/{quote(name)}/report.html"
    return Markup('<a href="{}">{}</a>').format(path, path)


def settings(page: StudyPage) -> list[Any]:
    """Return settings, versions and digests of the study."""
    keys = [key for key in sorted(page.findings)
            if key.startswith(("study.settings.", "study.versions.", "study.hardware.",
                               "study.seeds.", "study.corpus.", "study.digest"))
            and not key.endswith(".reason")]  # fmt: skip
    rows = [[key, page.value(key, "text") if page.has(key) else "not set"] for key in keys]
    return [Table(["As in findings.json"], ["Name", "Value"], rows, text=True)]


WORDS = (
    ("training set", "slices of real patients that one generator was trained on; its size is N"),
    ("held-out slices", "of patients whom no generator saw, of the same sexes, classes and ages"),
    ("excess over the null", "mean best z of the images less that of controls against the same "
                             "training set; 0 is no more alike than strangers"),
    ("run", "the same set trained on again, from another seed"),
    ("equal number", "as if the same number of patients had been searched at every size"),
)  # fmt: skip


def words(page: StudyPage) -> list[Any]:
    """Return the words of the page, those of an audit among them."""
    del page
    rows = [*WORDS, *tables.GLOSSARY]
    return [Table(["Words of this page"], ["Word", "Meaning"], rows, text=True)]
