"""The exact product of bytes: int8 in, int32 out, on CPU and CUDA behind one function.

On a CPU unsigned times signed bytes is what there is an instruction for; tensor cores multiply
signed by signed. What `torch._int_mm` asks for on CUDA (2.11 to 2.13: more than 16 rows; columns
and depth in multiples of 8) is hidden here. The second operand is given as rows, (n, k): the layout
that tensor cores read as it is; the other one takes another, slower kernel.

A product that is wrong in silence is what a search cannot notice, and there was one: cuBLAS of CUDA
12.1 with 17 rows (pytorch issue 107671). So there are never fewer than 32 rows there, all pointers
are aligned, and a self-test decides once per process; float64 is exact too, and slow.
"""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# the largest piece whose int32 sum cannot overflow: 255 * 128 * 65,536 < 2^31
PIECE = 65_536
STEP, ROWS = 16, 32  # on CUDA: rows and depth are multiples of STEP, and there are at least ROWS


def int8_product(left: Tensor, right: Tensor) -> Tensor:
    """Exact ``left @ right.T`` of signed bytes, on the device that they are on.

    Parameters
    ----------
    left : Tensor, shape (s, k), int8
        k <= 65,536.
    right : Tensor, shape (n, k), int8

    Returns
    -------
    Tensor, shape (s, n), int32
        On CUDA rows may be further apart than n: a view of what was computed beside it.

    Raises
    ------
    ValueError
        Another dtype, depths that differ, or a depth whose sums may not fit.
    """
    k = left.shape[1]
    if left.dtype != torch.int8 or right.dtype != torch.int8 or right.shape[1] != k or k > PIECE:
        raise ValueError(
            f"int8_product: int8 of one depth, at most {PIECE:,}; got {left.dtype} "
            f"{tuple(left.shape)} and {right.dtype} {tuple(right.shape)}"
        )
    if int8_is_exact(left.device.type):
        return in_int8(left, right)
    return in_float64(left, right).int()


def products(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Multiply piece by piece, and leave the sums to who reads them: for a fused finish on CUDA.

    Parameters
    ----------
    left, right : Tensor, shape (s, p) and (q, p), int8
    out : Tensor, shape (pieces, rows, columns) as `shape_of_products` says, int32, contiguous
        Rows beyond s and columns beyond q hold nothing of meaning.
    """
    for i, k in enumerate(range(0, left.shape[1], PIECE)):
        a, b = left[:, k : k + PIECE], right[:, k : k + PIECE]
        torch._int_mm(_wide(a), _wide(b).T, out=out[i])


def shape_of_products(s: int, q: int, p: int) -> tuple[int, int, int]:
    """Return the shape of `out` of `products`."""
    return -(-p // PIECE), filled(s, ROWS), filled(q, ROWS)


def in_int8(left: Tensor, right: Tensor) -> Tensor:
    """Multiply bytes, (s, k) by (n, k) int8 -> (s, n) int32; unsigned `left` only on a CPU."""
    if left.device.type == "cpu":
        if (
            left.shape[1] == 1
        ):  # torch 2.13 takes a turned column for a row, and is wrong in silence
            left, right = (torch.nn.functional.pad(part, (0, 1)) for part in (left, right))
        return torch._int_mm(left, right.T)
    return torch._int_mm(_wide(left), _wide(right).T)[: len(left), : len(right)]


def filled(n: int, least: int = STEP) -> int:
    """Return the next multiple of `STEP`, and no less than `least`."""
    return max(least, -(-n // STEP) * STEP)


def _wide(values: Tensor) -> Tensor:
    """Fill up rows and depth to what tensor cores take.

    Rows are only ever cut off again, so they may be whatever lies behind the last one in memory, if
    there is enough of it. Depth is summed over: it is filled with zeros, in a copy.
    """
    rows, depth = values.shape
    full = (filled(rows, ROWS), filled(depth))
    if full[1] != depth or values.stride(1) != 1:
        return torch.nn.functional.pad(values, (0, full[1] - depth, 0, full[0] - rows))
    end = values.storage_offset() + (full[0] - 1) * values.stride(0) + depth
    if end <= values.untyped_storage().nbytes():  # one byte each
        return values.as_strided(full, (values.stride(0), 1))
    return torch.nn.functional.pad(values, (0, 0, 0, full[0] - rows))


def with_room(values: Tensor, device: str) -> Tensor:
    """Copy bytes to a device, with room behind the last row, so that `_wide` is free."""
    rows, depth = values.shape
    out = torch.zeros((filled(rows, ROWS), depth), dtype=values.dtype, device=device)
    out[:rows].copy_(values)
    return out[:rows]


def in_float64(left: Tensor, right: Tensor) -> Tensor:
    """Do the same in float64 -> int64: exact too (all sums are integers below 2^53), and slow."""
    return (left.double() @ right.double().T).long()


# the hardest sums, as many rows as are filled up, and shapes of the raw search and of the screen
_TRIALS = ((32, PIECE, 16), (17, 4096, 9), (257, 1024, 521), (64, 4096, 130))


@functools.cache
def int8_is_exact(device: str) -> bool:
    """Whether this torch multiplies bytes exactly here; the hardest cases are tried, once."""
    signs = (False, True) if device == "cpu" else (True,)
    try:
        exact = all(_trial(*shape, signed, device) for shape in _TRIALS for signed in signs)
    except (RuntimeError, AttributeError) as error:
        log.warning("int8 product not available on %s (%s)", device, type(error).__name__)
        return False
    if not exact:
        log.warning("int8 product is not exact on %s: using float64", device)
    return exact


def _trial(rows: int, depth: int, columns: int, signed: bool, device: str) -> bool:
    """Multiply extremes, and bytes that look random, both ways."""
    at = torch.arange(max(rows, columns) * depth, dtype=torch.int64, device=device)
    mixed = ((at * 2_654_435_761) >> 11).to(torch.uint8).view(-1, depth)
    left = mixed[:rows] if not signed else mixed[:rows].view(torch.int8)
    right = mixed[:columns].flip(0).view(torch.int8)
    left[0], left[1] = (-128, 127) if signed else (255, 0)
    right[0], right[1], right[2, ::3] = -128, 127, -128
    return torch.equal(in_int8(left, right).long(), in_float64(left, right))


def chosen(device: str) -> str:
    """Return which product the search uses on a device, in words for a person."""
    return "int8" if int8_is_exact(device) else "float64: int8 is not exact here, slower"
