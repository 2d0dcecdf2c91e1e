"""The shadow generator of paper 003: a deep convolutional GAN (METHOD.md, section 1.4).

    generator       latent 100 -> dense -> 8 x 8 x 512, then five transposed convolutions, kernel 4,
                    stride 2, padding 1, to 512, 256, 128, 64 filters, each with batch norm and
                    LeakyReLU 0.2, and to 1 with tanh: 8-16-32-64-128-256
    discriminator   five convolutions of the same shape to 64, 128, 256, 512, 512 filters, each with
                    LeakyReLU 0.2 and no norm, flattened, one logit: 256-128-64-32-16-8

The paper states kernels, strides, slopes and Adam; latent, filters, padding and first weights,
N(0, 0.02), are ours. The side is 8 * 2^k after k convolutions: with fewer than 256 px there are
fewer of them (2, 3, 4 at 32, 64, 128), and the filters are those that stand first above. `width`
is the 512: all others are in proportion.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fingerprint.models.learner import Learner, first_weights
from fingerprint.models.recipe import Recipe, chance

LATENT = 100
LOWEST_PX = 8
SLOPE = 0.2
FIRST_SD = 0.02
BETAS = (0.5, 0.999)
GENERATOR = (512, 256, 128, 64)  # before the last one, which is to the image
DISCRIMINATOR = (64, 128, 256, 512, 512)
PAPER_WIDTH = 512
_CONV: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}


def generator(px: int, width: int) -> nn.Sequential:
    """Build the generator: (B, 100) -> (B, 1, px, px) in [-1, 1]."""
    filters = [n * width // PAPER_WIDTH for n in GENERATOR[: _convolutions(px) - 1]]
    layers: list[nn.Module] = [
        nn.Linear(LATENT, width * LOWEST_PX**2),
        nn.Unflatten(1, (width, LOWEST_PX, LOWEST_PX)),
    ]
    for before, after in pairwise([width, *filters]):
        # a batch norm takes away what a bias would add
        layers += [nn.ConvTranspose2d(before, after, bias=False, **_CONV), nn.BatchNorm2d(after)]
        layers += [nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(filters[-1], 1, **_CONV), nn.Tanh())


def discriminator(px: int, width: int) -> nn.Sequential:
    """Build the discriminator: (B, 1, px, px) -> logits (B, 1), larger = more likely real."""
    filters = [n * width // PAPER_WIDTH for n in DISCRIMINATOR[: _convolutions(px)]]
    layers: list[nn.Module] = []
    for before, after in pairwise([1, *filters]):
        layers += [nn.Conv2d(before, after, **_CONV), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters[-1] * LOWEST_PX**2, 1))


def _convolutions(px: int) -> int:
    return (px // LOWEST_PX).bit_length() - 1


def _first(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, std=FIRST_SD)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def learner(recipe: Recipe, device: torch.device) -> Learner:
    """Return both networks with their first weights, and how they take a step.

    The loss of a step is the generator's: of a GAN neither falls to nothing.
    """
    with first_weights(recipe.seed):
        make, judge = (build(recipe.px, recipe.width) for build in (generator, discriminator))
        make.apply(_first)
        judge.apply(_first)
    networks = {"generator": make, "discriminator": judge}
    adams = {
        name: torch.optim.Adam(
            network.to(device).train().parameters(), recipe.learning_rate, BETAS, fused=True
        )
        for name, network in networks.items()
    }
    half = torch.autocast(
        device.type, torch.bfloat16, enabled=recipe.half and device.type == "cuda"
    )

    def improve(name: str, loss: Tensor) -> None:
        adams[name].zero_grad()
        loss.backward()
        adams[name].step()

    def step(images: Tensor, k: int) -> Tensor:
        rng = chance(recipe.seed, "step", k)
        noise = torch.from_numpy(rng.standard_normal((len(images), LATENT), dtype=np.float32))
        with half:
            fake = make(noise.to(device))
            told = _loss(judge(images), real=True) + _loss(judge(fake.detach()), real=False)
        improve("discriminator", told)
        with half:
            loss = _loss(judge(fake), real=True)
        improve("generator", loss)
        return loss.detach()

    return Learner(make, networks, adams, step)


def _loss(logits: Tensor, *, real: bool) -> Tensor:
    said = torch.full_like(logits, float(real), dtype=torch.float32)
    return functional.binary_cross_entropy_with_logits(logits.float(), said)


def latent(recipe: Recipe, seed: int, number: int) -> NDArray[np.float32]:
    """Draw what image `number` of a pool is made from, float32 (100,)."""
    return chance(seed, "pool", number).standard_normal(LATENT, dtype=np.float32)


def made(model: nn.Module, recipe: Recipe, noise: Tensor) -> Tensor:
    """Make images in [-1, 1], float32 (B, 1, px, px), of noise (B, 100).

    With the norms of the training, not of the batch: an image does not depend on those beside it.
    """
    images: Tensor = model(noise)
    return images
