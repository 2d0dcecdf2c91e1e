"""Images at moved points: closed forms, and the same pictures as `warp.apply`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fingerprint import warp
from fingerprint.register import resample

SIDES = (31, 48, 64)


def some(rng: np.random.Generator, side: int, count: int = 2) -> Tensor:
    return torch.from_numpy(rng.integers(0, 256, (count, 1, side, side)).astype(np.float32))


def maps(*rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("side", SIDES)
def test_the_identity_changes_no_bit(rng, side) -> None:
    images = some(rng, side)
    same = maps([[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]])
    assert torch.equal(resample.warp_affine(images, same), images)
    assert not resample.affine_field(same, side).any()
    assert resample.inside(resample.affine_field(same, side)).all()


@pytest.mark.parametrize("side", SIDES)
def test_whole_shifts_move_pixels_and_bring_air(rng, side) -> None:
    images = some(rng, side, 1)
    shift = maps([[1, 0, 3], [0, 1, -5]])
    want = torch.zeros_like(images)
    want[:, :, :-3, 5:] = images[:, :, 3:, :-5]
    assert torch.equal(resample.warp_affine(images, shift), want)
    seen = torch.zeros((1, 1, side, side), dtype=torch.bool)
    seen[:, :, :-3, 5:] = True
    assert torch.equal(resample.inside(resample.affine_field(shift, side)), seen)


def test_half_a_pixel_is_the_mean_of_two(rng) -> None:
    images = some(rng, 64, 1)
    got = resample.warp_affine(images, maps([[1, 0, 0], [0, 1, 0.5]]))
    assert torch.equal(got[..., :-1], (images[..., :-1] + images[..., 1:]) / 2)
    assert torch.equal(got[..., -1], images[..., -1] / 2)  # half of it is air


@pytest.mark.parametrize("side", SIDES)
def test_images_are_those_of_warp_apply(rng, side) -> None:
    images = some(rng, side)
    poses = np.array([[12.0, 1.08, 17.0, -30.0, 0], [-7.0, 0.93, -9.5, 4.25, 1]])
    back = np.linalg.inv(warp.matrix(poses, side))[:, :2]
    got = resample.warp_affine(images, torch.from_numpy(back))
    want = warp.apply(images[:, 0].numpy(), poses)
    np.testing.assert_allclose(got[:, 0].numpy(), want, atol=255 * 2e-4)


def test_a_field_is_read_as_y_then_x_from_each_pixel(rng) -> None:
    images = some(rng, 16, 1)
    field = torch.zeros((1, 2, 16, 16))
    field[0, 0, 2, 3], field[0, 1, 2, 3] = 5, -1
    got = resample.warp_field(images, field)
    assert got[0, 0, 2, 3] == images[0, 0, 7, 2]
    got[0, 0, 2, 3] = images[0, 0, 2, 3]
    assert torch.equal(got, images)


def test_bad_shapes_are_named() -> None:
    good, maps_ = torch.zeros((2, 1, 8, 8)), torch.zeros((2, 2, 3), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"warp_affine: images must be .* \(2, 1, 8, 9\)"):
        resample.warp_affine(torch.zeros((2, 1, 8, 9)), maps_)
    with pytest.raises(ValueError, match=r"warp_affine: matrices must be \(2, 2, 3\)"):
        resample.warp_affine(good, maps_[:1])
    with pytest.raises(ValueError, match="warp_field: field must be"):
        resample.warp_field(good, torch.zeros((2, 8, 8, 2)))
    with pytest.raises(ValueError, match="inside: field must be"):
        resample.inside(torch.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match="affine_field: matrices must be float64"):
        resample.affine_field(maps_.float(), 8)
