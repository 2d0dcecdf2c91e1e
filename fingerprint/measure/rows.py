"""Rows of the matrix, a band of queries at a time: memory does not grow with the number of queries.

The matrix has two layouts. Query x patient: the best r of each query over each patient's slices.
A corpus against itself: query x rank, the best patients only, with `who` they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

CELLS = 2**21  # cells of one array of a band: 16 MiB of float64


@dataclass(frozen=True, order=True)
class Identical:
    """A generated image, a real slice with r = 1 exactly, and whose slice it is."""

    query: str
    slice: int
    participant: str


def ranks_only(matrix: xr.Dataset) -> bool:
    """Whether only the best patients of each query were kept: a corpus against itself."""
    return "rank" in matrix.dims


def has_stage(matrix: xr.Dataset, stage: str) -> bool:
    """Whether a stage of the search is in the matrix and finished."""
    there = stage in matrix["stage"].values.astype(object)
    return there and stage in matrix.attrs.get("stages", [stage])


def of_set(matrix: xr.Dataset, query_set: str) -> NDArray[np.bool_]:
    """Return which queries are of a set: bool (queries,)."""
    return np.asarray(matrix["query_set"].values.astype(object) == query_set)


def sets_of(matrix: xr.Dataset) -> list[str]:
    """Return the query sets of a matrix, in order."""
    return list(dict.fromkeys(map(str, matrix["query_set"].values)))


def bands(matrix: xr.Dataset, most: int | None = None) -> Iterator[xr.Dataset]:
    """Cut the matrix into bands of consecutive queries, at most `most` queries each."""
    width = matrix.sizes["rank" if ranks_only(matrix) else "patient"]
    step = max(1, min(CELLS // max(1, width), most or CELLS))
    for first in range(0, matrix.sizes["query"], step):
        yield matrix.isel(query=slice(first, first + step))


def cells(
    band: xr.Dataset, *, stage: str = "raw", slices: str = "all", image: str | None = None
) -> NDArray[np.float64]:
    """Return r of a band, float64 (queries, patients or ranks); with `image`, at best pose."""
    if image is not None:
        return np.asarray(band["r_image"].sel(image=image).values, np.float64)
    return np.asarray(band["r"].sel(stage=stage, slices=slices).values, np.float64)


def best_r(
    matrix: xr.Dataset,
    query_set: str,
    *,
    stage: str = "raw",
    slices: str = "all",
    image: str | None = None,
) -> NDArray[np.float64]:
    """Return the best r of each query of a set: float64 (queries,), NaN where there is none.

    Parameters
    ----------
    stage, slices : str
        Of the matrix.
    image : str, optional
        One of `settings.IMAGES`: r at best pose, 128 px, over the patients that were refined;
        `stage` and `slices` then do not matter.
    """
    out = [np.empty(0)]
    for band in bands(matrix):
        mine = of_set(band, query_set)
        if mine.any():
            r = cells(band, stage=stage, slices=slices, image=image)[mine]
            out.append(np.fmax.reduce(r, axis=1) if r.shape[1] else np.full(len(r), np.nan))
    best: NDArray[np.float64] = np.concatenate(out)
    return best


def compared(matrix: xr.Dataset, query_set: str, *, image: str | None = None) -> NDArray[np.int64]:
    """Count the patients that each query of a set has an r with: int64 (queries,)."""
    out = [np.empty(0, np.int64)]
    for band in bands(matrix):
        mine = of_set(band, query_set)
        if mine.any():
            out.append(np.isfinite(cells(band, image=image)[mine]).sum(axis=1))
    counts: NDArray[np.int64] = np.concatenate(out)
    return counts


def patients_at(
    band: xr.Dataset, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return which patient stands in each (row, column) of a band, as a number."""
    if not ranks_only(band):
        return columns
    return np.asarray(_of_stage(band["who"]).values[rows, columns], np.int64)


def _of_stage(array: xr.DataArray) -> xr.DataArray:
    """Drop the dimensions that a corpus against itself has one of, or two."""
    return array.sel(
        {d: v for d, v in {"stage": "raw", "slices": "all"}.items() if d in array.dims}
    )


def identical(matrix: xr.Dataset) -> list[Identical]:
    """List every (generated query, patient) whose best raw r is exactly 1, with the slice.

    Where several slices of one patient are the same image, the lowest is named.
    """
    patients = matrix["patient"].values
    found = []
    for band in bands(matrix):
        same = of_set(band, "generated")[:, None] & (cells(band) == 1)
        rows, columns = np.nonzero(same)
        if not len(rows):
            continue
        at = band["slice"].sel(stage="raw", slices="all").values[rows, columns]
        who = patients[patients_at(band, rows, columns)]
        queries = band["query"].values[rows]
        found += [
            Identical(str(q), int(s), str(p)) for q, s, p in zip(queries, at, who, strict=True)
        ]
    return sorted(found)


def pairs_counted(matrix: xr.Dataset, name: str) -> int | None:
    """Return how many pairs a histogram holds: every pair that was compared; None: none was."""
    if "histogram" not in matrix or name not in matrix["histogram_of"].values.astype(object):
        return None
    return int(matrix["histogram"].sel(histogram_of=name).sum()) or None
