"""What the p-values rest on: the controls and their tail; and the set as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.measure.null import Tail
from fingerprint.report import drawn
from fingerprint.report.blocks import Chart, Prose, Table, Value
from fingerprint.report.page import Page

Parts = list["str | Value"]
SETS = ("generated", "control")
LABEL = {
    "s_excess": "s_excess, z of the best patient over the next ones",
    "s_gap": "s_gap, how far the best patient stands apart",
    "s_r": "s_r, best z",
}


# -- what p rests on


def no_null(page: Page) -> str:
    """Say why there is nothing to compare with."""
    return "" if page.has("images.effective") else page.reason("images.found")


def null(page: Page) -> list[Any]:
    """Return the controls, the tail and the rule behind every p, and the picture of both."""
    v = page.value
    about: Parts = [
        "Controls are real slices that went through every step as the generated images did, never "
        "compared with their own patient: under no copying an image scores as one more of them. "
        "A p says how often strangers score so high.",
    ]
    chart = _survival(page)
    note = ["Intraclass correlation: how alike slices of one control patient score; the higher, "
            "the less p over slices says below 1/K. p by ranks weighs every patient the same "
            "and holds at any."]  # fmt: skip
    table = Table(["Behind every p"], ("", "This run"), [*_controls(page), *_tail(page)], note,
                  beside=chart is not None)  # fmt: skip
    same: Parts = ["Images that repeat each other are one test, not many: ", v("images.tested"),
                   " images, effective number ", v("images.effective", "mean"), ". ",
                   *_rule(page)]  # fmt: skip
    return [Prose(about), *([chart] if chart else []), table, Prose(same)]


def _controls(page: Page) -> list[list[Any]]:
    v = page.value
    region, own_tail = (
        [v(f"images.{name}"), " of ", v("images.tested")] for name in ("own_region", "own_tail")
    )
    return [
        ["score", v("images.score", "text")],
        ["patients below the best that it compares with", v("images.ranks")],
        ["control slices, m", v("images.controls")],
        ["control patients, K", v("images.control_patients")],
        ["control patients left out, because they leak", v("images.left_out_patients")],
        ["images ranked within their own region, the others across all", region],
        ["images whose tail is of their own region", own_tail],
        ["overlap of high-frequency energy with controls", v("images.energy_overlap", "share")],
        ["intraclass correlation of control scores", v("images.intraclass", "share")],
        ["rule", v("images.method", "text")],
    ]


def _tail(page: Page) -> list[list[Any]]:
    v = page.value
    if not page.has("tail.xi"):
        return [["tail of the controls", v("tail.xi")]]
    return [
        ["tail starts at the score", v("tail.start", "z")],
        ["share of controls in the tail", v("tail.share", "percent")],
        ["shape \u03be (0: exponential; larger: heavier)", v("tail.xi", "share")],
        ["scale \u03c3", v("tail.sigma", "share")],
        ["found by the tail model whatever the dependence (BY)", v("images.tail_any_dependence")],
    ]


def _rule(page: Page) -> Parts:
    if page.findings.get("images.method") == "Benjamini-Yekutieli":
        return ["Fewer than half are effective, so lists hold whatever the dependence "
                "(Benjamini\u2013Yekutieli)."]  # fmt: skip
    return ["Lists are by Benjamini\u2013Hochberg: images that share controls are allowed for."]


def _scores(page: Page, column: str) -> dict[str, NDArray[np.float64]]:
    """Return a column of the queries by set, without those that have no number."""
    table = page.queries
    if table is None or column not in table:
        return {}
    out = {}
    for name in SETS:
        values = table.loc[table["query_set"] == name, column].to_numpy(np.float64)
        out[name] = values[np.isfinite(values)]
    return {name: values for name, values in out.items() if len(values)}


def _survival(page: Page) -> Chart | None:
    scores = _scores(page, "score")
    if len(scores) < 2:
        return None
    names = ("start", "share", "xi", "sigma")
    tail = Tail(*(page.findings[f"tail.{n}"] for n in names)) if page.has("tail.xi") else None
    score = str(page.findings["images.score"])
    caption: Parts = ["Share of images that score at least so high, log scale. "]
    if tail:
        caption.append("Dotted: the tail fitted to the controls above the thin line; p of an image "
                       "is read off it, at the upper end of what resampled controls "
                       "give. ")  # fmt: skip
    if tail and page.findings.get("images.own_tail"):
        caption.append(
            "This one is of all controls; an image whose region has enough of them has the tail "
            "of its own region. "
        )
    caption.append("Generated images far to the right of the controls are what is listed; a curve "
                   "that lies on that of the controls is what strangers look like.")  # fmt: skip
    return Chart(
        "survival", "Scores of generated images and controls",
        drawn.survival(scores, tail, LABEL.get(score, score)),
        "Share of generated images and of controls that score at least so high, on a log scale, "
        "with the tail that was fitted to the controls.", caption,
    )  # fmt: skip


# -- the whole set


def no_set(page: Page) -> str:
    """Say why the set was not tested as a whole."""
    return "" if page.has("set.p_value") else page.reason("set.p_value")


def whole(page: Page) -> list[Any]:
    """Return the test of the whole set: statistic, p, and what it does not say."""
    v = page.value
    closer = page.findings["set.found"]
    about: Parts = [
        "The set is " + ("" if closer else "not found to be ") + "closer to its training patients "
        "than to strangers: p = ", v("set.p_value", "p"), ". D of an image is its best z over the "
        "patients of the corpus less its best z over held-out patients, equal slices each. "
        "A generator that knows its patients only through the population cannot tell the two "
        "apart, so their labels were exchanged ", v("set.permutations"),
        " times. This holds if patients were held out at random, or as if.",
    ]  # fmt: skip
    if closer and not page.findings.get("images.any"):
        about.append(" No single image stands out: the set speaks although its images are silent.")
    rows: list[list[Any]] = [
        ["images", v("set.queries")],
        ["patients, trained", v("set.trained")],
        ["patients, held out", v("set.held_out")],
        ["strata within which labels were exchanged", v("set.strata")],
        ["W, mean of sign(D) D\u00b2: decides", v("set.w", "sd")],
        ["p of W", v("set.p_value", "p")],
        ["mean D", v("set.difference.mean", "z")],
        ["95 % interval of mean D, over images",
         [v("set.difference.low", "z"), " to ", v("set.difference.high", "z")]],
        ["U, share of images nearest to a trained patient: describes", v("set.share", "percent")],
        ["U expected under exchangeable labels", v("set.share.expected", "percent")],
        ["SD of U, with repeated images allowed for", v("set.share.sd", "percent")],
    ]  # fmt: skip
    chart = _differences(page)
    table = Table(["Trained and held-out patients"], ("", "This run"), rows,
                  beside=chart is not None)  # fmt: skip
    return [Prose(about), *([chart] if chart else []), table]


def _differences(page: Page) -> Chart | None:
    sets = _scores(page, "s_diff")
    if "generated" not in sets:
        return None
    return Chart(
        "difference", "D of every image", drawn.differences(sets),
        "Histogram of D, best z over trained patients less best z over held-out patients, for "
        "generated images and controls.",
        ["Right of 0: nearer to a trained patient. Where more patients are trained than held out, "
         "D of a stranger is above 0 too: the controls show by how much. A few images far to the "
         "right are copies; a shift of all of them is a set that leans on its patients."],
    )  # fmt: skip
