"""The list of matches: who stands where, which slice is named, and what is never left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.measure import pairs, rows
from fingerprint.search import matches

IMAGES = ("raw", "body", "highpass")


class Labels:
    """What a list of matches asks of a corpus."""

    def label(self, name: str) -> np.ndarray:
        return np.array([f"{name}{i}" for i in range(1000)], dtype=object)


REAL: Any = Labels()


def world(
    seed: int, queries: int, patients: int, *, pose: bool = True, primary: str = "highpass"
) -> xr.Dataset:
    """Make a matrix: coarse values, so that ties are everywhere; some r are exactly 1."""
    rng = np.random.default_rng(seed)
    shape = (queries, patients)
    r = rng.integers(-2, 5, shape) / 4.0
    at = rng.permutation(queries * patients).reshape(shape) % 900
    gone = rng.random(shape) < 0.1
    if queries > 2:
        gone[0] = True  # one grey level
    r[gone], at[gone] = np.nan, -1
    stages = ["raw", "screen", "pose"] if pose else ["raw"]
    cube = np.full((len(stages), 2, *shape), np.nan)
    where = np.full(cube.shape, -1)
    cube[0], where[0] = r, at
    more: dict[str, Any] = {}
    if pose:
        refined = (rng.random(shape) < 0.6) & ~gone
        image = np.where(refined, rng.integers(-2, 5, (3, *shape)) / 4.0, np.nan)
        cube[2, 0] = image[IMAGES.index(primary)]
        where[2, 0] = np.where(refined, np.where(r == 1, at, (at + 1) % 900), -1)
        more = {
            "r_image": (("image", "query", "patient"), image),
            "angle_deg": (("query", "patient"), np.where(refined, 7.5, np.nan)),
            "scale": (("query", "patient"), np.where(refined, 1.04, np.nan)),
            "shift_y_px": (("query", "patient"), np.where(refined, 12.0, np.nan)),
            "shift_x_px": (("query", "patient"), np.where(refined, -8.0, np.nan)),
            "mirrored": (("query", "patient"), np.where(refined, 1, -1).astype(np.int8)),
        }
    dims = ("stage", "slices", "query", "patient")
    sets = ["generated"] * ((queries + 1) // 2) + ["control"] * (queries // 2)
    return xr.Dataset(
        {"r": (dims, cube), "slice": (dims, where)} | more,
        coords={
            "stage": stages, "slices": ["all", "capped"],
            "query": [f"g_{i}" for i in range(queries)], "query_set": ("query", sets),
            "patient": [f"P{i}" for i in range(patients)],
        } | ({"image": list(IMAGES)} if pose else {}),
        attrs={"stages": {s: "digest" for s in stages}, "image": primary},
    )  # fmt: skip


def listed(matrix: xr.Dataset, keep: int) -> pd.DataFrame:
    digests = [f"d{i}" for i in range(matrix.sizes["query"])]
    return matches.matches(matrix, digests, REAL, keep)


def naive(matrix: xr.Dataset, keep: int) -> list[tuple[str, int, str, int]]:
    """Sort every patient of every query: identical, then by score, then by raw r, then by slice."""
    out = []
    raw, at = (matrix[name].values[0, 0] for name in ("r", "slice"))
    pose = "pose" in matrix["stage"].values
    best, there = (matrix[name].values[-1, 0] for name in ("r", "slice"))
    for q, query in enumerate(matrix["query"].values):
        found = []
        for p, patient in enumerate(matrix["patient"].values):
            if at[q, p] < 0:
                continue
            same, refined = raw[q, p] == 1, pose and there[q, p] >= 0
            slice_ = there[q, p] if refined and not same else at[q, p]
            score = best[q, p] if refined else 0.0
            found.append(((not same, not refined, -score, -raw[q, p], slice_), str(patient)))
        for place, (key, patient) in enumerate(sorted(found)):
            if place < keep or not key[0]:
                out.append((str(query), place + 1, patient, int(key[-1])))
    return out


@pytest.mark.parametrize("pose", [True, False])
@pytest.mark.parametrize("keep", [1, 3, 50])
def test_the_list_is_that_of_a_full_sort(pose: bool, keep: int) -> None:
    matrix = world(3, 9, 12, pose=pose)
    got = listed(matrix, keep)
    assert list(zip(got["query"], got["rank"], got["participant"], got["slice"], strict=True)) == (
        naive(matrix, keep)
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), queries=st.integers(1, 6), patients=st.integers(1, 8),
    keep=st.integers(1, 9), pose=st.booleans(),
)  # fmt: skip
def test_the_list_is_that_of_a_full_sort_for_any_size(
    seed: int, queries: int, patients: int, keep: int, pose: bool
) -> None:
    matrix = world(seed, queries, patients, pose=pose)
    got = listed(matrix, keep)
    assert list(zip(got["query"], got["rank"], got["participant"], got["slice"], strict=True)) == (
        naive(matrix, keep)
    )


def test_an_identical_image_is_listed_whatever_the_rank_and_the_pose_search_say() -> None:
    matrix = world(1, 4, 30)
    matrix["r"][0, 0, 1, 20:28] = 1.0
    matrix["slice"][0, 0, 1, 20:28] = np.arange(8)
    matrix["r"][2, 0, 1, 20:28], matrix["slice"][2, 0, 1, 20:28] = np.nan, -1
    got = listed(matrix, 3).query("query == 'g_1' and list == 'identical'")
    assert {f"P{p}" for p in range(20, 28)} <= set(got["participant"])
    assert (got["r_raw"] == 1).all()
    assert got["rank"].tolist() == list(range(1, len(got) + 1))


def test_almost_identical_is_not_identical() -> None:
    matrix = world(1, 3, 5)
    matrix["r"][0, 0, 1] = np.nextafter(1, 0)
    assert listed(matrix, 5).query("query == 'g_1'")["list"].isna().all()


def test_a_row_holds_the_scores_of_its_pair_on_every_image() -> None:
    matrix = world(5, 6, 9)
    for _, row in listed(matrix, 9).iterrows():
        one = matrix.sel(query=row["query"], patient=row["participant"])
        raw, posed = (one.sel(stage=s, slices="all") for s in ("raw", "pose"))
        assert row["r_raw"] == raw["r"]
        there = row["slice"] == posed["slice"]
        assert there or row["slice"] == raw["slice"]
        for image, name in pairs.SCORE.items():
            r = float(one["r_image"].sel(image=image)) if there else np.nan
            assert np.isnan(r) if pd.isna(row[name]) else row[name] == r
        assert pd.isna(row["angle_deg"]) != there
        assert row["mirrored"] is pd.NA or bool(row["mirrored"])


def test_scores_of_another_slice_than_the_identical_one_are_not_put_beside_it() -> None:
    matrix = world(5, 3, 4)
    matrix["r"][0, 0, 1, 2], matrix["slice"][0, 0, 1, 2] = 1.0, 17
    matrix["r"][2, 0, 1, 2], matrix["slice"][2, 0, 1, 2] = 0.5, 18
    first = listed(matrix, 4).query("query == 'g_1'").iloc[0]
    assert (first["participant"], first["slice"], first["list"]) == ("P2", 17, "identical")
    assert pd.isna(first[["r_pose", "r_body", "r_highpass", "angle_deg", "mirrored"]]).all()


@pytest.mark.parametrize("at_once", [1, 7, 2**16])
def test_bands_do_not_change_the_list_nor_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    matrix = world(7, 11, 6)
    digests = [f"d{i}" for i in range(11)]
    whole = matches.matches(matrix, digests, REAL, 4)
    monkeypatch.setattr(matches, "AT_ONCE", at_once)
    matches.save_bands(matches.bands(matrix, digests, REAL, 4), tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(matches.load(tmp_path / "m.parquet"), whole)
    again = pd.concat(list(matches.stored(tmp_path / "m.parquet")), ignore_index=True)
    pd.testing.assert_frame_equal(again, whole)
    groups = pq.ParquetFile(tmp_path / "m.parquet").num_row_groups
    assert groups == (11 if at_once < 8 else 1)


def test_no_array_of_a_band_is_larger_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CELLS", 20)
    matrix = world(7, 11, 6)
    assert [band.sizes["query"] for band in rows.bands(matrix)] == [3, 3, 3, 2]
    digests = [f"d{i}" for i in range(11)]
    cut = matches.matches(matrix, digests, REAL, 4)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(cut, matches.matches(matrix, digests, REAL, 4))


def test_images_to_withhold_are_named_once_with_their_best_slice() -> None:
    matrix = world(2, 20, 6)
    got = listed(matrix, 2)
    want = got[(got["list"] == "identical") & (got["query_set"] == "generated")]
    lines = list(matches.to_withhold(got))
    assert [line[0] for line in lines] == list(dict.fromkeys(want["query"]))
    assert len(lines) > 1
    whole = list(matches.to_withhold(got))
    by_query = [line for _, part in got.groupby("query") for line in matches.to_withhold(part)]
    assert sorted(by_query) == sorted(whole)


def itself(queries: int = 6, keep: int = 3) -> xr.Dataset:
    """Make the matrix of a corpus against itself: the best patients of each slice only."""
    rng = np.random.default_rng(0)
    r = -np.sort(-rng.random((queries, keep)), axis=1)
    r[1, 0] = 1.0
    at = rng.permutation(queries * keep).reshape(queries, keep)
    who = np.argsort(rng.random((queries, 5)), axis=1)[:, :keep]
    r[2, 2], at[2, 2], who[2, 2] = np.nan, -1, -1
    dims = ("stage", "slices", "query", "rank")
    arrays = {"r": r, "slice": at, "who": who}
    return xr.Dataset(
        {name: (dims, np.stack([x, x])[None]) for name, x in arrays.items()},
        coords={
            "stage": ["raw"], "slices": ["all", "capped"],
            "query": [f"g_{i}" for i in range(queries)],
            "query_set": ("query", ["generated"] * queries),
            "patient": [f"P{i}" for i in range(5)],
        },
        attrs={"stages": {"raw": "digest"}},
    )  # fmt: skip


def test_a_corpus_against_itself_lists_the_patients_that_were_kept() -> None:
    matrix = itself()
    got = listed(matrix, 2)
    assert got.groupby("query").size().tolist() == [2] * 6
    cell = matrix.sel(stage="raw", slices="all")
    assert got["r_raw"].tolist() == cell["r"].values[:, :2].ravel().tolist()
    who = cell["who"].values[:, :2].ravel()
    assert got["participant"].tolist() == [f"P{i}" for i in who]
    assert got["r_pose"].isna().all()
    assert len(listed(matrix, 9)) == 17  # 6 x 3, and one that is not there
    assert [pair.query for pair in rows.identical(matrix)] == ["g_1"]


def test_the_most_similar_pairs_are_those_of_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = world(11, 40, 6)
    digests = [f"d{i}" for i in range(40)]
    monkeypatch.setattr(matches, "AT_ONCE", 12)
    whole = matches.matches(matrix, digests, REAL, 4)
    matches.save_bands(matches.bands(matrix, digests, REAL, 4), tmp_path / "m.parquet")
    for image in IMAGES:
        want = pairs.most_similar(whole, image).reset_index(drop=True)
        pd.testing.assert_frame_equal(matches.most_similar(tmp_path / "m.parquet", image), want)
        identical = (want["r_raw"] == 1).tolist()
        assert identical == sorted(identical, reverse=True)
        score = want[pairs.SCORE[image]].to_numpy(np.float64, na_value=-9)[sum(identical) :]
        assert (np.diff(score) <= 0).all()


def test_a_search_without_queries_leaves_an_empty_table(tmp_path: Path) -> None:
    matrix = world(1, 4, 5).isel(query=slice(0, 0))
    matches.save_bands(matches.bands(matrix, [], REAL, 4), tmp_path / "m.parquet")
    got = matches.load(tmp_path / "m.parquet")
    assert len(got) == 0
    assert list(got.columns) == list(matches.COLUMNS)
    assert len(matches.most_similar(tmp_path / "m.parquet", "raw")) == 0


def test_columns_whose_step_was_not_run_are_null_never_absent() -> None:
    got = listed(world(1, 4, 5, pose=False), 4)
    assert list(got.columns) == list(matches.COLUMNS)
    assert got[["r_pose", "r_body", "r_highpass", "mirrored", "p_value"]].isna().all(axis=None)
