"""Tables of papers 001 to 003 as printed, and what follows from them (METHOD.md, 1.2 to 1.4, 2).

001 is Cao and Zhou 2024, 002 Tang, Wang and Chen 2024, 003 Andrei and Ionescu 2023; all three ask
which real slices a generator was trained on. A printed number is a `Decimal`: it remembers how many
digits stand in print, and so how far it can be from the number that was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from fingerprint.measure.classify import OF_ANSWERS, Confusion
from fingerprint.measure.classify import kappa as kappa_of

Row = Mapping[str, Decimal]
Table = Mapping[str, Row]


def _table(columns: str, text: str) -> dict[str, dict[str, Decimal]]:
    """Read rows of a name and one number for each column."""
    names, out = columns.split(), {}
    for line in text.strip().splitlines():
        name, *cells = line.rsplit(maxsplit=len(names))
        out[name.strip()] = dict(zip(names, map(Decimal, cells), strict=True))
    return out


# -- as printed

SPLIT, RATES = "mean min max", "accuracy precision specificity recall f1"
TASKS = "f1 accuracy.1 precision.1 recall.1 f1.1 accuracy.2 precision.2 recall.2 f1.2"
OF_TEXTURE = "f1 accuracy precision specificity recall"

SSIM3 = {
    "dev": _table(SPLIT, """
        real-real            12.9  5.5 19.0
        generated-real       13.4  7.9 21.5
        generated-used       15.2  9.1 21.5
        generated-not_used   13.4  6.4 18.6"""),
    "test": _table(SPLIT, """
        real-real            12.8  5.6 18.8
        generated-real       13.2  7.8 21.3"""),
}  # fmt: skip
"""Table 1 of 001: 3-SSIM, averaged over two tasks."""

SIMILARITY_DEV = {
    "without": _table(RATES, """
        Euclidean .675 .663 .638 .713 .687
        cosine    .613 .576 .375 .850 .687
        SSIM      .678 .682 .702 .689 .704"""),
    "gaussian": _table(RATES, """
        Euclidean .650 .650 .650 .650 .650
        cosine    .705 .683 .720 .696 .717
        SSIM      .731 .740 .750 .713 .726"""),
}  # fmt: skip
"""Table 2 of 001: development data, mean of two tasks, without and with Gaussian noise."""

SIMILARITY_TEST = _table(TASKS, """
    SSIM      .598 .614 .599 .689 .641 .504 .503 .622 .556
    Euclidean .598 .615 .600 .688 .641 .504 .503 .619 .555
    cosine    .614 .711 .824 .538 .651 .593 .751 .279 .407""")  # fmt: skip
"""Table 3 of 001: F1 over all, then each task; the paper does not name the two blocks."""

EMBEDDING_DEV = _table(RATES, """
    VGG          .655 .652 .661 .706 .676
    InceptionNet .616 .637 .590 .850 .677
    ResNet50     .632 .640 .648 .652 .651
    ResNet101    .650 .873 .812 .484 .587
    MobileNetV2  .721 .732 .748 .715 .720
    MobileNetV3  .722 .717 .744 .694 .708
    EfficientNet .648 .752 .815 .487 .644
    MAE          .743 .721 .733 .720 .726""")  # fmt: skip
"""Table 3 of 002: row names are lost in print; the order of the text is assumed."""

EMBEDDING_TEST = _table(TASKS, """
    VGG          .312 .583 .812 .216 .341 .559 .761 .174 .283
    InceptionNet .314 .583 .812 .216 .341 .559 .747 .178 .287
    ResNet50     .503 .503 .504 .409 .451 .504 .503 .619 .555
    MobileNetV2  .350 .615 .600 .688 .641 .504 .579 .031 .058
    MobileNetV3  .429 .503 .504 .409 .451 .593 .751 .279 .407
    EfficientNet .524 .615 .600 .688 .641 .593 .751 .279 .407
    MAE          .603 .711 .824 .538 .651 .504 .503 .619 .555""")  # fmt: skip
"""Table 4 of 002: eight submissions are claimed, seven rows printed."""

TEXTURE_DEV = _table(OF_TEXTURE, """
    RBF, LBP      .54 .45 .46 .25 .65
    linear, LBP   .66 .5  .5  0   1
    RBF, VGG-16    .78 .58 .54 .17 1
    linear, VGG-16 .66 .5  .5  0   1""")  # fmt: skip
"""Table 2 of 003: 80 used and 80 not used."""

TEXTURE_TEST = _table(OF_TEXTURE, """
    LBP    .626 .54 .527  .31 .77
    VGG-16 .585 .47 .4807 .19 .75""")  # fmt: skip
"""Table 3 of 003: 200 real slices, of which how many were used is not said."""

ABSTRACT_001 = {"f1": Decimal(".732"), "accuracy": Decimal(".760"), "f1_test": Decimal(".598")}
BEST_002 = Decimal(".711")  # "F1" of the text of 002
TEST_SLICES = 4000  # real slices of each task of 001 and 002; both call them generated (E18)
TEST_SLICES_003, DEV_SLICES_003 = 200, 160


# -- what a printed row says


def f1(precision: float, recall: float) -> float:
    """Return 2 P R / (P + R)."""
    return 2 * precision * recall / (precision + recall)


def f1_in_print(precision: float, recall: float) -> float:
    """Return P R / (P + R), equation 5 of 001 and of 002: half of F1 (E01)."""
    return precision * recall / (precision + recall)


def always_f1(prevalence: float = 0.5) -> float:
    """Return F1 of calling every slice used: 2 pi / (1 + pi), 0.667 at one half (E23)."""
    return 2 * prevalence / (1 + prevalence)


def prevalence(accuracy: float, precision: float, recall: float) -> float:
    """Return the share of used slices that three printed numbers imply (E22).

    The errors are missed used slices, ``pi (1 - R)``, and false calls, ``pi R (1 - P) / P``; their
    sum is ``1 - accuracy``.
    """
    return (1 - accuracy) / (1 - 2 * recall + recall / precision)


def from_rates(recall: float, specificity: float, prevalence: float = 0.5) -> dict[str, float]:
    """Return accuracy, precision and F1 that recall and specificity imply (E15, E20)."""
    tp, fp = prevalence * recall, (1 - prevalence) * (1 - specificity)
    precision = tp / (tp + fp)
    return {
        "accuracy": tp + (1 - prevalence) * specificity,
        "precision": precision,
        "f1": f1(precision, recall),
    }


def kappa(accuracy: float, precision: float, recall: float) -> float:
    """Return Cohen's kappa that three printed numbers imply; ``2 accuracy - 1`` at one half."""
    pi = prevalence(accuracy, precision, recall)
    tp = pi * recall
    fp = tp * (1 - precision) / precision
    return float(kappa_of(Confusion(tp, fp, 1 - pi - fp, pi - tp)))


def possible(row: Row) -> bool:
    """Return whether a printed accuracy lies between recall and specificity, as any mean must.

    Each number may be off by the rounding of print. Holds at every prevalence (E15, E20).
    """
    ends = sorted((row["recall"], row["specificity"]))
    off = _unit(row["accuracy"]) + max(map(_unit, ends))
    return ends[0] - off < row["accuracy"] < ends[1] + off


def confusions(row: Row, n: int, used: int | None = None) -> list[Confusion]:
    """Return every confusion matrix of whole numbers that prints as `row` does (E22).

    Parameters
    ----------
    row : mapping
        Metrics of `classify.OF_ANSWERS` as printed; recall among them.
    n : int
        Slices asked about, > 1.
    used : int, optional
        Of these used for training; None where it is not known: every number is tried.

    Returns
    -------
    list of Confusion
        Of Python integers. A number agrees with print if it is less than one unit of the last
        digit away: papers round, or cut off.
    """
    if n < 2:
        raise ValueError(f"confusions: n must be at least 2, got {n}")
    if "recall" not in row:
        raise ValueError(f"confusions: row must have recall, got {', '.join(row) or 'nothing'}")
    out = []
    for positives in range(1, n) if used is None else (used,):
        tp = np.arange(positives + 1)
        tp = tp[_agrees(tp / positives, row["recall"])][:, None]
        fp = np.arange(n - positives + 1)[None, :]
        c = Confusion(tp, fp, n - positives - fp, positives - tp)
        good = np.ones(np.broadcast(tp, fp).shape, bool)
        for name in OF_ANSWERS.keys() & row.keys():
            good &= _agrees(OF_ANSWERS[name](c), row[name])
        for i, j in np.argwhere(good):
            t, f = int(tp[i, 0]), int(fp[0, j])
            out.append(Confusion(t, f, n - positives - f, positives - t))
    return out


def _unit(printed: Decimal) -> Decimal:
    """Return one unit of the last digit; 0 and 1 are exact."""
    exponent = printed.as_tuple().exponent
    return Decimal(0) if not isinstance(exponent, int) or exponent >= 0 else Decimal(10) ** exponent


def _agrees(value: Any, printed: Decimal) -> Any:
    return np.abs(value - float(printed)) < max(float(_unit(printed)), 1e-9) - 1e-12


def accuracy_se(accuracy: float, slices: Sequence[int]) -> float:
    """Return the SE of an accuracy that is the mean over tasks of so many slices each (E25)."""
    variance = sum(accuracy * (1 - accuracy) / n for n in slices)
    return float(np.sqrt(variance) / len(slices))


def noise_factor(variance: float, noise: float, *, both: bool = True) -> float:
    """Return what independent noise leaves of the r of two images of equal variance.

    ``v / (v + noise)`` with noise on both, its square root with noise on one: it scales every r by
    the same factor, and so cannot tell slices apart (E25).
    """
    left = variance / (variance + noise)
    return float(left if both else np.sqrt(left))


# -- what holds between rows


def task(row: Row, which: int) -> dict[str, Decimal]:
    """Return the numbers of one task, 1 or 2, of a row of a test table."""
    end = f".{which}"
    return {name.removesuffix(end): x for name, x in row.items() if name.endswith(end)}


def overall(row: Row) -> float:
    """Return the mean F1 of both tasks: what "F1 over all" is in all rows but one (E16)."""
    return float(row["f1.1"] + row["f1.2"]) / 2


def repeated(tables: Mapping[str, Table]) -> list[tuple[tuple[str, str, int], ...]]:
    """Return test rows of one task that are equal in every digit, across papers (E17).

    Returns
    -------
    list of tuples of (paper, row, task)
        Each tuple holds two rows or more.
    """
    groups: dict[tuple[Decimal, ...], list[tuple[str, str, int]]] = {}
    for which in (1, 2):
        for paper, table in tables.items():
            for name, row in table.items():
                key = (Decimal(which), *task(row, which).values())
                groups.setdefault(key, []).append((paper, name, which))
    return [tuple(group) for group in groups.values() if len(group) > 1]


def best(table: Table, metric: str) -> tuple[str, Decimal]:
    """Return the row of the largest number in a column, and that number (E19)."""
    name = max(table, key=lambda row: table[row][metric])
    return name, table[name][metric]


PARTS, WHOLE = ("generated-used", "generated-not_used"), "generated-real"


def broken_rules(
    table: Mapping[str, Mapping[str, Any]], unit: float = 1e-9, tail: float = 0.0
) -> list[str]:
    """Return what cannot be in a table of SSIM by subset: an empty list if all agrees (E12).

    Parameters
    ----------
    table : mapping
        Subset -> ``mean``, ``min``, ``max``, and ``pairs``, without which all subsets count alike.
    unit : float
        How far a number may be off.
    tail : float
        How much further a mean of means may be off.

    Returns
    -------
    list of str
        Which rule is broken, and by which subset.
    """
    out = [
        f"{name}: SSIM lies in [-1, 1]"
        for name, row in table.items()
        if max(abs(float(row["min"])), abs(float(row["max"]))) > 1 + unit
    ]
    if not {*PARTS, WHOLE} <= table.keys():
        return out
    parts, whole = [table[name] for name in PARTS], table[WHOLE]
    if abs(float(whole["mean"]) - mean_of_parts(parts)) > unit + tail:
        out.append(f"{WHOLE}: the mean is that of its parts, weighted by pairs")
    ends: tuple[tuple[str, Callable[[Iterable[float]], float]], ...] = (("min", min), ("max", max))
    for end, of in ends:
        if abs(float(whole[end]) - of(float(part[end]) for part in parts)) > unit:
            out.append(f"{WHOLE}: the {end} is that of its parts")
    return out


def mean_of_parts(parts: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean over parts of a set, each counted by its ``pairs``, or all alike."""
    pairs = [float(part.get("pairs", 1)) for part in parts]
    return float(np.average([float(part["mean"]) for part in parts], weights=pairs))


# -- for the page


def collect() -> dict[str, Any]:
    """Return all tables, and what follows from their rows: paper -> table -> row -> name -> value.

    Printed numbers are texts, with the digits of print; others are floats or integers.
    """
    tables: dict[str, dict[str, Table]] = {
        "paper001": {
            **{f"table1.{k}": t for k, t in SSIM3.items()},
            **{f"table2.{k}": t for k, t in SIMILARITY_DEV.items()},
            "table3": SIMILARITY_TEST,
        },
        "paper002": {"table3": EMBEDDING_DEV, "table4": EMBEDDING_TEST},
        "paper003": {"table2": TEXTURE_DEV, "table3": TEXTURE_TEST},
    }
    out: dict[str, Any] = {
        paper: {name: {row: _told(cells) for row, cells in t.items()} for name, t in of.items()}
        for paper, of in tables.items()
    }
    for row, cells in TEXTURE_TEST.items():
        (only,) = confusions(cells, TEST_SLICES_003)
        out["paper003"]["table3"][row]["confusion"] = vars(only)
    out["papers"] = {"largest_f1": _largest_test_f1(), "always_f1": always_f1()}
    return out


def _largest_test_f1() -> str:
    """Return the largest F1 over all test data of 001 to 003 that can be right (E16)."""
    right = [row["f1"] for t in (SIMILARITY_TEST, EMBEDDING_TEST) for row in t.values()
             if abs(overall(row) - float(row["f1"])) < 2e-3]  # fmt: skip
    return str(max(*right, *(row["f1"] for row in TEXTURE_TEST.values())))


def _told(row: Row) -> dict[str, Any]:
    """Return a row as printed, and what follows from it."""
    out: dict[str, Any] = {name: str(x) for name, x in row.items()}
    if "f1.1" in row:
        out["overall"] = overall(row)
        for which in (1, 2):
            out[f"kappa.{which}"] = _kappa(task(row, which))
    if "accuracy" in row:
        if possible(row):
            out["kappa"] = _kappa(row)
        implied = from_rates(float(row["recall"]), float(row["specificity"]))
        out |= {f"implied.{name}": x for name, x in implied.items()}
        out["possible"] = possible(row)
    return out


def _kappa(row: Row) -> float:
    return kappa(*(float(row[name]) for name in ("accuracy", "precision", "recall")))
