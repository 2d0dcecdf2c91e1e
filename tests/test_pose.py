"""The pose bank: the grid covers its ranges, rows show what they say, the maximum is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fingerprint import warp
from fingerprint.corpus.screen import INSIDE, NORM, PIXELS, SIDE, UNIT, inside, normalised
from fingerprint.corpus.screen import screen_of as screen_of_thumbs
from fingerprint.corpus.window import fit
from fingerprint.phantom.copies import plant
from fingerprint.phantom.hospital import seen
from fingerprint.phantom.thorax import one_slice
from fingerprint.search import pose
from fingerprint.search.pose import Grid, best_over_poses, grid_of, norms_of, posed
from fingerprint.settings import Settings

SMALL = Grid((-8.0, 0.0, 8.0), (0.95, 1.05), (-16, 0, 16), 20.0)


@pytest.fixture(scope="module")
def thorax() -> np.ndarray:
    """Slices of twenty phantoms, two each, 128 px."""
    return np.stack(
        [
            seen(one_slice(n, i, seed=5, n_slices=24, size_px=128), size_px=128)
            for n in range(20)
            for i in (7, 15)
        ]
    )


def screens(images: np.ndarray) -> np.ndarray:
    return inside(screen_of_thumbs(fit(images, SIDE, 0)[0]))


# -- the grid


def test_the_default_grid_holds_the_identity_and_every_pose_once() -> None:
    grid = grid_of(Settings())
    assert len(grid) == len(grid.poses) == len(np.unique(grid.poses, axis=0))
    assert grid.poses.dtype == np.float64
    assert grid.as_json()["poses"] == len(grid)


@given(
    angle=st.floats(0, 45),
    step=st.floats(0.5, 30),
    scale=st.floats(0, 0.3),
    scale_step=st.floats(0.01, 0.4),
    shift=st.floats(0, 60),
    shift_step=st.floats(4, 50),
)
@examples(deadline=None, max_examples=60)
def test_nothing_in_range_is_further_from_a_pose_than_half_a_step(
    angle: float, step: float, scale: float, scale_step: float, shift: float, shift_step: float
) -> None:
    grid = grid_of(
        Settings(
            angle_deg=angle,
            angle_step_deg=step,
            scale=scale,
            scale_step=scale_step,
            shift_px=shift,
            shift_step_px=shift_step,
        )
    )
    for wanted in (-angle, angle / 3, angle):
        assert min(abs(a - wanted) for a in grid.angles_deg) <= step / 2 + 1e-5
    for wanted in (1 - scale, 1 + scale / 3, 1 + scale):
        assert min(abs(s - wanted) for s in grid.scales) <= scale_step / 2 + 1e-5
    assert all(math.hypot(*s) <= grid.reach_px for s in grid.shifts)
    assert (0, 0) in grid.shifts
    longest = max(x for _, x in grid.shifts)
    assert longest >= shift - shift_step - 1


def test_mirrored_copies_are_searched_only_if_asked_for() -> None:
    plain, both = grid_of(Settings()), grid_of(Settings(mirror=True))
    assert len(both) == 2 * len(plain)
    assert set(plain.poses[:, 4]) == {0}
    np.testing.assert_array_equal(both.poses[: len(plain)], plain.poses)


def test_no_range_is_one_pose() -> None:
    grid = grid_of(Settings(angle_deg=0, scale=0, shift_px=0))
    assert grid.poses.tolist() == [list(warp.IDENTITY)]


# -- the rows


def test_rows_sum_to_zero_and_have_one_norm(thorax: np.ndarray) -> None:
    rows = posed(thorax[:4], SMALL).astype(np.int64)
    assert rows.shape == (4, len(SMALL), PIXELS)
    assert not rows.sum(2).any()
    assert np.abs(np.sqrt((rows**2).sum(2)) / NORM - 1).max() < 0.005


def slow_rows(mid: np.ndarray, one: np.ndarray) -> np.ndarray:
    """Move the image, reduce it, normalise it: float64, not rounded."""
    moved = warp.apply(mid[None], one)[0]
    b = len(mid) // SIDE
    thumb = moved.reshape(SIDE, b, SIDE, b).mean((1, 3))
    values = normalised(np.rint(thumb * UNIT)[None])[0].ravel()[INSIDE].astype(float)
    return (values - values.mean()) / np.linalg.norm(values - values.mean())


def test_a_row_shows_the_query_moved_by_its_pose(thorax: np.ndarray) -> None:
    grid = Grid((-9.0, 4.0), (0.93, 1.06), (-32, -8, 0, 12, 40), 60.0, (0, 1))
    rows = posed(thorax[3:5], grid)
    for q in range(2):
        want = np.array([slow_rows(thorax[3 + q], one) for one in grid.poses])
        got = rows[q] / np.linalg.norm(rows[q].astype(float), axis=1)[:, None]
        assert (got * want).sum(1).min() > 0.999
        assert np.abs(got - want).max() < 1.5 / NORM


@pytest.mark.parametrize("side", [32, 64, 96])
def test_a_smaller_mid_is_moved_too(thorax: np.ndarray, side: int) -> None:
    mids = fit(thorax[:3], side, 0)[0]
    grid = Grid((0.0, 10.0), (1.0,), (-16, 0), 30.0)
    rows = posed(mids, grid).astype(float)
    same = np.flatnonzero((grid.poses == warp.IDENTITY).all(1))[0]
    at_rest = screens(thorax[:3]).astype(float)
    for q in range(3):
        assert np.corrcoef(rows[q, same], at_rest[q])[0, 1] > 0.99


def test_the_same_bytes_for_any_batch(thorax: np.ndarray) -> None:
    whole = posed(thorax[:19], SMALL)
    for size in (1, 5, 8):
        parts = [posed(thorax[i : min(i + size, 19)], SMALL) for i in range(0, 19, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(posed(thorax[:19][::-1], SMALL), whole[::-1])


def test_a_constant_query_has_no_rows() -> None:
    assert not posed(np.full((1, 128, 128), 90, np.uint8), SMALL).any()


def test_r_of_rounded_rows_is_that_of_float64_to_a_few_thousandths(thorax: np.ndarray) -> None:
    grid = Grid((-8.0, 0.0, 8.0), (1.0,), (-16, 0, 16), 20.0)
    rows, slices = posed(thorax[:10], grid).astype(float), screens(thorax).astype(float)
    thumbs = np.rint(fit(thorax, SIDE, 0)[0].astype(float)) * UNIT
    exact = normalised(thumbs).reshape(len(thorax), -1)[:, INSIDE].astype(float)
    exact -= exact.mean(1, keepdims=True)
    exact /= np.linalg.norm(exact, axis=1)[:, None]
    slices /= np.linalg.norm(slices, axis=1)[:, None]
    errors = []
    for q in range(10):
        want = np.array([slow_rows(thorax[q], one) for one in grid.poses])
        got = rows[q] / np.linalg.norm(rows[q], axis=1)[:, None]
        errors.append(got @ slices.T - want @ exact.T)
    assert np.std(errors) < 0.001
    assert np.abs(errors).max() < 0.005


def test_images_that_cannot_be_moved_are_named() -> None:
    with pytest.raises(ValueError, match=r"uint8 \(q, h, h\)"):
        posed(np.zeros((2, 128, 128)), SMALL)
    with pytest.raises(ValueError, match="multiple of 32, got 100"):
        posed(np.zeros((2, 100, 100), np.uint8), SMALL)


# -- the best of the rows


@given(seed=st.integers(0, 2**32 - 1), q=st.integers(1, 3), n=st.integers(1, 9))
@examples(deadline=None, max_examples=25)
def test_the_maximum_over_poses_is_that_of_a_slow_loop(seed: int, q: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-128, 128, (q, n, 24), dtype=np.int8)
    slices = rng.integers(-128, 128, (11, 24), dtype=np.int8)
    got = best_over_poses(torch.from_numpy(rows), torch.from_numpy(slices))
    want = [
        [max(int(np.dot(r.astype(int), s.astype(int))) for r in rows[i]) for s in slices]
        for i in range(q)
    ]
    assert got.dtype == torch.int32
    assert got.tolist() == want


def test_cutting_poses_and_slices_does_not_change_the_maximum(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    rows = torch.from_numpy(rng.integers(-60, 60, (2, 50, PIXELS), dtype=np.int8))
    slices = torch.from_numpy(rng.integers(-60, 60, (70, PIXELS), dtype=np.int8))
    want = best_over_poses(rows, slices)
    for cut in (1, 17, 64):
        monkeypatch.setattr(pose, "SLICES", cut)
        monkeypatch.setattr(pose, "POSES", cut)
        assert torch.equal(best_over_poses(rows, slices), want)


@pytest.mark.parametrize("seed", range(3))
def test_copies_turned_resized_shifted_bent_and_relit_are_found_first(
    thorax: np.ndarray, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    grid = grid_of(Settings(angle_step_deg=6, scale_step=0.07, shift_step_px=8))
    of = rng.choice(len(thorax), 6, replace=False)
    copies = []
    for i in of:
        bent = plant(thorax[i], "elastic", 1.5, seed=int(i))  # 6 px at 512
        moved = plant(bent, "pose", float(rng.uniform(0.3, 1)), seed=seed * 100 + int(i))
        copies.append(plant(moved, "gamma", float(1.4 ** rng.uniform(-1, 1)), seed=0))
    rows = posed(np.stack(copies), grid)
    best = best_over_poses(torch.from_numpy(rows), torch.from_numpy(screens(thorax)))
    assert best.argmax(1).tolist() == of.tolist()


def test_the_pose_of_a_copy_is_found_on_the_grid(thorax: np.ndarray) -> None:
    """The pose brings the query onto the slice: it undoes what the copy was moved by."""
    grid = Grid((-8.0, 0.0, 8.0), (1.0,), (-16, 0, 16), 40.0, (0, 1))
    for moved in ((8, 1, 0, 0, 0), (0, 1, 16, -16, 0), (0, 1, 0, 16, 1)):
        copy = np.rint(warp.apply(thorax[6][None], moved)).astype(np.uint8)
        product = posed(copy, grid)[0].astype(int) @ screens(thorax[6:7])[0].astype(int)
        np.testing.assert_allclose(grid.poses[product.argmax()], warp.inverse(moved), atol=1e-9)


def test_no_r_exceeds_one(thorax: np.ndarray) -> None:
    grid = Grid((0.0,), (1.0,), (0,), 0.0)
    rows = posed(thorax, grid)
    squares = rows.astype(int)[:, 0] ** 2
    np.testing.assert_array_equal(norms_of(rows), np.sqrt(squares.sum(1)))
