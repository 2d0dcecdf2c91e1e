"""Which images are findings, at any rate q the reader chooses, and which patients they show."""

from __future__ import annotations

import json
from typing import Any

from fingerprint.measure import fdr
from fingerprint.report.blocks import Explorer, Prose, Table, Value
from fingerprint.report.first import at_once, none_found, q_of
from fingerprint.report.page import Page

Parts = list["str | Value"]
ROWS = 200  # images that stand on the page; all are in queries.parquet
NEXT = 10  # images that are not found, shown below those that are
RATES = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # of a decade
RISKS = 500  # patients that stand on the page
SCORE = {"s_excess": "s_excess", "s_gap": "s_gap", "s_r": "s_r (best z)"}


# -- findings


def no_findings(page: Page) -> str:
    """Say why there is no list."""
    return "" if page.has("images.list") else page.reason("images.found")


def findings(page: Page) -> list[Any]:
    """Return the lists of images, and the table that a script recomputes at another q."""
    return [Prose(_lists(page)), _explorer(page), Prose(_arithmetic(page))]


def _lists(page: Page) -> Parts:
    v = page.value
    out: Parts = [
        "An image is a finding if it is more alike to one patient than strangers are to theirs. "
        "Three lists, the first that holds an image names it. Identical: r = 1, whatever the "
        "statistics say. Guaranteed: its rank among the ", v("images.control_patients"),
        " control patients, no model. Tail model: beyond the controls by extrapolating their tail; "
        "stronger, and only as good as that model. Each by ", v("images.method", "text"),
        " over ", v("images.tested"), " images.",
    ]  # fmt: skip
    if not page.has("images.tail"):
        out += [" The tail model was not run: ", page.reason("images.tail"), "."]
    if page.findings.get("images.any") == 0 and page.has("images.found"):
        out += [" ", *none_found(page), "."]
    return out


def _explorer(page: Page) -> Explorer:
    listed = page.findings["images.list"]
    keys = {"identical": "Identical", "guaranteed": "Guaranteed", "tail": "Tail model",
            "any": "On any list"}  # fmt: skip
    counts = [(name, label, page.value(f"images.{name}")) for name, label in keys.items()]
    near = NEXT + sum(one["list"] is not None for one in listed)
    data = json.dumps(_data(page), separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":  # nothing in it can end the element it stands in
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    score = SCORE.get(page.findings.get("images.score", "s_excess"), "score")
    columns = ("Image", page.person.title(), "r", score, "p, ranks", "p", "q", "List")
    rows = [_row(page, i) for i in range(min(len(listed), ROWS))]
    caption: Parts = ["The most extreme images, most extreme first"]
    return Explorer(page.value("settings.q", "q"), counts, columns, rows, near, data, caption,
                    _note(page, len(listed)))  # fmt: skip


def _row(page: Page, i: int) -> list[str | Value]:
    key, score = f"images.list.{i}", page.findings.get("images.score", "s_excess")
    kinds = {"query": "text", "participant": "text", "r": "r", score: "z", "p_patient": "p",
             "p_value": "p", "q_value": "q_value", "list": "list"}  # fmt: skip
    return [page.cell(f"{key}.{name}", "p" if kind == "q_value" else kind)
            for name, kind in kinds.items()]  # fmt: skip


def _note(page: Page, listed: int) -> Parts:
    out: Parts = [
        "r at the pose that is scored. p, ranks: the guaranteed list. p: the tail model, or ranks "
        "where they are above 0.1. q: the smallest rate at which the tail model lists the image. ",
    ]
    if listed < page.findings["images.tested"]:
        out += [f"The page holds p of the {listed:,} most extreme of ", page.value("images.tested"),
                " images; p of the others are larger, so the lists are those over all images "
                "until every image here is found (ranks: where they order images as p does). ",
                ]  # fmt: skip
    return [*out, "A p is no chance that an image is a copy: it says how rare such a score is "
            "among strangers."]  # fmt: skip


def _data(page: Page) -> dict[str, Any]:
    """Return what the script computes with: p of the images in their order, tests, rates."""
    f = page.findings
    listed = f["images.list"]
    rest = f["images.tested"] - len(listed)
    lists = {}
    for name, p in (("guaranteed", "p_patient"), ("tail", "p_value")):
        values = [one[p] for one in listed]
        tests = rest + sum(value is not None for value in values)
        repeating = f["images.method"] == "Benjamini-Yekutieli"
        factor = fdr.harmonic(tests) if repeating else 1.0
        lists[name] = {"p": values, "tests": tests, "factor": factor}
    steps = rates(float(f["settings.q"]))
    return {"lists": lists, "same": [one["list"] == "identical" for one in listed], "next": NEXT,
            "q": steps, "start": steps.index(float(f["settings.q"]))}  # fmt: skip


def rates(q: float) -> list[float]:
    """Return the rates of the slider, 0.001 to 0.5 in even steps of a logarithm, and `q`."""
    steps = {round(x * 10.0**e, 6) for e in (-3, -2, -1) for x in RATES}
    return sorted({one for one in steps if one <= 0.5} | {q})


def _arithmetic(page: Page) -> Parts:
    v = page.value
    return [
        "What ranks can show: the smallest p among K control patients is 1/(K + 1), so k "
        "guaranteed findings need 1/(K + 1) \u2264 k q/M. Here K = ",
        v("images.control_patients"), ", M = ", v("images.tested"),
        ", q = ", v("settings.q", "q"), ": at least ",
        v("images.findings_needed"), " images must be found at once", *_too_many(page),
        "; a single one needs ", v("images.controls_needed"), " control patients.",
    ]  # fmt: skip


def _too_many(page: Page) -> Parts:
    f = page.findings
    return [", more than there are"] if f["images.findings_needed"] > f["images.tested"] else []


# -- the risk register


def no_risk(page: Page) -> str:
    """Say why there is no register."""
    return "" if page.has("risk.list") else page.reason("patients.found")


def risk(page: Page) -> list[Any]:
    """Return a line for each patient that the findings show."""
    v, lines = page.value, page.findings["risk.list"]
    person = page.person.title()
    about: Parts = [
        f"Every {page.person} of the corpus whom a finding shows, most images first: to look up, "
        "to inform, or to withhold the images. Pseudonyms: whoever holds the key turns them back "
        "with fingerprint locate. ",
    ]
    if page.has("images.findings_needed"):
        about += ["k guaranteed findings need 1/(K + 1) \u2264 k q/M: with ",
                  v("images.control_patients"), " control patients at least ",
                  v("images.findings_needed"), " images at once", *_too_many(page),
                  "; one image alone needs ",
                  v("images.controls_needed"), " control patients. "]  # fmt: skip
    about += _tested(page)
    if not lines:
        return [Prose([*_empty(page), " ", *about])]
    columns = [person, "Images", "Best image", "List", "r", "Slice", "q of the image"]
    tested = page.has("patients.found")
    columns += [f"p, {page.person}", f"q, {page.person}", "q, tail"] if tested else []
    rows = [_line(page, i, tested) for i in range(min(len(lines), RISKS))]
    note = "The slice is its number in the real corpus; a dash where the image is more alike to "
    note += f"another {page.person}, or where it was not computed."
    if len(lines) > RISKS:
        note += f" The first {RISKS} are listed; all are in findings.json."
    return [Prose(about), Table(["Patients, most images first"], columns, rows, [note], text=True)]


def _empty(page: Page) -> Parts:
    """Say that the register is empty, and above which limit."""
    if not page.has("images.found"):
        return [f"No {page.person} is in the register. Other copies than identical ones were not "
                "decided on: ", page.reason("images.found"), "."]  # fmt: skip
    return [*none_found(page), "."]


def _tested(page: Page) -> Parts:
    v = page.value
    if not page.has("patients.found"):
        return ["Patients by themselves: not run: ", page.reason("patients.found"), "."]
    return ["Each of ", v("patients.tested"), " patients was also tested by itself, among ",
            v("patients.controls"), " held-out patients: ", v("patients.found"), " found ",
            *q_of(page), ", ", v("patients.guaranteed"), " of them by ranks. ", *at_once(page),
            " Share of patients found, 95 % interval: ", v("patients.share.low", "percent"), " to ",
            v("patients.share.high", "percent"), "."]  # fmt: skip


def _line(page: Page, i: int, tested: bool) -> list[str | Value]:
    key = f"risk.list.{i}"
    kinds = {"participant": "text", "images": "few", "query": "text", "list": "list", "r": "r",
             "slice": "n", "q_value": "p"}  # fmt: skip
    if tested:
        kinds |= {"patient_p": "p", "patient_q": "p", "patient_q_tail": "p"}
    return [page.cell(f"{key}.{name}", kind) for name, kind in kinds.items()]
