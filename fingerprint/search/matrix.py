"""The whole matrix, query x slice, where it is wanted and fits a stated cap: `--keep-matrix`.

    matrix.zarr/      r float64 (query, slice): generated and control queries x real slices
      control/        the same x control slices, where there are any
      generated/      generated x generated

NaN where a pair was not compared: a constant image, a control's own patient, an image with itself.
The tiles of the search carry their r (`tile`); here they are written while they pass by.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from fingerprint.ledger import Values
from fingerprint.search.blocks import names_of
from fingerprint.search.layout import MAIN, folder_of, quiet, text
from fingerprint.search.sets import Against
from fingerprint.search.tiling import Tile, tiles, within_cap

FORMAT = (1, 0)
CHUNK = (128, 4096)  # 4 MiB


def bytes_of(againsts: Sequence[Against]) -> int:
    """Size of the matrix: 8 bytes for each query and slice."""
    return sum(8 * len(against) * len(against.reference.patients) for against in againsts)


def check(againsts: Sequence[Against], gib: float) -> None:
    """Refuse a matrix that is larger than the cap.

    Raises
    ------
    ValueError
        Naming the knob.
    """
    within_cap(bytes_of(againsts), gib)


def keep(
    path: Path, againsts: Sequence[Against], values: Iterator[Values], *, band: int, shard: int
) -> Iterator[Values]:
    """Write the r of tiles while they pass by; the last one completes the store.

    Parameters
    ----------
    values : iterator
        Of the tiles of all `againsts` in plan order, with their ``block``.

    Yields
    ------
    Values
        As they came.
    """
    wip = path.with_name(f"{path.name}.wip")
    shutil.rmtree(wip, ignore_errors=True)
    for against in againsts:
        _create(wip / folder_of(against.name), against)
    places = [
        (wip / folder_of(against.name), start, tile)
        for against in againsts
        for start, tile in _tiles(against, band, shard)
    ]
    for i, (folder, start, tile) in enumerate(places, 1):
        value = next(values)
        array = zarr.open_array(folder / "r", mode="r+", config={"write_empty_chunks": True})
        array[start + tile.q0 : start + tile.q1, tile.s0 : tile.s1] = value["block"]
        if i == len(places):
            _publish(wip, path, againsts)  # before the yield: nobody asks for a value after this
        yield value


def _tiles(against: Against, band: int, shard: int) -> Iterator[tuple[int, Tile]]:
    """Yield the tiles of a matrix, each with the row in which its query set begins."""
    start, reference = 0, against.reference
    for queries in against.sets:
        for tile in tiles(
            len(queries), len(reference.patients), band=band, shard=shard, chunk=reference.chunk
        ):
            yield start, tile
        start += len(queries)


def _create(folder: Path, against: Against) -> None:
    sets = [label for queries in against.sets for label in queries.labels]
    attrs = {"fingerprint_format": list(FORMAT), "corpus": against.reference.digest}
    labels = xr.Dataset(
        coords={"query": text(names_of(against.sets)), "query_set": ("query", text(sets))},
        attrs=attrs,
    )
    with quiet():
        labels.to_zarr(folder, mode="w", zarr_format=3, consolidated=False)
    shape = (len(against), len(against.reference.patients))
    zarr.open_group(folder, mode="r+", use_consolidated=False).create_array(
        "r",
        shape=shape,
        chunks=tuple(max(1, min(c, n)) for c, n in zip(CHUNK, shape, strict=True)),
        dtype="float64",
        fill_value=np.nan,
        dimension_names=("query", "slice"),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        config={"write_empty_chunks": True},
    )


def _publish(wip: Path, path: Path, againsts: Sequence[Against]) -> None:
    with quiet():
        for against in sorted(againsts, key=lambda a: a.name == MAIN):  # the root last
            zarr.consolidate_metadata(wip / folder_of(against.name), zarr_format=3)
    shutil.rmtree(path, ignore_errors=True)
    wip.rename(path)
