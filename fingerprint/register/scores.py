"""How alike a pair is as stored, after affine and after elastic registration.

Scores are of images rounded to whole grey levels, over the pixels where both have one. So the sums
of r and the counts of mutual information are exact, and equal on every device for equal images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.measure import information, similarity, structural
from fingerprint.search import images

STEPS = ("raw", "affine", "elastic")
NAMES = ("r", "r_highpass", "mi_bits", "nmi", "ssim")
# column of matches.parquet -> step and score; r as stored is that of the search
COLUMNS = {
    f"{name}_{step}": (step, name)
    for step in STEPS
    for name in NAMES
    if step != "raw" or not name.startswith("r")
}


def stored_scores(moving: Tensor, fixed: Tensor) -> NDArray[np.float64]:
    """Score pairs as they are stored: `scores` without r, which the search has already."""
    x, y = similarity.whole(moving), similarity.whole(fixed)
    told, none = information.information(x, y), torch.full((len(x),), torch.nan).to(x.device)
    return _table([none, none, told.mutual, told.normalised, structural.ssim(x, y)])


def scores(moving: Tensor, fixed: Tensor, inside: Tensor) -> NDArray[np.float64]:
    """Score pairs that were registered.

    Parameters
    ----------
    moving, fixed : Tensor, shape (B, 1, H, H), float32
        Query, moved or as stored, and slice: grey levels.
    inside : Tensor, shape (B, 1, H, H), bool
        Pixels that both have.

    Returns
    -------
    float64, shape (B, `NAMES`)
        NaN where a score is not defined.
    """
    x, y = similarity.whole(moving), similarity.whole(fixed)
    told = information.information(x, y, inside)
    return _table(
        [
            similarity.pearson(x, y, inside),
            similarity.pearson(images.highpass_of(x), images.highpass_of(y), inside),
            told.mutual,
            told.normalised,
            structural.ssim(x, y, inside),
        ]
    )


def _table(parts: Sequence[Tensor]) -> NDArray[np.float64]:
    return np.asarray(torch.stack([part.double() for part in parts], dim=1).cpu().numpy())
