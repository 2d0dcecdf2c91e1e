"""The stored matrix: one digest for any bands; what is lost is not read as nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from naive import ranking

from fingerprint.ledger import Damaged
from fingerprint.search import correlation, layout
from fingerprint.search.correlation import Ranked, create_from, load, ranked, write_stage
from fingerprint.search.layout import POSES, Labels
from fingerprint.search.tile import Band
from fingerprint.settings import IMAGES

STAGES = ("raw", "screen", "pose")
Q, P = 13, 5


def labels(queries: int = Q, patients: int = P) -> Labels:
    sets = ["generated"] * (queries - 4) + ["control"] * 4
    return Labels(
        [f"q{i}" for i in range(queries)],
        sets,
        [f"p{i}" for i in range(patients)],
        {"queries": 1, "slices": 2},
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of two matrices, cut into chunks of two rows."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 2 * 8 * P)
    path = tmp_path / "correlation.zarr"
    create_from(path, {"real": labels(), "control": labels()}, stages=STAGES, image="highpass")
    return path


def numbers(seed: int = 1, k: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    r = rng.uniform(-1, 1, (k, Q, P))
    at = rng.integers(0, 99, (k, Q, P))
    r[:, 2, 3], at[:, 2, 3] = np.nan, -1
    return {"r": r, "slice": at, "counts": rng.integers(0, 9, (Q, 4096))}


def bands(of: dict[str, np.ndarray], step: int, poses: bool = False) -> Iterator[Band]:
    for name, start, stop in (("generated", 0, Q - 4), ("control", Q - 4, Q)):
        for first in range(start, stop, step):
            rows = slice(first, min(first + step, stop))
            more = {}
            if poses:
                place = np.arange(Q * P, dtype=float).reshape(Q, P)[rows]
                more = {field: place + i for i, field in enumerate(POSES)}
                more["mirrored"] = (place % 2).astype(np.int8)
                more["r_image"] = np.stack([place + 10 * i for i in range(len(IMAGES))])
            yield Band(
                name, rows, of["r"][:, rows], of["slice"][:, rows], of["counts"][rows].sum(0), more
            )


def test_what_is_written_is_read(store: Path) -> None:
    raw, pose = numbers(), numbers(2, k=1)
    write_stage(store, "real", "raw", bands(raw, 3))
    write_stage(store, "real", "pose", bands(pose, 4, poses=True))
    ds = load(store)
    assert ds["stage"].to_numpy().tolist() == ["raw", "pose"]
    np.testing.assert_array_equal(ds["r"].sel(stage="raw"), raw["r"])
    np.testing.assert_array_equal(ds["slice"].sel(stage="raw"), raw["slice"])
    np.testing.assert_array_equal(ds["r"].sel(stage="pose", slices="all"), pose["r"][0])
    assert ds["r"].sel(stage="pose", slices="capped").isnull().all()
    assert (ds["slice"].sel(stage="pose", slices="capped") == -1).all()
    counts = ds["histogram"].sel(histogram_of="control")
    np.testing.assert_array_equal(counts, raw["counts"][Q - 4 :].sum(0))
    assert ds["angle_deg"].to_numpy()[7, 2] == 37
    assert ds["shift_x_px"].to_numpy()[7, 2] == 40
    assert ds["mirrored"].dtype == np.int8
    assert ds["r_image"].sel(image="highpass").to_numpy()[7, 2] == 57
    assert ds["query_set"].to_numpy().tolist() == labels().sets
    assert ds.attrs["image"] == "highpass"
    assert ds.attrs["excluded_slices"] == 2


def test_anyone_opens_it_with_xarray(store: Path) -> None:
    write_stage(store, "control", "raw", bands(numbers(), 3))
    with xr.open_zarr(store, group="control", chunks=None) as ds:
        assert ds["r"].dims == ("stage", "slices", "query", "patient")
        assert ds["r"].sel(query="q2", patient="p3").isnull().all()


@pytest.mark.parametrize("step", [1, 2, 5, 100])
def test_the_digest_does_not_depend_on_bands_or_chunks(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(layout, "CHUNK_BYTES", 1 << 20)
    other = tmp_path / "other.zarr"
    create_from(other, {"real": labels(), "control": labels()}, stages=STAGES, image="raw")
    for path, by in ((store, step), (other, 4)):
        for name in ("real", "control"):
            write_stage(path, name, "raw", bands(numbers(), by))
            write_stage(path, name, "screen", bands(numbers(2), by))
        write_stage(path, "real", "pose", bands(numbers(3, k=1), by, poses=True))
    assert load(store).attrs["digest"] == load(other).attrs["digest"]


def test_the_digest_covers_every_number(store: Path) -> None:
    write_stage(store, "real", "raw", bands(numbers(), 3))
    seen = {load(store).attrs["digest"]}
    for name in ("r", "slice", "counts"):
        changed = numbers()
        changed[name].flat[7] += 1
        write_stage(store, "real", "raw", bands(changed, 3))
        seen.add(load(store).attrs["digest"])
    write_stage(store, "real", "raw", bands(numbers(), 3))
    write_stage(store, "control", "raw", bands(numbers(), 3))
    seen.add(load(store).attrs["digest"])
    write_stage(store, "real", "pose", bands(numbers(), 3, poses=True))
    seen.add(load(store).attrs["digest"])
    assert len(seen) == 6


def test_a_stage_that_is_not_finished_is_not_shown(store: Path) -> None:
    with pytest.raises(ValueError, match="no stage .* run the command again"):
        load(store)
    write_stage(store, "real", "raw", bands(numbers(), 3))

    def cut() -> Iterator[Band]:
        yield from list(bands(numbers(2), 3))[:2]
        raise RuntimeError("the power fails")

    with pytest.raises(RuntimeError, match="power"):
        write_stage(store, "real", "screen", cut())
    assert load(store)["stage"].to_numpy().tolist() == ["raw"]
    write_stage(store, "real", "screen", bands(numbers(2), 3))
    assert load(store)["stage"].to_numpy().tolist() == ["raw", "screen"]
    with pytest.raises(RuntimeError, match="power"):
        write_stage(store, "real", "raw", cut())
    assert load(store)["stage"].to_numpy().tolist() == ["screen"]


def test_creating_again_replaces_the_old_store(store: Path) -> None:
    write_stage(store, "real", "raw", bands(numbers(), 3))
    create_from(store, {"real": labels(6, 2)}, stages=["raw"], image="raw")
    write_stage(store, "real", "raw", [])
    assert dict(load(store).sizes) == {
        "stage": 1, "slices": 2, "query": 6, "patient": 2, "histogram_of": 2, "bin": 4096,
    }  # fmt: skip
    with pytest.raises(FileNotFoundError):
        load(store, "control")
    assert not list(store.parent.glob("*.wip")) + list(store.parent.glob("*.old"))


def test_every_chunk_is_there_from_the_start_and_a_lost_one_is_noticed(store: Path) -> None:
    write_stage(store, "real", "raw", [])
    every = [p for p in store.rglob("*") if p.is_file() and "c" in p.relative_to(store).parts]
    mine = [p for p in every if p.relative_to(store).parts[0] != "control"]
    assert len(mine) > 3 * 2 * 7 * 2
    for chunk in mine:
        data = chunk.read_bytes()
        chunk.unlink()
        with pytest.raises(Damaged, match="lacks stored chunks"):
            load(store)
        chunk.write_bytes(data)
    load(store)


def test_rows_without_any_number_are_not_taken_for_lost(store: Path) -> None:
    empty = {
        "r": np.full((2, Q, P), np.nan),
        "slice": np.full((2, Q, P), -1),
        "counts": np.zeros((Q, 4096), np.int64),
    }
    write_stage(store, "real", "raw", bands(numbers(), 3))
    write_stage(store, "real", "raw", bands(empty, 3))
    assert load(store)["r"].isnull().all()


def test_a_changed_chunk_raises_when_it_is_read(store: Path) -> None:
    write_stage(store, "real", "raw", bands(numbers(), 3))
    chunk = store / "r" / "c" / "0" / "0" / "2" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        load(store)["r"].to_numpy()


def test_a_newer_format_is_refused_and_the_first_one_is_read(store: Path) -> None:
    write_stage(store, "real", "raw", bands(numbers(), 3))
    head = json.loads((store / "zarr.json").read_text())

    def rewrite(**attributes: object) -> None:
        changed = {k: v for k, v in (head["attributes"] | attributes).items() if v is not None}
        (store / "zarr.json").write_text(json.dumps(head | {"attributes": changed}))

    rewrite(fingerprint_format=[2, 0])
    with pytest.raises(ValueError, match=r"install fingerprint >= 2\.0"):
        load(store)
    rewrite(fingerprint_format=[1, 0], stages=None)
    assert load(store).sizes["stage"] == 3


def test_what_is_not_planned_is_refused(store: Path) -> None:
    with pytest.raises(ValueError, match="stage must be one of"):
        correlation.write(store, "real", "elastic", next(bands(numbers(), 3)))
    with pytest.raises(ValueError, match="real first"):
        create_from(store, {"control": labels()}, stages=["raw"], image="raw")


# -- the best patients of every query


def matrix_of(r: np.ndarray, at: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {n: (("stage", "slices", "query", "patient"), v[None, None]) for n, v in
         (("r", r), ("slice", at))},
        coords={"stage": ["raw"], "slices": ["all"]},
    )  # fmt: skip


def as_rows(found: Ranked) -> list[list[tuple[float, int, int]]]:
    every = zip(found.r.tolist(), found.slice.tolist(), found.patient.tolist(), strict=True)
    return [[x for x in zip(*row, strict=True) if x[1] >= 0] for row in every]


@examples(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 200), keep=st.integers(1, 12))
def test_ranks_equal_a_full_sort_ties_included(seed: int, n: int, keep: int) -> None:
    rng = np.random.default_rng(seed)
    r = rng.integers(-2, 3, (70, n)) / 2.0
    at = np.stack([rng.permutation(n) for _ in range(70)])
    gone = rng.random((70, n)) < 0.2
    r[gone], at[gone] = np.nan, -1
    found = ranked(matrix_of(r, at), stage="raw", keep=keep)
    want = [ranking(row.tolist(), where.tolist(), keep) for row, where in zip(r, at, strict=True)]
    assert as_rows(found) == want
    assert found.r.shape == found.slice.shape == found.patient.shape == (70, keep)
    assert (np.isnan(found.r) == (found.slice < 0)).all()
    assert ((found.patient < 0) == (found.slice < 0)).all()


def test_ranks_of_a_corpus_against_itself_come_from_its_lists() -> None:
    r = np.array([[0.9, 0.5, np.nan], [0.7, 0.7, 0.1]])
    at = np.array([[4, 2, -1], [8, 3, 1]])
    ds = xr.Dataset(
        {n: (("stage", "slices", "query", "rank"), v[None, None]) for n, v in
         (("r", r), ("slice", at), ("who", np.array([[1, 0, -1], [2, 0, 1]])))},
        coords={"stage": ["raw"], "slices": ["all"]},
    )  # fmt: skip
    found = ranked(ds, stage="raw", keep=2)
    assert as_rows(found) == [[(0.9, 4, 1), (0.5, 2, 0)], [(0.7, 3, 0), (0.7, 8, 2)]]
