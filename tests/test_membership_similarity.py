"""Similarities of paper 001: each against a plain formula; noise, and what it cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from clef import noised, slices_of
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.measure import classify, similarity, structural
from fingerprint.membership.noise import ARMS, Noise, attenuated, noisy
from fingerprint.membership.similarity import LEAST, MEASURES, Similarity, prepared, similarities
from fingerprint.membership.tops import Tops

PLAIN = Similarity(noise=(Noise(),))


def pairwise(asked: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Return all six similarities, a pair at a time."""
    out = np.empty((len(MEASURES), len(asked), len(generated)))
    for i, a in enumerate(asked):
        for j, g in enumerate(generated):
            x, y = (torch.from_numpy(part.astype(np.float32))[None, None] for part in (a, g))
            found = (
                -similarity.euclidean(x, y),
                -similarity.manhattan(x, y),
                similarity.cosine(x, y),
                similarity.pearson(x, y),
                structural.ssim(x, y),
                structural.three_ssim(y, x),
            )
            out[:, i, j] = [float(value) for value in found]
    return np.nan_to_num(out, nan=LEAST)


@pytest.mark.parametrize("px", [16, 33])
def test_all_pairs_are_what_each_pair_gives(rng: np.random.Generator, px: int) -> None:
    asked = rng.integers(0, 256, (5, px, px), dtype=np.uint8)
    generated = rng.integers(0, 256, (70, px, px), dtype=np.uint8)
    generated[0], generated[1], generated[2] = asked[0], 0, 7
    found = similarities(prepared(asked, "cpu"), prepared(generated, "cpu"))
    np.testing.assert_allclose(found, pairwise(asked, generated), atol=2e-6)
    assert found[MEASURES.index("pearson"), 0, 0] == 1
    assert found[MEASURES.index("euclidean"), 0, 0] == 0
    a, g = (image.astype(int).ravel().tolist() for image in (asked[3], generated[9]))
    far = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, g, strict=True)))
    assert found[0, 3, 9] == pytest.approx(-far, rel=1e-15)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=40), st.integers(1, 12), st.data())
def test_no_cut_or_order_of_blocks_changes_the_result(values, k, data) -> None:
    order = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    tops = Tops.empty((1,), k)
    for part in (order[:cut], order[cut:]):
        tops = tops.plus(np.array([part], float).reshape(1, -1))
    found = tops.reduced()
    best = sorted(values, reverse=True)
    assert found["max"][0] == best[0]
    assert found["top"][0] == pytest.approx(np.mean(best[:k]))
    assert found["mean"][0] == pytest.approx(np.mean(values))


def test_nothing_to_compare_with_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one generated image"):
        Tops.empty((2,), 3).reduced()


def test_copies_are_found_and_strangers_are_not() -> None:
    used, others, strangers = (slices_of(p) for p in (range(8), range(8, 16), range(16, 22)))
    asked, truth = np.concatenate([used, others]), np.repeat([True, False], [32, 32])
    found = PLAIN.fit(None)(asked, noised(used, 1), others, seed=1)  # type: ignore[arg-type]
    assert len(found) == len(MEASURES) * 3
    for measure in MEASURES:
        assert classify.auc(found[f"{measure}/none/max"], truth)[0] >= 0.95, measure
    nothing = PLAIN(asked, noised(strangers, 2), others, seed=1)
    for arm, scores in nothing.items():
        assert 0.2 < classify.auc(scores, truth)[0] < 0.8, arm


def test_each_slice_is_scored_by_itself_and_large_ones_are_reduced() -> None:
    images = slices_of(range(6))
    large = np.repeat(np.repeat(images, 2, 1), 2, 2)
    found = Similarity(px=32, noise=(Noise(),))(large, large[:9], large, seed=1)
    alone = PLAIN(images[4:5], images[:9], images, seed=1)
    for arm, scores in alone.items():
        assert scores[0] == pytest.approx(found[arm][4], abs=1e-9)


@pytest.mark.parametrize("noise", ARMS[1:], ids=lambda n: n.name)
def test_noise_is_drawn_from_seed_and_pixels(noise: Noise, rng: np.random.Generator) -> None:
    images = rng.integers(60, 180, (6, 64, 64), dtype=np.uint8)
    once = noisy(images, noise, 5)
    assert (noisy(images[::-1], noise, 5)[::-1] == once).all()
    assert (noisy(images, noise, 6) != once).any()
    if noise.kind == "gaussian":
        assert (once.astype(int) - images).std() == pytest.approx(noise.level, rel=0.03)
    else:
        hit = once != images
        assert hit.mean() == pytest.approx(noise.level, rel=0.15)
        assert set(np.unique(once[hit])) == {0, 255}


def test_noise_of_both_touches_the_slice_too() -> None:
    images = slices_of(range(4))
    both, one = (
        Similarity(noise=(Noise("gaussian", 20, both),))(images, images, images, seed=1)
        for both in (True, False)
    )
    r = "pearson/gaussian-20-{}/mean"
    assert both[r.format("both")].mean() < one[r.format("one")].mean()


def test_noise_only_multiplies_correlation_by_the_closed_form(rng: np.random.Generator) -> None:
    side, sd = 512, 20
    x = rng.normal(128, 25, (side, side))
    y = 0.8 * (x - 128) + rng.normal(128, 15, (side, side))
    images = np.clip(np.rint(np.stack([x, y])), 0, 255).astype(np.uint8)
    after = noisy(images, Noise("gaussian", sd, both=True), 3).astype(float)
    r = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in (images, after)]
    variance = tuple(float(image.var()) for image in images)
    assert r[1] == pytest.approx(attenuated(r[0], variance, sd**2), abs=0.005)


def test_noise_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level must be from 0 to 1, got 5"):
        Noise("salt-and-pepper", 5)
    with pytest.raises(ValueError, match="kind must be one of"):
        Noise("rain", 1)  # type: ignore[arg-type]
