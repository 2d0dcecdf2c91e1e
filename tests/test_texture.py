"""Texture against a shadow generator, paper 003: patterns, classifier, shadow, and its confound."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from clef import noised, slices_of
from skimage.feature import local_binary_pattern

from fingerprint.ledger import Damaged
from fingerprint.measure.pixel_features import BINS, PATTERNS
from fingerprint.measure.structural import three_ssim
from fingerprint.membership import Dev, Real, describe
from fingerprint.membership.shadow import Shadow
from fingerprint.membership.texture import Texture, lbp, machine, told_apart
from fingerprint.models.recipe import Recipe


def shadow(folder: Path, name: str) -> Shadow:
    recipe = Recipe(
        generator="dcgan", px=32, steps=2, batch=2, learning_rate=2e-4, width=8, ema=0.0, seed=1
    )
    return Shadow(recipe, folder / name, 8)


def test_patterns_are_those_of_each_scale_and_do_not_turn(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (1, 24, 24), dtype=np.uint8)
    found = lbp(image)
    assert found.shape == (1, 54)
    first = 0
    for points, radius in ((8, 1), (16, 2), (24, 3)):
        pattern = local_binary_pattern(image[0], points, radius, method="uniform")
        want = [(pattern == k).mean() for k in range(points + 2)]
        np.testing.assert_allclose(found[0, first : first + points + 2], want)
        first += points + 2
    np.testing.assert_allclose(lbp(np.rot90(image, axes=(1, 2)))[0, :10], found[0, :10], atol=1e-12)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        lbp(image[:, :5])


def at(image: np.ndarray, y: float, x: float) -> float:
    """Return the grey level between pixels, bilinear; 0 outside the image."""

    def pixel(i: int, j: int) -> float:
        inside = 0 <= i < image.shape[0] and 0 <= j < image.shape[1]
        return float(image[i, j]) if inside else 0.0

    i, j = math.floor(y), math.floor(x)
    dy, dx = y - i, x - j
    above = (1 - dx) * pixel(i, j) + dx * pixel(i, j + 1)
    below = (1 - dx) * pixel(i + 1, j) + dx * pixel(i + 1, j + 1)
    return (1 - dy) * above + dy * below


def pattern(image: np.ndarray, y: int, x: int, points: int, radius: int) -> int:
    """Return how many points of the circle are not darker; points + 1 if they change often."""
    signs = []
    for k in range(points):
        angle = 2 * math.pi * k / points
        # a point that is a pixel is that pixel
        dy, dx = round(-radius * math.sin(angle), 5), round(radius * math.cos(angle), 5)
        signs.append(at(image, y + dy, x + dx) >= image[y, x])
    changes = sum(a != b for a, b in zip(signs, [*signs[1:], signs[0]], strict=True))
    return sum(signs) if changes <= 2 else points + 1


def test_patterns_are_their_definition_pixel_by_pixel() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 11, 11), dtype=np.uint8)
    for image, found in zip(images, lbp(images), strict=True):
        for (points, radius), part in zip(
            PATTERNS, np.split(found, np.cumsum(BINS)[:-1]), strict=True
        ):
            truth = np.zeros(points + 2)
            for y in range(11):
                for x in range(11):
                    truth[pattern(image, y, x, points, radius)] += 1
            np.testing.assert_allclose(part, truth / 121, atol=1e-12)


def test_the_classifier_is_as_the_method_states(rng: np.random.Generator) -> None:
    a, b = rng.normal(0, 1, (60, 4)), rng.normal(3, 1, (30, 4))
    svc = machine(a, b, "rbf")[-1]
    assert (svc.C, svc.gamma, svc.class_weight) == (1.0, "scale", "balanced")
    assert told_apart(a, b, "linear", seed=1) > 0.95
    same = [told_apart(*rng.normal(size=(2, 60, 4)), "rbf", seed=k) for k in range(10)]
    assert abs(np.mean(same) - 0.5) < 0.1


def test_two_kinds_of_generator_are_told_apart_whatever_they_were_trained_on_e26() -> None:
    ours, theirs = slices_of(range(8)), slices_of(range(8, 16))
    same, of_same, of_others = noised(ours, 1, 12), noised(ours, 2, 3), noised(theirs, 1, 12)
    assert told_apart(lbp(same), lbp(of_same), "rbf", seed=1) > 0.95  # one training set, two kinds
    assert told_apart(lbp(same), lbp(of_others), "rbf", seed=1) < 0.75  # two sets, one kind


def test_a_shadow_is_trained_once_and_its_images_are_kept(tmp_path: Path) -> None:
    one, slices = shadow(tmp_path, "a"), slices_of(range(3))
    images = one.images(slices)
    assert images.shape == (8, 32, 32)
    (kept,) = one.folder.glob("made-*.npz")
    before = kept.stat().st_mtime_ns
    assert (one.images(slices) == images).all()
    assert kept.stat().st_mtime_ns == before
    assert one.told["weights"]
    kept.write_bytes(kept.read_bytes()[:-40])
    with pytest.raises(Damaged, match="not as it was written"):
        one.images(slices)


def test_a_changed_bit_of_kept_images_is_noticed(tmp_path: Path) -> None:
    one, slices = shadow(tmp_path, "a"), slices_of(range(3))
    images = one.images(slices)
    (kept,) = one.folder.glob("made-*.npz")
    whole, rng, named = kept.read_bytes(), np.random.default_rng(1), 0
    kept.write_bytes(b"")
    with pytest.raises(Damaged, match=f"{kept.name} is not as it was written"):
        one.images(slices)
    ends = [*range(300), *range(len(whole) - 150, len(whole))]  # heads and directory of the file
    for place in [*ends, *rng.integers(300, len(whole), 40)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.integers(8)
        kept.write_bytes(changed)
        try:
            found = one.images(slices)
        except Damaged:
            named += 1
        else:  # a date, a flag that nobody reads
            np.testing.assert_array_equal(found, images)
    assert named > 200


def test_the_papers_classifier_never_sees_the_images_in_question(tmp_path: Path) -> None:
    used, others = slices_of(range(4)), slices_of(range(4, 8))
    who = np.zeros(len(used), np.int64)
    dev = Dev(noised(used, 1), Real(used, who), Real(others, who))
    method = Texture(shadow(tmp_path, "shadow"), shadow(tmp_path, "same"))
    scorer = method.fit(dev)
    first, second = (scorer(used, noised(used, k), others, seed=1) for k in (1, 2))
    assert len(first) == 4
    assert (first["lbp/rbf/shadow"] == second["lbp/rbf/shadow"]).all()
    assert (first["lbp/rbf/same-kind"] != second["lbp/rbf/same-kind"]).any()
    alone = Texture(shadow(tmp_path, "shadow")).fit(dev)(used, used, others, seed=1)
    assert set(alone) == {"lbp/linear/shadow", "lbp/rbf/shadow"}


def test_table_1_obeys_its_rules_e12(rng: np.random.Generator) -> None:
    sets = {
        "generated": rng.integers(0, 256, (4, 16, 16), dtype=np.uint8),
        "used": rng.integers(0, 256, (3, 16, 16), dtype=np.uint8),
        "not_used": rng.integers(0, 256, (5, 16, 16), dtype=np.uint8),
    }
    rows = describe.table_1(sets)
    parts = [rows["generated-used"], rows["generated-not_used"]]
    weighted = sum(p["mean"] * p["pairs"] for p in parts) / sum(p["pairs"] for p in parts)
    assert rows["generated-real"]["mean"] == pytest.approx(weighted)
    assert rows["generated-real"]["min"] == min(p["min"] for p in parts)
    assert rows["real-real"]["pairs"] == 8 * 7  # no image with itself
    assert rows["generated-generated"]["max"] < 1

    def one(d: np.ndarray, o: np.ndarray) -> float:
        x, y = (torch.from_numpy(part.astype(np.float32))[None, None] for part in (d, o))
        return float(three_ssim(x, y))

    want = [one(g, r) for g in sets["generated"] for r in sets["used"]]
    assert rows["generated-used"]["mean"] == pytest.approx(np.mean(want), abs=1e-6)


def test_histograms_and_their_distance() -> None:
    images = np.array([[[0, 255], [255, 255]]], np.uint8)
    share = describe.histogram(images)
    assert (share[0], share[255]) == (0.25, 0.75)
    assert describe.total_variation(share, share) == 0
    assert describe.total_variation(share, describe.histogram(images * 0)) == 0.75
