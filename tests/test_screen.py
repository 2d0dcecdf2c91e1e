"""The screen image, and the search over poses in shards: one digest however it is cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import make_corpus

from fingerprint import ledger
from fingerprint.corpus import screen as image
from fingerprint.corpus import store
from fingerprint.corpus.screen import INSIDE, NORM, PIXELS, SIDE, screen_of
from fingerprint.corpus.window import fit
from fingerprint.phantom.hospital import seen
from fingerprint.phantom.thorax import one_slice
from fingerprint.search import pose, screen
from fingerprint.search.pose import Grid
from fingerprint.search.sets import Against, QuerySet, Reference, mids_of
from fingerprint.search.tile import Band
from fingerprint.warp import apply

GRID = Grid((-9.0, 0.0, 9.0), (1.0,), (-16, 0, 16), 17.0)


@pytest.fixture(autouse=True)
def _no_rows_from_another_test() -> Iterator[None]:
    yield
    screen.forget()


# -- the image


def slow_normalised(thumb: np.ndarray) -> np.ndarray:
    """Every window in Python's integers, pixel by pixel."""
    half = image._HALF
    reach = len(half) - 1
    padded = np.pad(thumb.astype(int), reach)
    weights = [half[abs(k)] for k in range(-reach, reach + 1)]
    out = np.zeros(thumb.shape, np.int64)
    for y, x in itertools.product(range(SIDE), repeat=2):
        window = padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
        mean = square = 0
        for (i, j), v in np.ndenumerate(window):
            grey = int(v) * image.UNIT
            mean += weights[i] * weights[j] * grey
            square += weights[i] * weights[j] * grey * grey
        one = 1024 * 1024
        spread = square * one - mean * mean + int(image._FLOOR) ** 2
        away = (int(thumb[y, x]) * image.UNIT * one - mean) / spread**0.5
        out[y, x] = round(min(max(away, -1.5), 1.5) * 65_536)
    return out


def test_normalised_equals_a_slow_loop_over_windows(rng: np.random.Generator) -> None:
    thumbs = rng.integers(0, 256, (2, SIDE, SIDE), dtype=np.uint8)
    thumbs[1, 8:20] = 31
    got = image.normalised(thumbs.astype(np.float64) * image.UNIT)
    for one, thumb in zip(got, thumbs, strict=True):
        assert np.abs(one - slow_normalised(thumb)).max() <= 1  # of 65,536


def test_the_kept_pixels_are_those_nearest_to_the_centre() -> None:
    assert len(INSIDE) == PIXELS == len(set(INSIDE.tolist()))
    away = np.hypot(INSIDE // SIDE - 15.5, INSIDE % SIDE - 15.5)
    others = np.setdiff1d(np.arange(SIDE * SIDE), INSIDE)
    assert away.max() <= np.hypot(others // SIDE - 15.5, others % SIDE - 15.5).min()
    # a window of a kept pixel stays inside the slice: so contrast can be shifted as it is
    assert (INSIDE // SIDE).min() >= len(image._HALF) - 1


def test_screens_sum_to_zero_and_have_one_norm(rng: np.random.Generator) -> None:
    thumbs = rng.integers(0, 256, (600, SIDE, SIDE), dtype=np.uint8)
    got = screen_of(thumbs)
    assert got.dtype == np.int8
    flat = got.reshape(600, -1).astype(int)
    assert not flat.sum(1).any()
    assert not np.delete(flat, INSIDE, axis=1).any()
    assert np.abs(np.sqrt((flat**2).sum(1)) / NORM - 1).max() < 0.005


def test_a_slice_does_not_depend_on_those_beside_it(rng: np.random.Generator) -> None:
    thumbs = rng.integers(0, 256, (300, SIDE, SIDE), dtype=np.uint8)
    whole = screen_of(thumbs)
    np.testing.assert_array_equal(screen_of(thumbs[299:]), whole[299:])
    np.testing.assert_array_equal(np.concatenate([screen_of(t[None]) for t in thumbs]), whole)


def test_constant_and_sparse_thumbs_are_no_special_case_for_who_multiplies_them() -> None:
    thumbs = np.zeros((3, SIDE, SIDE), np.uint8)
    thumbs[0] += 77
    thumbs[1, 15, 16] = 255
    thumbs[2, 0, 0] = 255  # outside of what is kept
    got = screen_of(thumbs).astype(int)
    assert not got[0].any()
    assert not got[2].any()
    assert got[1].sum() == 0
    assert got[1].max() >= 126


def test_rounding_rows_keeps_their_sum_at_zero_whatever_they_hold(
    rng: np.random.Generator,
) -> None:
    values = rng.integers(-98_304, 98_305, (200, PIXELS))
    values[:50, 3:] = 0
    values[50:60] = 5
    rows = image.rows_of(values).astype(int)
    assert not rows.sum(1).any()
    assert not rows[50:60].any()
    assert np.abs(rows).max() <= 127


def test_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"thumbs must be uint8 \(n, 32, 32\)"):
        screen_of(np.zeros((1, 64, 64), np.uint8))


# -- the search

PATIENTS = 6
EACH = 5


@pytest.fixture(scope="module")
def against(tmp_path_factory: pytest.TempPathFactory) -> tuple[Against, ...]:
    """Two matrices: moved copies and controls against real patients, and copies alone."""
    folder = tmp_path_factory.mktemp("screen")
    real = np.stack(
        [
            seen(one_slice(n, 4 + 4 * i, seed=3, n_slices=24, size_px=64), size_px=64)
            for n in range(PATIENTS)
            for i in range(EACH)
        ]
    )
    real[7] = real[6]  # twins: ties go to the lower slice
    real[11] = 40  # constant
    moved = [(9, 1, 0, -16, 0), (-9, 1, 16, 0, 0), (0, 1, 16, 0, 0), (0, 1, 0, 0, 0)]
    copies = [np.rint(apply(real[[3, 6, 14, 20][k]][None], moved[k]))[0] for k in range(4)]
    queries = np.stack([*copies, np.full((64, 64), 9.0)]).astype(np.uint8)
    who = [f"P{i // EACH:012x}" for i in range(len(real))]
    corpus = make_corpus(folder / "real", real, who, chunk=4)
    other = make_corpus(folder / "gen", queries, [""] * 5, set_name="generated", chunk=4)
    patients = np.arange(len(real)) // EACH
    patients[29] = -1  # not compared
    capped = np.zeros(len(real), bool)
    capped[::2] = True
    reference = Reference(corpus.path, corpus.digest, 4, patients, capped)
    nobody = np.full(5, -1)
    generated = QuerySet("generated", other.path, other.digest, np.arange(5), nobody)
    control = QuerySet("control", corpus.path, corpus.digest, np.array([3, 20]), patients[[3, 20]])
    names = tuple(sorted(set(who)))
    few = Reference(corpus.path, corpus.digest, 4, np.where(patients > 1, -1, patients), ~capped)
    return (
        Against("real", reference, names, (generated, control)),
        Against("control", few, names[:2], (generated,)),
    )


def run(
    againsts: tuple[Against, ...], folder: Path, *, band: int, shard: int, block: int
) -> list[list[Band]]:
    """Do all shards and fold them."""
    for one in screen.plan_poses(againsts, GRID, band=band):
        ledger.work(folder, one)
    cuts = {"band": band, "shard": shard}
    shards = screen.plan_screen(againsts, folder, GRID, block=block, **cuts)
    for one in shards:
        ledger.work(folder, one)
    values = ledger.finish(folder, shards)
    return [list(screen.fold(against, values, GRID, **cuts)) for against in againsts]


def matrices(bands: list[list[Band]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (
            np.concatenate([b.r for b in of], axis=1),
            np.concatenate([b.slice for b in of], axis=1),
        )
        for of in bands
    ]


def slow(against: Against) -> tuple[np.ndarray, np.ndarray]:
    """Every query, pose, slice and patient in turn."""
    shape = (2, len(against), len(against.patients))
    r, at = np.full(shape, np.nan), np.full(shape, -1)
    corpus = screen.opened(against.reference.corpus, against.reference.digest)
    slices = image.inside(screen_of(fit(corpus.read(0, corpus.n), SIDE, 0)[0])).astype(int)
    row = 0
    for queries in against.sets:
        for own, rows in zip(queries.own, pose.posed(mids_of(queries), GRID), strict=True):
            norm = np.sqrt(float((rows.astype(int) ** 2).sum(1).max()))
            for s, patient in enumerate(against.reference.patients):
                size = np.sqrt(float((slices[s] ** 2).sum()))
                if patient in (own, -1) or norm * size == 0:
                    continue
                found = min(1.0, float((rows.astype(int) @ slices[s]).max()) / (norm * size))
                for kind in range(1 + bool(against.reference.capped[s])):
                    if not found <= r[kind, row, patient]:
                        r[kind, row, patient], at[kind, row, patient] = found, s
            row += 1
    return r, at


def test_the_search_equals_a_slow_loop_to_the_last_bit(
    against: tuple[Against, ...], tmp_path: Path
) -> None:
    found = matrices(run(against, tmp_path, band=3, shard=8, block=5))
    for (r, at), one in zip(found, against, strict=True):
        want_r, want_at = slow(one)
        np.testing.assert_array_equal(r, want_r)
        np.testing.assert_array_equal(at, want_at)


def test_moved_copies_are_found_first_and_controls_never_find_themselves(
    against: tuple[Against, ...], tmp_path: Path
) -> None:
    r, at = matrices(run(against[:1], tmp_path, band=64, shard=64, block=64))[0]
    best = np.nanargmax(r[0, [0, 1, 2, 3]], axis=1)
    assert at[0, range(4), best].tolist() == [3, 6, 14, 20]
    assert np.isnan(r[0, 4]).all()  # a constant query
    assert np.isnan(r[0, 5, 0])
    assert np.isnan(r[0, 6, 4])


@pytest.mark.parametrize("band", [1, 3, 64])
def test_one_matrix_and_histogram_however_the_work_is_cut(
    against: tuple[Against, ...], tmp_path: Path, band: int
) -> None:
    want = run(against, tmp_path / "want", band=64, shard=64, block=64)
    sums = [sum(b.histogram for b in of) for of in want]
    for shard, block in ((4, 1), (8, 17), (64, 4)):
        got = run(against, tmp_path / f"{shard}", band=band, shard=shard, block=block)
        for (r, at), (want_r, want_at) in zip(matrices(got), matrices(want), strict=True):
            np.testing.assert_array_equal(r, want_r)
            np.testing.assert_array_equal(at, want_at)
        for of, counts in zip(got, sums, strict=True):
            np.testing.assert_array_equal(sum(b.histogram for b in of), counts)


def test_a_query_set_that_is_compared_twice_is_moved_once(against: tuple[Against, ...]) -> None:
    shards = screen.plan_poses(against, GRID, band=2)
    assert len(shards) == 3 + 1
    assert len({one.key for one in shards}) == 4


def test_tiles_are_named_by_the_rows_they_multiply(
    against: tuple[Against, ...], tmp_path: Path
) -> None:
    other = Grid((-9.0, 0.0, 8.0), (1.0,), (-16, 0, 16), 17.0)
    keys = []
    for grid in (GRID, GRID, other):
        for shard in screen.plan_poses(against, grid):
            ledger.work(tmp_path, shard)
        keys.append([s.key for s in screen.plan_screen(against, tmp_path, grid)])
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_the_versions_of_derived_images_are_in_the_keys(
    against: tuple[Against, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = screen.plan_poses(against, GRID)
    for one in before:
        ledger.work(tmp_path, one)
    tiles = screen.plan_screen(against, tmp_path, GRID)
    monkeypatch.setitem(store.DERIVED, "screen", store.DERIVED["screen"] + 1)
    after = screen.plan_poses(against, GRID)
    assert not {one.key for one in before} & {one.key for one in after}
    for one in after:
        ledger.work(tmp_path, one)
    again = screen.plan_screen(against, tmp_path, GRID)
    assert not {one.key for one in tiles} & {one.key for one in again}


def test_rows_that_changed_are_not_multiplied(against: tuple[Against, ...], tmp_path: Path) -> None:
    for one in screen.plan_poses(against, GRID):
        ledger.work(tmp_path, one)
    shard = screen.plan_screen(against, tmp_path, GRID)[0]
    path, _, *rest = shard.args
    with pytest.raises(ledger.Damaged, match="these rows changed"):
        shard.work(path, "0" * 64, *rest)


def test_slices_stay_on_a_gpu_and_never_on_a_cpu(
    against: tuple[Against, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = against[0].reference
    want = [screen._slices(reference, first, first + 8, "cpu") for first in (0, 8, 16)]
    assert not screen._there
    monkeypatch.setattr(screen, "ON_GPU_BYTES", 2 * 8 * PIXELS)  # two blocks
    for first, block in [*zip((0, 8, 16), want, strict=True), (16, want[2])]:
        got = screen._slices(reference, first, first + 8, "meta")  # as good as any other device
        assert [part.shape for part in got] == [part.shape for part in block]
        assert screen._slices(reference, first, first + 8, "meta") is got
    assert list(screen._there) == [(reference.digest, 16, 24)]


def test_a_plan_without_its_rows_says_so(against: tuple[Against, ...], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        screen.plan_screen(against, tmp_path, GRID)


def test_memory_does_not_grow_with_the_grid() -> None:
    fine = Grid(tuple(np.linspace(-15, 15, 61)), (0.9, 1.0, 1.1), tuple(range(-40, 41, 8)), 45.0)
    assert screen.band_of(fine) < screen.band_of(GRID)
    assert screen.bytes_needed(fine) < 512 * 2**20


def test_r_is_the_product_over_the_norms(rng: np.random.Generator) -> None:
    rows = torch.from_numpy(rng.integers(-30, 30, (2, 4, 16), dtype=np.int8))
    slices = torch.from_numpy(rng.integers(-30, 30, (3, 16), dtype=np.int8))
    norms = torch.from_numpy(pose.norms_of(rows.numpy()))
    lengths = slices.double().norm(dim=1)
    r = screen.correlations(rows, norms, slices, lengths)
    best = (rows.double() @ slices.double().T).amax(1)
    np.testing.assert_allclose(r, best / (norms[:, None] * lengths[None, :]))
    assert r.max() <= 1
