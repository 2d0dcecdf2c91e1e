"""The search as it runs, from a sealed corpus: against its two halves, decode and product.

    python tests/bench/from_zarr.py [QUERIES SLICES]

One core has to do both, so the sum of the two is the limit; on a GPU they overlap (gpu.py).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import zarr
from bench_images import BLOCK, SIDE, images, sums
from corpora import make_corpus
from ratios import compare, counts, machine

from fingerprint.search import raw
from fingerprint.search.correlate import queries_from
from fingerprint.search.sets import QuerySet, Reference
from fingerprint.search.tiling import Tile


def measure(n_queries: int, n_slices: int) -> None:
    """Time one shard of the search beside decoding alone and multiplying alone."""
    generated, real = images(n_queries, 1), images(n_slices, 2)
    q = queries_from(generated, *sums(generated))
    held = torch.from_numpy(real.reshape(n_slices, -1))
    patients = np.arange(n_slices) // 118
    with tempfile.TemporaryDirectory() as folder:
        names = [f"P{p}" for p in patients]
        corpus = make_corpus(Path(folder) / "real", real, names, chunk=64)
        asked = make_corpus(Path(folder) / "generated", generated, ["g"] * n_queries, chunk=64)
        queries = QuerySet(
            "generated",
            asked.path,
            asked.digest,
            np.arange(n_queries),
            np.full(n_queries, -1, np.int64),
        )
        capped = np.arange(n_slices) % 118 < 16
        reference = Reference(corpus.path, corpus.digest, 64, patients, capped)
        tile = Tile(0, n_queries, 0, n_slices)

        def decode() -> None:
            for i in range(0, n_slices, BLOCK):
                corpus.read(i, min(i + BLOCK, n_slices))

        def product() -> None:
            for i in range(0, n_slices, BLOCK):
                for k in range(0, SIDE * SIDE, 65_536):
                    part = held[i : i + BLOCK, k : k + 65_536]
                    torch._int_mm(part, q.values[:, k : k + 65_536].T)

        ways = {
            "one shard of the search": lambda: raw.search_tile(queries, reference, tile, BLOCK),
            "decode alone, then the bare product alone": lambda: (decode(), product()),
            "decode alone": decode,
            "bare int8 product alone": product,
            "decode alone with zarr-python": lambda: zarr.open_array(
                corpus.path / "pixels", mode="r"
            )[:],
        }
        title = f"{n_queries} queries x {n_slices} slices of {SIDE} x {SIDE}, from Zarr, one core"
        compare(title, "one shard of the search", ways)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(machine())
    measure(*counts(480, 2048))
