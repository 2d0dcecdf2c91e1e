"""The one evaluator of r after a registration: Pearson on the common overlap.

Sums are float64 and taken band by band: what is small stays in the cache of a CPU, and of a GPU's
memory only a part is needed.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fingerprint.register.resample import checked_images, sample, within

BAND = 64  # rows of an image at a time
ROUNDING = 1e-6  # of the largest value: less spread than this is none


def correlation(moved: Tensor, fixed: Tensor, mask: Tensor) -> Tensor:
    """Correlate images where both can be seen.

    Parameters
    ----------
    moved, fixed : Tensor, shape (B, 1, H, W), float32
        On one grid.
    mask : Tensor, shape (B, 1, H, W), bool

    Returns
    -------
    Tensor, shape (B,), float64
        NaN if an image is constant there, or if there is nothing.

    Raises
    ------
    ValueError
        Shapes that differ.
    """
    if not moved.shape == fixed.shape == mask.shape:
        raise ValueError(
            f"correlation: moved, fixed and mask must have one shape, got {tuple(moved.shape)}, "
            f"{tuple(fixed.shape)} and {tuple(mask.shape)}"
        )
    bands = zip(*(image.split(BAND, dim=2) for image in (moved, fixed, mask)), strict=True)
    return _pearson(_sums(bands, moved), _largest(moved), _largest(fixed))


def overlap(moving: Tensor, fixed: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Judge maps: Pearson on the common overlap, and how large that is.

    Parameters
    ----------
    moving, fixed : Tensor, shape (B, 1, H, H), float32
    matrix : Tensor, shape (B, 2, 3), float64
        Fixed point -> moving point, (y, x) px.

    Returns
    -------
    r : Tensor, shape (B,), float64
        Of the fixed pixels whose moving points lie inside; NaN if an image is constant there.
    share : Tensor, shape (B,), float64
        Of the fixed pixels, how many these are.

    Raises
    ------
    ValueError
        Images that are not square or not float32, shapes that do not match.
    """
    checked_pairs("overlap", moving, fixed, matrix)
    sums = _sums(_seen(moving, fixed, matrix), moving)
    share = sums[:, 2, 2] / fixed[0].numel()
    return _pearson(sums, _largest(moving), _largest(fixed)), share


def checked_pairs(name: str, moving: Tensor, fixed: Tensor, start: Tensor) -> None:
    """Refuse images that are no pairs, and maps that are not theirs."""
    checked_images(name, moving)
    checked_images(name, fixed)
    if moving.shape != fixed.shape:
        raise ValueError(
            f"{name}: moving and fixed must have one shape, got {tuple(moving.shape)} and "
            f"{tuple(fixed.shape)}"
        )
    if start.shape != (len(moving), 2, 3) or start.dtype != torch.float64:
        raise ValueError(
            f"{name}: maps must be float64 ({len(moving)}, 2, 3), got {start.dtype} "
            f"{tuple(start.shape)}"
        )


def _seen(moving: Tensor, fixed: Tensor, matrix: Tensor) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    """Go through the fixed image in bands: the moving one as it is seen there, it, the mask."""
    side = fixed.shape[-1]
    axis = torch.arange(side, dtype=torch.float64, device=matrix.device)
    down = (matrix[:, :, 0, None] * axis).float()  # (B, 2, H)
    across = (matrix[:, :, 1, None] * axis + matrix[:, :, 2, None]).float()
    for part, rows in zip(fixed.split(BAND, dim=2), down.split(BAND, dim=2), strict=True):
        at = rows[..., :, None] + across[..., None, :]
        yield sample(moving, at), part, within(at, side)


def _sums(bands: Iterable[tuple[Tensor, ...]], like: Tensor) -> Tensor:
    """Sum products of moved, fixed and ones with each other over the mask: (B, 3, 3) float64."""
    total = like.new_zeros((len(like), 3, 3), dtype=torch.float64)
    for moved, fixed, mask in bands:
        seen = torch.cat([moved, fixed, torch.ones_like(fixed)], dim=1) * mask
        flat = seen.flatten(2).double()
        total += torch.bmm(flat, flat.transpose(1, 2))
    return total


def _pearson(sums: Tensor, most_moved: Tensor, most_fixed: Tensor) -> Tensor:
    n = sums[:, 2, 2]
    ab, aa, bb = (
        sums[:, i, j] - sums[:, i, 2] * sums[:, j, 2] / n for i, j in ((0, 1), (0, 0), (1, 1))
    )
    # a constant image that was moved is not quite constant: its weights are float32
    varies = (aa > n * (ROUNDING * most_moved) ** 2) & (bb > n * (ROUNDING * most_fixed) ** 2)
    return torch.where(varies, (ab / (aa * bb).sqrt()).clamp(-1, 1), torch.nan)


def _largest(images: Tensor) -> Tensor:
    return images.flatten(1).abs().amax(1).double()
