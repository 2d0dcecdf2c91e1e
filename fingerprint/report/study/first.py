"""The first page of a study: at which sizes copies were found, and at which none above what."""

from __future__ import annotations

from fingerprint.report import first
from fingerprint.report.first import Headline, Verdict
from fingerprint.report.page import Page
from fingerprint.report.study.page import Parts, StudyPage, rekeyed, sizes

QUESTION = (
    "On how many slices must a generator be trained before it no longer shows their patients?"
)
FEATURES = {"fid": "FID", "pixels": "pixels", "texture": "texture"}


def verdict(page: StudyPage) -> Verdict:
    """Return the sentence of the study, and a line for each size that it rests on."""
    lines = [(page.label(name, "slices"), _line(page, name)) for name in page.points]
    alarm = bool(page.findings["study.sizes.found"] or page.findings["study.sizes.set"])
    return Verdict(_lead(page), lines, alarm)


def _lead(page: StudyPage) -> Parts:
    f, out = page.findings, Parts()
    if not page.audited:
        return ["No audit of this study has ended: it says nothing yet."]
    if f["study.sizes.found"]:
        out += ["Generators trained on ", *sizes(page, "found"), " slices copied: their images "
                "show patients of the training set. "]  # fmt: skip
    if f["study.sizes.set"]:
        out += ["On ", *sizes(page, "set"), " slices no single image stands out, yet the images as "
                "a whole are closer to the training patients than to strangers. "]  # fmt: skip
    if f["study.sizes.none"]:
        out += ["On ", *sizes(page, "none"), " slices none was found ", *_above(page)]
    if f["study.sizes.undecided"]:
        out += ["Not decided on ", *sizes(page, "undecided"), " slices. "]
    if f["study.sizes.missing"]:
        out += ["Not audited yet: ", *sizes(page, "missing"), " slices."]
    return out


def _above(page: StudyPage) -> Parts:
    """Say above which limit nothing was found; never without."""
    q: Parts = ["at false-discovery rate ", page.value("study.settings.q", "q")]
    if _limited(page):
        return ["above the detection limit, ", *q, ". "]
    return [*q, "; not every audit has a detection limit. "]


def _line(page: StudyPage, name: str) -> Parts:
    """Return what the audit of a size found."""
    if name not in page.audited:
        return ["Not run: ", page.reason(f"{name}.identical.images"), "."]
    of = page.of(name)
    parts: Parts = rekeyed(list(first.verdict(of).lead), name)
    if page.findings[f"{name}.levels"] and page.has(f"{name}.limit.weakest"):
        parts += [" Detection limit: ", page.value(f"{name}.limit.weakest", "text"), "."]
    return [*parts, *_set(of, page, name)]


def _set(of: Page, page: StudyPage, name: str) -> Parts:
    """Name the level of the whole set where single images have spoken already."""
    if not of.findings.get("set.found") or not of.findings.get("images.any"):
        return []
    return [" The whole set too: p = ", page.value(f"{name}.set.p_value", "p"), "."]


# -- five numbers


def headlines(page: StudyPage) -> list[Headline]:
    """Return five numbers: sizes, where copying ends, where none is found, excess, Fig. 4."""
    f = page.findings
    planned: Parts = ["of ", page.value("study.generators"), " generators"]
    return [
        Headline("Generators audited", [page.value("study.audited")], planned),
        _up_to(page),
        _none_from(page),
        _excess(page),
        _told_apart(page),
    ] if f["points"] else []  # fmt: skip


def _up_to(page: StudyPage) -> Headline:
    label = "Largest set that was copied"
    if page.has("study.found_up_to"):
        return Headline(label, [page.value("study.found_up_to"), " slices"], alarm=True)
    if page.findings["study.sizes.none"]:
        return Headline(label, ["none found"], _at_limit(page))
    return Headline(label, [page.value("study.found_up_to")])


def _none_from(page: StudyPage) -> Headline:
    label = "No copies found from"
    if page.has("study.none_from"):
        return Headline(label, [page.value("study.none_from"), " slices on"], _at_limit(page))
    f, largest = page.findings, max(page.findings["study.sizes"])
    if largest in (*f["study.sizes.found"], *f["study.sizes.set"]):
        return Headline(label, ["no size"], ["the largest training set was found too"], alarm=True)
    return Headline(label, [page.value("study.none_from")])


def _at_limit(page: StudyPage) -> Parts:
    if _limited(page):
        return ["above the detection limit of each audit"]
    return ["not every audit has a detection limit"]


def _limited(page: StudyPage) -> bool:
    """Whether every audit that found nothing has a detection limit."""
    quiet = [name for name in page.audited if not page.findings[f"{name}.levels"]]
    return all(page.has(f"{name}.limit.weakest") for name in quiet)


def _excess(page: StudyPage) -> Headline:
    names = [name for name in page.once if page.has(f"{name}.excess")]
    label = "Mean z above that of controls"
    if not names:
        key = f"{page.points[-1]}.excess"
        return Headline(label, [page.value(key)])
    low, high = names[0], names[-1]
    value: Parts = [page.value(f"{low}.excess", "z")]
    note: Parts = ["at ", page.value(f"{low}.asked"), " slices"]
    if low != high:
        value += [" to ", page.value(f"{high}.excess", "z")]
        note += [", and at ", page.value(f"{high}.asked")]
    return Headline(label, value, note)


def _told_apart(page: StudyPage) -> Headline:
    label = "Training sets told apart"
    name = next((n for n in FEATURES if page.has(f"figure4.{n}.p")), None)
    if name is None:
        return Headline(label, [page.value("figure4.features")])
    key = f"figure4.{name}"
    return Headline(
        label, [page.value(f"{key}.row_hits"), " of ", page.value(f"{key}.k")],
        ["by ", FEATURES[name], "; p = ", page.value(f"{key}.p", "p")],
    )  # fmt: skip
