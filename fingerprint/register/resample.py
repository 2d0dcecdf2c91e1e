"""Images at moved points: bilinear, air (0) outside.

A point less than a pixel outside is a blend with air, as in `fingerprint.warp.apply`. Points are
float32: off by at most 3e-5 px at 512, and exact where they are whole numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nn
from torch import Tensor


def warp_affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Show images at M(p).

    Parameters
    ----------
    images : Tensor, shape (B, 1, H, H), float32
    matrices : Tensor, shape (B, 2, 3), float64
        Point of the grid that is shown -> point of the image, (y, x) px.

    Returns
    -------
    Tensor, shape (B, 1, H, H), float32

    Raises
    ------
    ValueError
        Images that are not square, or another number of matrices.
    """
    checked_images("warp_affine", images)
    if matrices.shape != (len(images), 2, 3):
        raise ValueError(
            f"warp_affine: matrices must be ({len(images)}, 2, 3), got {tuple(matrices.shape)}"
        )
    return warp_field(images, affine_field(matrices, images.shape[-1]))


def warp_field(images: Tensor, field: Tensor) -> Tensor:
    """Show images at p + u(p).

    Parameters
    ----------
    images : Tensor, shape (B, 1, H, H), float32
    field : Tensor, shape (B, 2, H, H), float32
        Displacement u, (y, x) px.

    Returns
    -------
    Tensor, shape (B, 1, H, H), float32

    Raises
    ------
    ValueError
        Images that are not square, or a field of another shape.
    """
    checked_images("warp_field", images)
    count, _, side, _ = images.shape
    if field.shape != (count, 2, side, side):
        raise ValueError(
            f"warp_field: field must be {(count, 2, side, side)}, got {tuple(field.shape)}"
        )
    return sample(images, points(field))


def inside(field: Tensor) -> Tensor:
    """Tell which pixels' moved points lie inside the image: the common overlap.

    Parameters
    ----------
    field : Tensor, shape (B, 2, H, H), float32
        Displacement u, (y, x) px; of an affine map, `affine_field`.

    Returns
    -------
    Tensor, shape (B, 1, H, H), bool
        0 <= y, x <= H - 1 at p + u(p): no blend with air.
    """
    if field.ndim != 4 or field.shape[1] != 2 or field.shape[2] != field.shape[3]:
        raise ValueError(f"inside: field must be (B, 2, H, H), got {tuple(field.shape)}")
    return within(points(field), field.shape[-1])


def affine_field(matrices: Tensor, side: int) -> Tensor:
    """Return the displacement of affine maps.

    Parameters
    ----------
    matrices : Tensor, shape (B, 2, 3), float64
    side : int
        Pixels.

    Returns
    -------
    Tensor, shape (B, 2, side, side), float32
        M(p) - p, (y, x) px.
    """
    if matrices.ndim != 3 or matrices.shape[1:] != (2, 3) or matrices.dtype != torch.float64:
        raise ValueError(
            f"affine_field: matrices must be float64 (B, 2, 3), got {matrices.dtype} "
            f"{tuple(matrices.shape)}"
        )
    axis = torch.arange(side, dtype=torch.float64, device=matrices.device)
    less = matrices - torch.eye(2, 3, dtype=torch.float64, device=matrices.device)
    down = less[:, :, 0, None] * axis  # (B, 2, H)
    across = less[:, :, 1, None] * axis + less[:, :, 2, None]  # (B, 2, W)
    return down.float()[..., :, None] + across.float()[..., None, :]


def points(field: Tensor) -> Tensor:
    """Return p + u(p) of a field u, (B, 2, H, H), (y, x) px."""
    axis = torch.arange(field.shape[-1], dtype=field.dtype, device=field.device)
    return field + torch.stack(torch.meshgrid(axis, axis, indexing="ij"))


def sample(images: Tensor, at: Tensor) -> Tensor:
    """Read images (B, C, H, H) at points (B, 2, a, b), (y, x) px: (B, C, a, b).

    The library's grid counts from -1 to 1. Going there and back is exact for whole pixels where
    the side is a power of two, so other sides are continued with air up to the next one.
    """
    side = images.shape[-1]
    wide = 1 << (side - 1).bit_length()
    if wide != side:
        images = nn.pad(images, (0, wide - side, 0, wide - side))
    # x first, and left in planes: interleaving takes as long as all the rest
    grid = at.flip(1).add_(0.5).mul_(2 / wide).sub_(1).permute(0, 2, 3, 1)
    return nn.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def within(at: Tensor, side: int) -> Tensor:
    """Tell which points (B, 2, a, b) lie in [0, side - 1]: bool (B, 1, a, b)."""
    half = (side - 1) / 2
    y, x = (at - half).abs_().unbind(1)
    return ((y <= half) & (x <= half))[:, None]


def checked_images(name: str, images: Tensor) -> None:
    """Refuse what is not float32 (B, 1, H, H)."""
    square = images.ndim == 4 and images.shape[1] == 1 and images.shape[2] == images.shape[3]
    if not square or images.dtype != torch.float32:
        raise ValueError(
            f"{name}: images must be float32 (B, 1, H, H), got {images.dtype} {tuple(images.shape)}"
        )
