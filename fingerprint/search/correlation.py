"""The query x patient matrix as it is kept: ``correlation.zarr``, which opens with xarray.

    correlation.zarr/               generated and control queries x real patients
      r            float64 (stage, slices, query, patient)    NaN: not compared
      slice        int64   (stage, slices, query, patient)    which slice has that r; -1: none
      histogram    int64   (histogram_of, bin)                of all r, exact
      angle_deg, scale, shift_y_px, shift_x_px, mirrored      (query, patient), stage ``pose``
      r_image      float64 (image, query, patient)            r at that pose, at 128 px
      control/                      the same queries x control patients, where there are any
      generated/                    generated queries x generated images

`stage` is ``raw``, ``screen``, ``pose``; `slices` is ``all``, or ``capped``: an equal number per
patient, evenly in z. Rows are written a band at a time, so any number of queries fits into memory.
A stage can be read once it is finished: before that its NaN could mean that it is not written yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from fingerprint.ledger import Damaged, digest_of
from fingerprint.search.best import BINS
from fingerprint.search.blocks import constant, is_constant, names_of
from fingerprint.search.layout import (
    FORMAT,
    MAIN,
    POSES,
    STAGES,
    Labels,
    folder_of,
    histogram_name,
    make,
    quiet,
    replacing_store,
)
from fingerprint.search.sets import Against, opened
from fingerprint.search.tile import SLICES, Band
from fingerprint.settings import IMAGES

ROWS = 64  # read at a time


@dataclass(frozen=True)
class Ranked:
    """The best patients of every query, best first; ties to the lower slice.

    Attributes
    ----------
    r : float64, shape (q, keep)
        NaN where there are fewer than `keep`.
    slice, patient : int64, shape (q, keep)
        -1 there.
    """

    r: NDArray[np.float64]
    slice: NDArray[np.int64]
    patient: NDArray[np.int64]


def labels_of(against: Against) -> Labels:
    """Read the labels of a matrix from its corpora."""
    reference = against.reference
    corpus = opened(reference.corpus, reference.digest)
    left = is_constant(corpus) & (reference.patients >= 0)
    return Labels(
        names_of(against.sets),
        [label for queries in against.sets for label in queries.labels],
        against.patients,
        {"queries": constant(against.sets), "slices": int(left.sum())},
    )


# -- writing


def create(path: Path, againsts: Sequence[Against], *, stages: Sequence[str], image: str) -> None:
    """Make a new store in which no stage is finished; an older one is replaced in one rename.

    Parameters
    ----------
    stages : sequence of str
        Those that will be written, in order.
    image : str
        Image whose r is that of stage ``pose``.
    """
    create_from(path, {a.name: labels_of(a) for a in againsts}, stages=stages, image=image)


def create_from(
    path: Path, labels: Mapping[str, Labels], *, stages: Sequence[str], image: str
) -> None:
    """`create` without corpora: name of the reference -> labels; ``real`` stands first."""
    if list(labels)[:1] != [MAIN] or any(stage not in STAGES for stage in stages):
        raise ValueError(
            f"create_from: {MAIN} first and stages of {STAGES}, got {list(labels)}, {stages}"
        )
    with replacing_store(path) as wip:
        for name, given in labels.items():
            make(wip / folder_of(name), given, stages, image)
        _consolidate(wip, labels)


def write(path: Path, against_name: str, stage: str, band: Band) -> None:
    """Write the rows of one band of one stage."""
    group = _open(path, against_name)
    at = _place(group, stage)
    k = len(band.r)
    _array(group, "r")[at, :k, band.rows] = band.r
    _array(group, "slice")[at, :k, band.rows] = band.slice
    for name, values in band.more.items():
        if name == "r_image":
            _array(group, name)[:, band.rows] = values
        else:
            _array(group, name)[band.rows] = values


def finish_stage(
    path: Path, against_name: str, stage: str, histograms: Mapping[str, NDArray[np.int64]]
) -> None:
    """Store the histograms of a stage and note that it is complete.

    The attribute ``digest`` covers all that is finished in all matrices: the same for any blocks,
    shards, bands, workers, device or retry.
    """
    group = _open(path, against_name)
    named = _names(group, "histogram_of")
    for set_name, counts in histograms.items():
        _array(group, "histogram")[named.index(histogram_name(set_name, stage))] = counts
    group.attrs["stages"] = _finished(group) | {stage: _digest(group, stage)}
    root = _open(path, MAIN)
    names = [MAIN, *sorted(root.group_keys())]
    done = {name: _finished(_open(path, name)) for name in names}
    root.attrs["digest"] = digest_of(done)
    _consolidate(path, names)


def write_stage(path: Path, against_name: str, stage: str, bands: Iterable[Band]) -> None:
    """Write all bands of a stage, one in memory at a time, and finish it."""
    group = _open(path, against_name)
    group.attrs["stages"] = {k: v for k, v in _finished(group).items() if k != stage}
    histograms: dict[str, NDArray[np.int64]] = {}
    for band in bands:
        write(path, against_name, stage, band)
        before = histograms.get(band.set_name, np.zeros(BINS, np.int64))
        histograms[band.set_name] = before + band.histogram
    finish_stage(path, against_name, stage, {} if stage == "pose" else histograms)


def _finished(group: zarr.Group) -> dict[str, Any]:
    """Return the finished stages and the digest of each."""
    stages: Any = group.attrs["stages"]
    return dict(stages)


def _place(group: zarr.Group, stage: str) -> int:
    stages = _names(group, "stage")
    if stage not in stages:
        raise ValueError(f"write: stage must be one of {stages}, got {stage!r}")
    return stages.index(stage)


def _digest(group: zarr.Group, stage: str) -> str:
    """SHA-256 of all numbers of one stage, in the order of the rows, however they are chunked."""
    at, digest = _place(group, stage), hashlib.sha256()
    for name in ("r", "slice"):
        for k in range(len(SLICES)):
            _take(digest, _array(group, name), (at, k))
    for name in POSES if stage == "pose" else ():
        _take(digest, _array(group, name), ())
    for k in range(len(IMAGES)) if stage == "pose" else ():
        _take(digest, _array(group, "r_image"), (k,))
    counts = _array(group, "histogram")
    for row, name in enumerate(_names(group, "histogram_of")):
        if name == histogram_name(name.partition(".")[0], stage):
            digest.update(np.asarray(counts[row]).tobytes())
    return digest.hexdigest()


def _take(digest: Any, array: zarr.Array, at: tuple[Any, ...]) -> None:
    step = array.chunks[-2]
    for first in range(0, array.shape[-2], step):
        digest.update(np.asarray(array[(*at, slice(first, first + step))]).tobytes())


def _open(path: Path, against_name: str) -> zarr.Group:
    return zarr.open_group(path / folder_of(against_name), mode="r+", use_consolidated=False)


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise Damaged(f"correlation.zarr: {name} is not an array")
    # or rows without any number would delete their chunk, which then looks lost
    return array.with_config({"write_empty_chunks": True})


def _names(group: zarr.Group, name: str) -> list[str]:
    return [str(value) for value in np.asarray(_array(group, name)[:])]


def _consolidate(path: Path, names: Iterable[str]) -> None:
    """Put the metadata of each matrix into one file, the inner groups first."""
    with quiet():
        for name in sorted(names, key=lambda name: name == MAIN):
            zarr.consolidate_metadata(path / folder_of(name), zarr_format=3)


# -- reading


def load(path: Path, against_name: str = MAIN) -> xr.Dataset:
    """Open one matrix lazily, with the stages that are finished.

    Raises
    ------
    FileNotFoundError
        There is no such matrix.
    ledger.Damaged
        A stored chunk is missing. (One that changed raises when it is read.)
    ValueError
        No stage is finished, or a newer version wrote it.
    """
    folder = path / folder_of(against_name)
    # the consolidated copy is for others: it is not there while a stage is being written
    dataset = xr.open_zarr(str(folder), chunks=None, consolidated=False)
    version = dataset.attrs.get("fingerprint_format", [1, 0])
    if version[0] > FORMAT[0]:
        raise ValueError(
            f"load: {path} has format {version}; install fingerprint >= {version[0]}.0"
        )
    _complete(folder)
    stages = dataset.attrs.get("stages")
    if stages is None:
        return dataset
    if not stages:
        raise ValueError(f"load: no stage of {path} is finished; run the command again")
    done = [str(stage) for stage in dataset["stage"].to_numpy()]
    return dataset.isel(stage=[i for i, stage in enumerate(done) if stage in stages])


def _complete(folder: Path) -> None:
    """Make sure that every chunk is there: zarr reads a missing one as "nothing compared"."""
    for name, array in zarr.open_group(folder, mode="r", use_consolidated=False).arrays():
        if array.nchunks_initialized < array.nchunks:
            raise Damaged(f"{folder.name}: {name} lacks stored chunks")


def ranked(ds: xr.Dataset, *, stage: str, keep: int, slices: str = "all") -> Ranked:
    """List the best `keep` patients of every query, whatever the matrix was made from.

    Parameters
    ----------
    ds : Dataset
        From `load`; a corpus against itself has lists already and `rank` for `patient`.
    """
    if keep < 1:
        raise ValueError(f"ranked: keep must be positive, got {keep}")
    cell = ds[["r", "slice", *(["who"] if "rank" in ds.dims else [])]].sel(
        stage=stage, slices=slices
    )
    n = int(ds.sizes["query"])
    out = Ranked(
        np.full((n, keep), np.nan), np.full((n, keep), -1), np.full((n, keep), -1, np.int64)
    )
    for first in range(0, n, ROWS):
        rows = cell.isel(query=slice(first, first + ROWS))
        r, at = rows["r"].to_numpy(), rows["slice"].to_numpy()
        for i in range(len(r)):
            best = _best(r[i], at[i], keep)
            q = first + i
            out.r[q, : len(best)], out.slice[q, : len(best)] = r[i, best], at[i, best]
            out.patient[q, : len(best)] = rows["who"].to_numpy()[i, best] if "who" in rows else best
    return out


def _best(r: NDArray[np.float64], at: NDArray[np.int64], keep: int) -> NDArray[np.int64]:
    """Return the places of the best r in one row, best first, ties to the lower slice."""
    there = np.flatnonzero(at >= 0)
    if len(there) > keep:
        cut = np.partition(r[there], len(there) - keep)[len(there) - keep]
        there = there[r[there] >= cut]
    return there[np.lexsort((at[there], -r[there]))][:keep]
