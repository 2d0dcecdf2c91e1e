"""Paper 002: Fig. 1, and Tables 3 and 4, ours beside those as printed."""

from __future__ import annotations

from typing import Any

import numpy as np

from fingerprint.report.blocks import Chart, Items, Prose, Table
from fingerprint.report.membership import drawn
from fingerprint.report.membership.page import METRIC, SPLIT, MembershipPage, Parts, named
from fingerprint.report.membership.similar import RATES, _printed, _printed_table, test_table


def section(page: MembershipPage) -> list[Any]:
    """Return everything of paper 002."""
    about: Parts = [
        "Paper 002 is Tang, Wang and Chen 2024: features of a network, similarity of features. "
        "The published files of the masked autoencoder hold the encoder only (E21): what "
        "\u201creconstructs\u201d must be trained here or supplied."
    ]
    return [Prose(about), *figure_1(page), *tables(page), Items(impossible(page))]


def figure_1(page: MembershipPage) -> list[Any]:
    """Return the share of pixels at each grey level, generated and real, per task and averaged."""
    out: list[Any] = []
    for split in SPLIT:
        sets = [page.at("histogram", task, split) for task in page.tasks]
        known = [(t, held) for t, held in zip(page.tasks, sets, strict=True) if _whole(held)]
        for k, (task, held) in enumerate(known):
            shares = {who: held[who] for who in ("generated", "real")}
            name = f"histogram-{split}-{k}"
            out.append(Chart(name, f"Fig. 1, {task}, {SPLIT[split]}",
                             drawn.histograms(shares, name), f"Grey levels of {task}.",
                             _distance(page, ("histogram", task, split))))  # fmt: skip
        if len(known) > 1:
            mean = {who: np.mean([held[who] for _, held in known], axis=0)
                    for who in ("generated", "real")}  # fmt: skip
            name = f"histogram-{split}-mean"
            out.append(Chart(name, f"Fig. 1, mean of tasks, {SPLIT[split]}",
                             drawn.histograms(mean, name), "Grey levels, mean of tasks.",
                             ["Averaged as in the paper: tasks may cancel."]))  # fmt: skip
    return out or [Prose(["Fig. 1, histograms of grey levels: not run."])]


def _whole(held: Any) -> bool:
    return isinstance(held, dict) and bool(held.get("generated")) and bool(held.get("real"))


def _distance(page: MembershipPage, path: tuple[str, ...]) -> Parts:
    out: Parts = ["Total variation distance of generated and real ", page.number(*path, "tv")]
    if page.at(*path, "tv_control") is not None:
        return [*out, "; of two sets of real slices, the floor, ",
                page.number(*path, "tv_control"), "."]  # fmt: skip
    return [*out, "; the floor, of two sets of real slices, was not computed."]


def tables(page: MembershipPage) -> list[Any]:
    """Return Table 3 (DEV) and Table 4 (TEST): ours, what was not run, and as printed."""
    out = [
        table for split, number in (("dev", 3), ("test", 4)) for scope in page.scopes
        if (table := _ours(page, scope, split, number)) is not None
    ]  # fmt: skip
    rows = [
        [f"{name} (order assumed)", *_printed(page, ("paper002", "table3", name))]
        for name in page.at("paper002", "table3")
    ]
    return [
        *out,
        _printed_table("002, Table 3, as printed", rows),
        test_table(page, "002, Table 4, as printed", ("paper002", "table4")),
    ]


def best_arms(page: MembershipPage, scope: str) -> list[str]:
    """Return of each network the arm that is best on DEV, and networks that were not run."""
    path = page.metrics(scope, "dev")
    best: dict[str, tuple[float, str]] = {}
    for name in page.arms(scope, "dev", "embedding"):
        value = page.at(*path, name, "auc", "value")
        score = -1.0 if value is None else value
        network = name.split("/")[1]
        if network not in best or score > best[network][0]:
            best[network] = (score, name)
    return [name for _, name in best.values()]


def _ours(page: MembershipPage, scope: str, split: str, number: int) -> Table | None:
    path = page.metrics(scope, split)
    rows: list[list[Any]] = []
    for name in best_arms(page, scope):
        network, _, arm = name.removeprefix("embedding/").partition("/")
        if page.ran((*path, name)):
            rows.append([network, arm, *(page.metric((*path, name), m, ends=False) for m in RATES),
                         page.metric((*path, name), "kappa")])  # fmt: skip
        elif split == "dev" or page.split == "test":
            rows.append([network, f"not run: {page.why(*path, name)}", *[""] * 6])
    plain = (*path, "embedding")
    if not rows and page.at(*plain, "reason"):
        rows.append(["all networks", f"not run: {page.why(*plain)}", *[""] * 6])
    if not rows:
        return None
    columns = ("Network", "Arm", *(METRIC[m] for m in RATES), "kappa")
    note: Parts = ["Of each network the arm with the largest AUC on DEV. Without its weights a "
                   "network is not run."]  # fmt: skip
    title = [f"Table {number} of this run: {named(scope)}, {SPLIT[split]}"]
    return Table(title, columns, rows, note, text=True)


def impossible(page: MembershipPage) -> list[Parts]:
    """Say what in the tables and the text of 002 cannot be."""
    mae = ("paper002", "table3", "MAE")
    v = page.number
    return [
        ["Text (E19): the best F1 is given as .711, as printed; that is an accuracy, and the best "
         "F1 of Table 4 is ", v("paper002", "table4", "MAE", "f1", kind="text"),
         ", as printed. MAE is called best in all metrics; in Table 3 it is so in accuracy and F1 "
         "alone."],
        ["Table 3 (E20): the accuracy of MAE, ", v(*mae, "accuracy", kind="text"),
         " as printed, lies outside its recall and specificity, which imply ",
         v(*mae, "implied.accuracy"), "; so do those of VGG and ResNet50. EfficientNet and "
         "ResNet101 have precision and F1 far from what is implied."],
        ["Table 4 (E17): rows of three networks are equal to rows of others and of paper 001 in "
         "every digit. Eight submissions are claimed, seven rows printed."],
    ]  # fmt: skip
