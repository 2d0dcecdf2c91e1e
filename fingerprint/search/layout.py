"""What stands where in ``correlation.zarr``, empty: every array, its chunks, its labels.

Every chunk is stored, also one that holds nothing yet, so that a lost one is not read as "nothing
was compared"; crc32c is the last codec, so that a changed one raises.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from fingerprint.search.best import BINS
from fingerprint.search.tile import SLICES
from fingerprint.settings import IMAGES

FORMAT = (1, 1)  # 1.0 had stage `raw` only, and no other groups
MAIN = "real"  # its matrix is the root group
STAGES = ("raw", "screen", "pose")
CHUNK_BYTES = 4 << 20

# arrays of the pose stage: name -> (type, what stands where nothing was refined)
POSES: dict[str, tuple[str, float]] = {
    "angle_deg": ("float64", np.nan),
    "scale": ("float64", np.nan),
    "shift_y_px": ("float64", np.nan),
    "shift_x_px": ("float64", np.nan),
    "mirrored": ("int8", -1),
}


@dataclass(frozen=True)
class Labels:
    """What the rows and columns of one matrix are.

    Attributes
    ----------
    queries, sets : sequence of str
        Name and query set of each row.
    patients : sequence of str
        Of each column.
    excluded : mapping
        ``queries`` and ``slices`` -> how many have one grey level and correlate with nothing.
    """

    queries: Sequence[str]
    sets: Sequence[str]
    patients: Sequence[str]
    excluded: Mapping[str, int]


def make(path: Path, labels: Labels, stages: Sequence[str], image: str) -> None:
    """Write one matrix without numbers: NaN and -1 everywhere, no stage finished."""
    sets = dict.fromkeys(labels.sets)
    counted = [stage for stage in stages if stage != "pose"]
    named = [histogram_name(n, stage) for stage in counted for n in sets]
    dataset = xr.Dataset(
        coords={
            "stage": text(stages),
            "slices": text(SLICES),
            "query": text(labels.queries),
            "query_set": ("query", text(labels.sets)),
            "patient": text(labels.patients),
            "histogram_of": text(named),
            "bin": np.linspace(-1, 1, BINS, endpoint=False),
        }
        | ({"image": text(IMAGES)} if "pose" in stages else {}),
        attrs={
            "fingerprint_format": list(FORMAT),
            "stages": {},
            "image": image,
            **{f"excluded_{name}": count for name, count in labels.excluded.items()},
        },
    )
    dataset["bin"].attrs["long_name"] = "lower edge of a bin of r"
    with quiet():
        dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False, write_empty_chunks=True)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    dims = ("stage", "slices", "query", "patient")
    sizes = {str(name): int(n) for name, n in dataset.sizes.items()}
    _fill(group, "r", dims, sizes, "float64", np.nan)
    _fill(group, "slice", dims, sizes, "int64", -1)
    _fill(group, "histogram", ("histogram_of", "bin"), sizes, "int64", 0)
    if "pose" in stages:
        for name, (kind, missing) in POSES.items():
            _fill(group, name, ("query", "patient"), sizes, kind, missing)
        _fill(group, "r_image", ("image", "query", "patient"), sizes, "float64", np.nan)


def _fill(
    group: zarr.Group,
    name: str,
    dims: tuple[str, ...],
    sizes: Mapping[str, int],
    kind: str,
    missing: float,
) -> None:
    """Add an array whose every chunk is stored, so that a lost one is not read as "nothing"."""
    shape = tuple(sizes[dim] for dim in dims)
    rows = max(1, CHUNK_BYTES // (8 * max(1, shape[-1])))
    chunks = (*(1 for _ in dims[:-2]), min(rows, max(1, shape[-2])), max(1, shape[-1]))
    array = group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=kind,
        fill_value=missing,
        dimension_names=dims,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    if array.size:
        array[...] = missing


def histogram_name(set_name: str, stage: str) -> str:
    """Return the label of the histogram of one query set in one stage."""
    return set_name if stage == "raw" else f"{set_name}.{stage}"


def folder_of(against_name: str) -> str:
    """Return the group of a matrix: the main one is the root."""
    return "" if against_name == MAIN else against_name


@contextmanager
def replacing_store(path: Path) -> Iterator[Path]:
    """Give a folder to write a store into; it becomes `path` in one rename, the old one goes."""
    wip, old = path.with_name(f"{path.name}.wip"), path.with_name(f"{path.name}.old")
    for left in (wip, old):
        shutil.rmtree(left, ignore_errors=True)
    yield wip
    if path.exists():
        path.rename(old)
    wip.rename(path)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Write metadata without the warning about it."""
    with warnings.catch_warnings():
        # zarr says that consolidated metadata is not in its specification yet; xarray wants it
        warnings.simplefilter("ignore")
        yield


def text(values: Sequence[str]) -> NDArray[np.object_]:
    """Return labels as xarray stores them."""
    return np.array([str(v) for v in values], dtype=object)
