"""Distances of whole sets: a floor beside each, a reason beside each that is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fingerprint.measure.distances import Sets, energy_overlap, fid, measured, paper_000


def textures(seed: int, n: int = 40, sigma: float = 3.0) -> np.ndarray:
    white = np.random.default_rng(seed).standard_normal((n, 128, 128))
    smooth = np.stack([ndimage.gaussian_filter(one, sigma, mode="wrap") for one in white])
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def sets_of(n: int = 40, **images: np.ndarray) -> Sets:
    return Sets(images, {name: np.arange(n) // 2 for name in images})


def test_another_texture_lies_farther_than_the_floor_in_both_features() -> None:
    world = sets_of(real=textures(1), generated=textures(2, sigma=1.5), control=textures(3))
    out = measured(world, seed=1)
    for name in ("pixels", "texture"):
        assert out[f"distance.{name}.generated"] > 1.2 * out[f"distance.{name}.control"]
    assert out["distance.texture.generated.kid.low"] > out["distance.texture.control.kid.high"]
    assert out["images.energy_overlap"] < 0.1
    assert out["distance.pixels.components"] == 19


def test_a_set_of_the_same_kind_lies_at_the_floor() -> None:
    world = sets_of(real=textures(1), generated=textures(2), control=textures(3))
    out = measured(world, seed=1)
    for name in ("pixels", "texture"):
        mine, floor = (out[f"distance.{name}.{who}"] for who in ("generated", "control"))
        assert mine == pytest.approx(floor, rel=0.3)
    assert out["images.energy_overlap"] > 0.7


def test_without_controls_there_is_no_floor_and_with_few_images_no_distance() -> None:
    few = sets_of(5, real=textures(1, 5), generated=textures(2, 5))
    out = measured(few, seed=1)
    assert out["distance.pixels.generated"] is None
    assert "at least 6 rows" in out["distance.pixels.generated.reason"]
    out = measured(sets_of(real=textures(1), generated=textures(2)), seed=1)
    assert "no floor" in out["distance.pixels.control.reason"]
    assert out["images.energy_overlap"] is None


def test_images_that_repeat_each_other_have_no_kid() -> None:
    world = sets_of(real=textures(1), generated=textures(2), control=textures(3))
    same = Sets(world.images, dict(world.group) | {"generated": np.zeros(40)})
    assert "repeat each other" in measured(same, seed=1)["distance.pixels.generated.kid.reason"]


def test_overlap_of_energy_is_one_for_a_set_and_itself() -> None:
    images = textures(4, 12)
    assert energy_overlap(images, images) == 1
    assert energy_overlap(images, textures(4, 12, sigma=1.0)) == 0


def test_fid_is_refused_without_weights_and_below_full_rank() -> None:
    assert "name it with encoder and weights" in fid(None, {})["fid.value.reason"]
    rng = np.random.default_rng(1)
    few = {name: rng.normal(size=(9, 9)) for name in ("real", "generated")}
    out = fid(few, {"file": "weights.pth"})
    assert out["fid.value"] is None
    assert "9" in out["fid.value.reason"]
    assert "no floor" in out["fid.control.reason"]
    assert out["fid.with.file"] == "weights.pth"
    enough = {name: rng.normal(size=(60, 4)) for name in ("real", "generated", "control")}
    assert fid(enough, {})["fid.value"] == pytest.approx(fid(enough, {})["fid.control"], abs=1.0)


def test_e11_fig_4_of_paper_000_attributes_seven_of_seven() -> None:
    out = paper_000()
    assert out["paper000.figure4.p"] == pytest.approx(1 / 5040)
    assert out["paper000.figure4.row_hits"] == out["paper000.figure4.column_hits"] == 7
    assert out["paper000.table2.600"] == 17.02
