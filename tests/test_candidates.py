"""Which pairs are looked at closely, and that a moved copy ends first, whatever the shards are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from corpora import make_corpus
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fingerprint import ledger, phantom, warp
from fingerprint.corpus.screen import inside
from fingerprint.corpus.store import open_corpus
from fingerprint.corpus.window import fit, to_uint8
from fingerprint.ledger import Values
from fingerprint.search import align, candidates, closely, correlation
from fingerprint.search.best import BINS
from fingerprint.search.blocks import five_blocks
from fingerprint.search.candidates import QUERIES, best_pairs, chosen
from fingerprint.search.closely import Pairs
from fingerprint.search.pose import grid_of, posed
from fingerprint.search.sets import Against, mids_of
from fingerprint.search.tile import Band
from fingerprint.settings import IMAGES, Settings

PATIENTS, EACH = 6, 5
SETTINGS = Settings(refine_64=5, refine_128=4, keep_patients=2, controls=3)
COPIES = 9  # more than one shard


def thorax(number: int, index: int) -> np.ndarray:
    hu = phantom.one_slice(number, index, seed=5, n_slices=40, size_px=128)
    return to_uint8(hu, (-1000.0, 1000.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Against]]:
    """A real corpus, moved copies of some of its slices, and a matrix with raw and screen."""
    folder = tmp_path_factory.mktemp("candidates")
    real = np.stack([thorax(p, 18 + i) for p in range(PATIENTS) for i in range(EACH)])
    who = [f"P{p:012d}" for p in range(PATIENTS) for _ in range(EACH)]
    rng = np.random.default_rng(1)
    copies = [moved(real[truth(i)], rng) for i in range(COPIES)]
    made = make_corpus(folder / "real", real, who)
    names = [f"G{i:012d}" for i in range(COPIES)]
    asked = make_corpus(folder / "generated", np.stack(copies), names, set_name="generated")
    againsts = five_blocks(made, asked, None, None, SETTINGS)
    path = folder / "correlation.zarr"
    correlation.create(path, againsts, stages=("raw", "screen", "pose"), image="highpass")
    for against in againsts:
        for stage in ("raw", "screen"):
            correlation.write_stage(path, against.name, stage, searched(against, stage))
    return path, againsts


def truth(query: int) -> int:
    """Which slice a query is a copy of: one in the middle of its stack, or at an end."""
    return (query % PATIENTS) * EACH + (query % EACH)


def moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pose = [rng.uniform(-12, 12), rng.uniform(0.93, 1.07), *rng.uniform(-25, 25, 2), 0]
    return np.clip(np.rint(warp.apply(image[None].astype(float), [pose])[0]), 0, 255).astype("u1")


def searched(against: Against, stage: str) -> Iterator[Band]:
    """The stages before, slowly: r of the thumbs as they are, or the best over all poses."""
    corpus = open_corpus(against.reference.corpus)
    screens = inside(corpus.at(np.arange(corpus.n), "screen")).astype(float)
    start = 0
    for queries in against.sets:
        mids = mids_of(queries)
        r = np.full((2, len(queries), len(against.patients)), np.nan)
        at = np.full(r.shape, -1)
        for q in range(len(queries)):
            rows = posed(mids[q : q + 1], grid_of(SETTINGS))[0].astype(float)
            if stage == "raw":
                rows = rows[rows.shape[0] // 2 :][:1]
            found = (rows @ screens.T).max(0) / 448**2
            for p in range(len(against.patients)):
                own = np.flatnonzero(against.reference.patients == p)
                if queries.own[q] != p and len(own):
                    at[:, q, p] = own[found[own].argmax()]
                    r[:, q, p] = found[own].max()
        yield Band(
            queries.name, slice(start, start + len(queries)), r, at, np.zeros(BINS, np.int64)
        )
        start += len(queries)


@pytest.fixture(scope="module")
def done(world: tuple[Path, list[Against]]) -> tuple[dict[str, list[Band]], list[ledger.Shard]]:
    return refined(world)


def refined(
    world: tuple[Path, list[Against]], settings: Settings = SETTINGS
) -> tuple[dict[str, list[Band]], list[ledger.Shard]]:
    path, againsts = world
    shards = candidates.plan(againsts, path, grid_of(settings), settings)
    values = iter([shard.work(*shard.args)[0] for shard in shards])
    bands = {a.name: list(candidates.fold(a, values, settings)) for a in againsts}
    assert next(values, None) is None
    return bands, shards


def joined(bands: list[Band]) -> dict[str, np.ndarray]:
    out: dict[str, Any] = {name: [] for name in bands[0].more}
    for band in bands:
        for name, values in band.more.items():
            out[name].append(values)
    whole = {name: np.concatenate(parts, -2) for name, parts in out.items()}
    whole["r"] = np.concatenate([band.r for band in bands], 1)
    whole["slice"] = np.concatenate([band.slice for band in bands], 1)
    return whole


# -- the whole of it


def test_moved_copies_end_first_with_their_slice_and_pose(
    world: tuple[Path, list[Against]], done: Any
) -> None:
    path, againsts = world
    bands, _ = done
    found = joined(bands["real"])
    r, at = found["r"][0, :COPIES], found["slice"][0, :COPIES]
    for q in range(COPIES):
        patient = truth(q) // EACH
        assert np.nanargmax(r[q]) == patient
        assert at[q, patient] == truth(q)
        assert r[q, patient] > 0.9
    refined_pairs = ~np.isnan(found["r"][0])
    assert (refined_pairs.sum(1) >= 1).all()
    assert (refined_pairs.sum(1) <= SETTINGS.refine_128).all()  # pairs, so patients at most
    for name in ("angle_deg", "scale", "shift_y_px", "shift_x_px"):
        assert np.array_equal(~np.isnan(found[name]), refined_pairs)
    assert np.array_equal(found["mirrored"] >= 0, refined_pairs)
    assert np.array_equal(found["slice"][0] >= 0, refined_pairs)
    assert np.array_equal(found["r_image"][IMAGES.index("highpass")], found["r"][0], equal_nan=True)
    for against in againsts:  # what is yielded is what the matrix takes
        correlation.write_stage(path, against.name, "pose", iter(bands[against.name]))
        stored = correlation.load(path, against.name).sel(stage="pose", slices="all")
        assert np.array_equal(stored["r"], joined(bands[against.name])["r"][0], equal_nan=True)


def test_the_stored_r_is_that_of_the_stored_pose(
    world: tuple[Path, list[Against]], done: Any
) -> None:
    """From the matrix alone anyone can compute r again."""
    _, againsts = world
    bands, _ = done
    found, real = joined(bands["real"]), againsts[0]
    queries, corpus = mids_of(real.sets[0]), open_corpus(real.reference.corpus)
    for q, p in np.argwhere(found["slice"][0, :COPIES] >= 0)[::3]:
        pose = np.array([found[name][q, p] for name in warp.POSE])
        image = corpus.at([found["slice"][0, q, p]], "mid")[0]
        shown = np.rint(warp.apply(queries[q][None].astype(float), pose))[0]
        y, x = warp.points(pose, 128)
        there = (y >= 0) & (y <= 127) & (x >= 0) & (x <= 127)
        expected = np.corrcoef(shown[there], image[there].astype(float))[0, 1]
        assert found["r_image"][0, q, p] == pytest.approx(expected, abs=1e-12)


def test_nobody_is_compared_with_their_own(world: tuple[Path, list[Against]], done: Any) -> None:
    _, againsts = world
    bands, _ = done
    for against in againsts:
        r = joined(bands[against.name])["r"][0]
        own = np.concatenate([queries.own for queries in against.sets])
        for row in np.flatnonzero(own >= 0):
            assert np.isnan(r[row, own[row]])


def test_one_result_for_any_shards_and_any_cache(
    world: tuple[Path, list[Against]], done: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {name: joined(bands) for name, bands in done[0].items()}
    for queries, rows, held, look in ((1, 1, 2**14, 2**14), (3, 6, 2**30, 1)):
        monkeypatch.setattr(candidates, "QUERIES", queries)
        monkeypatch.setattr(candidates, "ROWS", rows)
        monkeypatch.setattr(align, "HELD", held)
        monkeypatch.setattr(align, "LOOK", look)
        again, _ = refined(world)
        for name, bands in again.items():
            for key, values in joined(bands).items():
                assert values.tobytes() == expected[name][key].tobytes(), key


def test_the_primary_image_changes_the_choice_and_not_the_shards(
    world: tuple[Path, list[Against]], done: Any
) -> None:
    path, againsts = world
    bands, shards = done
    values = [shard.work(*shard.args)[0] for shard in shards[:4]]  # those of the real corpus
    for image in ("raw", "body"):
        other = SETTINGS.model_copy(update={"image": image})
        same = candidates.plan(againsts, path, grid_of(other), other)
        assert [s.key for s in same] == [s.key for s in shards]
        found = joined(list(candidates.fold(againsts[0], iter(values), other)))
        primary = found["r_image"][IMAGES.index(image)]
        assert np.array_equal(found["r"][0], primary, equal_nan=True)
        before = joined(bands["real"])["r_image"][IMAGES.index(image)]
        assert (np.nan_to_num(primary - before) >= 0).all()  # the best slice by that image


def test_what_decides_a_result_is_in_the_key(world: tuple[Path, list[Against]]) -> None:
    path, againsts = world

    def keys(settings: Settings, of: list[Against] = againsts) -> list[str]:
        return [s.key for s in candidates.plan(of, path, grid_of(settings), settings)]

    plain = keys(SETTINGS)
    assert len(set(plain)) == len(plain)
    changes = ("refine_64", 1), ("refine_128", 3), ("angle_deg", 10.0), ("shift_px", 30.0)
    for name, value in (*changes, ("angle_step_deg", 3.0)):
        assert not set(keys(SETTINGS.model_copy(update={name: value}))) & set(plain), name
    smooth = [
        replace(a, sets=tuple(replace(queries, native_px=64) for queries in a.sets))
        for a in againsts
    ]
    assert not set(keys(SETTINGS, smooth)) & set(plain)


def test_a_shard_through_the_ledger(
    world: tuple[Path, list[Against]], done: Any, tmp_path: Path
) -> None:
    """It can be pickled, written, read and folded; counts say what was done."""
    path, againsts = world
    shards = candidates.plan(againsts, path, grid_of(SETTINGS), SETTINGS)
    receipts = list(ledger.in_this_process(tmp_path, shards))
    values = ledger.finish(tmp_path, shards)
    bands = list(candidates.fold(againsts[0], values, SETTINGS))
    assert joined(bands)["r"].tobytes() == joined(done[0]["real"])["r"].tobytes()
    chosen_here = shards[0].args[3].counts
    assert receipts[0].counts["pairs_64"] == chosen_here.sum()
    # those that are kept, and their neighbours
    assert receipts[0].counts["pairs_128"] > SETTINGS.refine_128 * QUERIES


def test_memory_is_told_from_the_settings_alone() -> None:
    small = candidates.bytes_needed(Settings(), side=128, chunk=64)
    assert small < 2**30
    assert candidates.bytes_needed(Settings(refine_64=4096), side=128, chunk=64) > small


# -- neighbours


def test_the_slice_next_door_is_found(world: tuple[Path, list[Against]]) -> None:
    """The candidate is two slices away from the source: it is found, but not in another stack."""
    _, againsts = world
    real = againsts[0]
    how = closely.How(grid_of(SETTINGS), align.Limits(20, 0.15, 56), 4)
    query = next(q for q in range(COPIES) if truth(q) % EACH == 2)
    first = truth(query) - 2
    one = np.array([1], np.int64)

    def found(after: int) -> list[int]:
        pairs = Pairs(
            one,
            np.array([first], np.int32),
            np.array([first // EACH], np.int32),
            np.zeros(1, np.int8),
            np.array([after], np.int8),
        )
        reference = real.reference
        values, _ = closely.refine_pairs(
            real.sets[0][query : query + 1], reference.corpus, reference.digest, pairs, how
        )
        best = best_pairs(
            np.zeros(len(values["slice"]), np.int64),
            values["patient"],
            values["slice"],
            values["r"][IMAGES.index("highpass")],
        )
        assert values["counts"].tolist() == [len(values["slice"])]
        assert len(set(values["slice"].tolist())) == len(values["slice"])
        return [int(values["slice"][best[0]]), *sorted(values["slice"].tolist())]

    assert found(4)[0] == truth(query)
    assert found(1)[1:] == [first, first + 1]
    assert found(0)[1:] == [first]


def test_neighbours_end_with_the_stack() -> None:
    stacks = np.array([0, 0, 0, 1, -1, 2, 2, 2, 2, 2, 2, 2])
    at = np.arange(len(stacks))
    before, after = (candidates._free(stacks, at, way) for way in (-1, 1))
    assert before.tolist() == [0, 1, 2, 0, 0, 0, 1, 2, 3, 4, 4, 4]
    assert after.tolist() == [2, 1, 0, 0, 0, 4, 4, 4, 3, 2, 1, 0]


# -- which pairs


def test_the_best_of_both_lists_are_taken_each_pair_once() -> None:
    #            patients:  0    1    2    3
    screen = np.array([[0.9, 0.8, 0.1, np.nan], [np.nan] * 4])
    raw = np.array([[0.1, 0.2, 0.9, np.nan], [np.nan, np.nan, np.nan, 0.3]])
    at_screen = np.array([[2, 5, 7, -1], [-1] * 4])
    at_raw = np.array([[3, 4, 7, -1], [-1, -1, -1, 11]])
    r, at = np.stack([raw, screen])[:, None], np.stack([at_raw, at_screen])[:, None]
    dims = ("stage", "slices", "query", "patient")
    matrix = xr.Dataset(
        {"r": (dims, r), "slice": (dims, at)},
        coords={"stage": ["raw", "screen"], "slices": ["all"]},
    )
    settings = Settings(refine_64=2, keep_patients=1)
    pairs = chosen(matrix, np.zeros(12, np.int64), settings)
    assert pairs.counts.tolist() == [3, 1]
    assert pairs.slices.tolist() == [2, 5, 7, 11]
    assert pairs.patients.tolist() == [0, 1, 2, 3]


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(0, 8), st.integers(0, 8))
@examples(deadline=None)
def test_pairs_of_some_queries_are_theirs(counts: list[int], first: int, last: int) -> None:
    n = sum(counts)
    every = Pairs(
        np.array(counts, np.int64),
        np.arange(n, dtype=np.int32),
        np.arange(n, dtype=np.int32) + 100,
        np.zeros(n, np.int8),
        np.ones(n, np.int8),
    )
    first, last = min(first, last), max(first, last)
    part = every[first:last]
    per_query = [every.slices[rows].tolist() for rows in every.rows()]
    assert [part.slices[rows].tolist() for rows in part.rows()] == per_query[first:last]
    assert (part.patients == part.slices + 100).all()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.1, 0.5, 1.0, float("nan")])
        ),
        max_size=15,
    ),
    st.randoms(),
)
@examples(deadline=None)
def test_the_best_pair_of_a_patient_is_that_of_a_slow_search(
    rows: list[tuple[int, int, float]], random: Any
) -> None:
    """Ties to the lower slice; NaN is none; the order of the pairs does not matter."""
    expected: dict[tuple[int, int], tuple[float, int]] = {}
    numbered = [(q, p, r, i) for i, (q, p, r) in enumerate(rows)]
    for q, p, r, i in numbered:
        if not np.isnan(r) and ((q, p) not in expected or r > expected[q, p][0]):
            expected[q, p] = (r, i)
    random.shuffle(numbered)
    q, p, r, at = (np.array([row[k] for row in numbered]) for k in range(4))
    best = best_pairs(q.astype(int), p.astype(int), at.astype(int), r.astype(float))
    assert {(int(q[k]), int(p[k])): (float(r[k]), int(at[k])) for k in best} == expected


def test_a_set_without_queries_is_no_shard(world: tuple[Path, list[Against]]) -> None:
    path, againsts = world
    real = againsts[0]
    empty = replace(real, sets=(real.sets[0][0:0],))
    assert candidates.plan([empty], path, grid_of(SETTINGS), SETTINGS) == []
    assert list(candidates.fold(empty, iter(()), SETTINGS)) == []


def test_a_query_without_candidates_is_not_refined() -> None:
    values: Values = {
        "counts": np.array([0, 0]),
        "slice": np.zeros(0, np.int64),
        "patient": np.zeros(0, np.int64),
        "pose": np.zeros((0, 5)),
        "r": np.zeros((3, 0)),
    }
    band = candidates._band("generated", slice(0, 2), [values], 3, 0)
    assert np.isnan(band.r).all()
    assert (band.slice == -1).all()
    assert band.more["r_image"].shape == (3, 2, 3)
    assert QUERIES <= candidates.ROWS
    assert candidates.ROWS % QUERIES == 0


def test_queries_are_reduced_as_slices_are(world: tuple[Path, list[Against]]) -> None:
    queries = world[1][0].sets[0]
    images = open_corpus(queries.corpus).at(queries.indices)
    assert np.array_equal(mids_of(queries), fit(images, 128, 0)[0])


def test_a_shard_without_any_pair(world: tuple[Path, list[Against]]) -> None:
    real = world[1][0]
    none = Pairs(
        np.zeros(2, np.int64), *(np.zeros(0, kind) for kind in (np.int32, np.int32, "i1", "i1"))
    )
    how = closely.How(grid_of(SETTINGS), align.Limits(20, 0.15, 56), 4)
    values, counts = closely.refine_pairs(
        real.sets[0][:2], real.reference.corpus, real.reference.digest, none, how
    )
    assert values["counts"].tolist() == [0, 0]
    assert values["r"].shape == (3, 0)
    assert counts == {"pairs_64": 0, "pairs_128": 0}
