"""Affine registration: planted maps come back, strangers do no harm, batches do not matter."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moved import corner_error, identity, maps, moved, nearby, slices_8bit, tensor
from naive import overlap_pearson

from fingerprint import phantom, warp
from fingerprint.corpus.window import to_uint8
from fingerprint.register import reference
from fingerprint.register.affine import Affine, Alignment, affine, from_poses
from fingerprint.register.overlap import correlation, overlap
from fingerprint.register.resample import warp_affine

SIDE = 256


@cache
def drawn(side: int = SIDE) -> np.ndarray:
    """Phantom slices of different patients, uint8 (6, side, side)."""
    drawn = [phantom.one_slice(k, seed=1, index=8, n_slices=16, size_px=side) for k in range(6)]
    return np.stack([to_uint8(hu, (-1000, 1000)) for hu in drawn])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(one: Alignment, other: Alignment) -> bool:
    return (
        torch.equal(one.matrix, other.matrix)
        and torch.equal(one.r.nan_to_num(9), other.r.nan_to_num(9))
        and torch.equal(one.converged, other.converged)
    )


# -- poses and maps --------------------------------------------------------------------------------


@given(
    st.tuples(st.floats(-180, 180), st.floats(0.5, 2), st.floats(-99, 99), st.floats(-99, 99)),
    st.sampled_from([0, 1]),
    st.integers(8, 600),
)
@settings(max_examples=50, deadline=None)
def test_a_map_undoes_its_pose(numbers, mirrored, side) -> None:
    pose = np.array([[*numbers, mirrored]])
    there = np.vstack([from_poses(pose, side)[0].numpy(), [0, 0, 1]]) @ warp.matrix(pose, side)[0]
    np.testing.assert_allclose(there, np.eye(3), atol=1e-9)


def test_maps_of_poses_show_what_warp_apply_shows() -> None:
    poses = np.array([[9.0, 1.1, 20, -31, 0], [-14, 0.92, 0.5, 7, 1], warp.IDENTITY])
    images = drawn()[:3]
    got = warp_affine(tensor(images), from_poses(poses, SIDE))
    np.testing.assert_allclose(got[:, 0].numpy(), warp.apply(images, poses), atol=0.05)


# -- the evaluator ---------------------------------------------------------------------------------


def test_r_is_that_of_the_slow_evaluator() -> None:
    images = drawn(48)[:3]
    truth = maps(3, 48, seed=3)
    moving, fixed = tensor(np.roll(images, 1, axis=0)), tensor(images)
    r, share = overlap(moving, fixed, truth)
    for i in range(3):
        want = overlap_pearson(moving[i, 0].numpy(), fixed[i, 0].numpy(), truth[i].numpy())
        np.testing.assert_allclose((float(r[i]), float(share[i])), want, atol=1e-5)


def test_r_of_an_image_with_itself_turned_and_recoloured(rng) -> None:
    fixed = tensor(rng.integers(0, 256, (2, 33, 33), dtype=np.uint8))
    mask = torch.ones_like(fixed, dtype=torch.bool)
    assert correlation(3 * fixed + 7, fixed, mask).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert correlation(-fixed, fixed, mask).tolist() == pytest.approx([-1, -1], abs=1e-12)
    assert correlation(fixed.new_full(fixed.shape, 80.1), fixed, mask).isnan().all()
    assert correlation(fixed, fixed, ~mask).isnan().all()


# -- planted truth ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_planted_maps_are_found_from_the_identity(kind) -> None:
    images = drawn()
    truth = maps(len(images), SIDE, seed=11, kind=kind)
    moving, fixed = tensor(moved(images, truth)), tensor(images)
    got = affine(moving, fixed, start=identity(len(images)), spec=Affine(kind=kind))
    assert got.converged.all()
    assert corner_error(got.matrix, truth, SIDE).max() < 0.5
    at_truth, _ = overlap(moving, fixed, truth)
    assert (got.r > at_truth - 1e-3).all()


@pytest.mark.parametrize(("side", "allowed"), [(512, 0.3), (200, 0.3), (64, 0.5)])
def test_planted_maps_are_found_from_a_pose_at_any_size(side, allowed) -> None:
    images = drawn(side)[:4]
    truth = maps(len(images), side, seed=5)
    start = nearby(truth, side, seed=6)
    got = affine(tensor(moved(images, truth)), tensor(images), start=start)
    assert got.converged.all()
    assert corner_error(got.matrix, truth, side).max() < allowed


@pytest.mark.parametrize("kind", ["rigid", "similarity"])
def test_a_kind_adds_no_more_than_it_says(kind) -> None:
    images = drawn()[:3]
    truth = maps(3, SIDE, seed=4)
    start = maps(3, SIDE, seed=4, kind="similarity")
    got = affine(tensor(moved(images, truth)), tensor(images), start=start, spec=Affine(kind=kind))
    assert not torch.equal(got.matrix, start)
    added = torch.linalg.inv(start[:, :, :2]) @ got.matrix[:, :, :2]
    square = added @ added.transpose(1, 2)
    scale = square[:, 0, 0] if kind == "similarity" else torch.ones(3, dtype=torch.float64)
    want = torch.eye(2, dtype=torch.float64) * scale[:, None, None]
    torch.testing.assert_close(square, want, rtol=0, atol=1e-12)


def test_mirrored_copies_are_found_from_mirrored_poses() -> None:
    images = drawn()[:2]
    poses = np.array([[6.0, 1.05, 12, -9, 1], [-4, 0.97, 3, 5, 1]])
    queries = np.rint(warp.apply(images, warp.inverse(poses))).astype(np.uint8)
    start = from_poses(poses + [1, 0.02, 3, -3, 0], SIDE)
    got = affine(tensor(queries), tensor(images), start=start)
    assert got.converged.all()
    assert corner_error(got.matrix, from_poses(poses, SIDE), SIDE).max() < 0.5


def test_contrast_and_brightness_do_not_matter() -> None:
    images = drawn()[:3]
    truth = maps(3, SIDE, seed=8)
    moving = tensor(moved(images, truth))
    want = affine(moving, tensor(images), start=identity(3))
    got = affine(0.5 * moving + 30, tensor(images), start=identity(3))
    assert corner_error(got.matrix, want.matrix, SIDE).max() < 0.02
    darker = 255 * (moving / 255) ** 1.4
    got = affine(darker, tensor(images), start=identity(3))
    assert corner_error(got.matrix, truth, SIDE).max() < 0.5


def test_an_image_laid_on_itself_stays_where_it_is() -> None:
    for side in (SIDE, 200):
        images = tensor(drawn(side)[:2])
        got = affine(images, images, start=identity(2))
        assert torch.equal(got.matrix, identity(2))
        assert got.r.tolist() == [1, 1]
        assert got.converged.all()


# -- no truth --------------------------------------------------------------------------------------


def test_strangers_never_end_lower_than_they_start(rng) -> None:
    fixed = tensor(drawn())
    moving = torch.cat([tensor(drawn()).roll(1, 0)[:4], 255 * torch.rand(2, 1, SIDE, SIDE)])
    start = maps(len(fixed), SIDE, seed=2, level=0.3)
    got = affine(moving, fixed, start=start)
    before, _ = overlap(moving, fixed, start)
    assert (got.r >= before).all()
    kept = ~got.converged
    assert torch.equal(got.matrix[kept], start[kept])
    assert torch.equal(got.r[kept], before[kept])
    after, share = overlap(moving, fixed, got.matrix)
    assert torch.equal(after, got.r)
    assert (share[got.converged] >= Affine().least_overlap).all()


def test_images_without_structure_keep_their_start_and_say_so() -> None:
    image = tensor(drawn()[:1])
    flat = torch.full_like(image, 77.0)
    start = maps(3, SIDE, seed=1)
    got = affine(torch.cat([flat, image, flat]), torch.cat([image, flat, flat]), start=start)
    assert torch.equal(got.matrix, start)
    assert not got.converged.any()
    assert got.r.isnan().all()


def test_too_little_in_common_is_not_taken() -> None:
    image = tensor(drawn()[:1])
    start = torch.tensor([[[1, 0, SIDE * 0.9], [0, 1, 0]]], dtype=torch.float64)
    got = affine(image, image, start=start)
    assert torch.equal(got.matrix, start) != bool(got.converged)


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [SIDE, 75])
def test_a_pair_has_the_same_bits_in_any_company(side) -> None:
    images = drawn(side)
    n = len(images)
    truth = maps(n, side, seed=21)
    moving, fixed = tensor(moved(images, truth)), tensor(images)
    moving[2], moving[4] = 50.0, fixed[0]  # one without structure, one stranger
    start = nearby(truth, side, seed=3)
    whole = affine(moving, fixed, start=start)
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    other = affine(moving[order], fixed[order], start=start[order])
    back = order.argsort()
    assert same(whole, Alignment(other.matrix[back], other.r[back], other.converged[back]))
    for few in (1, 4):
        parts = [
            affine(moving[i : i + few], fixed[i : i + few], start=start[i : i + few])
            for i in range(0, n, few)
        ]
        joined = (torch.cat([getattr(p, name) for p in parts]) for name in vars(whole))
        assert same(whole, Alignment(*joined))


def test_no_pairs_give_no_alignments() -> None:
    none = torch.zeros((0, 1, SIDE, SIDE))
    got = affine(none, none, start=identity(0))
    assert got.matrix.shape == (0, 2, 3)
    assert got.r.shape == got.converged.shape == (0,)


def test_arguments_are_not_changed() -> None:
    images = drawn()[:2]
    moving, fixed, start = tensor(moved(images, maps(2, SIDE, seed=1))), tensor(images), identity(2)
    kept = [part.clone() for part in (moving, fixed, start)]
    affine(moving, fixed, start=start)
    assert all(map(torch.equal, (moving, fixed, start), kept))


# -- bad input -------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    image = torch.zeros((2, 1, 64, 64))
    with pytest.raises(ValueError, match="affine: images must be float32"):
        affine(image.double(), image, start=identity(2))
    with pytest.raises(ValueError, match="affine: moving and fixed must have one shape"):
        affine(image, image[:1], start=identity(2))
    with pytest.raises(ValueError, match="affine: maps must be float64"):
        affine(image, image, start=identity(2).float())
    with pytest.raises(ValueError, match="from_poses: poses must be"):
        from_poses(np.array(warp.IDENTITY), 64)
    with pytest.raises(ValueError, match="kind must be one of"):
        Affine(kind="bent")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be"):
        Affine(steps=0)
    with pytest.raises(ValueError, match="least_overlap must be"):
        Affine(least_overlap=0)


# -- the reference ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_the_reference_finds_the_same(kind) -> None:
    images = drawn()[:2]
    truth = maps(2, SIDE, seed=31, kind=kind, level=0.5)
    moving, fixed, spec = tensor(moved(images, truth)), tensor(images), Affine(kind=kind)
    ours = affine(moving, fixed, start=identity(2), spec=spec)
    theirs = reference.affine(moving, fixed, start=identity(2), spec=spec)
    assert theirs.converged.all()
    # its smallest pixels are two of ours: a tenth of a pixel is what it resolves
    assert corner_error(ours.matrix, theirs.matrix, SIDE).max() < 0.3
    assert (ours.r > theirs.r - 1e-3).all()


def test_the_reference_keeps_the_start_of_what_it_cannot_do() -> None:
    image = tensor(drawn()[:1])
    start = maps(1, SIDE, seed=1)
    got = reference.affine(torch.full_like(image, 9.0), image, start=start)
    assert torch.equal(got.matrix, start)
    assert not got.converged.any()


# -- real CT ---------------------------------------------------------------------------------------


def recovered(data: Path, count: int | None, seed: int, *, from_identity: bool) -> float:
    images = slices_8bit(data, count)
    truth = maps(len(images), 512, seed=seed)
    start = identity(len(images)) if from_identity else nearby(truth, 512, seed=seed + 1)
    got = affine(tensor(moved(images, truth)), tensor(images), start=start)
    return float((corner_error(got.matrix, truth, 512) < 0.5).mean())


@pytest.mark.parametrize("from_identity", [True, False])
def test_real_slices_moved_at_random_are_brought_back(data: Path, from_identity: bool) -> None:
    assert recovered(data, 12, 1, from_identity=from_identity) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("from_identity", [True, False])
def test_all_real_slices_moved_at_random_are_brought_back(
    data: Path, seed: int, from_identity: bool
) -> None:
    assert recovered(data, None, seed, from_identity=from_identity) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("from_identity", [True, False])
def test_r_on_real_slices_is_that_of_the_reference(data: Path, from_identity: bool) -> None:
    images = slices_8bit(data, 20)
    truth = maps(len(images), 512, seed=9)
    moving, fixed = tensor(moved(images, truth)), tensor(images)
    start = identity(len(images)) if from_identity else nearby(truth, 512, seed=10)
    ours = affine(moving, fixed, start=start)
    theirs = reference.affine(moving, fixed, start=start)
    assert (ours.r >= theirs.r - 1e-3).all()
