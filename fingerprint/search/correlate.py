"""Exact Pearson correlation of 8-bit images: an integer matrix product and one float64 formula.

Pixels are bytes, so every sum is an integer and the result is the same to the last bit for any
block size, worker, device or retry (METHOD.md, section 3.1):

    r = (n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2) (n Syy - Sy^2))        one square root of the product

so that affinely related images give exactly 1 or -1. `sqrt(a) * sqrt(b)` was rejected: it misses
1 in half of all identical pairs. Queries are stored as ``value - 128`` in int8: Pearson does not
see the shift, and unsigned times signed bytes is the product that CPUs have an instruction for.
Tensor cores multiply signed by signed: there the slices are shifted too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.search.product import PIECE, in_float64, in_int8, int8_is_exact, with_room

SHIFT = 128


@dataclass(frozen=True)
class Pixels:
    """Flat images with their sums.

    Attributes
    ----------
    values : Tensor, shape (n, p)
        int8 (value - 128) for queries; uint8, or int8 likewise, for slices.
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
        """Copy to a device; nothing is copied if it is there.

        On CUDA there is room behind the last row: the product reads a few rows more than there are,
        and need not fill up its operand for each block.
        """
        values = self.values
        if values.device.type != torch.device(device).type:
            values = with_room(values, device)
        return Pixels(values, self.total.to(device), self.squares.to(device))


def queries_from(
    images: NDArray[np.uint8], total: NDArray[np.int64], squares: NDArray[np.int64]
) -> Pixels:
    """Shift uint8 images (n, h, w) to int8; `total` and `squares` are those of the uint8 values."""
    return shifted(slices_from(images, total, squares))


def shifted(pixels: Pixels) -> Pixels:
    """Return uint8 images as int8, each value less 128, with the sums of that: the same r."""
    if pixels.values.dtype == torch.int8:
        return pixels
    values = pixels.values.bitwise_xor(SHIFT).view(torch.int8)  # v ^ 0x80, read as signed
    return Pixels(values, *shifted_sums(pixels.total, pixels.squares, values.shape[1]))


def shifted_sums(total: Tensor, squares: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the sums of values less 128 from those of the uint8 values of images of n pixels."""
    return total - SHIFT * n, squares - 2 * SHIFT * total + SHIFT * SHIFT * n


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
    slices : Pixels, s images of p pixels, uint8 or int8
        On the same device; p <= 741,455, where the integers stop being exact in float64. On a GPU
        uint8 is shifted first, which costs a copy.

    Returns
    -------
    Tensor, shape (q, s), float64
        NaN where an image is constant.

    Raises
    ------
    ValueError
        If the images differ in size, or are too large to be exact.
    """
    n = checked(queries, slices)
    if slices.values.device.type != "cpu":
        slices = shifted(slices)
    cross = _product(slices.values, queries.values).T  # (q, s) int64
    num = n * cross - queries.total[:, None] * slices.total[None, :]
    a = n * queries.squares - queries.total**2
    b = n * slices.squares - slices.total**2
    r = num.double() / _sqrt(a.double()[:, None] * b.double()[None, :])
    return torch.where((a == 0)[:, None] | (b == 0)[None, :], torch.nan, r)


def cross(queries: Pixels, slices: Pixels) -> Tensor:
    """Sum of the products of grey levels of every query with every slice: int64 (q, s), exact.

    Parameters and errors as of `correlate`; grey levels are those of the images, 0 to 255, however
    they are stored.
    """
    n, slices = checked(queries, slices), shifted(slices)
    of_both = queries.total[:, None] + slices.total[None, :]
    return _product(slices.values, queries.values).T + SHIFT * of_both + SHIFT * SHIFT * n


def _sqrt(x: Tensor) -> Tensor:
    """Square root, correctly rounded: torch's own on a CPU may be one bit off, by vector length."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else torch.sqrt(x)


def checked(queries: Pixels, slices: Pixels) -> int:
    """Return the number of pixels of an image; see `correlate` for what is refused."""
    n = queries.values.shape[1]
    if slices.values.shape[1] != n or n > 741_455:
        raise ValueError(
            f"correlate: images of one size, at most 741,455 pixels; got {n} and "
            f"{slices.values.shape[1]}"
        )
    return n


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Exact ``left @ right.T``: (s, p) bytes with (q, p) int8 -> (s, q) int64."""
    multiply = in_int8 if int8_is_exact(left.device.type) else in_float64
    out = torch.zeros((len(left), len(right)), dtype=torch.int64, device=left.device)
    for k in range(0, left.shape[1], PIECE):
        out += multiply(left[:, k : k + PIECE], right[:, k : k + PIECE])
    return out
