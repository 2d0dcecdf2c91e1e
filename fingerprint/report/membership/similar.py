"""Paper 001: Tables 1 to 3, ours beside those as printed, and what noise does."""

from __future__ import annotations

from typing import Any

from fingerprint.measure import papers
from fingerprint.report.blocks import Chart, Items, Prose, Table
from fingerprint.report.membership import drawn
from fingerprint.report.membership.page import (
    DASH,
    METRIC,
    SPLIT,
    MembershipPage,
    Parts,
    named,
)

SUBSETS = {
    "real-real": "real, real", "generated-real": "generated, real",
    "generated-generated": "generated, generated", "generated-used": "generated, used",
    "generated-not_used": "generated, not used",
}  # fmt: skip
RATES = ("accuracy", "precision", "specificity", "recall", "f1")
OF_TASKS = tuple(f"{metric}.{k}" for k in (1, 2) for metric in
                 ("accuracy", "precision", "recall", "f1", "kappa"))  # fmt: skip
SHORT = {"accuracy": "acc", "precision": "P", "recall": "R", "f1": "F1", "kappa": "kappa"}
MEASURES = ("euclidean", "cosine", "ssim")
NOISES = ("gaussian", "salt")
SOME_SD, NOISE_SD = 60, (5, 10, 20)  # grey levels


def section(page: MembershipPage) -> list[Any]:
    """Return everything of paper 001."""
    about: Parts = [
        "Paper 001 is Cao and Zhou 2024. Its numbers are shown as printed, never as a target: two "
        "teams' tables hold the same rows (E17). Its predictions are called those of generated "
        "images; they are of real slices (E18)."
    ]
    return [
        Prose(about), *table_1(page), *table_2(page), *table_3(page), Items(impossible(page))
    ]  # fmt: skip


# -- Table 1


def table_1(page: MembershipPage) -> list[Any]:
    """Return 3-SSIM by subset, as printed and ours, with what the rules say of it."""
    rows: list[list[Any]] = []
    for split, text in (("dev", "development"), ("test", "test")):
        for subset, words in SUBSETS.items():
            path = ("paper001", f"table1.{split}", subset)
            if page.at(*path):
                rows.append([f"{text}: {words}", *(page.number(*path, end, kind="text")
                                                   for end in ("mean", "min", "max"))])  # fmt: skip
    note: Parts = [
        "3-SSIM as printed; SSIM lies in [\u22121, 1]. With as many used as not used slices the "
        "mean of generated, real would be 14.3, not 13.4, and its smallest value no more than 6.4 "
        "(E12). Generated, generated is discussed in the paper and absent from the table."
    ]
    columns = ("Subset", "Mean", "Smallest", "Largest")
    printed = Table(["001, Table 1, as printed"], columns, rows, note)
    return [*[_table_1(page, task) for task in page.tasks if page.at("table1", task)], printed]


def _table_1(page: MembershipPage, task: str) -> Table:
    rows: list[list[Any]] = []
    notes: Parts = []
    for split, text in SPLIT.items():
        held = page.at("table1", task, split) or {}
        for subset, words in SUBSETS.items():
            path = ("table1", task, split, subset)
            if subset in held and page.at(*path, "mean") is not None:
                rows.append([f"{text}: {words}",
                             *(page.number(*path, end) for end in ("mean", "min", "max")),
                             page.number(*path, "pairs", kind="n")])  # fmt: skip
        notes += _rules(page, task, split)
    columns = ("Subset", "Mean", "Smallest", "Largest", "Pairs")
    return Table([f"Table 1 of this run: 3-SSIM, {task}"], columns, rows,
                 ["An image is never compared with itself. ", *notes])  # fmt: skip


def _rules(page: MembershipPage, task: str, split: str) -> Parts:
    """Say whether parts and whole agree in a table of ours."""
    held = page.at("table1", task, split) or {}
    there = {k: row for k, row in held.items() if isinstance(row, dict)
             and row.get("mean") is not None}  # fmt: skip
    if not {*papers.PARTS, papers.WHOLE} <= there.keys():
        return []
    broken = papers.broken_rules(there, unit=1e-6)
    said = "parts and whole agree" if not broken else "does not hold: " + "; ".join(broken)
    return [f"{SPLIT[split]}: {said}. "]


# -- Table 2


def arm_of(page: MembershipPage, scope: str, measure: str, noise: str) -> str | None:
    """Return the arm of a measure, with one kind of noise or none, that is best on DEV."""
    path = page.metrics(scope, "dev")
    scores = {}
    for name in page.arms(scope, "dev", "similarity"):
        parts = name.split("/")[1:]
        noises = [kind for kind in NOISES if any(part.startswith(kind) for part in parts)]
        value = page.at(*path, name, "auc", "value")
        if parts[0] == measure and noises == ([noise] if noise else []) and value is not None:
            scores[name] = value
    return max(scores, key=lambda name: scores[name]) if scores else None


def table_2(page: MembershipPage) -> list[Any]:
    """Return the development table: as printed with what its rates imply, and ours."""
    out: list[Any] = []
    for scope in page.scopes:
        rows = []
        for measure in MEASURES:
            for noise, text in (("", "without"), ("gaussian", "with")):
                arm = arm_of(page, scope, measure, noise)
                if arm is None:
                    continue
                path = (*page.metrics(scope, "dev"), arm)
                rows.append([f"{measure}, {text}", arm.removeprefix("similarity/"),
                             *(page.metric(path, m, ends=False) for m in RATES),
                             page.metric(path, "kappa")])  # fmt: skip
        if rows:
            columns = ("Similarity, noise", "Arm", *(METRIC[m] for m in RATES), "kappa")
            note: Parts = ["The arm of each row with the largest AUC on DEV."]
            title = [f"Table 2 of this run: {named(scope)}, DEV"]
            out.append(Table(title, columns, rows, note, text=True))
    rows = [
        [f"{name}, {text}", *_printed(page, ("paper001", f"table2.{noise}", name))]
        for noise, text in (("without", "without noise"), ("gaussian", "with Gaussian noise"))
        for name in page.at("paper001", f"table2.{noise}")
    ]
    return [*out, _printed_table("001, Table 2, as printed", rows)]


def _printed(page: MembershipPage, path: tuple[str, ...]) -> list[Any]:
    """Return a printed row of a development table and what recall and specificity imply."""
    cells: list[Any] = [page.number(*path, name, kind="text") for name in RATES]
    cells += [page.number(*path, f"implied.{name}") for name in ("accuracy", "precision", "f1")]
    return [*cells, "yes" if page.at(*path, "possible") else "no"]


def _printed_table(title: str, rows: list[list[Any]]) -> Table:
    columns = ("Row", *(METRIC[m] for m in RATES), "implied accuracy", "implied precision",
               "implied F1", "Accuracy possible")  # fmt: skip
    note: Parts = [
        "As printed, then what recall and specificity imply at as many used as not used slices. "
        "Impossible: an accuracy outside recall and specificity. Precision and F1 are implied "
        "only if both tasks, whose mean is printed, had these rates."
    ]
    return Table([title], columns, rows, note, text=True)


# -- Table 3


def table_3(page: MembershipPage) -> list[Any]:
    """Return the test table as printed, with the right mean of both tasks and kappa."""
    table = test_table(page, "001, Table 3, as printed", ("paper001", "table3"))
    out: list[Any] = []
    if page.split == "test":
        for scope in page.scopes:
            rows = []
            for measure in MEASURES:
                arm = arm_of(page, scope, measure, "")
                path = (*page.metrics(scope, "test"), arm or "")
                if arm and page.ran(path):
                    rows.append([measure, arm.removeprefix("similarity/"),
                                 *(page.metric(path, m, ends=False) for m in RATES),
                                 page.metric(path, "kappa")])  # fmt: skip
            if rows:
                columns = ("Similarity", "Arm", *(METRIC[m] for m in RATES), "kappa")
                note: Parts = ["Without noise; the arm is that of the largest AUC on DEV."]
                title = [f"Table 3 of this run: {named(scope)}, TEST"]
                out.append(Table(title, columns, rows, note, text=True))
    return [*out, table]


def test_table(page: MembershipPage, title: str, where: tuple[str, str]) -> Table:
    """Return a printed test table: F1 over all, the mean of its tasks, and each task."""
    rows = []
    for name in page.at(*where):
        row = (*where, name)
        cells = [page.number(*row, key, kind="share" if key.startswith("kappa") else "text")
                 for key in OF_TASKS]  # fmt: skip
        both = [page.number(*row, "f1", kind="text"), page.number(*row, "overall")]
        rows.append([name, *both, *cells])
    heads = [f"{SHORT[key.split('.')[0]]}, {key.split('.')[1]}" for key in OF_TASKS]
    note: Parts = [
        "As printed: F1 over all, then accuracy, precision, recall and F1 of task 1 and 2. "
        "Computed: the mean of both F1, and kappa, from accuracy, precision and recall; they also "
        "imply that half of the 4,000 slices were used, in every row (E22). Calling every slice "
        "used has F1 ", page.number("papers", "always_f1"), " (E23).",
    ]  # fmt: skip
    return Table([title], ("Row", "F1", "mean of F1", *heads), rows, note, text=True)


def impossible(page: MembershipPage) -> list[Parts]:
    """Say what in the tables of 001 cannot be."""
    two, three = ("paper001", "table2.without", "SSIM"), ("paper001", "table3")
    v = page.number
    return [
        ["Table 2 (E15): the accuracy of SSIM without noise, ", v(*two, "accuracy", kind="text"),
         " as printed, lies outside its recall and specificity, which imply ",
         v(*two, "implied.accuracy"), ". F1 .732 and accuracy .760 of the abstract, as printed, "
         "stand in no table."],
        ["Table 3 (E16): F1 over all of cosine, ", v(*three, "cosine", "f1", kind="text"),
         " as printed, is the accuracy of another row; the mean of its two tasks is ",
         v(*three, "cosine", "overall"), "."],
        ["Tables of 001 and 002 (E17): ", "; ".join(
            " = ".join(f"{paper} {name}" for paper, name, _ in group) + f" (task {group[0][2]})"
            for group in papers.repeated(
                {"001": papers.SIMILARITY_TEST, "002": papers.EMBEDDING_TEST})
        ), ". Equal in every digit: no independent measurements."],
        ["F1 is printed as PR/(P + R) in both papers, half of what their tables hold (E01)."],
    ]  # fmt: skip


# -- noise


def no_noise(page: MembershipPage) -> str:
    """Say why noise was not judged."""
    held = page.at("noise")
    if not held:
        return "no arm with noise has been judged"
    return held["reason"] if isinstance(held.get("reason"), str) else ""


def noise(page: MembershipPage) -> list[Any]:
    """Return the difference that noise makes to AUC, with its interval, and the closed form."""
    left = ", ".join(f"{papers.noise_factor(SOME_SD**2, sd**2):.3f} at SD {sd}" for sd in NOISE_SD)
    about: Parts = [
        "Paper 001 says that noise magnifies differences. Independent noise adds no information: "
        "of variance v on both images it multiplies r by \u221a(vx/(vx + v)) \u00b7 "
        f"\u221a(vy/(vy + v)), which for images of SD {SOME_SD} grey levels leaves {left}. A "
        "factor that is nearly the same for all slices leaves their order as it was. In its Table "
        "2, as printed, F1 moves by \u22120.037, +0.030 and +0.022 (Euclidean, cosine, SSIM): not "
        "all gains, at a standard error of accuracy of about 0.025 (E25). Below: AUC with noise "
        "less AUC without, the same resampled patients in both."
    ]
    out: list[Any] = [Prose(about)]
    for k, task in enumerate(page.tasks):
        held = page.at("noise", task) or {}
        rows = [
            (name, held[name]["difference"], held[name].get("interval"))
            for name in held
            if isinstance(held[name], dict) and held[name].get("difference") is not None
        ]
        if not rows:
            continue
        caption: Parts = ["An interval that holds 0 shows no effect of noise."]
        svg = drawn.differences(rows, f"noise-{k}")
        out.append(Chart(f"noise-{k}", task, svg, f"What noise does to AUC, {task}.", caption))
        cells = [[name, *_difference(page, ("noise", task, name))] for name, _, _ in rows]
        columns = ("Similarity and noise", "Difference [95 %]")
        out.append(Table([f"{task}: difference of AUC"], columns, cells, text=True, beside=True))
    return out


def _difference(page: MembershipPage, path: tuple[str, ...]) -> list[Any]:
    value = page.number(*path, "difference")
    if page.at(*path, "interval") is None:
        return [[value, f" {DASH} no interval"]]
    low, high = (page.number(*path, "interval", k) for k in (0, 1))
    return [[value, " [", low, ", ", high, "]"]]
