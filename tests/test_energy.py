"""Deformation of fields: closed forms, and fields one after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor

from fingerprint import phantom, warp
from fingerprint.register import affine, energy, resample

SIDE = 128


def field_of(y: np.ndarray, x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([y, x]).astype(np.float32))[None]


def smooth(level: float, seed: int, side: int = SIDE) -> Tensor:
    return torch.from_numpy(
        phantom.bend_of(level, seed=seed, shape=(side, side)).astype(np.float32)
    )[None]


@examples(deadline=None, max_examples=30)
@given(
    angle=st.floats(-15, 15), scale=st.floats(0.9, 1.1), y=st.floats(-40, 40), x=st.floats(-40, 40)
)
def test_an_affine_map_does_not_deform(angle: float, scale: float, y: float, x: float) -> None:
    maps = affine.from_poses(np.array([[angle, scale, y, x, 0.0]]), SIDE)
    maps[:, 0, 1] += 0.03
    found = energy.warp_of(resample.affine_field(maps, SIDE))
    assert found.deformation.item() < 1e-9
    assert found.bending.item() < 1e-9
    assert found.min_jacobian.item() == pytest.approx(1, abs=1e-4)
    assert found.folded.item() == 0
    assert found.spread_log_jacobian.item() < 1e-4


def test_a_wave_has_its_closed_form() -> None:
    side, amplitude, k = 512, 3.0, 2 * math.pi * 16 / 512
    x = np.arange(side) + 0.5
    wave = np.broadcast_to(amplitude * np.sin(k * x), (side, side))
    found = energy.warp_of(field_of(0 * wave, wave))
    assert found.deformation.item() == pytest.approx(amplitude**2 * k**2 / 2, rel=0.02)
    assert found.bending.item() == pytest.approx(amplitude**2 * k**4 / 2, rel=0.02)
    assert found.min_jacobian.item() == pytest.approx(1 - amplitude * k, abs=0.02)
    assert found.folded.item() == 0
    strong = energy.warp_of(field_of(0 * wave, 3 * wave))
    assert strong.min_jacobian.item() == pytest.approx(1 - 3 * amplitude * k, abs=0.05)
    # cos(kx) < -1 / (3 A k) along x
    folds = math.acos(1 / (3 * amplitude * k)) / math.pi
    assert strong.folded.item() == pytest.approx(folds, abs=0.03)  # 32 px a wave


def test_waves_add_up_over_components_and_an_affine_part_changes_nothing() -> None:
    k = 2 * math.pi * 4 / SIDE
    t = np.arange(SIDE) + 0.5
    along_x = np.broadcast_to(np.sin(k * t), (SIDE, SIDE))
    one = energy.warp_of(field_of(0 * along_x, along_x))
    both = field_of(along_x.T, along_x)
    found = energy.warp_of(both)
    assert found.deformation.item() == pytest.approx(2 * one.deformation.item(), rel=1e-5)
    shifted = both + 7
    shifted[:, 0] += 0.1 * torch.arange(SIDE)[:, None]
    again = energy.warp_of(shifted)
    assert again.deformation.item() == pytest.approx(found.deformation.item(), rel=1e-4)
    assert again.bending.item() == pytest.approx(found.bending.item(), rel=1e-4)


def test_mirroring_is_no_fold() -> None:
    maps = affine.from_poses(np.array([[5.0, 1.0, 2.0, 3.0, 1.0]]), SIDE)
    found = energy.warp_of(resample.affine_field(maps, SIDE))
    assert found.min_jacobian.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("level", [2.0, 6.0])
def test_a_field_and_its_inverse_cancel(level: float) -> None:
    field = smooth(level, seed=3)
    back = energy.inverse(field)
    inside = slice(12, -12)
    for both in (energy.compose(field, back), energy.compose(back, field)):
        assert both[..., inside, inside].abs().max().item() < 0.05


def test_compose_of_affine_fields_is_the_product_of_their_matrices() -> None:
    first, second = (np.array([[3.0, 1.0, 1.0, 0.5, 0.0]]), np.array([[-2.0, 1.02, 0.0, 1.0, 0.0]]))
    one, two = (
        resample.affine_field(torch.from_numpy(warp.matrix(p, SIDE)[:, :2]), SIDE)
        for p in (first, second)
    )
    both = warp.matrix(second, SIDE) @ warp.matrix(first, SIDE)
    expected = resample.affine_field(torch.from_numpy(both[:, :2]), SIDE)
    inside = slice(16, -16)
    found = energy.compose(two, one)
    torch.testing.assert_close(
        found[..., inside, inside], expected[..., inside, inside], atol=1e-3, rtol=0
    )


def test_no_number_depends_on_the_batch() -> None:
    fields = torch.cat([smooth(3.0, seed=k, side=64) for k in range(3)])
    together = energy.warp_of(fields)
    for k in range(3):
        alone = energy.warp_of(fields[k : k + 1])
        for name in ("deformation", "bending", "min_jacobian", "spread_log_jacobian"):
            assert torch.equal(getattr(together, name)[k : k + 1], getattr(alone, name))


def test_other_shapes_are_refused() -> None:
    for name in ("warp_of", "inverse"):
        with pytest.raises(ValueError, match=rf"{name}: field must be"):
            getattr(energy, name)(torch.zeros(1, 3, 8, 8))
