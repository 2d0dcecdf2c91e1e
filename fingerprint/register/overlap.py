"""The one evaluator of r after a registration: Pearson on the common overlap."""

from __future__ import annotations

import torch
from torch import Tensor


def correlation(moved: Tensor, fixed: Tensor, mask: Tensor) -> Tensor:
    """Correlate images where both can be seen.

    Parameters
    ----------
    moved, fixed : Tensor, shape (B, 1, H, W), float32
    mask : Tensor, shape (B, 1, H, W), bool

    Returns
    -------
    Tensor, shape (B,), float64
        NaN if an image is constant there, or if there is nothing.
    """
    if not moved.shape == fixed.shape == mask.shape:
        raise ValueError(
            f"correlation: moved, fixed and mask must have one shape, got {tuple(moved.shape)}, "
            f"{tuple(fixed.shape)} and {tuple(mask.shape)}"
        )
    there = mask.flatten(1).double()
    n = there.sum(1, keepdim=True)
    a, b = (there * image.flatten(1) for image in (moved, fixed))
    a, b = (there * (part - part.sum(1, keepdim=True) / n) for part in (a, b))
    squares = (a * a).sum(1) * (b * b).sum(1)
    return torch.where(squares > 0, (a * b).sum(1) / squares.sqrt(), torch.nan)
