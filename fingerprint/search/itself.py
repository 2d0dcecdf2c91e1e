"""A corpus against itself: how alike slices of different patients are, and which are the same.

Every unordered pair of slices of different patients is correlated once: `triangle` cuts the work,
`pairs` does a shard, and here the shards are planned, added up and stored. Kept are the best
patients of every slice (`lists`) and the exact histogram of all r.

The memory of a worker follows from the settings alone. That of `fold` is ``n x K x 16`` bytes, r
and slice (128 MB for a million slices and K = 8), beside the values of one shard: the patient of an
entry is looked up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.ledger import Values
from fingerprint.search.best import BINS, NOWHERE, mark_absent
from fingerprint.search.blocks import PREFIX, is_constant, patients_of
from fingerprint.search.layout import FORMAT, quiet, replacing_store, text
from fingerprint.search.lists import Top
from fingerprint.search.pairs import runs, search_tiles
from fingerprint.search.sets import Reference, opened
from fingerprint.search.tiling import Tile
from fingerprint.search.triangle import shape_of
from fingerprint.settings import Settings

VERSION = 1
STEP = 65_536  # lists that are merged or stored at a time

# -- the plan


def plan(reference: Reference, settings: Settings) -> list[ledger.Shard]:
    """Cut the triangle of a corpus against itself into shards."""
    corpus = opened(reference.corpus, reference.digest)
    shape = shape_of(corpus.n, settings, side=corpus.size_px, chunk=reference.chunk)
    depends = {
        "slices": reference.digest,
        "patients": hashlib.sha256(reference.patients.tobytes()).hexdigest(),
        "keep": settings.keep_itself,
    }
    return [_shard(reference, shape.tiles(k), settings, depends) for k in range(shape.shards)]


def _shard(
    reference: Reference, tiles: list[Tile], settings: Settings, depends: dict[str, Any]
) -> ledger.Shard:
    cut = [[tile.q0, tile.q1, tile.s0, tile.s1] for tile in tiles]
    work = [
        (
            tile,
            runs(reference.patients[tile.q0 : tile.q1]),
            runs(reference.patients[tile.s0 : tile.s1]),
        )
        for tile in tiles
    ]
    return ledger.shard(
        "search",
        VERSION,
        depends | {"tiles": cut},
        search_tiles,
        reference.corpus,
        reference.digest,
        work,
        settings.block_slices,
        settings.keep_itself,
    )


# -- putting the shards together


def fold(
    reference: Reference, values: Iterator[Values], keep: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Add up the lists of all shards, in any order, and their histograms.

    Returns
    -------
    r : float64, shape (n, keep)
        Best r first, over the slices of one other patient each; NaN: there are no more.
    slice : int64, shape (n, keep)
        -1 there.
    histogram : int64, shape (4096,)
    """
    n = len(reference.patients)
    r, at = np.full((n, keep), -np.inf), np.full((n, keep), NOWHERE, np.int64)
    counts = np.zeros(BINS, np.int64)
    for value in values:
        counts += value["histogram"]
        other_r, other_at = value["r"], value["slice"]
        start = 0
        for first, last in value["spans"].tolist():
            for low in range(first, last, STEP):
                here = slice(low, min(low + STEP, last))
                there = slice(start + low - first, start + here.stop - first)
                state = _top(r[here], at[here], reference.patients)
                state.put(slice(None), _top(other_r[there], other_at[there], reference.patients))
            start += last - first
    mark_absent(r, at)
    return r, at, counts


def _top(r: NDArray[np.float64], at: NDArray[np.int64], patients: NDArray[np.int64]) -> Top:
    """Look up the patients of some lists; r and slice stay views."""
    return Top(r, at, np.where(at == NOWHERE, -1, patients[np.where(at == NOWHERE, 0, at)]))


def save(path: Path, reference: Reference, values: Iterator[Values], settings: Settings) -> None:
    """Write ``correlation.zarr``: dims ``stage, slices, query, rank`` for a corpus against itself.

    `r`, `slice` and `who` (index into the coordinate `patient`) of the best patients of every
    slice, best first, NaN and -1 where there are no more; `histogram` of all r, each pair once.
    """
    r, at, counts = fold(reference, values, settings.keep_itself)
    dataset = _dataset(opened(reference.corpus, reference.digest), reference, r, at, counts)
    with replacing_store(path) as wip, quiet():
        dataset.to_zarr(
            wip,
            mode="w",
            zarr_format=3,
            consolidated=True,
            write_empty_chunks=True,  # a lost chunk must not read as "nothing compared"
            encoding={name: _encoding(dataset[name]) for name in dataset.data_vars},
        )


def _encoding(array: xr.DataArray) -> dict[str, Any]:
    *outer, rows, columns = array.shape
    chunks = (*(1 for _ in outer), max(1, min(rows, STEP)), max(1, columns))
    return {"chunks": chunks, "compressors": [ZstdCodec(level=3), Crc32cCodec()]}


def _dataset(
    corpus: store.Corpus,
    reference: Reference,
    r: NDArray[np.float64],
    at: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> xr.Dataset:
    who = np.where(at < 0, -1, reference.patients[at])
    dims = ("stage", "slices", "query", "rank")
    raw = hashlib.sha256()
    for part in (r, at, counts):
        raw.update(part.data)
    left_out = int((is_constant(corpus) & (reference.patients >= 0)).sum())
    stages = {"raw": raw.hexdigest()}
    dataset = xr.Dataset(
        {
            "r": (dims, r[None, None]),
            "slice": (dims, at[None, None]),
            "who": (dims, who[None, None]),
            "histogram": (("histogram_of", "bin"), counts[None]),
        },
        coords={
            "stage": text(["raw"]),
            "slices": text(["all"]),
            "query": text([PREFIX["generated"] + str(t) for t in corpus.label("token")]),
            "query_set": ("query", text(["generated"] * corpus.n)),
            "rank": np.arange(1, r.shape[1] + 1),
            "patient": text(np.unique(patients_of(corpus)).tolist()),
            "histogram_of": text(["generated"]),
            "bin": np.linspace(-1, 1, BINS, endpoint=False),
        },
        attrs={
            "fingerprint_format": list(FORMAT),
            "stages": stages,
            "digest": ledger.digest_of({"real": stages}),
            "excluded_queries": left_out,
            "excluded_slices": left_out,
        },
    )
    dataset["bin"].attrs["long_name"] = "lower edge of a bin of r"
    dataset["who"].attrs["long_name"] = "index of the patient of that slice in `patient`"
    return dataset
