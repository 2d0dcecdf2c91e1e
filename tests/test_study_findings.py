"""The numbers of a study: what is taken from its audits, and what is said of all sizes together."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy import stats
from studies import cohort, crossed, curve, document, matrices_of, sampling, training

from fingerprint.measure import attribution, study
from fingerprint.measure import findings as audit

SCHEMA = json.loads(files("fingerprint.report").joinpath("study.schema.json").read_text())
NAMES = ("n6", "n60", "n60-s2", "n600")


def audited(found: int | None, *, identical: int = 0, patients: int = 0, p: float = 0.4) -> dict:
    """Return the findings of an audit, as far as a study looks at them."""
    out: dict[str, Any] = {
        "identical.images": identical, "identical.list": [], "images.list": [{"query": "g_1"}],
        "images.any": max(found or 0, identical), "images.found": found, "images.tested": 40,
        "images.share.low": 0.1, "images.share.high": 0.9, "patients.found": patients,
        "set.p_value": p, "set.found": p <= 0.05, "limit.weakest": "exact", "settings.q": 0.05,
        "settings.seed": 1, "versions.python": "3.11", "pair.1.r_raw": 0.9, "pair.2.r_raw": 0.8,
        "side.main.n": 40, "side.main.s_r": 2.0, "side.main.s_r.low": 1.7,
        "side.main.s_r.high": 2.4, "side.control.s_r": 1.5, "side.control.s_r.low": 1.1,
        "side.control.s_r.high": 1.8,
        "pose.poses": 81, "pose.image": "highpass", "rarefied.generated.1": 0.5,
        "rarefied.generated.2": 0.6, "rarefied.control.1": 0.4, "rarefied.control.2": 0.5,
        "table1.generated.mean_z": 1.9, "table1.control.mean_z": 1.6, "distance.n": 40,
    }  # fmt: skip
    if found is None:
        out["images.found.reason"] = "a tail needs 10 control patients, there are 6"
    return out


FOUND = {
    "n6": audited(38, identical=2, patients=3),
    "n60": audited(12),
    "n60-s2": audited(0),
    "n600": audited(0),
}


def points(**findings: Any) -> list[study.Point]:
    """Return a point of each name; its audit is what is given, else that of `FOUND`."""
    given = {name.replace("_", "-"): found for name, found in findings.items()}
    return [
        study.Point(
            name, int(name[1:].split("-")[0]), int("-s2" in name), cohort(name), training(name),
            sampling(), curve(name), given.get(name, FOUND[name]), 754.0,
        )
        for name in NAMES
    ]  # fmt: skip


def collected(**findings: Any) -> dict[str, Any]:
    return study.collect(document(NAMES), points(**findings), matrices_of(crossed()))


def without_a_word(found: dict[str, Any]) -> list[str]:
    """Return the keys that have neither a value nor a reason."""
    return [k for k, v in found.items() if v is None and not found.get(f"{k}.reason")]


def test_findings_obey_the_schema_and_are_plain_json() -> None:
    found = collected()
    jsonschema.validate(found, SCHEMA)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("names", [(), ("n60",), NAMES])
def test_every_missing_value_has_its_reason(names: tuple[str, ...]) -> None:
    found = collected(**{name.replace("-", "_"): None for name in names})
    jsonschema.validate(found, SCHEMA)
    assert without_a_word(found) == []


def test_the_same_study_has_the_same_findings() -> None:
    assert collected() == collected()


def test_an_audit_is_kept_under_its_size_without_settings_lists_and_further_pairs() -> None:
    found = collected()
    assert found["n60.images.found"] == 12
    assert found["n60-s2.images.found"] == 0
    assert found["n60.settings.q"] == 0.05
    assert found["n60.pair.1.r_raw"] == 0.9
    for gone in ("settings.seed", "versions.python", "pair.2.r_raw", "images.list",
                 "identical.list"):  # fmt: skip
        assert f"n60.{gone}" not in found
    assert study.under(found, "n60")["images.found"] == 12
    assert not any(key.startswith("-s2") for key in study.under(found, "n60"))


def test_the_share_of_images_has_its_exact_interval() -> None:
    found = collected()
    told = stats.binomtest(12, 40).proportion_ci(method="exact")
    assert found["n60.flagged"] == 12
    assert found["n60.flagged.share"] == 0.3
    assert np.allclose((found["n60.flagged.low"], found["n60.flagged.high"]), (told.low, told.high))
    assert found["n600.flagged.low"] == 0
    assert found["n600.flagged.high"] == pytest.approx(1 - 0.025 ** (1 / 40))


def test_images_that_were_not_decided_on_have_no_share() -> None:
    found = collected(n600=audited(None))
    assert found["n600.flagged.share"] is None
    assert "10 control patients" in found["n600.flagged.reason"]


def test_excess_is_main_less_control_with_both_intervals() -> None:
    found = collected()
    assert found["n60.excess"] == 0.5
    assert found["n60.excess.low"] == pytest.approx(0.5 - math.hypot(0.3, 0.3))
    assert found["n60.excess.high"] == pytest.approx(0.5 + math.hypot(0.4, 0.4))
    assert found["n60.excess.at"] == "at best pose, highpass image"


def test_joined_intervals_cover_the_difference_of_two_means() -> None:
    rng = np.random.default_rng(5)
    hits, runs = 0, 200
    for _ in range(runs):
        ends = {}
        for side, mean, sd, n in (("main", 2.0, 0.4, 40), ("control", 1.5, 0.2, 25)):
            x = rng.normal(mean, sd, n)
            half = 1.96 * x.std(ddof=1) / np.sqrt(n)
            key = f"side.{side}.s_r"
            ends |= {key: x.mean(), f"{key}.low": x.mean() - half, f"{key}.high": x.mean() + half}
        one = study.measured(study.Point("n6", 6, 0, {}, findings=audited(3) | ends))
        hits += one["excess.low"] <= 0.5 <= one["excess.high"]
    assert abs(hits / runs - 0.95) < 3 * np.sqrt(0.95 * 0.05 / runs)


def test_without_a_judgement_the_excess_is_that_of_table_1_and_has_no_interval() -> None:
    bare = {k: v for k, v in audited(None).items() if not k.startswith("side.")}
    found = collected(n600=bare)
    assert found["n600.excess"] == pytest.approx(0.3)
    assert found["n600.excess.at"] == "as stored"
    assert found["n600.excess.low"] is None


def test_images_that_are_all_identical_have_no_excess_and_say_so() -> None:
    same = audited(40, identical=40) | {"side.main.s_r": None}
    assert "r = 1 has no finite z" in collected(n6=same)["n6.excess.reason"]


# -- all sizes together


def test_a_size_is_copied_if_one_of_its_runs_is() -> None:
    found = collected()
    assert found["study.sizes.found"] == [6, 60]
    assert found["study.sizes.none"] == [600]
    assert (found["study.found_up_to"], found["study.none_from"]) == (60, 600)
    assert (found["study.generators"], found["study.audited"]) == (4, 4)


def test_the_whole_set_alone_is_no_copy_but_never_nothing() -> None:
    found = collected(n600=audited(0, p=0.001))
    assert found["study.sizes.set"] == [600]
    assert found["study.none_from"] is None
    assert study.exit_code(found) == audit.COPIES_FOUND


def test_nothing_is_said_of_sizes_that_were_not_decided_on_or_audited() -> None:
    found = collected(n600=audited(None), n60_s2=None)
    assert found["study.sizes.undecided"] == [600]
    assert found["study.sizes.found"] == [6, 60]
    assert found["study.none_from"] is None
    quiet = collected(n6=audited(0), n60=audited(0), n60_s2=None)
    assert quiet["study.sizes.missing"] == [60]
    assert quiet["study.none_from"] == 600
    assert quiet["study.found_up_to"] is None


def test_a_size_between_that_was_copied_moves_the_end_of_copying() -> None:
    found = collected(n6=audited(0), n60=audited(0), n600=audited(3))
    assert (found["study.found_up_to"], found["study.none_from"]) == (600, None)


def test_sizes_meet_at_the_largest_number_of_patients_that_all_share() -> None:
    more = audited(0) | {"rarefied.generated.5": 0.7, "rarefied.control.5": 0.6}
    assert collected(n600=more)["study.equal_patients"] == 2
    fewer = {k: v for k, v in audited(0).items() if not k.startswith("rarefied.control")}
    assert collected(n600=fewer)["study.equal_patients"] is None


def test_what_chance_adds_to_the_best_rises_with_the_size() -> None:  # E13
    found = collected()
    e = [found[f"{name}.expected_maximum"] for name in ("n6", "n60", "n600")]
    assert np.round(e, 2).tolist() == [1.27, 2.32, 3.09]


# -- exit code


def test_exit_code_is_that_of_any_audit() -> None:
    assert study.exit_code(collected()) == 10
    quiet = {name.replace("-", "_"): audited(0) for name in NAMES}
    assert study.exit_code(collected(**quiet)) == 0


def test_an_unfinished_study_is_never_nothing_found() -> None:
    quiet = {name.replace("-", "_"): audited(0) for name in NAMES}
    with pytest.raises(ValueError, match="missing: n600"):
        study.exit_code(collected(**quiet | {"n600": None}))
    assert study.exit_code(collected(n600=None)) == 10


# -- training, curve, names


def test_the_last_loss_and_the_whole_time_are_kept() -> None:
    found = collected()
    assert found["n60.training.loss"] == pytest.approx(0.08)
    assert "n60.training.snapshots" not in found
    assert found["n60.seconds"] == 5400 + 754
    assert found["n60.seconds.sampling"] is None


def test_copying_begins_at_the_first_state_of_which_images_are_found() -> None:
    found = collected()
    steps = {name: found[f"{name}.curve.begins"] for name in ("n6", "n60", "n600")}
    assert steps == {"n6": 250, "n60": 1000, "n600": None}
    assert "is found" in found["n600.curve.begins.reason"]
    back = study.measured(study.Point("n6", 6, 0, {}, curve=curve("n6")[::-1]))
    assert back["curve.step"] == sorted(back["curve.step"])


def test_images_that_were_brought_have_no_training() -> None:
    one = study.measured(study.Point("n6", 6, 0, {}))
    assert "brought by the user" in one["training.steps.reason"]
    assert "snapshots = 0" in one["curve.step.reason"]


@pytest.mark.parametrize("names", [["60"], ["n60", "n60"], ["study"], ["n060"], ["n60-2"]])
def test_a_name_that_is_no_size_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="n60-s2"):
        study.collect({}, [study.Point(name, 6, 0, {}) for name in names])


def test_a_study_without_anything_has_findings() -> None:
    found = study.collect({}, [])
    jsonschema.validate(found, SCHEMA)
    assert without_a_word(found) == []
    with pytest.raises(ValueError, match="every audit must be done"):
        study.exit_code(found)


# -- Fig. 4


def test_sets_are_told_apart_as_in_the_paper() -> None:  # E11
    F = [list(row) for row in attribution.FIGURE_4]
    found = study.collect({}, [], study.Crossed({"fid": F, "pixels": "too few images"}, 600))
    assert found["figure4.features"] == ["fid"]
    assert found["figure4.fid.p"] == found["paper000.figure4.p"] == 1 / 5040
    for name in ("diagonal_sum", "next_best_sum", "row_hits", "column_hits", "k"):
        assert found[f"figure4.fid.{name}"] == found[f"paper000.figure4.{name}"]
    assert round(found["figure4.fid.next_best_sum"], 1) == 149.2
    assert found["figure4.pixels.matrix.reason"] == "too few images"
    assert found["figure4.slices"] == 600


def test_a_matrix_with_a_hole_is_not_told_apart() -> None:
    found = study.collect({}, [], study.Crossed({"pixels": [[1.0, math.nan], [2.0, 1.0]]}, 6))
    assert found["figure4.pixels.matrix"] is None
    assert "not finite" in found["figure4.pixels.matrix.reason"]


def test_without_further_sets_the_reason_says_what_to_supply() -> None:
    found = study.collect({}, [])
    assert "give sets in the settings" in found["figure4.features.reason"]
