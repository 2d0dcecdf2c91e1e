"""The network of a masked autoencoder (METHOD.md, section 1.3; He et al. 2022, arXiv:2111.06377).

A slice is cut into patches of 16 px. The encoder sees a quarter of them; the decoder, a smaller
transformer, says what the others hold, and is only needed for that. Both are told where a patch
lies by sines and cosines that are not learnt. What is compared later is what the encoder makes of
a whole slice, the mean of its patches' tokens.

Paper 002 states no parameter; these are those of He et al., but for one grey channel. The sizes
for another width than theirs are ours:

    width    encoder: blocks, heads    decoder: width, blocks, heads
    768      12, 12                    512, 8, 16       He et al.
    384      12, 6                     256, 4, 8        a laptop
    w        w / 32 up to 12, w / 64   2 w / 3, w / 96 up to 8, one for each 32

with the decoder's width rounded to a multiple of 32, and everything at least 1 (32 the decoder's).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fingerprint.models.vit import EPS, Block, Patches

PATCH = 16  # px
FLAT = 1e-6  # variance that is added to that of a patch


@dataclass(frozen=True)
class Sizes:
    """Widths, blocks and attention heads of both halves."""

    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


def sizes(width: int) -> Sizes:
    """Return the sizes that go with a width of the encoder, 32 or a multiple of 64."""
    decoder = max(1, round(width / 48))  # of its heads, each 32 wide
    depth, decoder_depth = min(12, width // 32), min(8, max(1, width // 96))
    return Sizes(width, depth, max(1, width // 64), 32 * decoder, decoder_depth, decoder)


class Encoder(nn.Module):
    """The half that makes features; keys are those of ``mae_pretrain_vit_*.pth``.

    Parameters
    ----------
    width, depth, heads : int
        Of the tokens, blocks, attention heads a block.
    grid : int
        Patches along a side.
    channels : int
    """

    def __init__(self, width: int, depth: int, heads: int, grid: int, channels: int = 1) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(positions(grid, width), requires_grad=False)
        self.patch_embed = Patches(width, PATCH, channels)
        self.blocks = nn.ModuleList(Block(width, heads, scaled=False) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def tokens(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the class token and one token for each patch that is seen, normed.

        Parameters
        ----------
        x : Tensor, shape (B, channels, px, px), float32
        kept : Tensor, shape (B, k), int64, optional
            Which patches are seen; all by default.

        Returns
        -------
        Tensor, shape (B, 1 + k, width), float32
        """
        y = self.patch_embed(x) + self.pos_embed[:, 1:]
        if kept is not None:
            y = y.gather(1, kept[..., None].expand(-1, -1, y.shape[2]))
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(y), -1, -1)
        y = torch.cat([first, y], dim=1)
        for block in self.blocks:
            y = block(y)
        out: Tensor = self.norm(y)
        return out

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the mean token of all patches: (B, channels, px, px) -> (B, width)."""
        return self.tokens(x)[:, 1:].mean(1)

    forward = penultimate  # there are no logits


class Autoencoder(nn.Module):
    """Both halves, for grey images in [-1, 1] of `px`, a multiple of 16."""

    def __init__(self, px: int, width: int) -> None:
        super().__init__()
        s, grid = sizes(width), px // PATCH
        self.encoder = Encoder(s.width, s.depth, s.heads, grid)
        self.embed = nn.Linear(s.width, s.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, s.decoder_width))
        self.pos_embed = nn.Parameter(positions(grid, s.decoder_width), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(s.decoder_width, s.decoder_heads, scaled=False) for _ in range(s.decoder_depth)
        )
        self.norm = nn.LayerNorm(s.decoder_width, eps=EPS)
        self.pixels = nn.Linear(s.decoder_width, PATCH**2)

    def forward(self, images: Tensor, kept: Tensor) -> Tensor:
        """Say what all patches hold, of those that are kept.

        Parameters
        ----------
        images : Tensor, shape (B, 1, px, px), float32
        kept : Tensor, shape (B, k), int64

        Returns
        -------
        Tensor, shape (B, patches, 256)
            In units of `normalised`.
        """
        y = self.embed(self.encoder.tokens(images, kept))
        n = self.pos_embed.shape[1] - 1
        hidden = self.mask_token.to(y.dtype).expand(len(y), n, -1)
        at = kept[..., None].expand(-1, -1, y.shape[2])
        y = torch.cat([y[:, :1], hidden.scatter(1, at, y[:, 1:])], dim=1) + self.pos_embed
        for block in self.blocks:
            y = block(y)
        out: Tensor = self.pixels(self.norm(y))[:, 1:]
        return out


def positions(grid: int, width: int) -> Tensor:
    """Return sines and cosines of the row and of the column of each patch, and 0 for the class.

    Returns
    -------
    Tensor, shape (1, 1 + grid^2, width), float32
        Of each position a quarter of the channels is sin(row w), then cos(row w), sin(column w),
        cos(column w), with w falling from 1 to near 1e-4 (Vaswani et al. 2017, section 3.5).
    """
    rate = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * rate  # (grid, width / 4)
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    row, column = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
    square = torch.cat([row, column], dim=2).flatten(0, 1)
    return torch.cat([torch.zeros_like(square[:1]), square])[None].float()


def patches(images: Tensor) -> Tensor:
    """Return the patches, row by row, of each its pixels, row by row.

    Parameters
    ----------
    images : Tensor, shape (B, 1, px, px)

    Returns
    -------
    Tensor, shape (B, patches, 256)
    """
    cut = images[:, 0].unflatten(2, (-1, PATCH)).unflatten(1, (-1, PATCH))  # (B, row, y, column, x)
    return cut.transpose(2, 3).flatten(3).flatten(1, 2)


def joined(pieces: Tensor) -> Tensor:
    """Return the images that `patches` cut, (B, 1, px, px)."""
    grid = math.isqrt(pieces.shape[1])
    cut = pieces.unflatten(1, (grid, grid)).unflatten(3, (PATCH, PATCH))  # (B, row, column, y, x)
    return cut.transpose(2, 3).flatten(3).flatten(1, 2)[:, None]


def normalised(pieces: Tensor) -> Tensor:
    """Return patches less their mean, over their SD: what the decoder is to say."""
    mean, sd = levels(pieces)
    return (pieces - mean) / sd


def levels(pieces: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and SD of the pixels of each patch, (B, patches, 1); no SD is 0."""
    return pieces.mean(-1, keepdim=True), (pieces.var(-1, keepdim=True) + FLAT).sqrt()


def error(said: Tensor, images: Tensor, kept: Tensor) -> Tensor:
    """Return the mean squared error of what was said of the patches that were not seen."""
    each = (said.float() - normalised(patches(images))).square().mean(-1)  # (B, patches)
    masked = torch.ones_like(each).scatter(1, kept, 0.0)
    return (each * masked).sum() / masked.sum()


def published_base() -> Encoder:
    """Return the encoder of ``mae_pretrain_vit_base.pth``: for 224 px, three channels."""
    return Encoder(768, 12, 12, 14, 3)
