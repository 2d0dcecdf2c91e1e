"""What is kept of the registration of the best pair of each query: ``registration.zarr``.

    matrix   float64 (query, 2, 3)        affine: (y, x, 1) of the slice -> (y, x) of the query
    field    float32 (query, 2, 64, 64)   what the elastic step added to it, in pixels of the slice
    tiles    float64 (query, t, t)        Fisher z of each tile after registration
    slice    int64 (query)                the slice of the pair; -1: the query has none

It opens with xarray. Rows are written as they come, some queries at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from fingerprint.ledger import Damaged
from fingerprint.search.layout import quiet, replacing_store, text

FORMAT = (1, 0)
ROWS = 64  # in a chunk
DIMS = {
    "matrix": ("query", "to", "from"),
    "field": ("query", "axis", "y", "x"),
    "tiles": ("query", "tile_y", "tile_x"),
    "slice": ("query",),
}


@dataclass
class Writer:
    """A store that is being written, and the row where the next queries go."""

    path: Path
    row: int = 0

    def add(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Write the next queries: arrays by the names of `DIMS`, one row for each query."""
        group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
        for name, dims in DIMS.items():
            rows = values[name]
            if name not in group:
                self._create(group, name, dims, rows)
            array = group[name]
            if isinstance(array, zarr.Array):
                with_all = array.with_config({"write_empty_chunks": True})
                with_all[self.row : self.row + len(rows)] = rows
        self.row += len(values["slice"])

    def _create(
        self, group: zarr.Group, name: str, dims: tuple[str, ...], like: NDArray[Any]
    ) -> None:
        queries = len(np.asarray(group["query"]))
        group.create_array(
            name,
            shape=(queries, *like.shape[1:]),
            chunks=(min(ROWS, max(1, queries)), *like.shape[1:]),
            dtype=like.dtype.name,
            fill_value=-1 if like.dtype.kind == "i" else np.nan,
            dimension_names=dims,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )


@contextmanager
def writing(path: Path, queries: Sequence[str], sets: Sequence[str]) -> Iterator[Writer]:
    """Give a writer for queries in order; an older store is replaced at the end.

    Parameters
    ----------
    queries, sets : sequence of str
        Name and query set of each row.

    Raises
    ------
    RuntimeError
        If not every query was written.
    """
    labels = xr.Dataset(
        coords={"query": text(queries), "query_set": ("query", text(sets))},
        attrs={"fingerprint_format": list(FORMAT)},
    )
    with replacing_store(path) as wip:
        with quiet():
            labels.to_zarr(wip, mode="w", zarr_format=3, consolidated=False)
        writer = Writer(wip)
        yield writer
        if writer.row != len(queries):
            raise RuntimeError(f"writing: {writer.row} of {len(queries)} queries were registered")
        with quiet():
            zarr.consolidate_metadata(wip, zarr_format=3)


def load(path: Path) -> xr.Dataset:
    """Open the store lazily.

    Raises
    ------
    FileNotFoundError
        There is none.
    ledger.Damaged
        A stored chunk is missing.
    ValueError
        A newer version wrote it.
    """
    dataset = xr.open_zarr(str(path), chunks=None)
    major = dataset.attrs["fingerprint_format"][0]
    if major > FORMAT[0]:
        raise ValueError(f"load: {path} has format {major}; install fingerprint >= {major}.0")
    for name, array in zarr.open_group(path, mode="r").arrays():
        if array.nchunks_initialized < array.nchunks:
            raise Damaged(f"{path.name}: {name} lacks stored chunks")
    return dataset


def places(dataset: xr.Dataset) -> dict[tuple[str, int], int]:
    """Return in which row each pair of query and slice stands; the first of equals."""
    rows: dict[tuple[str, int], int] = {}
    named = zip(dataset["query"].values, dataset["slice"].values, strict=True)
    for row, (query, at) in enumerate(named):
        rows.setdefault((str(query), int(at)), row)
    return rows
