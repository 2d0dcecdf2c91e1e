"""The shadow generator has the layers, the filters and the numbers of the method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generators import blobs, quick
from torch import nn

from fingerprint.models import dcgan
from fingerprint.models.recipe import Recipe
from fingerprint.models.sampling import sample
from fingerprint.models.training import train


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_paper_s_size_has_as_many_parameters_as_its_layers_need() -> None:
    dense = 100 * 8 * 8 * 512 + 8 * 8 * 512
    up = 16 * (512 * 512 + 512 * 256 + 256 * 128 + 128 * 64 + 64 * 1) + 1
    norms = 2 * (512 + 256 + 128 + 64)
    assert count(dcgan.generator(256, 512)) == dense + up + norms == 10_259_329
    down = 16 * (1 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 512)
    biases = 64 + 128 + 256 + 512 + 512
    logit = 512 * 8 * 8 + 1
    assert count(dcgan.discriminator(256, 512)) == down + biases + logit == 6_982_081


@pytest.mark.parametrize(("px", "convolutions"), [(32, 2), (64, 3), (128, 4), (256, 5)])
def test_a_convolution_doubles_or_halves_the_side(px, convolutions) -> None:
    make, judge = dcgan.generator(px, 16), dcgan.discriminator(px, 16)
    images = make(torch.zeros(2, 100))
    assert images.shape == (2, 1, px, px)
    assert judge(images).shape == (2, 1)
    for network, kind in ((make, nn.ConvTranspose2d), (judge, nn.Conv2d)):
        layers = [layer for layer in network if isinstance(layer, kind)]
        assert len(layers) == convolutions
        shapes = {(one.kernel_size, one.stride, one.padding) for one in layers}
        assert shapes == {((4, 4), (2, 2), (1, 1))}


def test_norms_are_in_the_generator_only_and_the_last_layer_is_tanh() -> None:
    make, judge = dcgan.generator(256, 16), dcgan.discriminator(256, 16)
    kinds = [type(layer).__name__ for layer in make]
    between = ["ConvTranspose2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == ["Linear", "Unflatten", *between * 4, "ConvTranspose2d", "Tanh"]
    kinds = [type(layer).__name__ for layer in judge]
    assert kinds == [*["Conv2d", "LeakyReLU"] * 5, "Flatten", "Linear"]
    slopes = [m.negative_slope for net in (make, judge) for m in net if isinstance(m, nn.LeakyReLU)]
    assert set(slopes) == {0.2}


def test_first_weights_are_normal_with_sd_0_02_and_adam_is_the_paper_s() -> None:
    recipe = quick("dcgan", width=512)
    learner = dcgan.learner(recipe, torch.device("cpu"))
    for network in learner.networks.values():
        for layer in network:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                weight = layer.weight.detach()
                n = weight.numel()
                assert abs(float(weight.std()) - 0.02) < 4 * 0.02 / (2 * n) ** 0.5
                assert abs(float(weight.mean())) < 4 * 0.02 / n**0.5
    for adam in learner.optimisers.values():
        assert adam.param_groups[0]["betas"] == (0.5, 0.999)
        assert adam.param_groups[0]["lr"] == 2e-4


def test_a_step_is_the_two_of_goodfellow_by_hand() -> None:
    """Plain gradient arithmetic on the same networks, with Adam's first step, lr * sign."""
    recipe = quick("dcgan", learning_rate=1e-3)
    learner = dcgan.learner(recipe, torch.device("cpu"))
    twin = dcgan.learner(recipe, torch.device("cpu"))
    images = torch.from_numpy(blobs(2))[:, None] / 127.5 - 1
    loss = learner.step(images, 0)
    make, judge = twin.networks["generator"], twin.networks["discriminator"]
    rng = dcgan.chance(recipe.seed, "step", 0)
    fake = make(torch.from_numpy(rng.standard_normal((2, 100), dtype=np.float32)))
    told = -torch.log(torch.sigmoid(judge(images))).mean()
    told = told - torch.log(1 - torch.sigmoid(judge(fake.detach()))).mean()
    _move(judge, told, 1e-3)
    want = -torch.log(torch.sigmoid(judge(fake))).mean()
    torch.testing.assert_close(loss, want.detach())
    _move(make, want, 1e-3)
    for name, network in learner.networks.items():
        for (_, a), (key, b) in zip(
            network.named_parameters(), twin.networks[name].named_parameters(), strict=True
        ):
            # where a gradient is about nothing its sign is not defined
            assert float((a - b).abs().gt(1e-4).float().mean()) < 0.02, (name, key)


@torch.no_grad()
def _move(network: nn.Module, loss: torch.Tensor, rate: float) -> None:
    parameters = list(network.parameters())
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
    for p, g in zip(parameters, gradients, strict=True):
        p -= rate * g / (g.abs() + 1e-8)


def test_generated_images_come_to_look_like_the_images(tmp_path) -> None:
    """One image: the mean of what is made approaches it, as after no training it does not."""
    image = blobs(1, seed=3)
    recipe = Recipe("dcgan", 32, 200, 2, 2e-3, 64, 0.0, seed=1, snapshots=(1,))
    trained = train(image, recipe, tmp_path)
    made = sample(tmp_path / "weights.safetensors", trained.weights, 0, 32, seed=1)
    before = sample(tmp_path / "step-000001.safetensors", trained.snapshots[1], 0, 32, seed=1)
    r = [np.corrcoef(x.mean(0).ravel(), image[0].ravel())[0, 1] for x in (before, made)]
    assert r[0] < 0.3
    assert r[1] > 0.8
