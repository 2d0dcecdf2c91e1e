"""From grey slices to what a network takes: resized whole, three equal channels, normalised."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

GREY = "three equal channels"
MOST = 255.0
Resize = Literal["bilinear", "bilinear-antialias", "bicubic-antialias", "bilinear-tf1"]
# what each is, as a report states it
RESIZES: dict[Resize, str] = {
    "bilinear": "bilinear, pixel centres at halves, not antialiased (as pytorch-fid)",
    "bilinear-antialias": "bilinear, antialiased, on float32 (as PIL)",
    "bicubic-antialias": "bicubic (a = -0.5), antialiased, on float32 (as PIL and clean-fid)",
    "bilinear-tf1": "bilinear, pixel centres at integers, not antialiased (as TensorFlow 1)",
}
Colour = tuple[float, float, float]


def prepared(images: Tensor, *, px: int, resize: Resize, mean: Colour, std: Colour) -> Tensor:
    """Return slices as a network takes them.

    The whole slice is kept: the usual cut of a centre square would lose the border of the body.
    Resizing is in float32, and nothing is rounded to grey levels again.

    Parameters
    ----------
    images : Tensor, shape (n, H, W), uint8
        Grey levels.
    px : int
        Side of the result.
    resize : str
        One of `RESIZES`.
    mean, std : three float
        Of each channel, where 0 .. 255 is 0 .. 1.

    Returns
    -------
    Tensor, shape (n, 3, px, px), float32
        On the device of `images`.

    Raises
    ------
    ValueError
        A resize mode that is not known.
    """
    if resize not in get_args(Resize):
        raise ValueError(f"prepared: resize must be one of {get_args(Resize)}, got {resize!r}")
    grey = _resized(images[:, None].float(), px, resize) / MOST
    m, s = (grey.new_tensor(values)[:, None, None] for values in (mean, std))
    return (grey - m) / s  # (n, 1, px, px) and (3, 1, 1): the channels are equal before this line


def _resized(x: Tensor, px: int, resize: Resize) -> Tensor:
    if x.shape[2:] == (px, px):
        return x
    if resize == "bilinear-tf1":
        return _between(_between(x, px, 2), px, 3)
    mode, *smooth = resize.split("-")
    return functional.interpolate(x, size=(px, px), mode=mode, antialias=bool(smooth))


def _between(x: Tensor, px: int, dim: int) -> Tensor:
    """Resize one axis linearly between pixels at integers: the result's pixel i is at i n / px."""
    n = x.shape[dim]
    at = torch.arange(px, dtype=torch.float32, device=x.device) * (n / px)
    low = at.floor().long().clamp(max=n - 1)
    share = (at - low).unflatten(0, (px,) if dim == 3 else (px, 1))
    high = (low + 1).clamp(max=n - 1)
    return torch.lerp(x.index_select(dim, low), x.index_select(dim, high), share)
