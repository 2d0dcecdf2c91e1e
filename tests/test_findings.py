"""Every number of a report in one flat dictionary, with a reason beside each that is missing."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from fingerprint.measure import fisher
from fingerprint.measure.findings import collect, exit_code
from fingerprint.measure.rows import Identical, best_r, identical

SCHEMA = json.loads(files("fingerprint.report").joinpath("findings.schema.json").read_text())
NAN = np.nan
R = np.array([
    [0.5, 1.0, 0.7],  # g_0: a copy of a slice of P1
    [0.9, 0.2, 0.3],
    [1.0, 1.0, 0.1],  # g_2: the same image stands in two patients
    [NAN, NAN, NAN],  # g_3: one grey level
    [NAN, 0.6, 0.4],  # c_4: its own patient left out
    [0.8, 1.0, NAN],  # c_5: a control is never a finding
])  # fmt: skip
AT = np.where(np.isnan(R), -1, np.arange(18).reshape(6, 3))


def matrix(r: np.ndarray = R, at: np.ndarray = AT) -> xr.Dataset:
    sets = ["generated"] * 4 + ["control"] * 2
    return xr.Dataset(
        {
            "r": (("stage", "slices", "query", "patient"), np.stack([r, r - 0.1])[None]),
            "slice": (("stage", "slices", "query", "patient"), np.stack([at, at])[None]),
            "histogram": (("histogram_of", "bin"), np.array([[3, 4], [1, 5]])),
        },
        coords={
            "stage": ["raw"], "slices": ["all", "capped"], "patient": ["P0", "P1", "P2"],
            "query": [f"g_{i}" if i < 4 else f"c_{i}" for i in range(6)],
            "query_set": ("query", sets), "histogram_of": ["generated", "control"],
        },
        attrs={"excluded_queries": 1, "excluded_slices": 2},
    )  # fmt: skip


def with_poses(matrix: xr.Dataset, image: np.ndarray | None = None) -> xr.Dataset:
    """Add the stages ``screen`` and ``pose``: best pose of the first two patients only."""
    r = matrix["r"].values[0]
    at = matrix["slice"].values[0]
    refined = np.isfinite(r[0]) & (np.arange(r.shape[2]) < 2)
    if image is None:
        image = np.where(refined, [[[0.8]], [[0.7]], [[0.6]]], np.nan)
    posed = np.where(refined, image[2], np.nan)
    stages = np.stack([r, r, np.stack([posed, posed * np.nan])])
    return xr.Dataset(
        {
            "r": (("stage", "slices", "query", "patient"), stages),
            "slice": (("stage", "slices", "query", "patient"), np.stack([at, at, at])),
            "histogram": (("histogram_of", "bin"), np.array([[3, 4], [1, 5], [2, 5], [2, 4]])),
            "r_image": (("image", "query", "patient"), image),
        },
        coords={
            "stage": ["raw", "screen", "pose"], "slices": ["all", "capped"],
            "patient": matrix["patient"].values, "image": ["raw", "body", "highpass"],
            "query": matrix["query"].values, "query_set": ("query", matrix["query_set"].values),
            "histogram_of": ["generated", "control", "generated.screen", "control.screen"],
        },
        attrs=matrix.attrs | {"stages": {"raw": "", "screen": "", "pose": ""}, "image": "highpass"},
    )  # fmt: skip


GRID = {"angles_deg": [-15.0, 0.0, 15.0], "scales": [0.9, 1.0, 1.1], "shifts_px": [-40.0, 40.0],
        "mirrors": [0], "poses": 36}  # fmt: skip


def run(**changes: Any) -> dict[str, Any]:
    return {
        "run": "ab" * 32, "status": "running", "started": "2026-11-20T10:00:00+00:00",
        "settings": {"q": 0.05, "range": None, "window_hu": [-1000, 1000]},
        "inputs": {"real": {"digest": "d", "key_id": "k", "n": 20, "path": "/secret/path"},
                   "controls": None},
        "versions": {"numpy": "2"}, "hardware": {}, "seeds": {"seed": 1}, "notes": ["look"],
        "phases": {},
    } | changes  # fmt: skip


SUMMARY = {
    "seen": 30, "accepted": 26, "excluded": {"no_age": 1}, "rejected": {"truncated": 2, "bits": 1},
    "men": 2, "women": 1, "bytes_in": 1, "bytes_out": 2, "flags": {}, "notes": ["n"],
    "participants_known": "known",
}  # fmt: skip


def table() -> pd.DataFrame:
    rows = [
        ("g_0", "generated", 1, "P1", 1.0, "x", "x"), ("g_0", "generated", 2, "P2", 0.7, "x", "y"),
        ("g_1", "generated", 1, "P0", 0.9, "z", "y"), ("c_5", "control", 1, "P1", 1.0, "q", "q"),
        ("g_2", "generated", 1, "P0", 1.0, "w", "v"),
    ]  # fmt: skip
    names = ["query", "query_set", "rank", "participant", "r_raw", "query_digest", "slice_digest"]
    return pd.DataFrame(rows, columns=names).assign(scan="S", slice=3, r_pose=None)


def found(**changes: Any) -> dict[str, Any]:
    parts = {
        "matrices": {"real": matrix()},
        "matches": table(),
        "run": run(),
        "summaries": {"real": SUMMARY},
    }
    return collect(**(parts | changes))


def posed(**changes: Any) -> dict[str, Any]:
    """Collect a run that searched poses, with held-out controls: five blocks."""
    settings = {"pose": True, "image": "highpass", "refine_64": 1024, "refine_128": 256}
    settings |= {"angle_deg": 15.0, "scale": 0.1, "shift_px": 40.0}
    inputs = {"real": {"digest": "d", "n": 20}, "generated": {"digest": "g"},
              "controls": {"digest": "c"}}  # fmt: skip
    twins = matrix().isel(query=slice(0, 4))
    blocks = {
        "real": with_poses(matrix()),
        "control": with_poses(matrix(np.minimum(R, 0.8))),
        "generated": with_poses(twins),
    }
    return found(
        **{"matrices": blocks, "run": run(settings=settings, grid=GRID, inputs=inputs)} | changes
    )


def test_identical_images_are_listed_with_slice_and_patient() -> None:
    assert identical(matrix()) == [
        Identical("g_0", 1, "P1"),
        Identical("g_2", 6, "P0"),
        Identical("g_2", 7, "P1"),
    ]


def test_almost_identical_is_not_identical() -> None:
    r = np.where(R == 1, np.nextafter(1, 0), R)
    assert identical(matrix(r)) == []


def test_identical_images_are_counted_by_image_slice_and_patient() -> None:
    f = found()
    assert (f["identical.images"], f["identical.slices"], f["identical.patients"]) == (2, 3, 2)
    assert f["identical.list"][0] == {"query": "g_0", "slice": 1, "participant": "P1"}


def test_exit_code_is_10_for_a_finding_0_for_none_and_never_0_for_an_unfinished_run() -> None:
    assert exit_code(found()) == 10
    assert exit_code(found(matrices={"real": matrix(np.minimum(R, 0.9))})) == 0
    with pytest.raises(ValueError, match="did not finish"):
        exit_code(found(matrices={}))


def test_best_r_is_the_maximum_over_patients_and_nan_where_excluded() -> None:
    assert best_r(matrix(), "generated")[:3].tolist() == [1.0, 0.9, 1.0]
    assert np.isnan(best_r(matrix(), "generated")[3])
    assert best_r(matrix(), "control").tolist() == [0.6, 1.0]
    assert best_r(matrix(), "generated", slices="capped")[1] == pytest.approx(0.8)


def test_what_was_searched_is_counted() -> None:
    f = found()
    assert (f["queries.generated"], f["queries.control"], f["queries.excluded"]) == (3, 2, 1)
    assert (f["patients.searched"], f["slices.searched"], f["slices.excluded"]) == (3, 18, 2)
    assert (f["pairs.compared.generated"], f["pairs.compared.control"]) == (7, 6)


def test_table_of_paper_000_is_made_for_every_set() -> None:
    f = found()
    table = fisher.fisher_table([1.0, 0.9, 1.0])
    assert f["table1.generated.n"] == 3
    assert f["table1.generated.identical"] == 2
    assert f["table1.generated.mean_z"] == table.mean_z
    assert f["table1.control.max_r"] == 1.0
    assert f["table1.generated_capped.max_r"] == pytest.approx(0.9)
    assert f["table1.generated.sd_z"] is None  # one image is left that is not identical
    assert "too few" in f["table1.generated.sd_z.reason"]


def test_rarefied_curve_ends_at_the_mean_of_the_best() -> None:
    f = found()
    assert f["rarefied.generated.3"] == pytest.approx(np.mean([1.0, 0.9, 1.0]))
    assert f["rarefied.generated.1"] == pytest.approx(np.nanmean(R[:3]))
    assert f["rarefied.control.2"] == pytest.approx(np.mean([0.6, 1.0]))
    assert "rarefied.control.3" not in f  # no control was compared with three patients


def test_pairs_are_the_best_of_each_generated_image_best_first() -> None:
    f = found()
    assert f["pairs.shown"] == 3
    assert [f[f"pair.{k}.query"] for k in (1, 2, 3)] == ["g_0", "g_2", "g_1"]
    assert f["pair.1.same_pixels"] is True
    assert f["pair.2.same_pixels"] is False  # identical up to brightness and contrast
    assert f["pair.1.z"] is None
    assert f["pair.3.z"] == pytest.approx(np.arctanh(0.9))
    assert "pair.1.r_pose" not in f


def test_data_table_and_codes_are_kept_by_set() -> None:
    f = found(summaries={"real": SUMMARY, "generated": None})
    assert (f["seen.real"], f["excluded.real"], f["rejected.real"]) == (30, 1, 3)
    assert (f["rejected.real.truncated"], f["excluded.real.no_age"]) == (2, 1)
    assert f["seen.real"] == f["accepted.real"] + f["excluded.real"] + f["rejected.real"]
    assert f["seen.generated"] is None


@pytest.mark.parametrize("known", ["clusters", False])
def test_unknown_patients_are_not_counted_as_patients(known: Any) -> None:
    f = found(summaries={"real": SUMMARY | {"participants_known": known}})
    assert f["patients.searched"] is None
    assert f["identical.patients"] is None
    assert "patients unknown" in f["patients.searched.reason"]
    assert f["groups.searched"] == 3
    assert f["identical.images"] == 2


def test_every_missing_number_says_why() -> None:
    empty = {"matrices": {}, "matches": None, "summaries": {}}
    for f in (found(), found(**empty), found(run={}), collect({}, None, {}, {}), posed()):
        missing = [key for key, value in f.items() if value is None]
        assert {"patients.found", "limit.weakest"} <= set(missing)
        assert [key for key in missing if not f.get(f"{key}.reason")] == []
        reasons = [key for key in f if key.endswith(".reason")]
        assert [key for key in reasons if f[key.removesuffix(".reason")] is not None] == []


def test_reason_names_what_to_supply() -> None:
    assert "run the same command again" in found()["patients.found.reason"]  # it was not judged
    same = run(inputs={"real": {"digest": "d", "n": 20}, "generated": {"digest": "d"}})
    assert "compared with itself" in found(run=same)["images.found.reason"]


def test_findings_obey_their_schema_and_are_plain_json() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for f in (
        found(),
        found(matrices={}, matches=None, summaries={}),
        collect({}, None, {}, {}),
        posed(),
    ):
        text = json.dumps(f, allow_nan=False)
        jsonschema.validate(json.loads(text), SCHEMA)


def test_schema_refuses_a_key_that_nobody_described() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found() | {"something.else": 1}, SCHEMA)


def test_no_path_gets_into_the_findings() -> None:
    assert "secret" not in json.dumps(found())


def test_findings_are_the_same_for_the_same_run() -> None:
    assert json.dumps(found()) == json.dumps(found())


def test_a_run_without_controls_says_so() -> None:
    only = matrix().isel(query=slice(0, 4))
    f = found(matrices={"real": only})
    assert f["queries.control"] is None
    assert f["table1.control.n"] is None
    assert "give CONTROLS" in f["table1.control.n.reason"]


# -- poses and blocks


def test_poses_that_were_searched_are_counted() -> None:
    f = posed()
    assert (f["pose.poses"], f["pose.mirrored"], f["pose.image"]) == (36, False, "highpass")
    assert f["pose.angle_deg"] == [-15, 15]
    assert f["pose.scale"] == [0.9, 1.1]
    assert (f["pose.shift_px"], f["pose.shift_px.steps"]) == ([-40, 40], 2)
    assert (f["pose.refined_64"], f["pose.refined_128"]) == (1024, 256)
    assert f["pose.pairs_screened.generated"] == 7
    assert f["pose.pairs_screened.control"] == 6
    assert f["pose.pairs_refined.generated"] == 6  # 3 images x 2 patients
    assert f["pose.pairs_refined.control"] == 3  # one has its own patient left out


def test_best_r_at_best_pose_stands_beside_that_as_stored() -> None:
    f = posed()
    assert f["table1.generated_pose.n"] == 3
    assert f["table1.generated_pose.max_r"] == 0.8
    assert f["table1.generated_pose_body.mean_r"] == pytest.approx(0.7)
    assert f["table1.generated_pose_highpass.mean_r"] == pytest.approx(0.6)
    assert f["table1.control_pose.n"] == 2
    assert f["table1.generated.max_r"] == 1.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"settings": {"pose": False}}, "pose = false in the settings"),
        ({"inputs": {"real": {"digest": "d", "n": 20}, "generated": {"digest": "d"}}}, "itself"),
        ({"settings": {"pose": True}}, "did not finish"),
    ],
)
def test_where_no_pose_was_searched_the_reason_is_given(changes: Any, reason: str) -> None:
    f = found(run=run(**changes))
    for key in ("pose.poses", "table1.generated_pose.n", "table1.generated_pose_highpass.n"):
        assert f[key] is None
        assert reason in f[f"{key}.reason"]


def test_five_blocks_are_told_apart() -> None:
    f = posed()
    for name in ("generated", "control", "generated_control", "control_control"):
        assert f[f"table1.{name}.n"] == (3 if name.startswith("generated") else 2)
        assert f[f"table1.{name}_pose.n"] == f[f"table1.{name}.n"]
    assert f["table1.generated_control.max_r"] == 0.8
    assert f["pairs.compared.generated_control"] == 7
    assert f["table1.generated_generated.n"] == 3
    assert f["duplicates.identical_images"] == 2


def test_blocks_that_were_not_compared_say_what_to_supply() -> None:
    f = found(matrices={"real": matrix(), "generated": matrix().isel(query=slice(0, 4))})
    for name in ("generated_control", "control_control"):
        assert "give CONTROLS" in f[f"table1.{name}.n.reason"]
        assert "held-out" in f[f"table1.{name}.n.reason"]
    assert f["duplicates.identical_images"] == 2
    one = matrix().isel(query=slice(0, 1))
    assert "no other generated image" in found(matrices={"real": one})[
        "duplicates.identical_images.reason"
    ]  # fmt: skip
    given = run(inputs={"real": {"n": 20}, "controls": {"digest": "c"}})
    assert "did not finish" in found(run=given)["table1.control_control.n.reason"]


def test_a_corpus_against_itself_has_numbers_without_a_matrix() -> None:
    r, at = np.array([[0.9, 0.5], [1.0, 0.2], [np.nan] * 2]), np.array([[5, 6], [7, 8], [-1, -1]])
    who = np.array([[1, 2], [0, 2], [-1, -1]])
    dims = ("stage", "slices", "query", "rank")
    itself = xr.Dataset(
        {name: (dims, x[None, None]) for name, x in (("r", r), ("slice", at), ("who", who))}
        | {"histogram": (("histogram_of", "bin"), np.array([[3, 4]]))},
        coords={
            "stage": ["raw"], "slices": ["all"], "patient": ["P0", "P1", "P2"],
            "query": ["g_0", "g_1", "g_2"], "query_set": ("query", ["generated"] * 3),
            "histogram_of": ["generated"],
        },
        attrs={"stages": {"raw": ""}},
    )  # fmt: skip
    f = found(matrices={"real": itself})
    assert f["identical.list"] == [{"query": "g_1", "slice": 7, "participant": "P0"}]
    assert (f["queries.generated"], f["patients.searched"]) == (2, 3)
    assert f["table1.generated.mean_r"] == pytest.approx(0.95)
    for key in ("pose.poses", "duplicates.identical_images", "table1.generated_pose.n"):
        assert "itself" in f[f"{key}.reason"]
    assert not [key for key in f if key.startswith("rarefied.")]
    jsonschema.validate(json.loads(json.dumps(f, allow_nan=False)), SCHEMA)


def test_pairs_stand_in_the_order_of_the_primary_image_identical_first() -> None:
    rows = table().assign(list=None, r_highpass=[0.3, 0.9, 0.7, 0.5, 0.2])
    rows = rows.assign(r_pose=[0.9, 0.1, 0.8, 0.5, 0.9], mirrored=True, angle_deg=7.5)
    new = pd.DataFrame({"query": [f"g_{k}" for k in (7, 8, 9)], "r_raw": [0.99, 0.2, 0.1],
                        "r_highpass": [0.1, 0.8, np.nan]})  # fmt: skip
    new = new.assign(**{c: rows.iloc[2][c] for c in rows.columns if c not in new.columns})
    f = posed(matches=pd.concat([rows, new], ignore_index=True))
    order = [f[f"pair.{k}.query"] for k in range(1, 7)]
    assert order == ["g_0", "g_2", "g_8", "g_1", "g_7", "g_9"]
    assert (f["pair.1.r_highpass"], f["pair.1.angle_deg"], f["pair.1.mirrored"]) == (0.3, 7.5, True)
    raw = posed(matches=rows, run=run(settings={"image": "raw"}))
    assert [raw[f"pair.{k}.query"] for k in (1, 2, 3)] == ["g_0", "g_2", "g_1"]


def test_a_high_r_at_best_pose_is_no_finding() -> None:
    low = matrix(np.minimum(R, 0.9))
    image = np.where(np.isfinite(R), np.ones((3, 1, 1)), np.nan)
    f = posed(matrices={"real": with_poses(low, image)})
    assert f["table1.generated_pose.max_r"] == 1.0
    assert (f["identical.images"], exit_code(f)) == (0, 0)


@pytest.mark.parametrize("cells", [1, 4, 7, 2**22])
def test_bands_do_not_change_a_number(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = posed()
    monkeypatch.setattr("fingerprint.measure.rows.CELLS", cells)
    assert json.dumps(posed()) == json.dumps(whole)
