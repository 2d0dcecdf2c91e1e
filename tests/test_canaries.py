"""Planted copies: which are chosen, and what the detection limit says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fingerprint.measure.limit import limits
from fingerprint.phantom import canaries, plant
from fingerprint.phantom.canaries import GRADES, Canary, chosen, made

PATIENT = np.repeat([f"P{k}" for k in range(30)], 8)
REGION = np.tile(["c1", "c2"], 120)
CELLS = list(canaries.cells())


def test_every_kind_and_grade_has_as_many_canaries_of_as_many_patients():
    planted = chosen(PATIENT, REGION, np.array(["c1", "c2"]), 10, seed=1)
    by_cell = pd.DataFrame(planted).groupby(["kind", "level"], sort=False)["source"]
    assert list(by_cell.groups) == CELLS
    for _, sources in by_cell:
        assert len(sources) == 10
        assert len(np.unique(PATIENT[sources])) == 10


def test_the_stranger_is_of_another_patient_and_seeds_differ():
    planted = chosen(PATIENT, REGION, np.array(["c1"]), 3, seed=1)
    assert all(PATIENT[one.source] != PATIENT[one.stranger] for one in planted)
    assert len({one.seed for one in planted}) == len(planted)
    assert planted == chosen(PATIENT, REGION, np.array(["c1"]), 3, seed=1)
    assert planted != chosen(PATIENT, REGION, np.array(["c1"]), 3, seed=2)


def test_a_small_corpus_is_copied_more_than_once_and_one_patient_never():
    few = chosen(np.array(["P0", "P1"]), np.array(["", ""]), np.array([""]), 2, seed=1)
    assert len(few) == 2 * len(CELLS)
    assert chosen(np.array(["P0", "P0"]), np.array(["", ""]), np.array([""]), 2, seed=1) == []


def test_levels_in_pixels_are_those_of_a_512_image():
    image = np.random.default_rng(1).integers(0, 256, (128, 128), dtype=np.uint8)
    blurred = made(Canary("blur", 4.0, 0, 1, 7), image, image[::-1])
    np.testing.assert_array_equal(blurred, plant(image, "blur", 1.0, seed=7))
    noisy = made(Canary("noise", 8.0, 0, 1, 7), image, image[::-1])
    np.testing.assert_array_equal(noisy, plant(image, "noise", 8.0, seed=7))


# -- the limit


def planted(kind: str, found: dict[float, int], n: int = 10, p: float = 1e-6) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "kind": kind,
                "level": level,
                "source": "P1",
                "participant": "P1" if k < hits else "P2",
                "identical": False,
                "p_value": p,
            }
            for level, hits in found.items()
            for k in range(n)
        ]
    )


def test_the_limit_is_the_weakest_grade_that_is_found_every_time():
    one = limits(planted("noise", {8.0: 10, 16.0: 10, 32.0: 9}), 1e-3, "")["noise"]
    assert one.weakest.level == 16.0
    assert one.weakest.bound == pytest.approx(0.741, abs=5e-4)
    assert [(c.found, c.first) for c in one.cells] == [(10, 10), (10, 10), (9, 9)]


def test_a_grade_below_one_that_was_missed_is_no_limit():
    one = limits(planted("noise", {8.0: 9, 16.0: 10}), 1e-3, "")["noise"]
    assert one.weakest is None
    assert one.why == "not found: 9 of 10 at the easiest grade"


def test_a_p_above_the_level_of_a_single_finding_is_not_found():
    one = limits(planted("noise", {8.0: 10}, p=2e-3), 1e-3, "")["noise"]
    assert one.weakest is None
    assert one.cells[0].first == 10


def test_too_few_canaries_and_too_few_controls_say_so():
    assert "too few canaries: 9" in limits(planted("blur", {1.0: 9}, n=9), 1e-3, "")["blur"].why
    none = planted("blur", {1.0: 10}, p=np.nan)
    assert limits(none, 1e-3, "ten are needed")["blur"].why == "too few controls: ten are needed"


def test_an_exact_copy_is_found_by_its_pixels_without_any_control():
    exact = planted("exact", {0.0: 10}, p=np.nan).assign(identical=True)
    assert limits(exact, 1e-3, "no tail")["exact"].weakest.found == 10


def test_twenty_nine_of_twenty_nine_have_the_bound_of_the_method():
    one = limits(planted("pose", {0.25: 29}, n=29), 1e-3, "")["pose"]
    assert one.weakest.bound == pytest.approx(0.902, abs=5e-4)


def test_grades_go_from_easy_to_hard():
    assert GRADES["noise"] == tuple(sorted(GRADES["noise"]))
    assert GRADES["tile"] == tuple(sorted(GRADES["tile"], reverse=True))
