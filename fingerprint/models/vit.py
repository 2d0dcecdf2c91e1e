"""The vision transformers of DINOv2, without registers (Oquab et al. 2023, arXiv:2304.07193).

A pre-norm ViT (Dosovitskiy et al. 2021, arXiv:2010.11929) of 14 px patches, each branch scaled
before it is added. Keys are those of ``dinov2_vit*14_pretrain.pth``. Its parts are those of `mae`
too, with other patches and nothing scaled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 14  # px
GRID = 37  # patches along a side of the 518 px that the position embedding is for
EPS = 1e-6  # of every layer norm
# DINOv2 rounds with it, and its features are those of the shifted grid that this gives
OFFSET = 0.1


class ViT(nn.Module):
    """Encoder; keys ``cls_token``, ``pos_embed``, ``mask_token``, ``patch_embed``, ``blocks``.

    Parameters
    ----------
    width, depth, heads : int
        Of the tokens, blocks, attention heads a block.
    grid : int
        Patches along a side that `pos_embed` is for.
    """

    def __init__(self, width: int, depth: int, heads: int, grid: int = GRID) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # in the file; only for training
        self.patch_embed = Patches(width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.grid = grid

    def tokens(self, x: Tensor) -> Tensor:
        """Return the class token and one token a patch, normed.

        Parameters
        ----------
        x : Tensor, shape (B, 3, H, W), float32
            H and W multiples of 14.

        Returns
        -------
        Tensor, shape (B, 1 + H / 14 * W / 14, width), float32

        Raises
        ------
        ValueError
            Sizes that are no multiple of 14.
        """
        height, width = x.shape[2:]
        if height % PATCH or width % PATCH or not height * width:
            raise ValueError(f"ViT: sides must be multiples of {PATCH} px, got {height} x {width}")
        y = self.patch_embed(x)
        y = torch.cat([self.cls_token.expand(len(y), -1, -1), y], dim=1)
        y = y + self.positions(height // PATCH, width // PATCH)
        for block in self.blocks:
            y = block(y)
        out: Tensor = self.norm(y)
        return out

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding of a grid, bicubic: (1, 1 + rows * columns, width)."""
        if (rows, columns) == (self.grid, self.grid):
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        scale = [(n + OFFSET) / self.grid for n in (rows, columns)]
        square = rest.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        resized = functional.interpolate(square, scale_factor=scale, mode="bicubic")
        return torch.cat([first, resized.flatten(2).transpose(1, 2)], dim=1)

    def penultimate(self, x: Tensor) -> Tensor:
        """Return the class token after the last norm: (B, 3, H, W) -> (B, width)."""
        return self.tokens(x)[:, 0]

    forward = penultimate  # there are no logits


class Patches(nn.Module):
    """One token for each patch: (B, channels, H, W) -> (B, patches, width)."""

    def __init__(self, width: int, patch: int = PATCH, channels: int = 3) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, row by row."""
        out: Tensor = self.proj(x)
        return out.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention and a layer of its own for each token, both scaled, if so asked, and added."""

    def __init__(self, width: int, heads: int, *, scaled: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.ls1 = Scale(width) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = TwoLayers(width)
        self.ls2 = Scale(width) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, tokens, width)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class Attention(nn.Module):
    """Each token takes from all others."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, tokens, width)."""
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1))  # (B, tokens, 3, heads, width / h)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out


class TwoLayers(nn.Module):
    """Four times as wide between, with GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, tokens, width)."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Scale(nn.Module):
    """One factor for each channel (Touvron et al. 2021, arXiv:2103.17239, LayerScale)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, tokens, width)."""
        return x * self.gamma


def vit_small(grid: int = GRID) -> ViT:
    """Return ViT-S/14; see `ViT`."""
    return ViT(384, 12, 6, grid)


def vit_base(grid: int = GRID) -> ViT:
    """Return ViT-B/14; see `ViT`."""
    return ViT(768, 12, 12, grid)


def vit_large(grid: int = GRID) -> ViT:
    """Return ViT-L/14; see `ViT`."""
    return ViT(1024, 24, 16, grid)
