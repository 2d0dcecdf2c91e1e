"""Paper 003: Tables 2 and 3, Fig. 4 recovered, ours, and the check labelled for what it is."""

from __future__ import annotations

from typing import Any

from fingerprint.report.blocks import Chart, Prose, Table
from fingerprint.report.membership import drawn
from fingerprint.report.membership.page import (
    METRIC,
    SPLIT,
    MembershipPage,
    Parts,
    named,
    pointer,
)

OF_TEXTURE = ("f1", "accuracy", "precision", "specificity", "recall")
CELLS = ("tp", "fn", "fp", "tn")


def section(page: MembershipPage) -> list[Any]:
    """Return everything of paper 003."""
    about: Parts = [
        "Paper 003 is Andrei and Ionescu 2023: a shadow generator trained on slices that were not "
        "used, a classifier of texture of given against shadow images, asked about real slices."
    ]
    return [Prose(about), *tables(page), *figure_4(page), *check(page)]


def tables(page: MembershipPage) -> list[Any]:
    """Return Table 2 (DEV) and Table 3 (TEST), ours and as printed."""
    out: list[Any] = [
        table for split, number in (("dev", 2), ("test", 3)) for scope in page.scopes
        if (table := _ours(page, scope, split, number)) is not None
    ]  # fmt: skip
    linear: Parts = [
        "80 used, 80 not used. F1 .78 beside precision .54 and recall 1 cannot be: 0.705 or 0.708. "
        "Both linear rows are the constant predictor that calls every slice used (E24)."
    ]
    half: Parts = [
        "200 real slices. Only one confusion matrix of whole numbers prints as each row does: 100 "
        "were used (E22). Calling every slice used has F1 ", page.number("papers", "always_f1"),
        " (E23).",
    ]  # fmt: skip
    return [*out, _printed(page, "table2", "003, Table 2, as printed", linear),
            _printed(page, "table3", "003, Table 3, as printed", half)]  # fmt: skip


def _printed(page: MembershipPage, table: str, title: str, note: Parts) -> Table:
    rows = [
        [name, *(page.number("paper003", table, name, m, kind="text") for m in OF_TEXTURE),
         page.number("paper003", table, name, "implied.f1"),
         page.number("paper003", table, name, "kappa")]
        for name in page.at("paper003", table)
    ]  # fmt: skip
    columns = ("Row", *(METRIC[m] for m in OF_TEXTURE), "implied F1", "implied kappa")
    return Table([title], columns, rows, note, text=True)


def _ours(page: MembershipPage, scope: str, split: str, number: int) -> Table | None:
    path = page.metrics(scope, split)
    rows: list[list[Any]] = []
    for name in page.arms(scope, split, "texture"):
        label = name.removeprefix("texture/")
        if page.ran((*path, name)):
            ran = [page.metric((*path, name), m, ends=False) for m in OF_TEXTURE]
            rows.append([label, *ran, page.metric((*path, name), "kappa")])
        else:
            rows.append([label, f"not run: {page.why(*path, name)}", *[""] * 5])
    if not rows and page.at(*path, "texture", "reason"):
        rows.append(["all arms", f"not run: {page.why(*path, 'texture')}", *[""] * 5])
    if not rows:
        return None
    columns = ("Arm", *(METRIC[m] for m in OF_TEXTURE), "kappa")
    title = [f"Table {number} of this run: {named(scope)}, {SPLIT[split]}"]
    return Table(title, columns, rows, text=True)


# -- Fig. 4


def figure_4(page: MembershipPage) -> list[Any]:
    """Return confusion matrices: ours, and those of the paper as recovered."""
    split = page.split
    charts: list[Any] = []
    for task in page.tasks:
        held = page.at("confusion", task, split) or {}
        names = [n for n in held if n == "texture" or n.startswith("texture/")][:5]
        for name in names:
            path = ("confusion", task, split, name)
            title = f"{name}, {task}, {SPLIT[split]}"
            charts += _matrix(page, path, title, ["Rows: the truth; columns: the answer."])
    for name in page.at("paper003", "table3"):
        path = ("paper003", "table3", name, "confusion")
        kappa = page.number("paper003", "table3", name, "kappa")
        caption: Parts = ["Recovered from the row as printed (E22); kappa ", kappa, "."]
        charts += _matrix(page, path, f"003, Fig. 4: {name}, recovered", caption)
    return charts


def _matrix(page: MembershipPage, path: tuple[str, ...], title: str, caption: Parts) -> list[Chart]:
    counts = {name: page.at(*path, name) for name in CELLS}
    if any(not isinstance(n, int) for n in counts.values()):
        return []
    keys = {name: pointer((*path, name)) for name in CELLS}
    svg = drawn.confusion(counts, keys)
    return [Chart(f"confusion-{len(path)}", title, svg, f"Confusion matrix: {title}.", caption)]


# -- the check


def check(page: MembershipPage) -> list[Any]:
    """Return the accuracy of given against shadow images, and what it does not say."""
    about: Parts = [
        "The check of paper 003 splits the images of both generators and reports 100 % accuracy, "
        "as printed, as a confirmation. It separates two kinds of generator, a diffusion model and "
        "a DCGAN, by their style: it says nothing about membership (E26). Two generators of the "
        "same kind, trained on different patients, are the better check."
    ]
    rows: list[list[Any]] = []
    for task in page.tasks:
        held = page.at("shadow", task) or {}
        arms = dict.fromkeys([*(held.get("given-against-shadow") or {}),
                              *(held.get("same-kind") or {})])  # fmt: skip
        rows += [
            [task, arm, *(_accuracy(page, task, which, arm)
                          for which in ("given-against-shadow", "same-kind"))]
            for arm in arms if arm != "reason"
        ]  # fmt: skip
        for arm in held.get("called_used") or {}:
            out: Any = [page.number("shadow", task, "called_used", arm, kind="n"), " of ",
                        page.number("shadow", task, "asked", kind="n")]  # fmt: skip
            rows.append([task, f"{arm}: real slices called used", out, ""])
    if not rows:
        reason = next((page.why("shadow", t) for t in page.tasks if page.at("shadow", t)), "")
        return [Prose(about), Prose([f"Check: not run: {reason or 'no shadow generator'}."])]
    columns = ("Task", "Arm", "Given against shadow: generator style", "Same kind, other patients")
    note: Parts = ["In the paper the linear kernel called 9 of 200 slices used, as printed."]
    title: Parts = ["Accuracy between generators; not membership"]
    return [Prose(about), Table(title, columns, rows, note, text=True)]


def _accuracy(page: MembershipPage, task: str, which: str, arm: str) -> Any:
    return page.number("shadow", task, which, arm)
