"""Elastic registration: planted warps come back, nothing folds, and equal images stay still."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from moved import seen, slices_8bit, tensor
from torch import Tensor

from fingerprint import phantom
from fingerprint.corpus.body import body_mask
from fingerprint.register import affine, energy, reference, resample, splines
from fingerprint.register.bend import jacobian
from fingerprint.register.elastic import Elastic, elastic

SIDE = 256


@functools.cache
def slices() -> Tensor:
    """Hearts of some synthetic patients, (6, 1, 256, 256)."""
    hu = [phantom.patient(k, seed=9, n_slices=3, size_px=SIDE).hu[1] for k in range(6)]
    return torch.from_numpy(np.clip(np.rint((np.stack(hu) + 1000.0) * 255 / 2000), 0, 255)).float()[
        :, None
    ]


def fields(level: float, count: int, side: int = SIDE, first: int = 0) -> Tensor:
    made = [phantom.bend_of(level, seed=first + k, shape=(side, side)) for k in range(count)]
    return torch.from_numpy(np.stack(made).astype(np.float32))


def still(images: Tensor) -> Tensor:
    return torch.eye(2, 3, dtype=torch.float64).repeat(len(images), 1, 1)


def error(found: Tensor, true: Tensor, fixed: Tensor) -> np.ndarray:
    """Mean distance of endpoints inside the body, px."""
    body = body_mask(fixed[:, 0].round().to(torch.uint8).numpy())
    away = np.hypot(*np.moveaxis((found - true).numpy(), 1, 0))
    return np.array([one[inside].mean() for one, inside in zip(away, body, strict=True)])


# -- splines


def test_a_spline_keeps_a_constant_and_sums_to_one() -> None:
    for pixels, knots in ((64, 16), (128, 64), (96, 24), (32, 1)):
        p = splines.weights(pixels, knots)
        torch.testing.assert_close(p.sum(1), torch.ones(pixels))
        flat = splines.spread(torch.full((1, 2, knots, knots), 3.5), pixels)
        torch.testing.assert_close(flat, torch.full((1, 2, pixels, pixels), 3.5))


def test_gathered_is_the_adjoint_of_spread() -> None:
    torch.manual_seed(1)
    knots, values = torch.randn(1, 1, 9, 9).double(), torch.randn(1, 1, 36, 36).double()
    p = splines.weights(36, 9).double()
    left = ((p @ knots @ p.T) * values).sum()
    right = (knots * splines.gathered(values.float(), 9).double()).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-4)


def test_the_bending_of_knots_is_that_of_their_laplacian() -> None:
    torch.manual_seed(2)
    knots = torch.randn(1, 1, 12, 12)
    wide = torch.nn.functional.pad(knots, (1, 1, 1, 1), mode="replicate")
    laplacian = (
        wide[..., 2:, 1:-1] + wide[..., :-2, 1:-1] + wide[..., 1:-1, 2:] + wide[..., 1:-1, :-2]
    ) - 4 * knots
    found = (knots * splines.filtered(knots, splines.bending_spectrum(12))).sum()
    assert found.item() == pytest.approx((laplacian**2).sum().item(), rel=1e-4)


# -- planted, and not


@pytest.mark.parametrize(("level", "most"), [(3.0, 0.15), (6.0, 0.3)])
def test_planted_warps_come_back(level: float, most: float) -> None:
    moving, true = slices(), fields(level, 6)
    fixed = resample.warp_field(moving, true)
    found = elastic(moving, fixed, start=still(moving)).field
    assert error(found, true, fixed).mean() < most
    assert error(0 * found, true, fixed).mean() > 5 * most
    assert (energy.warp_of(found).min_jacobian > 0).all()


def test_brightness_contrast_gamma_and_noise_may_differ() -> None:
    moving, true = slices(), fields(4.0, 6)
    rng = torch.Generator().manual_seed(4)
    fixed = resample.warp_field(moving, true)
    fixed = 230 * (fixed / 255) ** 0.8 + 10 + 5 * torch.randn(fixed.shape, generator=rng)
    found = elastic(moving, fixed.clamp(0, 255), start=still(moving)).field
    assert error(found, true, resample.warp_field(moving, true)).mean() < 0.4


def test_a_warp_comes_back_on_top_of_an_affine_start() -> None:
    moving, true = slices()[:3], fields(4.0, 3)
    poses = np.array([[10.0, 1.05, 12, -9, 0], [-8, 0.95, -20, 4, 0], [3, 1, 0, 0, 1.0]])
    maps = affine.from_poses(poses, SIDE)
    linear = maps[:, :, :2].float()[..., None, None]
    whole = resample.affine_field(maps, SIDE) + (linear * true[:, None]).sum(2)  # A(p + w) - p
    fixed = resample.warp_field(moving, whole)
    found = elastic(moving, fixed, start=maps).field
    seen = fixed * resample.inside(whole)
    assert error(found, whole, seen).mean() < 0.4
    assert (energy.warp_of(found).min_jacobian > 0).all()


def test_equal_images_stay_still_to_the_last_bit() -> None:
    moving = slices()[:2]
    assert torch.equal(
        elastic(moving, moving, start=still(moving)).field, torch.zeros(2, 2, SIDE, SIDE)
    )


def test_strangers_are_bent_without_a_fold_and_more_than_copies() -> None:
    moving = slices()
    strangers = moving.roll(1, 0)
    bent = elastic(moving, strangers, start=still(moving))
    told = energy.warp_of(bent.field)
    assert bent.field.isfinite().all()
    assert (jacobian(bent.field) > 0).all()
    assert (told.folded == 0).all()
    copies = resample.warp_field(moving, fields(3.0, 6))
    copied = energy.warp_of(elastic(moving, copies, start=still(moving)).field)
    assert copied.deformation.max() < told.deformation.min()


def test_images_without_structure_are_left_where_they_are() -> None:
    flat = torch.full((1, 1, 64, 64), 80.0)
    textured = 80 + 40 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    for moving, fixed in ((flat, flat), (flat, 0 * flat)):
        assert elastic(moving, fixed, start=still(flat)).field.abs().max() < 1e-5
    found = elastic(textured, flat, start=still(flat)).field
    assert found.isfinite().all()
    assert (jacobian(found) > 0).all()
    nowhere = still(flat)
    nowhere[:, :, 2] = 1e4  # nothing in common
    assert elastic(textured, textured, start=nowhere).field.isfinite().all()


@pytest.mark.parametrize("side", [32, 64, 96])
def test_small_images_are_registered_too(side: int) -> None:
    moving = torch.nn.functional.adaptive_avg_pool2d(slices()[:2], side)
    true = fields(1.0, 2, side)
    fixed = resample.warp_field(moving, true)
    found = elastic(moving, fixed, start=still(moving)).field
    assert error(found, true, fixed).mean() < error(0 * found, true, fixed).mean()


def test_no_bit_depends_on_the_batch_or_its_order() -> None:
    moving = slices()[:3]
    fixed = resample.warp_field(moving, fields(3.0, 3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        together = elastic(moving, fixed, start=still(moving)).field
        alone = [
            elastic(moving[k : k + 1], fixed[k : k + 1], start=still(moving[:1])).field
            for k in range(3)
        ]
        assert torch.equal(together, torch.cat(alone))
        turned = elastic(moving.flip(0), fixed.flip(0), start=still(moving)).field
        assert torch.equal(turned, together.flip(0))
    finally:
        torch.set_num_threads(threads)


def test_as_near_as_simpleitk_on_small_images() -> None:
    moving = torch.nn.functional.avg_pool2d(slices()[:2], 2)
    true = fields(3.0, 2, SIDE // 2)
    fixed = resample.warp_field(moving, true)
    ours = error(elastic(moving, fixed, start=still(moving)).field, true, fixed)
    itk = error(reference.elastic(moving, fixed, start=still(moving)).field, true, fixed)
    before = error(0 * true, true, fixed)
    assert (itk < 0.6 * before).all()  # an oracle that finds something
    assert ours.mean() <= itk.mean()


@pytest.mark.parametrize("wrong", [{"stiffness": 0.0}, {"steps": 0}, {"least_jacobian": 1.0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Elastic: "):
        Elastic(**wrong)
    with pytest.raises(ValueError, match="elastic: maps must be float64"):
        elastic(slices(), slices(), start=still(slices())[:2])


# -- real CT


@pytest.mark.slow
@pytest.mark.parametrize("level", [6.0, 9.0, 12.0])
def test_planted_warps_of_real_slices_come_back(data: Path, level: float) -> None:
    moving = tensor(slices_8bit(data, 12))
    true = fields(level, 12, 512, first=int(level) * 100)
    fixed = resample.warp_field(moving, true)
    found = elastic(moving, fixed, start=still(moving)).field
    away = (found - true).norm(dim=1).numpy()
    errors = [one[seen(image[0])].mean() for one, image in zip(away, fixed.numpy(), strict=True)]
    assert np.mean(errors) < 0.3
    assert max(errors) < 1
    assert (energy.warp_of(found).min_jacobian > 0).all()
