"""The query x patient matrix: who is compared with whom, and how it is kept.

``correlation.zarr`` opens with xarray: dims ``stage, slices, query, patient``; `r` is NaN and
`slice` -1 where nothing was compared. `slices` is ``all``, or ``capped``: an equal number per
patient, evenly in z.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from fingerprint.corpus.store import Corpus
from fingerprint.search.best import BINS
from fingerprint.search.raw import SLICES
from fingerprint.search.sets import QuerySet, Reference, opened
from fingerprint.search.tiling import capped

FORMAT = (1, 0)
PREFIX = {"generated": "g_", "control": "c_", "canary": "p_"}


def patients_of(corpus: Corpus) -> NDArray[np.object_]:
    """Return who each slice is of; a stack of slices stands for itself where that is not known."""
    participant, series = corpus.label("participant"), corpus.label("series")
    who: NDArray[np.object_] = np.where(participant == "", series, participant)
    return who


def reference(real: Corpus, cap: int) -> tuple[Reference, NDArray[np.object_]]:
    """Return the real corpus as the search sees it, and its patients in the order of the matrix."""
    patients, index = np.unique(patients_of(real), return_inverse=True)
    index = index.astype(np.int64)
    chosen = capped(index, real.label("z_mm").astype(np.float64), cap)
    return Reference(real.path, real.digest, real.chunk_slices, index, chosen), patients


def all_queries(name: str, corpus: Corpus, patients: Sequence[str], *, leave_out: bool) -> QuerySet:
    """Take every slice of a corpus as a query; with `leave_out`, not compared with its patient."""
    return _queries(name, corpus, np.arange(corpus.n), patients, leave_out=leave_out)


def sampled_queries(
    name: str, corpus: Corpus, patients: Sequence[str], n: int, seed: int, *, leave_out: bool
) -> QuerySet:
    """Draw `n` slices without replacement, as paper 000 draws 240 from a larger set."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(corpus.n, min(n, corpus.n), replace=False))
    return _queries(name, corpus, chosen, patients, leave_out=leave_out)


def drawn_controls(real: Corpus, patients: Sequence[str], n: int, seed: int) -> QuerySet:
    """Draw control queries from the real corpus: one slice of each of at most `n` patients."""
    rng = np.random.default_rng(seed)
    who = patients_of(real)
    order = rng.permutation(real.n)
    _, first = np.unique(who[order], return_index=True)
    one_each = order[first]
    chosen = np.sort(rng.choice(one_each, min(n, len(one_each)), replace=False))
    return _queries("control", real, chosen, patients, leave_out=True)


def _queries(
    name: str,
    corpus: Corpus,
    indices: NDArray[np.int64],
    patients: Sequence[str],
    *,
    leave_out: bool,
) -> QuerySet:
    own = np.full(len(indices), -1, np.int64)
    if leave_out:
        place = {who: i for i, who in enumerate(patients)}
        own = np.array([place.get(who, -1) for who in patients_of(corpus)[indices]], np.int64)
    return QuerySet(name, corpus.path, corpus.digest, indices.astype(np.int64), own)


def names_of(sets: Sequence[QuerySet]) -> list[str]:
    """Return the stable name of every query: what it is, and the token of its file."""
    return [
        PREFIX[s.name] + str(t)
        for s in sets
        for t in opened(s.corpus, s.digest).label("token")[s.indices]
    ]


def digests_of(sets: Sequence[QuerySet]) -> list[str]:
    """Return the SHA-256 of the pixels of every query."""
    return [str(d) for s in sets for d in opened(s.corpus, s.digest).label("digest")[s.indices]]


def is_constant(corpus: Corpus) -> NDArray[np.bool_]:
    """Return which slices have one grey level only: they correlate with nothing."""
    total = corpus.label("sum").astype(object)  # Python integers: no overflow at any size
    constant: NDArray[np.bool_] = (
        corpus.size_px**2 * corpus.label("sum_of_squares").astype(object) == total * total
    ).astype(bool)
    return constant


def constant(sets: Sequence[QuerySet]) -> int:
    """Count the queries that correlate with nothing."""
    return sum(int(is_constant(opened(s.corpus, s.digest))[s.indices].sum()) for s in sets)


def save(
    path: Path,
    r: NDArray[np.float64],
    at: NDArray[np.int64],
    histograms: Mapping[str, NDArray[np.int64]],
    *,
    queries: Sequence[str],
    sets: Sequence[str],
    patients: Sequence[str],
    excluded: Mapping[str, int],
) -> None:
    """Write ``correlation.zarr``, then rename it; the digest of the matrix is an attribute."""
    names = list(histograms)
    dataset = xr.Dataset(
        {
            "r": (("stage", "slices", "query", "patient"), r[None]),
            "slice": (("stage", "slices", "query", "patient"), at[None]),
            "histogram": (
                ("histogram_of", "bin"),
                np.stack([histograms[n] for n in names])
                if names
                else np.zeros((0, BINS), np.int64),
            ),
        },
        coords={
            "stage": ["raw"],
            "slices": list(SLICES),
            "query": _text(queries),
            "query_set": ("query", _text(sets)),
            "patient": _text(patients),
            "histogram_of": _text(names),
            "bin": np.linspace(-1, 1, BINS, endpoint=False),
        },
        attrs={
            "fingerprint_format": list(FORMAT),
            "digest": digest(r, at),
            **{f"excluded_{name}": count for name, count in excluded.items()},
        },
    )
    dataset["bin"].attrs["long_name"] = "lower edge of a bin of r"
    wip, old = path.with_name(f"{path.name}.wip"), path.with_name(f"{path.name}.old")
    for left in (wip, old):
        shutil.rmtree(left, ignore_errors=True)
    sealed = {"compressors": [ZstdCodec(level=3), Crc32cCodec()]}
    with warnings.catch_warnings():
        # zarr says that consolidated metadata is not in its specification yet; xarray wants it
        warnings.simplefilter("ignore")
        dataset.to_zarr(
            wip,
            mode="w",
            zarr_format=3,
            consolidated=True,
            encoding={name: sealed for name in dataset.data_vars},
        )
    if path.exists():
        path.rename(old)
    wip.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def load(path: Path) -> xr.Dataset:
    """Open ``correlation.zarr`` lazily."""
    return xr.open_zarr(str(path), chunks=None, consolidated=True)


def digest(r: NDArray[np.float64], at: NDArray[np.int64]) -> str:
    """SHA-256 of the matrix: the same for any blocks, shards, workers, device or retry."""
    return hashlib.sha256(
        np.ascontiguousarray(r).tobytes() + np.ascontiguousarray(at).tobytes()
    ).hexdigest()


def _text(values: Sequence[str]) -> NDArray[np.object_]:
    return np.array([str(v) for v in values], dtype=object)
