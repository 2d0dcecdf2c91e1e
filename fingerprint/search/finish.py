"""The fused finish of a product on a GPU: kernels of CuPy, the same bits as the path in torch.

A product leaves four int32 sums for each query and slice; torch then takes some thirty small steps
to r, to the best of each patient and to the histogram, and waits for the result of each block. Here
one kernel reads the sums once (`finish.cu`), and what it finds stays on the device until the tile
is done. torch and CuPy share the memory (DLPack) and the stream.

It is used where slices are on a GPU, CuPy imports, and a self-test gives the bits of the path in
torch; else that path is. Rejected: one block of threads for each query (too few of them), and locks
around r and its slice (64 bits hold one of the two: the slice is found once r is).
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.search import kernels
from fingerprint.search.best import BINS, NOWHERE, Best, best_of, histogram
from fingerprint.search.correlate import Pixels, checked, correlate, queries_from, shifted
from fingerprint.search.product import int8_is_exact, int8_product, products, shape_of_products

log = logging.getLogger(__name__)

STRIP = 8  # slices that one thread walks through, as in the source
THREADS = (32, 8)  # queries x strips in one block of threads
PRODUCT_BYTES = 48 * 2**20  # of the screen's product: what is read back before it leaves the cache


def available(device: str) -> bool:
    """Whether the fused finish is used on a device: decided once, by trying it."""
    return device != "cpu" and _tried(torch.device(device).type)


def chosen(device: str) -> str:
    """Return how products are finished on a device, in words for a person."""
    if available(device):
        return "fused (CuPy)"
    return "torch" if device == "cpu" else "torch: CuPy cannot be used here, slower"


class Fused:
    """Best of every patient, and the histogram, of a tile: what `tile.Tally` holds, on the GPU.

    Parameters
    ----------
    own : int64, shape (q,)
        Which of the patients each query is not compared with; negative: none.
    patients : int64, shape (s,)
        Patient of each slice of the tile, from 0; -1: the slice is not compared with anybody.
    capped : bool, shape (s,)
        Slices of the capped choice.
    n_patients : int
    start : int
        Index in the corpus of the first slice of the tile.
    device : str
    """

    def __init__(
        self,
        own: NDArray[np.int64],
        patients: NDArray[np.int64],
        capped: NDArray[np.bool_],
        n_patients: int,
        *,
        start: int,
        device: str,
    ) -> None:
        self._start = start
        self._own = torch.from_numpy(own.astype(np.int32)).to(device)
        self._patients = torch.from_numpy(patients.astype(np.int32)).to(device)
        self._capped = torch.from_numpy(capped.astype(np.uint8)).to(device)
        shape = (2, n_patients, len(own))
        lowest = int(ordered(np.array(-np.inf)))
        self._key = torch.full(shape, lowest, dtype=torch.int64, device=device)
        self._at = torch.full(shape, NOWHERE, dtype=torch.int64, device=device)
        self._counts = torch.zeros(BINS, dtype=torch.int64, device=device)
        self._room: dict[tuple[Any, ...], Tensor] = {}
        self._lent: dict[int, tuple[Tensor, Any]] = {}

    def add_product(self, queries: Pixels, slices: Pixels, first: int) -> None:
        """Multiply a block and take its correlations; see `correlate`.

        Parameters
        ----------
        first : int
            Index in the corpus of the first slice of the block.
        """
        n, slices = checked(queries, slices), shifted(slices)
        shape = shape_of_products(len(slices), len(queries), n)
        product = self._scratch("product", shape, torch.int32)
        products(slices.values, queries.values, product)
        steps = (np.int64(product.stride(0)), np.int64(product.stride(1)))
        asked = self._lend(queries.total, queries.squares)
        met = (kernels.lend(slices.total), kernels.lend(slices.squares))
        how = (*self._lend(product), np.int32(shape[0]), *steps, np.int64(n), *asked, *met)
        self._finish("finish_product", how, len(slices), first)

    def add(self, r: Tensor, first: int) -> None:
        """Take correlations that were computed before.

        Parameters
        ----------
        r : Tensor, shape (q, s), float64
            Any strides; NaN where an image is constant.
        """
        how = (kernels.lend(r), np.int64(r.stride(0)), np.int64(r.stride(1)))
        self._finish("finish_given", how, r.shape[1], first)

    def best(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Return r (2, q, p) with -inf, slice (2, q, p) with `NOWHERE`, and the histogram."""
        keys = self._key.transpose(1, 2).contiguous().cpu().numpy()
        at = self._at.transpose(1, 2).contiguous().cpu().numpy()
        return ordered(keys), at, self._counts.cpu().numpy()

    def _finish(self, kernel: str, how: tuple[Any, ...], n_slices: int, first: int) -> None:
        n_queries, n_patients = len(self._own), self._key.shape[1]
        if not n_queries or not n_slices or not n_patients:
            return
        numbers = (n_queries, n_slices, n_patients, first - self._start)
        sizes = tuple(np.int32(number) for number in numbers)
        shape = (2, n_slices, n_queries)
        parts = (self._scratch("key", shape, torch.int64), self._scratch("at", shape, torch.int32))
        key, at, counts, part_key, part_at = self._lend(self._key, self._at, self._counts, *parts)
        own, patients, capped = self._lend(self._own, self._patients, self._capped)
        strips = -(-n_slices // STRIP)
        grid = (-(-n_queries // THREADS[0]), -(-strips // THREADS[1]), 1)
        to = (key, at, counts, part_key, part_at)
        kernels.launch(kernel, grid, THREADS, (*how, *sizes, own, patients, capped, *to))
        found = (np.int64(self._start), patients, key, at, part_key, part_at)
        kernels.launch("lowest", grid, THREADS, (*sizes, *found))

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return memory that is used again for every block of one size."""
        if (name, shape) not in self._room:
            self._room[name, shape] = torch.empty(shape, dtype=dtype, device=self._own.device)
        return self._room[name, shape]

    def _lend(self, *tensors: Tensor) -> tuple[Any, ...]:
        """Lend tensors that stay where they are to CuPy, once: it costs as much as a launch."""
        for tensor in tensors:
            if id(tensor) not in self._lent:
                self._lent[id(tensor)] = (tensor, kernels.lend(tensor))
        return tuple(self._lent[id(tensor)][1] for tensor in tensors)


def ordered(values: NDArray[Any]) -> NDArray[Any]:
    """Return doubles as integers that compare alike, or such integers as doubles; no NaN."""
    bits = values.view(np.int64)
    mapped = bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
    return mapped if values.dtype == np.float64 else mapped.view(np.float64)


def highest(product: Tensor, n_poses: int) -> Tensor:
    """Maximum over the poses of each query.

    Parameters
    ----------
    product : Tensor, shape (s, q * n_poses), int32
        Poses of one query side by side; rows may be further apart.

    Returns
    -------
    Tensor, shape (q, s), int32
    """
    n_slices, columns = product.shape
    if columns % n_poses or product.dtype != torch.int32:
        raise ValueError(
            f"highest: int32 and a multiple of {n_poses} columns, got {product.dtype} {columns}"
        )
    n_queries = columns // n_poses
    if not available(product.device.type) or not n_slices:
        return product.unflatten(1, (n_queries, n_poses)).amax(2).T
    out = torch.empty((n_queries, n_slices), dtype=torch.int32, device=product.device)
    _highest(product, n_poses, out)
    return out


def _highest(product: Tensor, n_poses: int, out: Tensor) -> None:
    n_queries, n_slices = out.shape
    sizes = (np.int32(n_poses), np.int32(n_queries), np.int32(n_slices))
    grid = (-(-n_queries * n_slices // 8), 1, 1)
    steps = np.int64(product.stride(0)), np.int64(out.stride(0))
    args = (kernels.lend(product), steps[0], *sizes, kernels.lend(out), steps[1])
    kernels.launch("highest", grid, (256, 1), args)


def highest_over_poses(rows: Tensor, screen: Tensor, *, most: int = PRODUCT_BYTES) -> Tensor:
    """Multiply posed queries with screen rows and keep the maximum over poses, in bounded memory.

    Parameters
    ----------
    rows : Tensor, shape (q, n_poses, k), int8, contiguous
    screen : Tensor, shape (s, k), int8
    most : int
        Bytes of a product that is held; one query and some slices at least.

    Returns
    -------
    Tensor, shape (q, s), int32
    """
    n_queries, n_poses, _ = rows.shape
    out = torch.empty((n_queries, len(screen)), dtype=torch.int32, device=rows.device)
    cells = most // 4
    high = min(len(screen), max(32, min(4096, cells // n_poses)))
    wide = max(1, cells // (high * n_poses)) if high else 1
    for s in range(0, len(screen), max(high, 1)):
        for q in range(0, n_queries, wide):
            posed = rows[q : q + wide].flatten(0, 1)
            product = int8_product(screen[s : s + high], posed)
            out[q : q + wide, s : s + high] = highest(product, n_poses)
    return out


# -- is it right here?


@functools.cache
def _tried(device: str) -> bool:
    """Compare the kernels with the path in torch, on images with twins and constants, once."""
    if not int8_is_exact(device):
        return False
    try:
        same = _same_bits(device) and _same_maximum(device)
    except Exception as error:  # noqa: BLE001 - of CuPy, its compiler or the driver: all mean "no"
        log.warning("fused finish not available on %s (%s)", device, type(error).__name__)
        return False
    if not same:
        log.warning("fused finish differs on %s: using torch", device)
    return same


def _same_bits(device: str) -> bool:
    rng = np.random.default_rng(20250123)
    images = rng.integers(0, 256, (90, 16, 16), dtype=np.uint8)
    images[40:60], images[70] = images[:20], 7  # twins, and an image of one grey level
    flat = images.reshape(len(images), -1).astype(np.int64)
    pixels = queries_from(images, flat.sum(1), (flat * flat).sum(1)).to(device)
    queries, slices = pixels[:37], pixels[37:]
    patients, capped = np.sort(rng.integers(-1, 5, len(slices))), rng.random(len(slices)) < 0.5
    own = rng.integers(-1, 5, len(queries))
    fused = Fused(own, patients, capped, 5, start=100, device=device)
    for first in (0, 20):
        fused.add_product(queries, slices[first : first + 20], 100 + first)
    rest = correlate(queries, slices[40:])
    fused.add(rest, 140)
    r = correlate(queries, slices)
    to = torch.from_numpy(patients).to(device)
    mine = torch.from_numpy(np.where(own < 0, -2, own)).to(device)
    r[(mine[:, None] == to[None, :]) | (to < 0)[None, :]] = torch.nan
    few = torch.where(torch.from_numpy(capped).to(device), r, torch.nan)
    want = [best_of(part, to.clamp(min=0), 5, 100) for part in (r, few)]
    return _equal(fused.best(), want, histogram(r))


def _equal(found: tuple[NDArray[Any], ...], want: list[Best], counts: NDArray[np.int64]) -> bool:
    pairs: list[tuple[Any, Any]] = [(found[2], counts)]
    for kind, best in enumerate(want):
        pairs += [(found[0][kind], best.r), (found[1][kind], best.slice)]
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def _same_maximum(device: str) -> bool:
    at = torch.arange(50 * 3 * 77, dtype=torch.int64, device=device)
    product = ((at * 2_654_435_761) % 1_000_003 - 500_000).int().view(50, 3 * 77)
    out = torch.empty((3, 50), dtype=torch.int32, device=device)
    _highest(product, 77, out)
    return torch.equal(out, product.view(50, 3, 77).amax(2).T)
