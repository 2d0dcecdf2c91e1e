"""Papers 001 to 003: what their tables say, and pins E01, E12 and E15 to E25, named by their id.

E21 is in test_mae.py, E26 in test_texture.py.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.measure import classify, papers
from fingerprint.measure.classify import Confusion

TESTS = {"001": papers.SIMILARITY_TEST, "002": papers.EMBEDDING_TEST}
ROWS = [(p, row, k) for p, t in TESTS.items() for row in t for k in (1, 2)]


def numbers(row: papers.Row, *names: str) -> list[float]:
    return [float(row[name]) for name in names]


def all_confusions(row: papers.Row, n: int) -> list[tuple[int, int, int, int]]:
    """Try every confusion matrix of n slices, one by one."""
    out = []
    for used in range(1, n):
        for tp in range(used + 1):
            for fp in range(n - used + 1):
                fn, tn = used - tp, n - used - fp
                had: dict[str, float] = {
                    "accuracy": (tp + tn) / n,
                    "recall": tp / used,
                    "specificity": tn / (n - used),
                }
                if tp + fp:
                    had["precision"] = tp / (tp + fp)
                had["f1"] = 2 * tp / (2 * tp + fp + fn)
                digits = {k: -int(x.as_tuple().exponent) for k, x in row.items()}
                if all(
                    k in had and abs(had[k] - float(x)) < 10 ** -digits[k] - 1e-12
                    for k, x in row.items()
                ):
                    out.append((tp, fp, tn, fn))
    return out


# -- the formulas


def test_f1_is_twice_what_the_papers_print_e01() -> None:
    assert papers.f1(0.663, 0.713) == pytest.approx(0.687, abs=5e-4)
    assert papers.f1_in_print(0.663, 0.713) == pytest.approx(0.344, abs=5e-4)
    assert papers.SIMILARITY_DEV["without"]["Euclidean"]["f1"] == Decimal(".687")


@given(*[st.integers(1, 50)] * 4)
def test_printed_rates_give_back_what_made_them(tp: int, fp: int, tn: int, fn: int) -> None:
    c = Confusion(tp, fp, tn, fn)
    acc, p, r, spec = (float(classify.OF_ANSWERS[m](c)) for m in
                       ("accuracy", "precision", "recall", "specificity"))  # fmt: skip
    share = (tp + fn) / (tp + fp + tn + fn)
    if not math.isclose(1 - 2 * r + r / p, 0, abs_tol=1e-9):
        assert papers.prevalence(acc, p, r) == pytest.approx(share)
        assert papers.kappa(acc, p, r) == pytest.approx(float(classify.kappa(c)), abs=1e-9)
    implied = papers.from_rates(r, spec, share)
    assert implied["accuracy"] == pytest.approx(acc)
    assert implied["precision"] == pytest.approx(p)
    assert implied["f1"] == pytest.approx(float(classify.f1(c)))


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_printed_matrix_is_among_those_recovered(used: int, other: int, data: Any) -> None:
    tp, fp = data.draw(st.integers(1, used)), data.draw(st.integers(0, other))
    c = Confusion(tp, fp, other - fp, used - tp)
    printed = {m: Decimal(f"{float(classify.OF_ANSWERS[m](c)):.3f}")
               for m in ("accuracy", "precision", "recall", "f1")}  # fmt: skip
    assert c in papers.confusions(printed, used + other)
    assert c in papers.confusions(printed, used + other, used)


@pytest.mark.parametrize("row", [
    {"accuracy": Decimal(".54"), "recall": Decimal(".77"), "precision": Decimal(".52")},
    {"specificity": Decimal(".31"), "recall": Decimal(".50"), "f1": Decimal(".400")},
])  # fmt: skip
def test_recovered_matrices_are_those_of_a_loop_over_all(row: papers.Row) -> None:
    found = [(c.tp, c.fp, c.tn, c.fn) for c in papers.confusions(row, 24)]
    assert sorted(found) == sorted(all_confusions(row, 24))


def test_numbers_that_no_matrix_gives_recover_none() -> None:
    row = {"accuracy": Decimal(".900"), "recall": Decimal(".100"), "specificity": Decimal(".100")}
    assert papers.confusions(row, 100) == []


def test_what_cannot_be_recovered_is_refused() -> None:
    with pytest.raises(ValueError, match="confusions: n must be at least 2, got 1"):
        papers.confusions({"recall": Decimal(".5")}, 1)
    with pytest.raises(ValueError, match="confusions: row must have recall, got accuracy"):
        papers.confusions({"accuracy": Decimal(".5")}, 10)


def test_noise_scales_every_correlation_by_one_factor() -> None:
    rng = np.random.default_rng(3)
    shared, *own = rng.normal(0, 1, (3, 400_000))
    x, y = (math.sqrt(0.8) * shared + math.sqrt(0.2) * part for part in own)
    noise = rng.normal(0, math.sqrt(0.3), (2, 400_000))
    both = np.corrcoef(x + noise[0], y + noise[1])[0, 1] / np.corrcoef(x, y)[0, 1]
    one = np.corrcoef(x + noise[0], y)[0, 1] / np.corrcoef(x, y)[0, 1]
    # SE of r at n = 400,000 is below 0.0012
    assert both == pytest.approx(papers.noise_factor(1, 0.3), abs=0.005)
    assert one == pytest.approx(papers.noise_factor(1, 0.3, both=False), abs=0.005)


# -- the pins


def made(shares: tuple[int, int] = (100, 100)) -> dict[str, dict[str, float]]:
    """Return a table of SSIM by subset, from values that are drawn."""
    rng = np.random.default_rng(5)
    used, other = (rng.uniform(low, 0.8, n) for low, n in zip((0.3, 0.1), shares, strict=True))
    subsets = {"generated-used": used, "generated-not_used": other,
               "generated-real": np.concatenate([used, other])}  # fmt: skip
    return {
        name: {"mean": x.mean(), "min": x.min(), "max": x.max(), "pairs": len(x)}
        for name, x in subsets.items()
    }


@pytest.mark.parametrize("shares", [(100, 100), (10, 90)])
def test_parts_and_whole_agree_in_a_table_of_ours_e12(shares: tuple[int, int]) -> None:
    assert papers.broken_rules(made(shares)) == []
    assert papers.broken_rules({"generated-real": {"mean": 0.1, "min": -1, "max": 1}}) == []


def test_table_1_of_001_breaks_three_rules_e12() -> None:
    broken = papers.broken_rules(papers.SSIM3["dev"], unit=0.1)
    assert [line for line in broken if "[-1, 1]" in line] == broken[:4]
    assert broken[4:] == [
        "generated-real: the mean is that of its parts, weighted by pairs",
        "generated-real: the min is that of its parts",
    ]
    parts = [papers.SSIM3["dev"][name] for name in papers.PARTS]
    assert papers.mean_of_parts(parts) == pytest.approx(14.3)
    assert papers.SSIM3["dev"]["generated-real"]["mean"] == Decimal("13.4")
    assert all("generated-generated" not in table for table in papers.SSIM3.values())


@pytest.mark.parametrize("end", ["mean", "min", "max"])
def test_a_table_that_was_changed_breaks_its_rule_e12(end: str) -> None:
    table = made()
    table["generated-real"][end] += 0.01
    (rule,) = papers.broken_rules(table)
    assert f"the {end} is that of its parts" in rule


def test_accuracy_outside_recall_and_specificity_is_impossible_e15() -> None:
    rows = {(a, n): r for a, t in papers.SIMILARITY_DEV.items() for n, r in t.items()}
    assert [at for at, row in rows.items() if not papers.possible(row)] == [("without", "SSIM")]
    ssim = papers.from_rates(*numbers(rows["without", "SSIM"], "recall", "specificity"))
    assert ssim == pytest.approx({"accuracy": 0.6955, "precision": 0.698, "f1": 0.6935}, abs=5e-4)
    cosine = papers.from_rates(*numbers(rows["gaussian", "cosine"], "recall", "specificity"))
    assert cosine == pytest.approx({"accuracy": 0.708, "precision": 0.713, "f1": 0.704}, abs=5e-4)


def test_the_abstract_of_001_is_in_no_table_e15() -> None:
    rows = [row for table in papers.SIMILARITY_DEV.values() for row in table.values()]
    assert papers.ABSTRACT_001["f1"] not in [row["f1"] for row in rows]
    assert papers.ABSTRACT_001["accuracy"] not in [row["accuracy"] for row in rows]


def test_the_overall_f1_of_cosine_is_a_cell_of_another_row_e16() -> None:
    off = [
        (paper, name)
        for paper, table in TESTS.items()
        for name, row in table.items()
        if abs(papers.overall(row) - float(row["f1"])) > 1e-3
    ]
    assert off == [("001", "cosine")]
    row = papers.SIMILARITY_TEST["cosine"]
    assert papers.overall(row) == pytest.approx(0.529)
    assert row["f1"] == papers.SIMILARITY_TEST["SSIM"]["accuracy.1"] == Decimal(".614")


def test_rows_that_two_teams_share_are_found_e17() -> None:
    assert papers.repeated(TESTS) == [
        (("001", "Euclidean", 1), ("002", "MobileNetV2", 1), ("002", "EfficientNet", 1)),
        (("001", "cosine", 1), ("002", "MAE", 1)),
        (("002", "VGG", 1), ("002", "InceptionNet", 1)),
        (("002", "ResNet50", 1), ("002", "MobileNetV3", 1)),
        (("001", "Euclidean", 2), ("002", "ResNet50", 2), ("002", "MAE", 2)),
        (("001", "cosine", 2), ("002", "MobileNetV3", 2), ("002", "EfficientNet", 2)),
    ]


@pytest.mark.parametrize(("paper", "name", "which"), ROWS)
def test_every_test_row_is_one_of_4000_real_slices_half_of_them_used_e18(
    paper: str, name: str, which: int
) -> None:
    row = papers.task(TESTS[paper][name], which)
    assert papers.confusions(row, papers.TEST_SLICES, papers.TEST_SLICES // 2)


def test_mae_is_best_in_accuracy_and_f1_alone_e19() -> None:
    found = {metric: papers.best(papers.EMBEDDING_DEV, metric) for metric in papers.RATES.split()}
    assert [metric for metric, (name, _) in found.items() if name == "MAE"] == ["accuracy", "f1"]
    assert found["precision"] == ("ResNet101", Decimal(".873"))
    assert found["specificity"] == ("EfficientNet", Decimal(".815"))
    assert found["recall"] == ("InceptionNet", Decimal(".850"))


def test_the_best_f1_of_002_is_an_accuracy_e19() -> None:
    assert papers.best(papers.EMBEDDING_TEST, "f1") == ("MAE", Decimal(".603"))
    assert papers.EMBEDDING_TEST["MAE"]["accuracy.1"] == papers.BEST_002


def test_three_rows_of_table_3_of_002_are_impossible_e20() -> None:
    table = papers.EMBEDDING_DEV
    assert [n for n, row in table.items() if not papers.possible(row)] == ["VGG", "ResNet50", "MAE"]
    right = {"EfficientNet": (0.725, 0.582), "ResNet101": (0.720, 0.579)}
    for name, (p, f) in right.items():
        implied = papers.from_rates(*numbers(table[name], "recall", "specificity"))
        assert (implied["precision"], implied["f1"]) == pytest.approx((p, f), abs=6e-4)
        assert float(table[name]["precision"]) > p + 0.02


@pytest.mark.parametrize(("paper", "name", "which"), ROWS)
def test_prevalence_of_every_test_row_is_one_half_e22(paper: str, name: str, which: int) -> None:
    row = papers.task(TESTS[paper][name], which)
    share = papers.prevalence(*numbers(row, "accuracy", "precision", "recall"))
    assert 0.4994 < share < 0.501


@pytest.mark.parametrize(("name", "matrix", "kappa"), [
    ("LBP", (77, 69, 31, 23), 0.08), ("VGG-16", (75, 81, 19, 25), -0.06),
])  # fmt: skip
def test_the_confusion_matrices_of_003_are_recovered_e22(
    name: str, matrix: tuple[int, ...], kappa: float
) -> None:
    (only,) = papers.confusions(papers.TEXTURE_TEST[name], papers.TEST_SLICES_003)
    assert (only.tp, only.fp, only.tn, only.fn) == matrix
    assert only.tp + only.fn == 100
    assert float(classify.kappa(only)) == pytest.approx(kappa)


def test_always_used_is_above_every_test_f1_e23() -> None:
    always = papers.always_f1()
    assert always == pytest.approx(2 / 3)
    printed = [x for t in TESTS.values() for row in t.values()
               for name, x in row.items() if name.startswith("f1")]  # fmt: skip
    printed += [row["f1"] for row in papers.TEXTURE_TEST.values()]
    assert float(max(printed)) < always
    assert papers.collect()["papers"] == {"largest_f1": "0.626", "always_f1": always}


def test_f1_hides_what_kappa_shows_e23() -> None:
    row = papers.task(papers.SIMILARITY_TEST["cosine"], 1)
    assert row["accuracy"] == Decimal(".711")
    assert row["f1"] == Decimal(".651")
    kappa = papers.kappa(*numbers(row, "accuracy", "precision", "recall"))
    assert kappa == pytest.approx(0.42, abs=5e-3)


@pytest.mark.parametrize(("tn", "right"), [(13, 0.705), (14, 0.708)])
def test_the_best_dev_f1_of_003_cannot_be_e24(tn: int, right: float) -> None:
    row = papers.TEXTURE_DEV["RBF, VGG-16"]
    half = papers.DEV_SLICES_003 // 2
    without = {name: x for name, x in row.items() if name != "f1"}
    c = Confusion(half, half - tn, tn, 0)
    assert c in papers.confusions(without, papers.DEV_SLICES_003, half)
    assert float(classify.f1(c)) == pytest.approx(right, abs=5e-4)
    assert papers.confusions(row, papers.DEV_SLICES_003, half) == []


@pytest.mark.parametrize("name", ["linear, LBP", "linear, VGG-16"])
def test_the_linear_rows_of_003_are_the_constant_predictor_e24(name: str) -> None:
    half = papers.DEV_SLICES_003 // 2
    row = papers.TEXTURE_DEV[name]
    assert papers.confusions(row, 2 * half, half) == [Confusion(half, half, 0, 0)]


def test_noise_moved_f1_both_ways_within_what_chance_moves_e25() -> None:
    moved = {
        metric: [
            papers.SIMILARITY_DEV["gaussian"][name][metric] - row[metric]
            for name, row in papers.SIMILARITY_DEV["without"].items()
        ]
        for metric in ("f1", "accuracy")
    }
    assert moved["f1"] == [Decimal("-.037"), Decimal(".030"), Decimal(".022")]
    assert moved["accuracy"] == [Decimal("-.025"), Decimal(".092"), Decimal(".053")]
    # half of the development slices: 100 of task 1, 3,000 of task 2
    assert papers.accuracy_se(0.65, (100, 3000)) == pytest.approx(0.025, abs=1e-3)


# -- as the page shows them


def test_all_tables_are_collected_with_the_digits_of_print() -> None:
    told = papers.collect()
    assert told["paper003"]["table3"]["VGG-16"]["precision"] == "0.4807"
    assert told["paper003"]["table3"]["LBP"]["confusion"] == {
        "tp": 77,
        "fp": 69,
        "tn": 31,
        "fn": 23,
    }
    assert told["paper001"]["table2.without"]["Euclidean"]["accuracy"] == "0.675"
    assert told["paper002"]["table3"]["MAE"]["possible"] is False
    assert [len(told[f"paper00{k}"]) for k in (1, 2, 3)] == [5, 2, 2]
