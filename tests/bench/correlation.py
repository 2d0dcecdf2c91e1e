"""Raw correlation from uint8 in memory to the best match of each query, against peers.

    python tests/bench/correlation.py [QUERIES SLICES]

Peers get the same uint8 and must give the same best slices; faiss is timed where it is installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
import zarr

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from corpora import make_corpus
from ratios import compare, machine

from fingerprint.search.correlate import Pixels, correlate, queries_from, slices_from

SIDE, BLOCK = 512, 256


def images(n: int, seed: int) -> np.ndarray:
    """Blocky images with noise: they compress about as CT does."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (n, 16, 16), dtype=np.uint8)
    noise = rng.integers(0, 12, (n, SIDE, SIDE), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, SIDE // 16, SIDE // 16), np.uint8)) + noise


def sums(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = pixels.reshape(len(pixels), -1)
    total = flat.sum(1, dtype=np.int64)
    return total, np.array([np.dot(row.astype(np.int64), row.astype(np.int64)) for row in flat])


def ours(queries: Pixels, slices: Pixels) -> np.ndarray:
    best = [correlate(queries, slices[i : i + BLOCK]).numpy() for i in range(0, len(slices), BLOCK)]
    return np.concatenate(best, 1).argmax(1)


def standardised(pixels: np.ndarray) -> np.ndarray:
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat


def with_numpy(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    q = standardised(queries)
    parts = [q @ standardised(slices[i : i + BLOCK]).T for i in range(0, len(slices), BLOCK)]
    return np.concatenate(parts, 1).argmax(1)


def with_torch(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    q = torch.from_numpy(standardised(queries))
    parts = [
        q @ torch.from_numpy(standardised(slices[i : i + BLOCK])).T
        for i in range(0, len(slices), BLOCK)
    ]
    return torch.cat(parts, 1).argmax(1).numpy()


def with_faiss(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    import faiss  # noqa: PLC0415 - a peer, not a dependency

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(SIDE * SIDE)
    for i in range(0, len(slices), BLOCK):
        index.add(standardised(slices[i : i + BLOCK]))
    return index.search(standardised(queries), 1)[1][:, 0]


def bare(queries: Pixels, slices: Pixels) -> None:
    """The product alone, on the same blocks: the machine's limit."""
    for i in range(0, len(slices), BLOCK):
        for k in range(0, SIDE * SIDE, 65_536):
            torch._int_mm(
                slices.values[i : i + BLOCK, k : k + 65_536],
                queries.values[:, k : k + 65_536].T,
            )


def in_memory(n_queries: int, n_slices: int) -> None:
    generated, real = images(n_queries, 1), images(n_slices, 2)
    real[::7][: len(generated[::5])] = generated[::5][: len(real[::7])]
    q, s = queries_from(generated, *sums(generated)), slices_from(real, *sums(real))
    held = torch.from_numpy(standardised(real))
    q32 = torch.from_numpy(standardised(generated))
    ways: dict[str, Callable[[], object]] = {
        "fingerprint": lambda: ours(q, s),
        "bare int8 product": lambda: bare(q, s),
        "torch float32, held ready": lambda: (q32 @ held.T).argmax(1),
        "numpy float32": lambda: with_numpy(generated, real),
        "torch float32": lambda: with_torch(generated, real),
    }
    if importlib.util.find_spec("faiss"):
        ways["faiss flat"] = lambda: with_faiss(generated, real)
    else:
        print("faiss: not installed, skipped")
    np.testing.assert_array_equal(ours(q, s)[::5], with_numpy(generated, real)[::5])
    compare(f"{n_queries} queries x {n_slices} slices, 512 x 512, in memory", "fingerprint", ways)


def from_zarr(n_queries: int, n_slices: int) -> None:
    generated, real = images(n_queries, 1), images(n_slices, 2)
    q, s = queries_from(generated, *sums(generated)), slices_from(real, *sums(real))
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder) / "real", real, ["Pa"] * n_slices, chunk=64)
        total, squares = corpus.label("sum"), corpus.label("sum_of_squares")

        def decode() -> None:
            for i in range(0, n_slices, BLOCK):
                corpus.read(i, min(i + BLOCK, n_slices))

        def end_to_end() -> None:
            for i in range(0, n_slices, BLOCK):
                j = min(i + BLOCK, n_slices)
                correlate(q, slices_from(corpus.read(i, j), total[i:j], squares[i:j]))

        ways = {
            "fingerprint": end_to_end,
            "decode alone": decode,
            "product alone": lambda: ours(q, s),
            "decode with zarr-python": lambda: zarr.open_array(corpus.path / "pixels", mode="r")[:],
        }
        compare(f"{n_queries} queries x {n_slices} slices, from Zarr", "fingerprint", ways)


if __name__ == "__main__":
    torch.set_num_threads(1)
    counts = [int(a) for a in sys.argv[1:]] or [240, 1024]
    print(machine())
    in_memory(*counts)
    from_zarr(*counts)
