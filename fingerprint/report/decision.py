"""For the decision: what was attacked, how, what was found, above which limit, what is missing."""

from __future__ import annotations

from typing import Any

from fingerprint.report.blocks import Prose, Table, Value
from fingerprint.report.first import at_once, mute, none_found
from fingerprint.report.page import Page

Parts = list["str | Value"]
COLUMNS = ("What was attacked", "Tested how", "Found", "At which limit", "Not tested, or missing")
NOT_MEASURED = "Not measured: planted copies are single images, this level is tested as a whole."


def decision(page: Page) -> list[Any]:
    """Return the table: one row for each thing that a copy could be."""
    rows = [_identical(page)]
    if not page.itself:
        rows += [_copies(page), _patients(page), _set(page), _membership()]
    q: Parts = ["Each list and each level is held to false-discovery rate ",
                page.value("settings.q", "q"), " by itself. Without any copying, a run has a "
                "finding somewhere with a chance of at most the sum over the lists and levels "
                "that ran; for the tail model, as far as the model holds. "
                "What is found rests on the controls being like the patients of the corpus: same "
                "scanners, regions, sex and age, and never used for training."]  # fmt: skip
    return [Table([], COLUMNS, rows, text=True), *([] if page.itself else [Prose(q)])]


def _identical(page: Page) -> list[Any]:
    v = page.value
    how = "Every slice against every slice of another patient" if page.itself else (
        "Every image against every slice"
    )  # fmt: skip
    return [
        "Identical copies: the same pixels, up to brightness and contrast",
        [how, ": Pearson r over all pixels, exact; ", v("pairs.compared.generated"), " pairs."],
        [v("identical.images"), " images, ", v("identical.slices"), " slices"],
        ["None needed: r = 1 cannot be missed where a pair was compared."],
        ["Images of one grey level: ", v("queries.excluded"), "."],
    ]


def _copies(page: Page) -> list[Any]:
    v = page.value
    name = "Moved, noisy, blurred or partial copies"
    if not page.has("images.any"):
        return [name, _searched(page), "\u2013", "\u2013", [v("images.found")]]
    how: Parts = [*_searched(page), " ", v("images.tested"), " images ranked against ",
                  v("images.controls"), " control slices of ", v("images.control_patients"),
                  " patients."]  # fmt: skip
    found: Parts = [v("images.found"), " images: ", v("images.guaranteed"), " guaranteed, ",
                    v("images.tail"), " by the tail model"]  # fmt: skip
    if page.findings.get("images.found") == 0:
        found = [*none_found(page), "."]
    limit: Parts = [v("limit.weakest", "text")]
    return [name, how, found, limit, _gaps(page)]


def _searched(page: Page) -> Parts:
    if not page.posed:
        return ["At the stored position only."]
    return ["Every image at ", page.value("pose.poses"), " poses against every slice, the best "
            "patients closely."]  # fmt: skip


def _gaps(page: Page) -> Parts:
    """Say which copies would have been missed, as far as it is known."""
    out: Parts = []
    if not page.posed:
        out.append("Other poses. ")
    if not page.has("images.tail"):
        out.append(f"Tail model: {page.reason('images.tail')}. ")
    kinds = page.findings.get("limit.kinds") or []
    without = [kind for kind in kinds if not page.has(f"limit.{kind}")]
    if without:
        out.append(f"No limit for {', '.join(without)}: such copies may be there. ")
    return [*out, "Copies weaker than the limit; copies of slices that are not in the corpus."]


def _patients(page: Page) -> list[Any]:
    v, name = page.value, "Single patients"
    if not page.has("patients.found"):
        return [name, "\u2013", "\u2013", "\u2013", [v("patients.found")]]
    how: Parts = ["The image that stands out most for each of ", v("patients.tested"),
                  " patients, ranked among ", v("patients.controls"),
                  " held-out patients."]  # fmt: skip
    missing: Parts = at_once(page)
    if not page.has("patients.tail"):
        missing += [" Tail model: ", page.reason("patients.tail"), "."]
    found: Parts = [v("patients.found"), " patients"]
    if page.findings["patients.found"] == 0 and mute(page):
        found = ["Not decided: too few held-out patients."]
    elif page.findings["patients.found"] == 0:
        found = ["None found at false-discovery rate ", v("settings.q", "q"),
                 "; no limit known."]  # fmt: skip
    return [name, how, found, NOT_MEASURED, missing]


def _set(page: Page) -> list[Any]:
    v, name = page.value, "The set as a whole"
    if not page.has("set.p_value"):
        return [name, "\u2013", "\u2013", "\u2013", [v("set.p_value")]]
    how: Parts = ["Labels trained and held-out of ", v("set.trained"), " and ", v("set.held_out"),
                  " patients exchanged ", v("set.permutations"), " times."]  # fmt: skip
    closer = "Closer to its training patients than to strangers"
    said = closer if page.findings["set.found"] else "Not found to be closer to training patients"
    return [name, how, [f"{said}: p = ", v("set.p_value", "p")], NOT_MEASURED,
            "Which patients make it so."]  # fmt: skip


def _membership() -> list[Any]:
    name = "Training membership of single slices"
    return [name, "Not in this audit.", "\u2013", "\u2013",
            "Whether a given slice was used for training, without being copied."]  # fmt: skip
