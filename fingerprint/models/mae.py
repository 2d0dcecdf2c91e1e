"""Training of a masked autoencoder on grey slices, and their features (METHOD.md, section 1.3).

The optimiser is that of He et al. 2022 (arXiv:2111.06377): AdamW, a learning rate in proportion to
the batch, a rise over the first 1/20 of the steps (40 of 800 epochs) and half a cosine. Theirs cuts
and mirrors images; here a slice is seen whole, as it is asked about. `training.train` trains it;
what it leaves is read here, known by its digest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fingerprint.corpus.images import bilinear
from fingerprint.corpus.window import area_mean
from fingerprint.models import checkpoint
from fingerprint.models.learner import Learner, first_weights, placed, reproducible
from fingerprint.models.masked import PATCH, Autoencoder, error, joined, levels, patches
from fingerprint.models.recipe import Recipe, chance, recipe_of

MASKED = 0.75  # of the patches
BETAS = (0.9, 0.95)
DECAY = 0.05  # of weights, not of biases and norms
WARM_UP = 40 / 800  # of all steps
FULL_BATCH = 256  # images, of the step that a learning rate is for
FIRST_SD = 0.02  # of the two tokens that are learnt
HIDDEN = 128  # grey level that stands for a masked patch
RESIZED = "area mean; bilinear where enlarged"
Images = NDArray[np.uint8]


def seen(n: int, count: int, rng: np.random.Generator) -> Tensor:
    """Draw which of `count` patches of each of n images are seen, int64 (n, k).

    A quarter; rounded down where the number is not a multiple of 4, as by He et al.
    """
    order = rng.random((n, count)).argsort(axis=1)
    return torch.from_numpy(order[:, : int(count * (1 - MASKED))])


def learner(recipe: Recipe, device: torch.device) -> Learner:
    """Return the autoencoder with its first weights, and how it takes a step."""
    with first_weights(recipe.seed):
        model = Autoencoder(recipe.px, recipe.width).apply(_first)
    model.to(device).train()
    adam = torch.optim.AdamW(_groups(model), betas=BETAS, fused=True)
    full = recipe.learning_rate * recipe.batch / FULL_BATCH
    half = torch.autocast(
        device.type, torch.bfloat16, enabled=recipe.half and device.type == "cuda"
    )
    count = (recipe.px // PATCH) ** 2

    def step(images: Tensor, k: int) -> Tensor:
        kept = seen(len(images), count, chance(recipe.seed, "step", k)).to(device)
        with half:
            said = model(images, kept)
        loss = error(said, images, kept)
        adam.zero_grad()
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = full * pace(k, recipe.steps)
        adam.step()
        return loss.detach()

    return Learner(model, {"autoencoder": model}, {"autoencoder": adam}, step)


def pace(k: int, steps: int) -> float:
    """Return the share of the learning rate at step k: a linear rise, then half a cosine to 0."""
    rise = max(1, round(WARM_UP * steps))
    if k < rise:
        return (k + 1) / rise
    return (1 + math.cos(math.pi * (k - rise) / (steps - rise))) / 2


def _first(part: nn.Module) -> None:
    if isinstance(part, nn.Linear | nn.Conv2d):
        # flat, for the convolution is a linear layer of each patch
        nn.init.xavier_uniform_(part.weight.detach().flatten(1))
        if part.bias is not None:
            nn.init.zeros_(part.bias)
    for name in ("cls_token", "mask_token"):
        if isinstance(token := getattr(part, name, None), nn.Parameter):
            nn.init.normal_(token, std=FIRST_SD)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return what is learnt, in two parts: only weights decay, not biases and norms."""
    learnt = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in learnt if p.ndim == 1], "weight_decay": 0.0},
    ]


@dataclass(frozen=True)
class Loaded:
    """A trained autoencoder.

    network : in evaluation mode, without gradients, on its device
    recipe : that it was trained with
    file, sha256 : what it was read from
    n_images, step : what it was trained on, and for how long
    """

    network: Autoencoder
    recipe: Recipe
    file: str
    sha256: str
    n_images: int
    step: int


def load(weights: Path, sha256: str, *, device: str | None = None) -> Loaded:
    """Return the autoencoder of a file that `training.train` left.

    Parameters
    ----------
    weights : Path
    sha256 : str
        That it must have.
    device : str, optional
        Where to compute; by default the GPU if there is one.

    Raises
    ------
    FileNotFoundError, ledger.Damaged
    ValueError
        Another file than was asked for, or one of a generator.
    """
    tensors, about = checkpoint.read(weights, sha256)
    recipe = recipe_of(about["recipe"])
    if recipe.generator != "mae":
        raise ValueError(f"load: {weights.name} must be of a mae; got a {recipe.generator}")
    with torch.device("meta"):  # the file brings every number: none is drawn
        network = Autoencoder(recipe.px, recipe.width)
    network.load_state_dict(tensors, strict=True, assign=True)
    network = network.to(placed(device)).eval().requires_grad_(False)
    return Loaded(network, recipe, weights.name, sha256, about["n_images"], about["step"])


def encode(loaded: Loaded, images: Images, *, batch: int = 16) -> NDArray[np.float32]:
    """Return the features of slices: the mean of the tokens of all patches, nothing masked.

    Parameters
    ----------
    loaded : Loaded
    images : uint8, shape (n, h, w)
        Grey levels; brought to the side of the training by area mean, or bilinear where that is
        larger.
    batch : int
        Slices at a time: memory, not features (the sums of another batch differ by rounding only).

    Returns
    -------
    float32, shape (n, width)
        The same bits for the same arguments, however many cores there are.

    Raises
    ------
    ValueError
        Images that are not (n, h, w) uint8 with pixels, `batch` < 1.
    """
    _check("encode", images)
    if batch < 1:
        raise ValueError(f"encode: batch must be >= 1, got {batch}")
    device = next(loaded.network.parameters()).device
    out = np.empty((len(images), loaded.recipe.width), np.float32)
    with reproducible(device), torch.inference_mode():
        for i in range(0, len(images), batch):
            x = _prepared(images[i : i + batch], loaded.recipe.px).to(device)
            out[i : i + batch] = loaded.network.encoder(x).cpu().numpy()
    return out


def features(
    weights: Path, sha256: str, images: Images, *, batch: int = 16, device: str | None = None
) -> NDArray[np.float32]:
    """Return `encode` of images by the autoencoder that `load` finds: float32 (n, width)."""
    return encode(load(weights, sha256, device=device), images, batch=batch)


def provenance(loaded: Loaded) -> dict[str, str | int]:
    """Return what features depend on, as `encoders.provenance` does."""
    return {
        "encoder": "mae",
        "feature_dim": loaded.recipe.width,
        "file": loaded.file,
        "sha256": loaded.sha256,
        "input_px": loaded.recipe.px,
        "resize": RESIZED,
        "n_images": loaded.n_images,
        "steps": loaded.step,
        "torch": str(torch.__version__),
    }


def reconstructed(loaded: Loaded, images: Images, *, seed: int) -> tuple[Images, Images]:
    """Return slices as the encoder sees them, and with what the decoder says the rest holds.

    The decoder says no patch's mean and contrast: those are taken from the slice itself, so that a
    picture shows more than the network knew.

    Parameters
    ----------
    loaded : Loaded
    images : uint8, shape (n, h, w)
    seed : int
        Of the masks; image i has the same whatever stands beside it.

    Returns
    -------
    (uint8, uint8), each of shape (n, px, px)
    """
    _check("reconstructed", images)
    device = next(loaded.network.parameters()).device
    count = (loaded.recipe.px // PATCH) ** 2
    with reproducible(device), torch.inference_mode():
        x = _prepared(images, loaded.recipe.px).to(device)
        masks = [seen(1, count, chance(seed, "step", i)) for i in range(len(images))]
        kept = torch.cat(masks).to(device)
        whole = patches(x)
        mean, sd = levels(whole)
        hidden = torch.ones_like(mean, dtype=torch.bool).scatter(1, kept[..., None], False)
        said = loaded.network(x, kept) * sd + mean
        shown = torch.where(hidden, HIDDEN / 127.5 - 1, whole)
        rebuilt = torch.where(hidden, said, whole)
    return _grey(shown), _grey(rebuilt)


def _check(function: str, images: Images) -> None:
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape[1:]:
        raise ValueError(
            f"{function}: images must be (n, h, w) uint8, got {images.shape} {images.dtype}"
        )


def _prepared(images: Images, px: int) -> Tensor:
    """Return slices as the network takes them: float32 (n, 1, px, px) in [-1, 1]."""
    shape = max(images.shape[1], px), max(images.shape[2], px)
    if shape != images.shape[1:]:
        images = np.stack([bilinear(image, shape) for image in images])
    grey = area_mean(images, (px, px)).astype(np.float32)  # not rounded to grey levels again
    return torch.from_numpy(grey)[:, None] / 127.5 - 1


def _grey(pieces: Tensor) -> Images:
    grey = ((joined(pieces)[:, 0] + 1) * 127.5).round().clamp(0, 255)
    return grey.to(torch.uint8).cpu().numpy()
