"""Images of a trained generator: from its weights and a seed alone, however a pool is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fingerprint.models import checkpoint, dcgan, ddpm
from fingerprint.models.learner import placed, reproducible
from fingerprint.models.recipe import Recipe, recipe_of

# sums of another batch differ by rounding: every image is made in a full batch of this size, at its
# own place in it. A pool is best cut at multiples
TOGETHER = 16
_ROOM = {"ddpm": ddpm, "dcgan": dcgan}


def sample(
    weights: Path, sha256: str, first: int, count: int, seed: int, *, device: str | None = None
) -> NDArray[np.uint8]:
    """Make images `first` to `first + count` of the pool that weights and a seed define.

    Parameters
    ----------
    weights : Path
        A file that `training.train` left; no other file is opened.
    sha256 : str
        That it must have.
    first, count : int
        Part of the pool; any two cuts give the same images, bit for bit, on one kind of machine.
    seed : int
    device : str, optional
        Where to compute; by default the GPU if there is one. Another one rounds otherwise.

    Returns
    -------
    uint8, shape (count, px, px)

    Raises
    ------
    FileNotFoundError, ledger.Damaged
    ValueError
        Another file than was asked for, or of a network that makes no images; `first` or `seed`
        < 0, `count` < 1.
    """
    for name, value, least in (("first", first, 0), ("count", count, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"sample: {name} must be >= {least}, got {value}")
    place = placed(device)
    network, recipe = _loaded(weights, sha256, place)
    start = first - first % TOGETHER
    with reproducible(place), torch.inference_mode():
        parts = [
            _part(network, recipe, range(i, i + TOGETHER), seed)
            for i in range(start, first + count, TOGETHER)
        ]
    return np.concatenate(parts)[first - start :][:count]


def _loaded(weights: Path, sha256: str, device: torch.device) -> tuple[nn.Module, Recipe]:
    tensors, about = checkpoint.read(weights, sha256)
    recipe = recipe_of(about["recipe"])
    if recipe.generator not in _ROOM:
        raise ValueError(
            f"sample: {weights.name} must be of one of {', '.join(_ROOM)}; got a "
            f"{recipe.generator}, which makes no images of its own"
        )
    with torch.device("meta"):  # the file brings every number: none is drawn
        network: nn.Module
        if recipe.generator == "ddpm":
            network = ddpm.network(recipe.px, recipe.width)
        else:
            network = dcgan.generator(recipe.px, recipe.width)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.to(device).eval().requires_grad_(False), recipe


def _part(network: nn.Module, recipe: Recipe, numbers: range, seed: int) -> NDArray[np.uint8]:
    room = _ROOM[recipe.generator]
    noise = np.stack([room.latent(recipe, seed, number) for number in numbers])
    device = next(network.parameters()).device
    images: Tensor = room.made(network, recipe, torch.from_numpy(noise).to(device))
    grey = ((images[:, 0] + 1) * 127.5).round().clamp(0, 255)
    return grey.to(torch.uint8).cpu().numpy()
