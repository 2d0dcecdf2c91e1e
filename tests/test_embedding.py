"""Scores by features are those of a slow loop; copies are found, and strangers are not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from generators import blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score
from torch import nn

from fingerprint import membership
from fingerprint.membership import Dev, Real, embedding, enhance
from fingerprint.membership.embedding import Embedding, network_of
from fingerprint.models import encoders, mae
from fingerprint.models.masked import Autoencoder
from fingerprint.models.recipe import Recipe

PX = 16


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, PX, PX), dtype=np.uint8)


def tiny(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return random projections of pixels: a network of one layer."""
    weights = np.random.default_rng(seed).standard_normal((PX * PX, 7)) / PX
    return (images.reshape(len(images), -1) @ weights).astype(np.float32)


def scorer(**other) -> membership.Scorer:
    real = Real(noise(1, 9), np.zeros(1, np.int64))
    how = Embedding(**({"networks": {"tiny": tiny, "other": partial(tiny, seed=1)}} | other))
    return how.fit(Dev(noise(1, 8), real, real))


def asked_of(score: membership.Scorer, asked: np.ndarray, generated: np.ndarray):
    return score(asked, generated, asked[:0], seed=1)


def alone(distance: str, x: np.ndarray, y: np.ndarray) -> float:
    """Return minus the distance of two features, one by one: the obvious oracle."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if distance == "manhattan":
        return -float(np.abs(x - y).sum())
    if distance == "euclidean":
        return -float(np.sqrt(((x - y) ** 2).sum()))
    if not x.any() or not y.any():
        return -2.0
    x, y = x / np.sqrt((x**2).sum()), y / np.sqrt((y**2).sum())
    return float(x @ y) - 1 if distance == "cosine" else -float(np.sqrt(((x - y) ** 2).sum()))


@pytest.mark.parametrize("block", [3, 256])
def test_scores_are_those_of_a_loop_over_all_pairs(block: int, monkeypatch) -> None:
    asked, generated = noise(5, 1), noise(14, 2)
    asked[2] = generated[6] = 0  # features that are all zero
    size = membership.blocks
    monkeypatch.setattr(embedding, "blocks", lambda images: size(images, block))
    found = asked_of(scorer(), asked, generated)
    names = {"plain": enhance.plain, "unsharp": enhance.unsharp}
    arms = set()
    for (network, of), distance, enhanced in (
        (pair, d, e)
        for pair in (("tiny", tiny), ("other", partial(tiny, seed=1)))
        for d in ("cosine", "euclidean", "euclidean-unit", "manhattan")
        for e in names
    ):
        x, y = (of(names[enhanced](images)) for images in (asked, generated))
        values = np.array([[alone(distance, a, b) for b in y] for a in x])
        ordered = -np.sort(-values, axis=1)
        for name, want in (
            ("max", ordered[:, 0]),
            ("top10", ordered[:, :10].mean(1)),
            ("mean", ordered.mean(1)),
        ):
            arms.add(arm := f"{network}/{distance}/{enhanced}/{name}")
            assert found[arm].dtype == np.float64
            np.testing.assert_allclose(found[arm], want, rtol=1e-6, atol=1e-6, err_msg=arm)
    assert set(found) == arms


def test_features_of_generated_slices_are_computed_once(monkeypatch) -> None:
    seen: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return tiny(images)

    size = membership.blocks
    monkeypatch.setattr(embedding, "blocks", lambda images: size(images, 4))
    asked_of(scorer(networks={"a": counted}, enhanced=("plain",)), noise(3, 1), noise(9, 2))
    assert seen == [3, 4, 4, 1]


finite = st.floats(-100, 100, width=32)
features = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements=finite)


@settings(max_examples=60, deadline=None)
@given(features, features)
def test_of_features_of_length_one_d2_is_twice_one_less_the_cosine(x, y) -> None:
    """Of a row of zeros too: both have their least there."""
    d = embedding.euclidean_unit(x, y)
    cos = embedding.cosine(x, y) + 1
    both = x.any(1)[:, None] & y.any(1)
    np.testing.assert_allclose(d[both] ** 2, 2 * (1 - cos[both]), atol=1e-7)
    assert (d[~both] == -2).all()
    assert (cos[~both] == -1).all()
    assert (-2 <= embedding.cosine(x, y)).all()
    assert (embedding.cosine(x, y) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(features, features)
def test_distances_are_those_of_scipy(x, y) -> None:
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    np.testing.assert_allclose(embedding.euclidean(x, y), -cdist(x64, y64), atol=1e-5)
    np.testing.assert_allclose(embedding.manhattan(x, y), -cdist(x64, y64, "cityblock"), atol=1e-9)


def test_planted_copies_are_found_and_where_there_are_none_nothing_is() -> None:
    used, other, made = noise(60, 1), noise(60, 2), noise(80, 3)
    rng = np.random.default_rng(4)
    copies = np.clip(used + rng.normal(0, 8, used.shape), 0, 255).round().astype(np.uint8)
    truth = np.repeat([1, 0], 60)
    asked = np.concatenate([used, other])
    network = {"tiny": partial(tiny, seed=5)}
    planted = asked_of(scorer(networks=network), asked, np.concatenate([copies, made]))
    absent = asked_of(scorer(networks=network), asked, made)
    for distance in embedding.SIMILARITIES:
        arm = f"tiny/{distance}/plain/max"
        assert roc_auc_score(truth, planted[arm]) > 0.95, arm
    for arm, values in absent.items():
        # SD of an AUC of 60 and 60 without truth: 0.053
        assert abs(roc_auc_score(truth, values) - 0.5) < 4 * 0.053, arm


def test_neither_control_nor_seed_nor_others_change_a_score() -> None:
    asked, generated = noise(6, 1), noise(12, 2)
    once = scorer()(asked, generated, noise(3, 3), seed=1)
    again = scorer()(asked[2:4], generated, noise(4, 4), seed=2)
    for arm, values in once.items():
        np.testing.assert_allclose(again[arm], values[2:4], atol=1e-6)


def test_bad_arguments_are_named() -> None:
    for wrong, words in (
        ({"networks": {}}, "networks must be at least one"),
        (
            {"enhanced": ("sharp",)},
            r"enhanced must be some of plain, unsharp, clahe; got \('sharp'",
        ),
        ({"enhanced": ()}, "enhanced must be some of"),
        ({"top": 0}, "top must be >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=f"Embedding: {words}"):
            Embedding(**({"networks": {"a": tiny}} | wrong))
    with pytest.raises(ValueError, match="scores: generated must have at least one slice"):
        asked_of(scorer(), noise(2, 1), noise(0, 1))
    with pytest.raises(ValueError, match="scores: asked must have at least one slice"):
        asked_of(scorer(), noise(0, 1), noise(2, 1))
    for network, words in (
        (lambda images: tiny(images)[0], r"features of a must be \(2, d\), got \(7,\)"),
        (lambda images: tiny(images) * np.nan, "features of a must be finite"),
        (
            lambda images: tiny(images)[:, : images[0, 0, 0] + 1],
            r"features of a must be \(n, 2\), got \(n, 3\)",
        ),
    ):
        asked, generated = noise(2, 1), noise(2, 2)
        asked[0, 0, 0], generated[0, 0, 0] = 1, 2
        with pytest.raises(ValueError, match=words):
            asked_of(scorer(networks={"a": network}, enhanced=("plain",)), asked, generated)


# -- networks --------------------------------------------------------------------------------------


def test_a_network_is_made_of_an_encoder_and_of_an_autoencoder() -> None:
    images = blobs(3, 32)
    encoder = replace(encoders.ENCODERS["mobilenet_v3_small"], input_px=32)
    torch.manual_seed(1)
    loaded = encoders.Loaded(encoder, encoder.build().eval(), "some.pth", "")
    found = network_of(loaded, batch=2)(images)
    assert np.array_equal(found, encoders.encode(loaded, images, batch=2))
    recipe = Recipe("mae", 32, 1, 1, 0.1, 32, 0.0, seed=1)
    own = mae.Loaded(Autoencoder(32, 32).eval(), recipe, "weights", "", 1, 1)
    found = network_of(own, batch=2)(images)
    assert np.array_equal(found, mae.encode(own, images, batch=2))
    assert isinstance(own.network, nn.Module)


# -- enhance ---------------------------------------------------------------------------------------


def test_unsharp_adds_what_a_blur_takes_away() -> None:
    images = np.concatenate([noise(2, 1), blobs(2, PX)])
    found = enhance.unsharp(images)
    assert found.dtype == np.uint8
    for image, one in zip(images.astype(np.float64), found, strict=True):
        sharp = 2 * image - ndimage.gaussian_filter(image, 2.0, mode="reflect")
        # a grey level that ends at a half may be rounded either way
        assert np.abs(np.clip(sharp, 0, 255) - one).max() <= 0.5 + 1e-6
    assert (enhance.unsharp(images)[1:2] == enhance.unsharp(images[1:2])).all()


@pytest.mark.parametrize("name", enhance.ENHANCED)
def test_enhanced_slices_are_slices_and_a_constant_one_stays_constant(name: str) -> None:
    images = blobs(3, 24)[:, :, :20]
    images[1] = 77
    found = enhance.ENHANCED[name](images)
    assert found.shape == images.shape
    assert found.dtype == np.uint8
    assert np.ptp(found[1]) == 0
    assert enhance.ENHANCED[name](images[:0]).shape == (0, 24, 20)


def test_clahe_raises_the_contrast_of_a_dark_slice() -> None:
    dark = (blobs(1, 32) // 8).astype(np.uint8)
    assert enhance.clahe(dark).std() > 3 * dark.std()


@pytest.mark.parametrize("name", ["unsharp", "clahe"])
def test_what_is_no_slice_is_refused(name: str) -> None:
    for bad in (noise(1, 1)[0], noise(1, 1).astype(np.float32), noise(2, 1)[:, :0]):
        with pytest.raises(ValueError, match=rf"{name}: images must be \(n, h, w\) uint8, got"):
            enhance.ENHANCED[name](bad)
