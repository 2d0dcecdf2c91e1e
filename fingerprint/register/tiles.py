"""How alike two registered images are, tile by tile (METHOD.md, section 3.18).

The detail of both (less its own blur, sigma 8 px of 512) is correlated in square tiles that do not
overlap; the Fisher z of each is compared later with that of strangers (`regions`). A tile is
blurred by itself, its border continued: a blur of the whole image lets what lies beside a copied
region into its outer tiles, and of a planted patch of 4 x 4 tiles a quarter was lost.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.corpus.body import body_mask
from fingerprint.measure import fisher, similarity
from fingerprint.search import images

ALONG = 16  # tiles along a side: 32 px of 512
LEAST_PX = 8  # of smaller tiles r says nothing
LEAST_BODY = 0.5  # share of a tile


def tile_px(side: int) -> int:
    """Return the side of a tile in pixels."""
    return max(LEAST_PX, side // ALONG)


def tiles_of(side: int) -> int:
    """Return how many whole tiles stand along the side of an image."""
    return side // tile_px(side)


def local_z(moving: Tensor, fixed: Tensor, inside: Tensor) -> NDArray[np.float64]:
    """Return Fisher z of Pearson r of the detail of registered pairs in every tile.

    Parameters
    ----------
    moving, fixed : Tensor, shape (B, 1, H, H), float32
        Query, registered, and slice: grey levels.
    inside : Tensor, shape (B, 1, H, H), bool
        Pixels that both have.

    Returns
    -------
    float64, shape (B, t, t)
        NaN where less than half of a tile is body that both show, or one is flat there.
    """
    counted = _tiled(inside & _body(fixed)).double().flatten(3)
    x, y = (_detail(similarity.whole(part)) * counted for part in (moving, fixed))
    n = counted.sum(-1)
    sx, sy = x.sum(-1), y.sum(-1)
    a, b = n * (x * x).sum(-1) - sx * sx, n * (y * y).sum(-1) - sy * sy
    scored = (n >= LEAST_BODY * x.shape[-1]) & (a > 0) & (b > 0)
    r = (n * (x * y).sum(-1) - sx * sy) / (a * b).sqrt()
    r = torch.where(scored, r.clamp(-1, 1), torch.nan)
    return np.asarray(fisher.z_of(r.cpu().numpy()))


def tissue(organs: NDArray[np.uint8], tiles: int) -> NDArray[np.int64]:
    """Return the organ that fills most of each tile: int64 (t, t); 0 where it is none.

    Parameters
    ----------
    organs : uint8, shape (h, h)
        Codes, 0 outside the body; h a multiple of `tiles`.
    tiles : int
        Along a side.

    Raises
    ------
    ValueError
        A side that is no multiple.
    """
    if organs.shape[0] % tiles or organs.shape[0] != organs.shape[1]:
        raise ValueError(f"tissue: organs must be square, cut into {tiles}, got {organs.shape}")
    px = len(organs) // tiles
    cut = organs.reshape(tiles, px, tiles, px).swapaxes(1, 2).reshape(tiles, tiles, -1)
    counts = np.stack([(cut == code).sum(-1) for code in range(1, int(organs.max()) + 1)] or
                      [np.zeros((tiles, tiles), int)], axis=-1)  # fmt: skip
    return np.where(counts.any(-1), counts.argmax(-1) + 1, 0).astype(np.int64)


def _body(fixed: Tensor) -> Tensor:
    """Tell the body of the slices: (B, 1, H, H) bool, on their device."""
    grey = similarity.whole(fixed)[:, 0].to(torch.uint8).cpu().numpy()
    return torch.from_numpy(body_mask(grey))[:, None].to(fixed.device)


def _detail(grey: Tensor) -> Tensor:
    """Return the pixels of every tile less its blur: float64 (B, t, t, pixels), whole numbers."""
    cut = _tiled(grey)
    return images.highpass_of(cut, cut.shape[-1] / 4).double().flatten(3)


def _tiled(values: Tensor) -> Tensor:
    """Cut (B, 1, H, H) into tiles: (B, t, t, px, px); what is left at the end is not used."""
    px, tiles = tile_px(values.shape[-1]), tiles_of(values.shape[-1])
    cut = values[:, 0, : tiles * px, : tiles * px].reshape(-1, tiles, px, tiles, px)
    return cut.transpose(2, 3)
