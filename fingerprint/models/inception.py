"""Inception v3, as published for ImageNet and as the network of the FID.

Szegedy et al. 2016, doi:10.1109/CVPR.2016.308, section 6. The two differ in more than numbers: the
FID network has 1008 logits and no auxiliary ones, its average pools leave the padding out, and its
last block takes the maximum where the others average. Features of one are not those of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fingerprint.models.blocks import pooled

EPS = 1e-3  # of every batch norm
Kind = Literal["mean", "inner mean", "maximum", "halve"]  # inner mean: without the padding
Size = int | tuple[int, int]


class Conv(NamedTuple):
    """A convolution of a block; it keeps the size, unless it halves it without padding."""

    n_in: int
    n_out: int
    kernel: Size = 1
    halves: bool = False


Step = str | tuple[str, str]  # a name, or two side by side
Path = tuple[Step, ...]


class Inception(nn.Module):
    """Inception v3; keys ``Conv2d_*``, ``Mixed_*``, ``AuxLogits``, ``fc``.

    Parameters
    ----------
    fid : bool
        The network of the FID: see the head of this file.
    classes : int
        Logits: 1000, or 1008 for the FID's file.
    aux : bool
        Have ``AuxLogits``: they are in the published file, and serve only in training.
    """

    def __init__(self, *, fid: bool = False, classes: int = 1000, aux: bool = True) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(Conv(3, 32, 3, halves=True))
        self.Conv2d_2a_3x3 = ConvNorm(Conv(32, 32, 3), padding=0)
        self.Conv2d_2b_3x3 = ConvNorm(Conv(32, 64, 3))
        self.Conv2d_3b_1x1 = ConvNorm(Conv(64, 80))
        self.Conv2d_4a_3x3 = ConvNorm(Conv(80, 192, 3), padding=0)
        for name, block in _blocks(fid).items():
            if name == "Mixed_7a" and aux:  # the order of the published keys
                self.AuxLogits = AuxLogits(classes)
            self.add_module(name, block)
        self.fc = nn.Linear(2048, classes)

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the mean over pixels of the last block: (B, 3, H, W) -> (B, 2048)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, 2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return pooled(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (B, 3, H, W) float32, at least 75 px -> (B, classes)."""
        out: Tensor = self.fc(self.penultimate(x))
        return out


class ConvNorm(nn.Module):
    """A convolution without bias, its batch norm and ReLU; keys ``conv``, ``bn``."""

    def __init__(self, of: Conv, padding: Size | None = None) -> None:
        super().__init__()
        kernel = (of.kernel, of.kernel) if isinstance(of.kernel, int) else of.kernel
        if padding is None:
            padding = 0 if of.halves else (kernel[0] // 2, kernel[1] // 2)
        stride = 2 if of.halves else 1
        self.conv = nn.Conv2d(of.n_in, of.n_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(of.n_out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, H', W')."""
        return torch.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Paths side by side, their channels one after the other; the last begins with a pool.

    Parameters
    ----------
    convs : mapping of str to Conv
        Under their published names.
    paths : tuple of Path
        Names to go through, in order; a pair is two layers on the same input.
    pool : Kind
        Of the last path; "halve" is a maximum that halves the image.
    """

    def __init__(self, convs: Mapping[str, Conv], paths: tuple[Path, ...], pool: Kind) -> None:
        super().__init__()
        for name, conv in convs.items():
            self.add_module(name, ConvNorm(conv))
        self.paths, self.pool = paths, pool

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, sum of the paths' channels, H', W')."""
        *paths, last = self.paths
        ways = [self._walk(x, path) for path in paths]
        return torch.cat([*ways, self._walk(_pool(x, self.pool), last)], dim=1)

    def _walk(self, x: Tensor, path: Path) -> Tensor:
        for step in path:
            names = (step,) if isinstance(step, str) else step
            x = torch.cat([self.get_submodule(name)(x) for name in names], dim=1)
        return x


class AuxLogits(nn.Module):
    """The side branch: held so that the published file loads whole, never run."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv0 = ConvNorm(Conv(768, 128))
        self.conv1 = ConvNorm(Conv(128, 768, 5), padding=0)
        self.fc = nn.Linear(768, classes)


def inception_fid() -> Inception:
    """Return the network of the FID: fc (1008, 2048), no auxiliary logits; see `Inception`."""
    return Inception(fid=True, classes=1008, aux=False)


def _pool(x: Tensor, kind: Kind) -> Tensor:
    if kind == "halve":
        return functional.max_pool2d(x, 3, 2)
    if kind == "maximum":
        return functional.max_pool2d(x, 3, 1, padding=1)
    return functional.avg_pool2d(x, 3, 1, padding=1, count_include_pad=kind == "mean")


def _blocks(fid: bool) -> dict[str, Mixed]:
    """Return the blocks in order (the paper's Figures 5, 6 and 7, and what halves between)."""
    mean: Kind = "inner mean" if fid else "mean"
    return {
        "Mixed_5b": _square(192, 32, mean),
        "Mixed_5c": _square(256, 64, mean),
        "Mixed_5d": _square(288, 64, mean),
        "Mixed_6a": _halving_square(288),
        "Mixed_6b": _crossed(128, mean),
        "Mixed_6c": _crossed(160, mean),
        "Mixed_6d": _crossed(160, mean),
        "Mixed_6e": _crossed(192, mean),
        "Mixed_7a": _halving_crossed(768),
        "Mixed_7b": _spread(1280, mean),
        "Mixed_7c": _spread(2048, "maximum" if fid else "mean"),
    }


def _square(n_in: int, n_pool: int, pool: Kind) -> Mixed:
    convs = {
        "branch1x1": Conv(n_in, 64),
        "branch5x5_1": Conv(n_in, 48),
        "branch5x5_2": Conv(48, 64, 5),
        "branch3x3dbl_1": Conv(n_in, 64),
        "branch3x3dbl_2": Conv(64, 96, 3),
        "branch3x3dbl_3": Conv(96, 96, 3),
        "branch_pool": Conv(n_in, n_pool),
    }
    deep = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    wide = ("branch5x5_1", "branch5x5_2")
    return Mixed(convs, (("branch1x1",), wide, deep, ("branch_pool",)), pool)


def _halving_square(n_in: int) -> Mixed:
    convs = {
        "branch3x3": Conv(n_in, 384, 3, halves=True),
        "branch3x3dbl_1": Conv(n_in, 64),
        "branch3x3dbl_2": Conv(64, 96, 3),
        "branch3x3dbl_3": Conv(96, 96, 3, halves=True),
    }
    deep = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    return Mixed(convs, (("branch3x3",), deep, ()), "halve")


def _crossed(inner: int, pool: Kind) -> Mixed:
    convs = {
        "branch1x1": Conv(768, 192),
        "branch7x7_1": Conv(768, inner),
        "branch7x7_2": Conv(inner, inner, (1, 7)),
        "branch7x7_3": Conv(inner, 192, (7, 1)),
        "branch7x7dbl_1": Conv(768, inner),
        "branch7x7dbl_2": Conv(inner, inner, (7, 1)),
        "branch7x7dbl_3": Conv(inner, inner, (1, 7)),
        "branch7x7dbl_4": Conv(inner, inner, (7, 1)),
        "branch7x7dbl_5": Conv(inner, 192, (1, 7)),
        "branch_pool": Conv(768, 192),
    }
    once = tuple(f"branch7x7_{i}" for i in range(1, 4))
    twice = tuple(f"branch7x7dbl_{i}" for i in range(1, 6))
    return Mixed(convs, (("branch1x1",), once, twice, ("branch_pool",)), pool)


def _halving_crossed(n_in: int) -> Mixed:
    convs = {
        "branch3x3_1": Conv(n_in, 192),
        "branch3x3_2": Conv(192, 320, 3, halves=True),
        "branch7x7x3_1": Conv(n_in, 192),
        "branch7x7x3_2": Conv(192, 192, (1, 7)),
        "branch7x7x3_3": Conv(192, 192, (7, 1)),
        "branch7x7x3_4": Conv(192, 192, 3, halves=True),
    }
    crossed = tuple(f"branch7x7x3_{i}" for i in range(1, 5))
    return Mixed(convs, (("branch3x3_1", "branch3x3_2"), crossed, ()), "halve")


def _spread(n_in: int, pool: Kind) -> Mixed:
    convs = {
        "branch1x1": Conv(n_in, 320),
        "branch3x3_1": Conv(n_in, 384),
        "branch3x3_2a": Conv(384, 384, (1, 3)),
        "branch3x3_2b": Conv(384, 384, (3, 1)),
        "branch3x3dbl_1": Conv(n_in, 448),
        "branch3x3dbl_2": Conv(448, 384, 3),
        "branch3x3dbl_3a": Conv(384, 384, (1, 3)),
        "branch3x3dbl_3b": Conv(384, 384, (3, 1)),
        "branch_pool": Conv(n_in, 192),
    }
    once: Path = ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b"))
    twice: Path = ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
    return Mixed(convs, (("branch1x1",), once, twice, ("branch_pool",)), pool)
