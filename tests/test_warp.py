"""The convention of poses: identities, inverses, composition, scipy, and planted copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fingerprint import warp
from fingerprint.phantom.copies import plant, pose_of

numbers = st.tuples(
    st.floats(-60, 60),
    st.floats(0.5, 2),
    st.floats(-80, 80),
    st.floats(-80, 80),
    st.sampled_from([0.0, 1.0]),
)


def scene(side: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs with air around: what survives being resampled twice."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.standard_normal((side, side)), side / 24, mode="wrap")
    y, x = np.indices((side, side)) - (side - 1) / 2
    return (image / image.std() * 60 + 120) * (np.hypot(y, x) < side * 0.3)


def test_the_identity_changes_no_bit(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (3, 40, 40), dtype=np.uint8)
    np.testing.assert_array_equal(warp.apply(images, warp.IDENTITY), images)


def test_mirroring_exchanges_left_and_right_exactly(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (2, 33, 33), dtype=np.uint8)
    np.testing.assert_array_equal(warp.apply(images, (0, 1, 0, 0, 1)), images[:, :, ::-1])


def test_a_shift_is_in_pixels_of_512_whatever_the_resolution() -> None:
    image = np.zeros((1, 128, 128))
    image[0, 60, 60] = 1
    moved = warp.apply(image, (0, 1, 12, -40, 0))[0]
    assert np.argwhere(moved).tolist() == [[63, 50]]


def test_a_positive_angle_turns_the_x_axis_towards_the_y_axis() -> None:
    image = np.zeros((1, 41, 41))
    image[0, 20, 35] = 1  # right of the centre
    assert np.argwhere(warp.apply(image, (90, 1, 0, 0, 0))[0] > 0.5).tolist() == [[35, 20]]


def test_what_comes_from_outside_is_air() -> None:
    image = np.full((1, 16, 16), 9.0)
    moved = warp.apply(image, (0, 1, 512 / 2, 0, 0), air=3.0)[0]
    np.testing.assert_array_equal(moved[:8], 3.0)
    np.testing.assert_array_equal(moved[8:], 9.0)


@given(pose=numbers)
@settings(deadline=None)
def test_a_pose_and_its_inverse_are_the_identity(pose: tuple[float, ...]) -> None:
    for both in (
        warp.compose(warp.inverse(pose), pose),
        warp.compose(pose, warp.inverse(pose)),
    ):
        np.testing.assert_allclose(both, warp.IDENTITY, atol=1e-9)


@given(first=numbers, second=numbers)
@settings(deadline=None)
def test_composing_poses_multiplies_their_matrices(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    for side in (512, 128):
        product = warp.matrix(second, side) @ warp.matrix(first, side)
        np.testing.assert_allclose(
            warp.matrix(warp.compose(second, first), side), product, atol=1e-8
        )


@given(pose=numbers, y=st.floats(0, 127), x=st.floats(0, 127))
@settings(deadline=None)
def test_points_undo_the_matrix(pose: tuple[float, ...], y: float, x: float) -> None:
    at_y, at_x = warp.points(pose, 128)
    i, j = round(y), round(x)
    there = warp.matrix(pose, 128) @ [at_y[i, j], at_x[i, j], 1]
    np.testing.assert_allclose(there, [i, j, 1], atol=1e-8)


def test_a_margin_shows_what_lies_around_the_slice() -> None:
    pose = (7, 1.1, 30, -20, 1)
    inner, outer = warp.points(pose, 32), warp.points(pose, 32, margin_px=5)
    for one, wide in zip(inner, outer, strict=True):
        assert wide.shape == (42, 42)
        np.testing.assert_array_equal(wide[5:-5, 5:-5], one)


@pytest.mark.parametrize("pose", [(13, 0.93, 21, -33, 0), (-8, 1.07, -5, 40, 1)])
def test_moving_twice_is_moving_once_by_the_composed_pose(pose: tuple[float, ...]) -> None:
    image, then = scene(256)[None], (-11.0, 1.05, 9.0, 14.0, 1.0)
    twice = warp.apply(warp.apply(image, pose), then)
    once = warp.apply(image, warp.compose(then, pose))
    assert np.corrcoef(twice.ravel(), once.ravel())[0, 1] > 0.999


def test_moving_back_shows_the_image_again() -> None:
    image, pose = scene(256, 1)[None], (14.0, 0.91, 30.0, -25.0, 1.0)
    back = warp.apply(warp.apply(image, pose), warp.inverse(pose))
    assert np.corrcoef(back.ravel(), image.ravel())[0, 1] > 0.995


@given(pose=numbers)
@settings(deadline=None, max_examples=30)
def test_bilinear_equals_scipy(pose: tuple[float, ...]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (37, 37)).astype(float)
    back = np.linalg.inv(warp.matrix(pose, 37))
    want = ndimage.affine_transform(
        image, back[:2, :2], back[:2, 2], order=1, mode="grid-constant", cval=7.0
    )
    np.testing.assert_allclose(warp.apply(image[None], pose, air=7.0)[0], want, atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_a_planted_copy_is_the_slice_at_the_pose_that_was_planted(seed: int) -> None:
    image = np.clip(scene(128, seed), 0, 255).astype(np.uint8)
    planted = pose_of(1.0, seed=seed, side_px=128)
    unit = 512 / 128
    pose = np.array(
        [planted.angle_deg, planted.scale, planted.shift_y_px * unit, planted.shift_x_px * unit, 0]
    )
    copy = plant(image, "pose", 1.0, seed=seed)
    shown = np.rint(warp.apply(image[None], pose)[0])
    assert np.abs(shown - copy).max() <= 1  # scipy rounds 1e-13 elsewhere
    back = warp.apply(copy[None], warp.inverse(pose))[0]
    assert np.corrcoef(back.ravel(), image.ravel())[0, 1] > 0.99


def test_one_image_at_many_poses_and_many_images_at_one_are_the_same_bits() -> None:
    images = np.stack([scene(64, s) for s in range(3)])
    poses = np.array([(5, 1, 0, 8, 0), (-9, 1.1, 3, 0, 1), (0, 0.9, 0, 0, 0)])
    each = np.stack([[warp.apply(i[None], p)[0] for p in poses] for i in images])
    for k in range(3):
        np.testing.assert_array_equal(warp.apply(images[k : k + 1], poses), each[k])
        np.testing.assert_array_equal(warp.apply(images, poses[k]), each[:, k])
    np.testing.assert_array_equal(warp.apply(images, poses), each[range(3), range(3)])


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="square"):
        warp.apply(np.zeros((1, 4, 5)), warp.IDENTITY)
    with pytest.raises(ValueError, match="one pose per image, got 2 images"):
        warp.apply(np.zeros((2, 4, 4)), np.zeros((3, 5)) + warp.IDENTITY)
    with pytest.raises(ValueError, match="a pose has 5 numbers"):
        warp.inverse((0, 1, 0, 0))
