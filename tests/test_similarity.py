"""Image similarities: closed forms, oracles, bounds, and bits that do not depend on the batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import Tensor

from fingerprint import phantom, warp
from fingerprint.measure import similarity, structural
from fingerprint.measure.information import BINS, information

Score = Callable[..., Tensor]
SCORES: dict[str, Score] = {
    "euclidean": similarity.euclidean,
    "manhattan": similarity.manhattan,
    "cosine": similarity.cosine,
    "pearson": similarity.pearson,
    "ssim": structural.ssim,
    "three_ssim": structural.three_ssim,
    "mutual": lambda x, y: information(x, y).mutual,
    "normalised": lambda x, y: information(x, y).normalised,
}


def batch(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(images, np.float32))[:, None]


@pytest.fixture(scope="module")
def slices() -> tuple[Tensor, Tensor]:
    """Slices of two patients, and copies of them with noise."""
    images = np.stack([phantom.patient(k, seed=3, n_slices=3, size_px=64).hu[1] for k in range(3)])
    grey = np.clip(np.rint((images + 1000.0) * 255 / 2000), 0, 255)
    noisy = np.clip(grey + np.random.default_rng(1).normal(0, 12, grey.shape), 0, 255)
    return batch(grey), batch(noisy)


def pairs(rng: np.random.Generator, n: int = 3, side: int = 24) -> tuple[Tensor, Tensor]:
    x = rng.integers(0, 256, (n, side, side))
    y = np.clip(x + rng.integers(-60, 60, x.shape), 0, 255)
    return batch(x), batch(y)


# -- against the slow and obvious


def test_pixel_scores_are_their_formulas(rng: np.random.Generator) -> None:
    x, y = pairs(rng)
    for k in range(len(x)):
        a, b = x[k].numpy().ravel().astype(float), y[k].numpy().ravel().astype(float)
        assert similarity.euclidean(x, y)[k] == pytest.approx(math.dist(a, b), rel=1e-12)
        assert similarity.manhattan(x, y)[k] == sum(abs(a - b))
        expected = a @ b / math.sqrt((a @ a) * (b @ b))
        assert similarity.cosine(x, y)[k] == pytest.approx(expected, rel=1e-12)
        grey = (part.numpy()[k, 0].astype(np.uint8) for part in (x, y))
        assert similarity.pearson(x, y)[k] == naive.pearson(*grey)


def test_a_mask_is_as_if_the_rest_were_not_there(rng: np.random.Generator) -> None:
    x, y = pairs(rng)
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[:, :, :12, :16] = True
    cut = x[:, :, :12, :16].contiguous(), y[:, :, :12, :16].contiguous()
    for score in (similarity.euclidean, similarity.cosine, similarity.pearson):
        torch.testing.assert_close(score(x, y, mask), score(*cut), rtol=1e-12, atol=0)
    whole, part = information(x, y, mask), information(*cut)
    assert torch.equal(whole.mutual, part.mutual)
    assert torch.equal(whole.miller_madow, part.miller_madow)


def test_mutual_information_is_counted(rng: np.random.Generator) -> None:
    x, y = pairs(rng, n=2, side=12)
    found = information(x, y)
    for k in range(2):
        a, b = ((part[k].numpy().ravel() // 4).astype(int).tolist() for part in (x, y))
        assert found.mutual[k] == pytest.approx(naive.mutual_bits(a, b), abs=1e-12)
        assert found.x[k] == pytest.approx(naive.entropy_bits(a), abs=1e-12)
        occupied = len(set(a)) + len(set(b)) - len(set(zip(a, b, strict=True))) - 1
        corrected = naive.mutual_bits(a, b) + occupied / (2 * len(a) * math.log(2))
        assert found.miller_madow[k] == pytest.approx(corrected, abs=1e-12)


def test_ssim_is_that_of_scikit_image(slices: tuple[Tensor, Tensor]) -> None:
    x, y = slices
    for k in range(len(x)):
        _, expected = structural_similarity(
            x[k, 0].numpy().astype(float), y[k, 0].numpy().astype(float), gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False, data_range=255, full=True,
        )  # fmt: skip
        found = structural.ssim(x[k : k + 1], y[k : k + 1]).item()
        assert found == pytest.approx(expected[5:-5, 5:-5].mean(), abs=1e-5)


def test_three_ssim_weighs_pixels_by_what_they_are(slices: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:, :, :40, :40].contiguous() for part in slices)
    for k in range(2):
        a, b = x[k, 0].numpy().astype(float), y[k, 0].numpy().astype(float)
        _, found = structural_similarity(
            b, a, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=255, full=True,
        )  # fmt: skip
        expected = naive.three_ssim(b, a, found)
        assert structural.three_ssim(y, x)[k].item() == pytest.approx(expected, abs=1e-5)
    assert not torch.equal(structural.three_ssim(x, y), structural.three_ssim(y, x))
    assert not torch.equal(structural.three_ssim(y, x, both=True), structural.three_ssim(y, x))


# -- closed forms and bounds


def test_an_image_is_itself(slices: tuple[Tensor, Tensor]) -> None:
    x, _ = slices
    one = torch.ones(len(x), dtype=torch.float64)
    for name in ("cosine", "pearson", "ssim", "three_ssim"):
        torch.testing.assert_close(SCORES[name](x, x), one, rtol=0, atol=1e-12)
    assert torch.equal(similarity.euclidean(x, x), 0 * one)
    found = information(x, x)
    torch.testing.assert_close(found.mutual, found.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.normalised, 2 * one, rtol=0, atol=1e-12)


def test_e07_mutual_information_never_exceeds_an_entropy_nor_log2_of_the_bins(
    slices: tuple[Tensor, Tensor], rng: np.random.Generator
) -> None:
    for x, y in (slices, pairs(rng), (slices[0], slices[0])):
        for bins in (2, BINS, 256):
            found = information(x, y, bins=bins)
            assert (found.mutual <= torch.minimum(found.x, found.y)).all()
            assert (found.x <= math.log2(bins) + 1e-12).all()
            assert (found.mutual >= 0).all()
            assert ((found.normalised >= 1) & (found.normalised <= 2)).all()
    # of 8-bit images at most 8 bits, 5.545 nats: 10.5, 11.7 and 12.5 of Fig. 5 are neither
    every = torch.arange(256.0).view(1, 1, 16, 16)
    most = information(every, every, bins=256).mutual.item()
    assert most == pytest.approx(8)
    assert most * math.log(2) == pytest.approx(5.545, abs=1e-3)
    assert most < 10.5


def test_e08_rotation_translation_and_isotropic_scale_are_four_parameters() -> None:
    assert len(warp.POSE) - 1 == 4  # mirroring is a choice, not a parameter
    pose = np.array([10.0, 1.05, 3.0, -2.0, 0.0])
    steps = np.eye(5)[:4] * 1e-6
    corners = np.array([[0, 0, 1], [0, 511, 1], [511, 0, 1.0]]).T
    moved = [(warp.matrix(pose + d) - warp.matrix(pose - d)) @ corners / 2e-6 for d in steps]
    assert np.linalg.matrix_rank([part.ravel() for part in moved], tol=0.1) == 4
    (a, b), (c, d) = warp.matrix(pose)[:2, :2]
    assert (a, b) == (d, -c)  # no shear, one scale: not the six of an affine map


def test_information_of_correlated_gaussians() -> None:
    rng, rho, n = np.random.default_rng(3), 0.9, 512
    u, v = rng.standard_normal((2, n, n))
    z = np.stack([u, rho * u + math.sqrt(1 - rho**2) * v])
    x, y = (batch(np.clip(128 + 32 * part, 0, 255)[None]) for part in z)
    true = -0.5 * math.log2(1 - rho**2)
    assert information(x, y).mutual.item() == pytest.approx(true, abs=0.02)
    assert information(x, y, bins=256).mutual.item() > true + 0.03  # more bins, more bias


def test_bias_of_independent_images_is_what_miller_and_madow_take_away() -> None:
    rng = np.random.default_rng(4)
    x, y = (batch(rng.integers(0, 256, (1, 512, 512))) for _ in range(2))
    found = information(x, y, bins=256)
    assert found.mutual.item() == pytest.approx(255**2 / (2 * 512**2 * math.log(2)), abs=0.015)
    assert abs(information(x, y).miller_madow.item()) < 1e-3


@examples(deadline=None, max_examples=25)
@given(gain=st.sampled_from([0.5, 1.0, 2.0]), offset=st.integers(0, 40), seed=st.integers(0, 99))
def test_what_scores_do_not_see(gain: float, offset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (batch(2 * rng.integers(0, 50, (1, 16, 16))) for _ in range(2))
    changed = x * gain + offset
    assert similarity.pearson(changed, y).item() == pytest.approx(
        similarity.pearson(x, y).item(), abs=1e-12
    )
    assert information(x, y).mutual == pytest.approx(information(y, x).mutual, abs=1e-12)
    assert structural.ssim(x, y).item() == pytest.approx(structural.ssim(y, x).item(), abs=1e-6)
    assert similarity.cosine(x * gain, y).item() == pytest.approx(
        similarity.cosine(x, y).item(), abs=1e-12
    )


# -- pairs without an answer, and batches


def test_a_pair_without_an_answer_is_nan_and_harms_no_other(rng: np.random.Generator) -> None:
    x, y = pairs(rng)
    x[1] = 7
    alone = similarity.pearson(x[:1], y[:1])
    r = similarity.pearson(x, y)
    assert r[1].isnan()
    assert torch.equal(r[:1], alone)
    black = torch.zeros_like(x)
    assert similarity.cosine(black, y).isnan().all()
    assert structural.three_ssim(y, black).isnan().all()
    assert information(x, x).mutual[1] == 0
    assert information(x[1:2], x[1:2]).normalised.isnan().all()
    nowhere = torch.zeros_like(x, dtype=torch.bool)
    for score in (similarity.pearson, similarity.cosine, structural.ssim):
        assert score(x, y, nowhere).isnan().all()
    assert information(x, y, nowhere).mutual.isnan().all()


@pytest.mark.parametrize("side", [100, 300])
def test_a_constant_that_is_not_whole_has_no_r(side: int, rng: np.random.Generator) -> None:
    y = batch(rng.integers(0, 256, (1, side, side)))
    for grey in np.linspace(0.1, 254.9, 40):
        assert similarity.pearson(torch.full_like(y, grey), y).isnan().all()
    x = torch.full_like(y, 255)
    x[..., 0, 0] = 254  # the least that is not constant
    assert not similarity.pearson(x, y).isnan().any()


@pytest.mark.parametrize("name", SCORES)
def test_no_bit_depends_on_the_batch(name: str, slices: tuple[Tensor, Tensor]) -> None:
    x, y = slices
    x, y = x + 0.123, y * 0.987  # not whole: sums are rounded
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        together = SCORES[name](x, y)
        alone = torch.cat([SCORES[name](x[k : k + 1], y[k : k + 1]) for k in range(len(x))])
        assert torch.equal(together, alone)
        assert torch.equal(SCORES[name](x.flip(0), y.flip(0)), together.flip(0))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SCORES)
def test_images_of_another_kind_are_refused(name: str) -> None:
    good = torch.zeros(2, 1, 16, 16)
    for bad in (good.double(), good[:, 0], good[:1], torch.zeros(2, 1, 16, 12)):
        with pytest.raises(ValueError, match="images"):
            SCORES[name](good, bad)


def test_numbers_out_of_range_are_refused() -> None:
    good = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"bins must lie in 2 \.\. 256, got 1"):
        information(good, good, bins=1)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        structural.ssim(good[..., :10], good[..., :10])
    with pytest.raises(ValueError, match="bool mask"):
        similarity.pearson(good, good, good)
