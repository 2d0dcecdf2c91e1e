"""Raw correlation from uint8 in memory to the best slice of each query: ours, and what others do.

    python tests/bench/peers.py [QUERIES SLICES]

Every way gets the same uint8 and must name the same best slices. Float ways standardise what they
are given: that is their work too. What is "held ready" was given float32 beforehand, four times the
memory of the pixels, and that work is not counted. faiss comes with `make bench-peers`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.spatial.distance
import torch
from bench_images import BLOCK, SIDE, images, sums
from ratios import compare, counts, machine
from sklearn.metrics import pairwise_distances_chunked

from fingerprint.search.correlate import Pixels, correlate, queries_from, slices_from


def standardised(pixels: np.ndarray) -> np.ndarray:
    """Return rows of float32 with mean 0 and norm 1."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat


def ours(queries: Pixels, slices: Pixels) -> np.ndarray:
    """Return the best slice of each query."""
    r = [correlate(queries, slices[i : i + BLOCK]).numpy() for i in range(0, len(slices), BLOCK)]
    return np.concatenate(r, 1).argmax(1)


def bare(queries: Pixels, slices: Pixels) -> None:
    """Multiply the bytes and nothing else, in the same blocks: the machine's limit."""
    for i in range(0, len(slices), BLOCK):
        for k in range(0, SIDE * SIDE, 65_536):
            part = slices.values[i : i + BLOCK, k : k + 65_536]
            torch._int_mm(part, queries.values[:, k : k + 65_536].T)


def in_blocks(
    queries: np.ndarray, slices: np.ndarray, product: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Standardise the slices block by block and multiply: what a careful float32 user writes."""
    q = standardised(queries)
    r = [product(q, standardised(slices[i : i + BLOCK])) for i in range(0, len(slices), BLOCK)]
    return np.concatenate(r, 1).argmax(1)


def with_torch(q: np.ndarray, s: np.ndarray) -> np.ndarray:
    return (torch.from_numpy(q) @ torch.from_numpy(s).T).numpy()


def with_cdist(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    flat = [x.reshape(len(x), -1).astype(np.float64) for x in (queries, slices)]
    return scipy.spatial.distance.cdist(*flat, metric="correlation").argmin(1)


def with_sklearn(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    flat = [x.reshape(len(x), -1).astype(np.float32) for x in (queries, slices)]
    chunks = pairwise_distances_chunked(
        *flat, metric="correlation", reduce_func=lambda d, _: d.argmin(1)
    )
    return np.concatenate(list(chunks))


def with_faiss(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    import faiss  # noqa: PLC0415 - a peer, not a dependency

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(SIDE * SIDE)
    for i in range(0, len(slices), BLOCK):
        index.add(standardised(slices[i : i + BLOCK]))
    return index.search(standardised(queries), 1)[1][:, 0]


def one_thread(n_queries: int, n_slices: int) -> None:
    """Compare all ways on one core."""
    generated, real = images(n_queries, 1), images(n_slices, 2)
    real[::7][: len(generated[::5])] = generated[::5][: len(real[::7])]
    q, s = queries_from(generated, *sums(generated)), slices_from(real, *sums(real))
    held, q32 = torch.from_numpy(standardised(real)), torch.from_numpy(standardised(generated))
    ways: dict[str, Callable[[], object]] = {
        "fingerprint": lambda: ours(q, s),
        "bare int8 product": lambda: bare(q, s),
        "torch float32, held ready": lambda: (q32 @ held.T).argmax(1),
        "numpy float32": lambda: in_blocks(generated, real, lambda a, b: a @ b.T),
        "torch float32": lambda: in_blocks(generated, real, with_torch),
    }
    if importlib.util.find_spec("faiss"):
        ways["faiss flat"] = lambda: with_faiss(generated, real)
    else:
        print("faiss: not installed, skipped (make bench-peers)")
    expected = ours(q, s)[::5]
    for name, way in ways.items():
        found = way()
        if found is not None:
            np.testing.assert_array_equal(np.asarray(found)[::5], expected, err_msg=name)
    title = f"{n_queries} queries x {n_slices} slices, {SIDE} x {SIDE}, in memory, one thread"
    compare(title, "fingerprint", ways)


def slow_ways(n_queries: int, n_slices: int) -> None:
    """Compare with what does no matrix product, on fewer images."""
    generated, real = images(n_queries, 1), images(n_slices, 2)
    q, s = queries_from(generated, *sums(generated)), slices_from(real, *sums(real))
    ways: dict[str, Callable[[], object]] = {
        "fingerprint": lambda: ours(q, s),
        "scikit-learn, chunked": lambda: with_sklearn(generated, real),
        "scipy cdist": lambda: with_cdist(generated, real),
    }
    title = f"{n_queries} queries x {n_slices} slices, {SIDE} x {SIDE}, in memory, one thread"
    compare(title, "fingerprint", ways, rounds=3)


def both_cores(n_queries: int, n_slices: int, cores: int = 2) -> None:
    """Compare with the bare product when every core works, each on slices of its own."""
    q = queries_from(generated := images(n_queries, 1), *sums(generated))
    s = slices_from(real := images(n_slices, 2), *sums(real))

    def side_by_side(way: Callable[[Pixels, Pixels], object]) -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda _: way(q, s), range(cores)))

    ways = {"fingerprint": lambda: side_by_side(ours), "bare": lambda: side_by_side(bare)}
    compare(f"{n_queries} x {n_slices} on each of {cores} cores", "fingerprint", ways)


if __name__ == "__main__":
    torch.set_num_threads(1)
    n_queries, n_slices = counts(240, 1024)
    print(machine())
    one_thread(n_queries, n_slices)
    both_cores(n_queries, n_slices)
    slow_ways(max(1, n_queries // 10), max(1, n_slices // 8))
