"""Pairs per second as the corpus grows, peers beside: the slope is the point.

    python tests/bench/slope.py [LARGEST]

Images are 64 x 64 so that 100,000 of them fit everywhere. Ways that hold a matrix or floats are
stopped where they would need more memory than `LIMIT_GIB`; that line is what a table cannot hide.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np
import torch
from peers import standardised
from ratios import counts, machine

from fingerprint.search.correlate import correlate, queries_from, slices_from

SIDE, QUERIES, BLOCK = 64, 240, 4096
LIMIT_GIB = 4.0
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)


def draw(n: int, seed: int) -> np.ndarray:
    """Return uint8 (n, SIDE, SIDE)."""
    return np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE), dtype=np.uint8)


def sums(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = pixels.reshape(len(pixels), -1).astype(np.int64)
    return flat.sum(1), np.einsum("ij,ij->i", flat, flat)


def ours(queries: np.ndarray, slices: np.ndarray) -> None:
    q = queries_from(queries, *sums(queries))
    for i in range(0, len(slices), BLOCK):
        part = slices[i : i + BLOCK]
        correlate(q, slices_from(part, *sums(part))).max(1)


def matrix(queries: np.ndarray, slices: np.ndarray) -> None:
    """Hold float32 of everything and the whole matrix, as the usual notebook does."""
    (standardised(queries) @ standardised(slices).T).argmax(1)


def of_itself(queries: np.ndarray, slices: np.ndarray) -> None:
    """Correlate every slice with every other: numpy.corrcoef."""
    np.corrcoef(slices.reshape(len(slices), -1).astype(np.float32))


def with_faiss(queries: np.ndarray, slices: np.ndarray) -> None:
    import faiss  # noqa: PLC0415 - a peer, not a dependency

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(SIDE * SIDE)
    index.add(standardised(slices))
    index.search(standardised(queries), 1)


# way, bytes it holds for n slices, pairs it compares
WAYS: dict[str, tuple[Callable[..., None], Callable[[int], float], Callable[[int], float]]] = {
    "fingerprint": (ours, lambda n: BLOCK * SIDE * SIDE * 9, lambda n: QUERIES * n),
    "numpy float32, whole": (matrix, lambda n: 8.0 * n * SIDE * SIDE, lambda n: QUERIES * n),
    "numpy.corrcoef": (of_itself, lambda n: 16.0 * n * n, lambda n: n * (n - 1) / 2),
}


def measure(largest: int) -> None:
    """Print a table: pairs per second relative to ours at the smallest size."""
    ways = dict(WAYS)
    if importlib.util.find_spec("faiss"):
        ways["faiss flat"] = (with_faiss, lambda n: 8.0 * n * SIDE * SIDE, lambda n: QUERIES * n)
    queries, slices = draw(QUERIES, 1), draw(largest, 2)
    sizes = [n for n in SIZES if n <= largest]
    print(f"\n### Pairs per second, relative to ours at {sizes[0]:,} slices ({SIDE} x {SIDE})\n")
    print(f"| way | {' | '.join(f'{n:,}' for n in sizes)} |\n|---|{'---|' * len(sizes)}")
    unit = 0.0
    for name, (way, holds, pairs) in ways.items():
        cells = []
        for n in sizes:
            if holds(n) > LIMIT_GIB * 2**30:
                cells.append(f"over {LIMIT_GIB:.0f} GiB")
                continue
            rate = pairs(n) / fastest(lambda w=way, m=n: w(queries, slices[:m]))
            unit = unit or rate
            cells.append(f"{rate / unit:.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


def fastest(way: Callable[[], None], repeats: int = 3) -> float:
    """Return the shortest of some runs, in seconds."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        way()
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(machine())
    measure(*counts(100_000))
