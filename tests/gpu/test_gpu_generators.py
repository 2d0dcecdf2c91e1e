"""On a GPU: a training that was cut off ends the same, and images differ by rounding only.

Another device adds in another order, so weights of the two are not the same bits and a long
training drifts apart; one step and one set of weights are compared.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from generators import blobs, quick

from fingerprint.models import training
from fingerprint.models.sampling import TOGETHER, sample
from fingerprint.models.training import train

PLACES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
N = 5
WEIGHTS = "weights.safetensors"


@pytest.fixture(autouse=True)
def study() -> None:
    """Not at the top: these files are read on machines without the study extra."""
    for name in ("diffusers", "safetensors"):
        pytest.importorskip(name, reason="the study extra is not installed")


class CutOff(Exception):  # noqa: N818 - not a mistake of anyone
    pass


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("generator", ["ddpm", "dcgan"])
def test_a_training_cut_off_ends_with_the_same_weights(
    generator, place, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_S", 0.0)
    recipe = quick(generator, half=True)
    once = train(blobs(N), recipe, tmp_path / "once", device=place)

    def watch(step: int, steps: int, loss: float) -> None:
        if step == 5:
            raise CutOff

    with pytest.raises(CutOff):
        train(blobs(N), recipe, tmp_path / "cut", watch, device=place)
    again = train(blobs(N), recipe, tmp_path / "cut", device=place)
    assert replace(again, seconds=once.seconds) == once


def first_losses(place: str, folder: Path, generator: str, half: bool = False) -> list[float]:
    losses: list[float] = []
    recipe = quick(generator, half=half, steps=4, ema=0.0)
    train(blobs(N), recipe, folder, lambda step, steps, loss: losses.append(loss), device=place)
    return losses


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("generator", ["ddpm", "dcgan"])
def test_losses_of_the_first_steps_agree_with_the_cpu(generator, place, tmp_path) -> None:
    want = first_losses("cpu", tmp_path / "cpu", generator)
    got = first_losses(place, tmp_path / "there", generator)
    assert got[0] == pytest.approx(want[0], rel=1e-4)
    assert got == pytest.approx(want, rel=2e-2)  # Adam's first steps are signs of gradients
    half = first_losses(place, tmp_path / "half", generator, half=True)
    assert half == pytest.approx(want, rel=0.1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("generator", ["ddpm", "dcgan"])
def test_images_agree_with_the_cpu(generator, place, tmp_path) -> None:
    trained = train(blobs(N), quick(generator), tmp_path, device=place)
    path, n = tmp_path / WEIGHTS, TOGETHER + 2
    want = sample(path, trained.weights, 0, n, seed=3, device="cpu").astype(int)
    got = sample(path, trained.weights, 0, n, seed=3, device=place)
    assert np.abs(got - want).mean() < 0.1
    assert np.abs(got - want).max() <= 3
    part = sample(path, trained.weights, TOGETHER - 1, 3, seed=3, device=place)
    assert np.array_equal(part, got[TOGETHER - 1 :])
