"""How alike two images are, pixel by pixel (METHOD.md, section 3.16): batches of pairs.

Images are float32 (B, 1, H, W), numbers come back as float64 (B,), on the device of the images. A
mask says which pixels count. A pair without an answer (a constant image, nothing in the mask) is
NaN, and no pair's number depends on what stands beside it: pixels are summed in float64, where sums
of whole grey levels are exact in whatever order.
"""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 255  # grey level
FLAT = 1e-13  # variance over mean square; one grey level in one of 2048 x 2048 pixels is 4e-12


def euclidean(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return sqrt(sum (x - y)^2) of each pair, float64 (B,).

    Parameters
    ----------
    x, y : Tensor, shape (B, 1, H, W), float32
        Grey levels.
    mask : Tensor, shape (B, 1, H, W), bool, optional

    Raises
    ------
    ValueError
        Shapes or dtypes that do not fit.
    """
    x, y, _ = flat("euclidean", x, y, mask)
    return (x - y).square().sum(1).sqrt()


def manhattan(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return sum |x - y| of each pair, float64 (B,); parameters and errors as `euclidean`."""
    x, y, _ = flat("manhattan", x, y, mask)
    return (x - y).abs().sum(1)


def cosine(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return x.y / (|x| |y|) of each pair, float64 (B,); NaN if an image is zero everywhere."""
    x, y, _ = flat("cosine", x, y, mask)
    size = (x * x).sum(1) * (y * y).sum(1)
    return torch.where(size > 0, (x * y).sum(1) / size.sqrt(), torch.nan)


def pearson(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return Pearson r of each pair, float64 (B,); NaN if an image is constant.

    From sums and one square root of one product (METHOD.md, section 3.1): exact sums where grey
    levels are whole, so that identical images give exactly 1.
    """
    x, y, n = flat("pearson", x, y, mask)
    sx, sy, xx, yy = x.sum(1), y.sum(1), n * (x * x).sum(1), n * (y * y).sum(1)
    a, b = xx - sx * sx, yy - sy * sy
    r = (n * (x * y).sum(1) - sx * sy) / (a * b).sqrt()
    # of a constant that is not whole, rounding may leave a little
    return torch.where((a > FLAT * xx) & (b > FLAT * yy), r, torch.nan)


def whole(images: Tensor) -> Tensor:
    """Round images to whole grey levels 0 .. 255: float32, the same shape."""
    return images.round().clamp(0, MOST)


def flat(name: str, x: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels of pairs that count, the rest zero, float64 (B, H W), and their number."""
    checked(name, x, y, mask)
    x, y = x.flatten(1).double(), y.flatten(1).double()
    if mask is None:
        return x, y, x.new_full((len(x),), x.shape[1])
    inside = mask.flatten(1)
    return x * inside, y * inside, inside.sum(1).double()


def checked(name: str, x: Tensor, y: Tensor, mask: Tensor | None) -> None:
    """Refuse images that are not float32 (B, 1, H, W), alike, with a mask of their shape."""
    if x.ndim != 4 or x.shape[1] != 1 or x.dtype != torch.float32 or y.dtype != torch.float32:
        raise ValueError(
            f"{name}: images must be float32 (B, 1, H, W), got {x.dtype} {tuple(x.shape)}, "
            f"{y.dtype} {tuple(y.shape)}"
        )
    shapes = {tuple(part.shape) for part in (x, y, mask) if part is not None}
    if len(shapes) > 1 or (mask is not None and mask.dtype != torch.bool):
        raise ValueError(f"{name}: one shape for both images and a bool mask, got {sorted(shapes)}")
