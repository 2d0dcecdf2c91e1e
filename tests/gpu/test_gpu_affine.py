"""On a GPU: the same maps as on the CPU to a hundredth of a pixel or so, and the same ranking.

Sums are added in another order there, so a step may end up on the other side of the tolerance: two
results differ by about as much as one step that is no longer taken (0.02 px). The same tests run on
the CPU, against one pair at a time.
"""

from __future__ import annotations

import pytest
import torch
from moved import bodies, corner_error, identity, maps, moved, nearby, tensor

from fingerprint.register import affine as module
from fingerprint.register.affine import Affine, affine, from_poses
from fingerprint.register.overlap import overlap
from fingerprint.register.resample import affine_field, inside, warp_affine

SIDE = 256
TOLERANCE_PX = 0.1  # mean over the corners
TOLERANCE_R = 1e-5
PLACES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moving, fixed, truth: six copies of growing contrast loss, then two strangers, one flat."""
    images = bodies(8, SIDE)
    truth = maps(8, SIDE, seed=17)
    fixed, moving = tensor(images), tensor(moved(images, truth))
    noise = torch.randn(moving.shape, generator=torch.Generator().manual_seed(5))
    moving += noise * torch.arange(8.0)[:, None, None, None] * 6
    moving[6:] = moving[6:].flip(0)
    flat = torch.full_like(moving[:1], 40.0)
    return torch.cat([moving, flat]), torch.cat([fixed, fixed[:1]]), torch.cat([truth, truth[:1]])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
@pytest.mark.parametrize("from_identity", [True, False])
def test_maps_and_ranking_agree_with_the_cpu(
    pairs, place, kind, from_identity, monkeypatch
) -> None:
    moving, fixed, truth = pairs
    start = identity(9) if from_identity else nearby(truth, SIDE, seed=3)
    want = affine(moving, fixed, start=start, spec=Affine(kind=kind))
    monkeypatch.setitem(module.AT_ONCE, place, 4)  # the last part is not full
    got = affine(moving.to(place), fixed.to(place), start=start.to(place), spec=Affine(kind=kind))
    assert got.matrix.device.type == got.r.device.type == got.converged.device.type == place
    copies = slice(0, 6)
    if kind == "affine":
        assert got.converged[copies].all()
        assert corner_error(got.matrix[copies], want.matrix[copies], SIDE).max() < TOLERANCE_PX
    assert not got.converged[8]
    assert torch.equal(got.matrix[8].cpu(), start[8])
    assert got.r[8].isnan()
    agree = (got.converged.cpu() == want.converged)[:8]
    close = (got.r.cpu()[:8] - want.r[:8]).abs() < (TOLERANCE_R if kind == "affine" else 1e-3)
    assert (agree & close)[copies].all()
    assert torch.equal(got.r.cpu()[:8].argsort(), want.r[:8].argsort())


@pytest.mark.parametrize("place", PLACES)
def test_images_and_r_agree_with_the_cpu(pairs, place) -> None:
    moving, fixed, truth = pairs
    there = truth.to(place)
    want, got = warp_affine(moving, truth), warp_affine(moving.to(place), there)
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=255 * 1e-3)
    masks = inside(affine_field(truth, SIDE)), inside(affine_field(there, SIDE)).cpu()
    assert (masks[0] != masks[1]).double().mean() < 1e-5
    r, share = overlap(moving.to(place), fixed.to(place), there)
    want_r, want_share = overlap(moving, fixed, truth)
    torch.testing.assert_close(r.cpu(), want_r, rtol=0, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(share.cpu(), want_share, rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_an_image_laid_on_itself_stays_where_it_is(pairs, place) -> None:
    images, start = pairs[1].to(place), from_poses(identity_poses(9), SIDE).to(place)
    got = affine(images, images, start=start)
    assert corner_error(got.matrix, start, SIDE).max() < 1e-6
    assert got.converged.all()
    assert (got.r > 1 - 1e-12).all()


def identity_poses(count: int):
    """Poses that move nothing, float64 (count, 5)."""
    return torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]] * count, dtype=torch.float64).numpy()
