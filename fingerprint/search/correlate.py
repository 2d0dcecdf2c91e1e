"""Exact Pearson correlation of 8-bit images: an integer matrix product and one float64 formula.

Pixels are bytes, so every sum is an integer and the result is the same to the last bit for any
block size, worker, device or retry (METHOD.md, section 3.1):

    r = (n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2) (n Syy - Sy^2))        one square root of the product

so that affinely related images give exactly 1 or -1. `sqrt(a) * sqrt(b)` was rejected: it misses
1 in half of all identical pairs. Queries are stored as ``value - 128`` in int8: Pearson does not
see the shift, and unsigned times signed bytes is the product that CPUs have an instruction for.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)

# the largest piece whose int32 sum cannot overflow: 255 * 128 * 65,536 < 2^31
PIECE = 65_536
SHIFT = 128


@dataclass(frozen=True)
class Pixels:
    """Flat images with their sums.

    Attributes
    ----------
    values : Tensor, shape (n, p), int8 for queries, uint8 for slices
    total : Tensor, shape (n,), int64
        Sum of the values as stored.
    squares : Tensor, shape (n,), int64
        Sum of their squares.
    """

    values: Tensor
    total: Tensor
    squares: Tensor

    def __getitem__(self, rows: slice) -> Pixels:
        return Pixels(self.values[rows], self.total[rows], self.squares[rows])

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: str) -> Pixels:
        """Copy to a device; nothing is copied if it is there."""
        return Pixels(self.values.to(device), self.total.to(device), self.squares.to(device))


def queries_from(
    images: NDArray[np.uint8], total: NDArray[np.int64], squares: NDArray[np.int64]
) -> Pixels:
    """Shift uint8 images (n, h, w) to int8; `total` and `squares` are those of the uint8 values."""
    flat = torch.from_numpy(images.reshape(len(images), -1))
    n, sx, sxx = flat.shape[1], torch.from_numpy(total), torch.from_numpy(squares)
    values = flat.bitwise_xor(SHIFT).view(torch.int8)  # v ^ 0x80, read as signed, is v - 128
    return Pixels(values, sx - SHIFT * n, sxx - 2 * SHIFT * sx + SHIFT * SHIFT * n)


def slices_from(
    images: NDArray[np.uint8], total: NDArray[np.int64], squares: NDArray[np.int64]
) -> Pixels:
    """Take uint8 images (n, h, w) as they are."""
    flat = torch.from_numpy(images.reshape(len(images), -1))
    return Pixels(flat, torch.from_numpy(total), torch.from_numpy(squares))


def correlate(queries: Pixels, slices: Pixels) -> Tensor:
    """Pearson r of every query with every slice.

    Parameters
    ----------
    queries : Pixels, q images of p pixels, int8
    slices : Pixels, s images of p pixels, uint8
        On the same device; p <= 741,455, where the integers stop being exact in float64.

    Returns
    -------
    Tensor, shape (q, s), float64
        NaN where an image is constant.

    Raises
    ------
    ValueError
        If the images differ in size, or are too large to be exact.
    """
    n = queries.values.shape[1]
    if slices.values.shape[1] != n or n > 741_455:
        raise ValueError(
            f"correlate: images of one size, at most 741,455 pixels; got {n} and "
            f"{slices.values.shape[1]}"
        )
    cross = _product(slices.values, queries.values).T  # (q, s) int64
    num = n * cross - queries.total[:, None] * slices.total[None, :]
    a = n * queries.squares - queries.total**2
    b = n * slices.squares - slices.total**2
    r = num.double() / _sqrt(a.double()[:, None] * b.double()[None, :])
    return torch.where((a == 0)[:, None] | (b == 0)[None, :], torch.nan, r)


def _sqrt(x: Tensor) -> Tensor:
    """Square root, correctly rounded: torch's own on a CPU may be one bit off, by vector length."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else torch.sqrt(x)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Exact ``left @ right.T``: (s, p) uint8 with (q, p) int8 -> (s, q) int64."""
    multiply = _int8 if int8_is_exact(left.device.type) else _float64
    out = torch.zeros((len(left), len(right)), dtype=torch.int64, device=left.device)
    for k in range(0, left.shape[1], PIECE):
        out += multiply(left[:, k : k + PIECE], right[:, k : k + PIECE])
    return out


def _int8(left: Tensor, right: Tensor) -> Tensor:
    if left.device.type == "cpu":
        return torch._int_mm(left, right.T)
    return _int8_cuda(left, right)


def _int8_cuda(left: Tensor, right: Tensor) -> Tensor:
    """Shift and pad: tensor cores take signed bytes, multiples of 8, at least 17 rows."""
    rows, columns, depth = len(left), len(right), left.shape[1]
    signed = left.bitwise_xor(SHIFT).view(torch.int8)
    signed = _padded(signed, max(32, -(-rows // 8) * 8), -(-depth // 8) * 8)
    other = _padded(right, -(-columns // 8) * 8, -(-depth // 8) * 8)
    product = torch._int_mm(signed, other.T)[:rows, :columns].long()
    return product + SHIFT * right.sum(1, dtype=torch.int64)[None, :]


def _padded(values: Tensor, rows: int, columns: int) -> Tensor:
    if values.shape == (rows, columns):
        return values.contiguous()
    return torch.nn.functional.pad(values, (0, columns - values.shape[1], 0, rows - len(values)))


def _float64(left: Tensor, right: Tensor) -> Tensor:
    """Exact too (every partial sum is an integer below 2^53), at a tenth of the speed."""
    return (left.double() @ right.double().T).long()


@functools.cache
def int8_is_exact(device: str) -> bool:
    """Whether this torch multiplies bytes exactly here; the hardest cases are tried, once."""
    try:
        left = torch.full((32, PIECE), 255, dtype=torch.uint8, device=device)
        right = torch.full((8, PIECE), -128, dtype=torch.int8, device=device)
        right[0], right[1, ::3] = 127, 127
        exact = torch.equal(_int8(left, right).long(), _float64(left, right))
    except (RuntimeError, AttributeError) as error:
        log.warning("int8 product not available on %s (%s)", device, type(error).__name__)
        return False
    if not exact:
        log.warning("int8 product is not exact on %s: using float64", device)
    return exact
