"""On a GPU: the same fields as on the CPU to a twentieth of a pixel, and the same scores.

Products of matrices are added in another order there. The same tests run on the CPU, with several
pairs at a time against one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moved import bends, bodies, identity, tensor

from fingerprint.measure import similarity, structural
from fingerprint.measure.information import information
from fingerprint.register import elastic as module
from fingerprint.register import energy, resample, scores, tiles
from fingerprint.register.elastic import elastic

SIDE = 256
TOLERANCE_PX = 0.05
PLACES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
Pairs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Moving, fixed, truth: four bent copies, then two strangers."""
    moving, truth = tensor(bodies(6, SIDE)), bends(4.0, 6, SIDE)
    fixed = resample.warp_field(moving, truth)
    fixed[4:] = fixed[4:].flip(0)
    return moving, fixed.round(), truth


@pytest.mark.parametrize("place", PLACES)
def test_fields_agree_with_the_cpu(
    pairs: Pairs, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving, fixed, truth = pairs
    want = elastic(moving, fixed, start=identity(6)).field
    if place == "cuda":
        monkeypatch.setattr(module, "AT_ONCE", 4)  # the last part is not full
    there = (part.to(place) for part in (moving, fixed))
    got = elastic(*there, start=identity(6).to(place)).field
    assert got.device.type == place
    away = (got.cpu() - want)[:4].norm(dim=1)
    body = (fixed[:4, 0] > 0).float()
    assert ((away * body).sum() / body.sum()).item() < TOLERANCE_PX
    assert ((got.cpu() - truth)[:4].norm(dim=1) * body).sum() / body.sum() < 0.5
    told = [energy.warp_of(field) for field in (got, want)]
    assert (told[0].min_jacobian > 0).all()
    ranks = [one.deformation[:6].cpu().argsort() for one in told]
    assert torch.equal(*ranks)


@pytest.mark.parametrize("place", PLACES)
def test_scores_agree_with_the_cpu(pairs: Pairs, place: str) -> None:
    moving, fixed, _ = pairs
    inside = fixed > -1
    inside[..., :9] = False
    there = [part.to(place) for part in (moving.round(), fixed, inside)]
    want = scores.scores(moving.round(), fixed, inside)
    got = scores.scores(*there)
    exact = [scores.NAMES.index(name) for name in ("r", "r_highpass")]
    np.testing.assert_array_equal(got[:, exact], want[:, exact])  # sums of whole numbers
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        tiles.local_z(*there), tiles.local_z(moving.round(), fixed, inside)
    )
    x, y, _ = there
    for score in (similarity.euclidean, similarity.cosine, structural.three_ssim):
        torch.testing.assert_close(
            score(x, y).cpu(), score(moving.round(), fixed), rtol=1e-6, atol=1e-6
        )
    assert torch.equal(information(x, y).joint.cpu() > 0, information(moving, fixed).joint > 0)
