"""A denoising diffusion model of grey slices (METHOD.md, section 1.1, row "generators").

Trained to predict the noise at one of T = 1000 levels, linear beta from 1e-4 to 0.02 (Ho, Jain &
Abbeel 2020); sampled with DDIM, eta 0 (Song, Meng & Ermon 2021). Paper 000 states neither network
nor size. Images are not mirrored in training: a mirrored copy would not be found as a copy.

With abar the product of 1 - beta, a recipe may ask for the velocity instead, sqrt(abar) noise -
sqrt(1 - abar) image (Salimans & Ho 2022): the same model, whose squared error of the noise is
weighted by 1/abar. At high levels, where the noise is nearly all that there is, an image is then
learnt in a fraction of the steps: what a study on CPUs can afford.

The network for 256 px has the channels of Ho et al., whose width is 128; with fewer pixels it has
fewer sides (between these, as far as a side can be halved). Attention is at 16 px and below:

    px     sides                      channels / width    layers a side
    32     32 16 8                    1 2 4               1
    64     64 32 16 8                 1 1 2 4             1
    128    128 64 32 16 8             1 1 2 2 4           2
    256    256 128 64 32 16 8         1 1 2 2 4 4         2
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fingerprint.models.learner import Learner, extra, first_weights
from fingerprint.models.recipe import Recipe, T, chance

PREDICTS = {"noise": "epsilon", "velocity": "v_prediction"}
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
LOWEST_PX = 8
ATTENTION_PX = 16  # and below: its cost grows with the fourth power of the side
TWO_LAYERS_PX = 128  # and above
MOST_GRADIENT = 1.0  # norm
WARM_UP = 50  # steps


def sides(px: int) -> list[int]:
    """Return the sides at which a network for `px` works: halved while even and at least 8 px."""
    out = [px]
    while out[-1] % 2 == 0 and out[-1] // 2 >= LOWEST_PX:
        out.append(out[-1] // 2)
    return out


def network(px: int, width: int) -> nn.Module:
    """Build the U-Net: (B, 1, px, px) and levels (B,) -> what it predicts."""
    at = sides(px)
    attends = [side <= ATTENTION_PX for side in at]
    model: nn.Module = extra("diffusers").UNet2DModel(
        sample_size=px,
        in_channels=1,
        out_channels=1,
        layers_per_block=2 if px >= TWO_LAYERS_PX else 1,
        block_out_channels=tuple(width * 2 ** (3 * i // len(at)) for i in range(len(at))),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        attention_head_dim=width,
        norm_num_groups=width // 4,  # 32 at the width of Ho et al.
    )
    return model


def learner(recipe: Recipe, device: torch.device) -> Learner:
    """Return the network with its first weights, and how it takes a step."""
    with first_weights(recipe.seed):
        model = network(recipe.px, recipe.width)
    model.to(device).train()
    adam = torch.optim.Adam(model.parameters(), recipe.learning_rate, fused=True)
    schedule = _schedule("DDPMScheduler", recipe)
    half = torch.autocast(
        device.type, torch.bfloat16, enabled=recipe.half and device.type == "cuda"
    )

    def step(images: Tensor, k: int) -> Tensor:
        levels, noise = _drawn(recipe.seed, k, images)
        with half:
            found = model(schedule.add_noise(images, noise, levels), levels).sample
        velocity = recipe.predicts == "velocity"
        asked = schedule.get_velocity(images, noise, levels) if velocity else noise
        loss = functional.mse_loss(found.float(), asked)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MOST_GRADIENT)
        adam.param_groups[0]["lr"] = recipe.learning_rate * pace(k, recipe.steps)
        adam.step()
        return loss.detach()

    return Learner(model, {"unet": model}, {"unet": adam}, step)


def pace(k: int, steps: int) -> float:
    """Return the share of the learning rate at step k: a rise, then half a cosine down to nothing.

    Ho et al. keep it constant and train for 800,000 steps; of a thousand the last ones must be
    small.
    """
    return min(1.0, (k + 1) / WARM_UP) * (1 + math.cos(math.pi * k / steps)) / 2


def _drawn(seed: int, k: int, images: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the levels (B,) and the noise of a step, on the CPU: the same whatever the device."""
    rng = chance(seed, "step", k)
    levels = torch.from_numpy(rng.integers(T, size=len(images)))
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape), dtype=np.float32))
    return levels.to(images.device), noise.to(images.device)


def latent(recipe: Recipe, seed: int, number: int) -> NDArray[np.float32]:
    """Draw what image `number` of a pool is made from, float32 (1, px, px)."""
    rng = chance(seed, "pool", number)
    return rng.standard_normal((1, recipe.px, recipe.px), dtype=np.float32)


def made(model: nn.Module, recipe: Recipe, noise: Tensor) -> Tensor:
    """Make images in [-1, 1] of noise, both float32 (B, 1, px, px), without chance."""
    schedule = _schedule("DDIMScheduler", recipe)
    schedule.set_timesteps(recipe.sample_steps)
    for level in schedule.timesteps:
        noise = schedule.step(model(noise, level).sample, level, noise, eta=0.0).prev_sample
    return noise


def _schedule(name: str, recipe: Recipe) -> Any:
    return getattr(extra("diffusers"), name)(
        num_train_timesteps=T, prediction_type=PREDICTS[recipe.predicts], clip_sample=True, **BETAS
    )
