"""Mutual information of two images, in bits (METHOD.md, section 3.16): batches of pairs.

From a joint histogram of `BINS` x `BINS` cells over the grey levels 0 .. 255. It is bounded by the
entropy of either image, and that by log2 of the bins: 6 bits for 64. Paper 000 prints 10.5 to 12.5
in a unit that it does not state (pin E07).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fingerprint.measure.similarity import MOST, checked

BINS = 64  # four grey levels in each


@dataclass(frozen=True)
class Information:
    """What two images say of each other, float64 (B,) each, in bits; NaN where nothing counts.

    Attributes
    ----------
    x, y, joint : Tensor
        Entropies.
    mutual : Tensor
        ``x + y - joint``, plug-in: too large by about (Kx - 1)(Ky - 1) / (2 n ln 2).
    miller_madow : Tensor
        `mutual` with the first-order correction (Kx + Ky - Kxy - 1) / (2 n ln 2), K being occupied
        cells.
    normalised : Tensor
        ``(x + y) / joint``, from 1 to 2 (Studholme et al. 1999); NaN if both are constant.
    """

    x: Tensor
    y: Tensor
    joint: Tensor
    mutual: Tensor
    miller_madow: Tensor
    normalised: Tensor


def information(
    x: Tensor, y: Tensor, mask: Tensor | None = None, *, bins: int = BINS
) -> Information:
    """Return entropies and mutual information of pairs.

    Parameters
    ----------
    x, y : Tensor, shape (B, 1, H, W), float32
        Grey levels 0 .. 255; others count as the nearest.
    mask : Tensor, shape (B, 1, H, W), bool, optional
        Pixels that count.
    bins : int
        Of each image; 2 to 256.

    Raises
    ------
    ValueError
        Shapes or dtypes that do not fit, another number of bins.
    """
    if not 2 <= bins <= MOST + 1:
        raise ValueError(f"information: bins must lie in 2 .. {MOST + 1}, got {bins}")
    checked("information", x, y, mask)
    counts = _joint(x, y, mask, bins)
    n = counts.sum((1, 2))
    along_x, along_y = counts.sum(2), counts.sum(1)
    h_x, h_y, h = (_entropy(part, n) for part in (along_x, along_y, counts.flatten(1)))
    occupied = (along_x > 0).sum(1) + (along_y > 0).sum(1) - (counts > 0).sum((1, 2)) - 1
    # a rounding must not break the bounds
    mutual = torch.minimum((h_x + h_y - h).clamp(min=0), torch.minimum(h_x, h_y))
    corrected = mutual + occupied / (2 * n * torch.log(h.new_tensor(2.0)))
    normalised = torch.where(h > 0, ((h_x + h_y) / h).clamp(1, 2), torch.nan)
    return Information(h_x, h_y, h, mutual, corrected, normalised)


def _joint(x: Tensor, y: Tensor, mask: Tensor | None, bins: int) -> Tensor:
    """Count pixels by the grey levels of both images: float64 (B, bins, bins), whole numbers."""
    of_x, of_y = (
        (part.flatten(1) * (bins / (MOST + 1))).int().clamp_(0, bins - 1) for part in (x, y)
    )
    cell = of_x.mul_(bins).add_(of_y)
    if mask is not None:
        cell.masked_fill_(~mask.flatten(1), bins**2)  # one more cell, of what does not count
    pair = torch.arange(len(x), device=x.device, dtype=torch.int32)[:, None] * (bins**2 + 1)
    counts = torch.bincount((cell + pair).flatten(), minlength=len(x) * (bins**2 + 1))
    return counts.view(len(x), -1)[:, :-1].reshape(len(x), bins, bins).double()


def _entropy(counts: Tensor, n: Tensor) -> Tensor:
    """Return the entropy of counts (B, k) in bits; NaN where n is 0."""
    # sum of c log2 c: no term is tiny, and an empty cell adds nothing
    terms = torch.where(counts > 0, counts * counts.clamp(min=1).log2(), 0.0)
    return n.log2() - terms.sum(1) / n
