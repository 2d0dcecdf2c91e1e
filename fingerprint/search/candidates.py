"""Which pairs are looked at closely: chosen from the screen and the raw search, and put together.

    plan     the best `refine_64` patients of each query by the screen, and the best `keep_patients`
             by raw r, each with its best slice there
    work     `closely.refine_pairs`
    fold     for each patient its best pair by the primary image: stage ``pose`` of the matrix

What a shard leaves does not depend on the primary image, on how many queries it holds or on how
many candidates are aligned at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.ledger import Values
from fingerprint.search import closely, correlation, images, pose, refine
from fingerprint.search.align import Limits
from fingerprint.search.best import BINS
from fingerprint.search.closely import How, Pairs
from fingerprint.search.pose import Grid
from fingerprint.search.sets import Against, QuerySet, Reference, opened
from fingerprint.search.tile import Band
from fingerprint.settings import IMAGES, Settings
from fingerprint.warp import POSE

VERSION = 1
QUERIES = 8  # in one shard; they share the slices that are read
ROWS = 64  # of the matrix, in one band: whole shards
# beyond the ranges of the settings: what lies between their end and the next step of the grid
MARGIN = Limits(angle_deg=5.0, scale=0.05, shift_px=16.0)

Ints = NDArray[np.int64]


# -- plan


def plan(
    againsts: Sequence[Against], path: Path, grid: Grid, settings: Settings
) -> list[ledger.Shard]:
    """Choose the candidates of every query from ``correlation.zarr``; a few queries to a shard.

    Parameters
    ----------
    path : Path
        With stages ``raw`` and ``screen`` finished.
    """
    limits = Limits(
        settings.angle_deg + MARGIN.angle_deg,
        settings.scale + MARGIN.scale,
        settings.shift_px + MARGIN.shift_px,
    )
    how = How(grid, limits, settings.refine_128)
    return [shard for against in againsts for shard in _plan(against, path, how, settings)]


def _plan(against: Against, path: Path, how: How, settings: Settings) -> Iterator[ledger.Shard]:
    matrix = correlation.load(path, against.name)
    stacks = _stacks(against.reference)
    start = 0
    for queries in against.sets:
        for first in range(0, len(queries), ROWS):
            last = min(first + ROWS, len(queries))
            rows = matrix.isel(query=slice(start + first, start + last))
            pairs = chosen(rows, stacks, settings)
            for a in range(first, last, QUERIES):
                b = min(a + QUERIES, last)
                part = pairs[a - first : b - first]
                yield _shard(queries[a:b], against.reference, part, how)
        start += len(queries)


def _shard(queries: QuerySet, reference: Reference, pairs: Pairs, how: How) -> ledger.Shard:
    depends = {
        "queries": [queries.digest, queries.indices.tolist(), queries.native_px],
        "slices": reference.digest,
        "pairs": _digest(pairs),
        "grid": how.grid.as_json(),
        "limits": [how.limits.angle_deg, how.limits.scale, how.limits.shift_px],
        "keep": how.keep,
        "made": store.DERIVED,
        "versions": [pose.VERSION, refine.VERSION, images.VERSION],
    }
    return ledger.shard(
        "refine",
        VERSION,
        depends,
        closely.refine_pairs,
        queries,
        reference.corpus,
        reference.digest,
        pairs,
        how,
    )


def _digest(pairs: Pairs) -> str:
    parts = (pairs.counts, pairs.slices, pairs.patients, pairs.before, pairs.after)
    return hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()


def _stacks(reference: Reference) -> Ints:
    """Give each stretch of slices of one stack and patient a number, (s,); -1: not compared."""
    series = opened(reference.corpus, reference.digest).label("series")
    patients = reference.patients
    new = np.ones(len(patients), bool)
    new[1:] = (series[1:] != series[:-1]) | (patients[1:] != patients[:-1])
    return np.where(patients >= 0, np.cumsum(new), -1).astype(np.int64)


def chosen(matrix: xr.Dataset, stacks: Ints, settings: Settings) -> Pairs:
    """Choose the pairs of some rows of the matrix: the best by the screen, and the best by raw r.

    Parameters
    ----------
    matrix : Dataset
        Those rows, with stages ``raw`` and ``screen``.
    stacks : int64, shape (s,)
        Equal for slices of one stack and patient.

    Returns
    -------
    Pairs
        Of each query in the order of their slices, each once.
    """
    lists = [
        correlation.ranked(matrix, stage="screen", keep=settings.refine_64),
        correlation.ranked(matrix, stage="raw", keep=settings.keep_patients),
    ]
    slices = np.concatenate([one.slice for one in lists], axis=1)
    patients = np.concatenate([one.patient for one in lists], axis=1)
    counts: list[int] = []
    at, who = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row, owners in zip(slices, patients, strict=True):
        unique, first = np.unique(row, return_index=True)
        there = unique >= 0
        counts.append(int(there.sum()))
        at.append(unique[there])
        who.append(owners[first[there]])
    all_slices = np.concatenate(at)
    before, after = (_free(stacks, all_slices, way) for way in (-1, 1))
    return Pairs(
        np.array(counts, np.int64),
        all_slices.astype(np.int32),
        np.concatenate(who).astype(np.int32),
        before,
        after,
    )


def _free(stacks: Ints, slices: Ints, way: int) -> NDArray[np.int8]:
    """Count the slices beside each, in one direction, that belong to the same stack."""
    free = np.zeros(len(slices), np.int8)
    for k in range(1, closely.ROUNDS * closely.REACH + 1):
        there = slices + way * k
        sound = (there >= 0) & (there < len(stacks)) & (free == k - 1)
        sound &= stacks[np.clip(there, 0, len(stacks) - 1)] == stacks[slices]
        free[sound] = k
    return free


def bytes_needed(settings: Settings, *, side: int, chunk: int) -> int:
    """Memory that one shard takes, from the settings alone.

    Every candidate of its queries at `side` (of `mid`), twice at half of it, and its screen; three
    images of those that are looked at closely; the chunk that is decoded.
    """
    pixels = side * side
    pairs = QUERIES * (settings.refine_64 + settings.keep_patients)
    close = QUERIES * settings.refine_128 + closely.AROUND * 2 * closely.REACH
    held = pairs * (pixels + pixels // 2 + 1024) + 4 * close * pixels
    return held + 2 * chunk * pixels + 2**27  # derivatives, enlarged queries, poses of the grid


# -- fold


def fold(against: Against, values: Iterator[Values], settings: Settings) -> Iterator[Band]:
    """Put the shards of each band of queries together: stage ``pose`` of the matrix.

    Parameters
    ----------
    values : iterator
        Of the shards in plan order; those of `against` are taken from it and no more.
    settings : Settings
        `image` decides which pair of a patient is its best.
    """
    primary, start = IMAGES.index(settings.image), 0
    for queries in against.sets:
        for first in range(0, len(queries), ROWS):
            last = min(first + ROWS, len(queries))
            parts = [next(values) for _ in range(first, last, QUERIES)]
            rows = slice(start + first, start + last)
            yield _band(queries.name, rows, parts, len(against.patients), primary)
        start += len(queries)


def _band(name: str, rows: slice, parts: list[Values], patients: int, primary: int) -> Band:
    read = [dict(part) for part in parts]  # each array is decoded when it is asked for: once
    counts, at, who, poses = (
        np.concatenate([part[key] for part in read])
        for key in ("counts", "slice", "patient", "pose")
    )
    r = np.concatenate([part["r"] for part in read], axis=1)
    query = np.repeat(np.arange(len(counts)), counts)
    best = best_pairs(query, who, at, r[primary])
    shape, cell = (rows.stop - rows.start, patients), (query[best], who[best])
    more: dict[str, NDArray[Any]] = {name: np.full(shape, np.nan) for name in POSE[:4]}
    more[POSE[4]] = np.full(shape, -1, np.int8)
    for column, key in enumerate(POSE):
        more[key][cell] = poses[best, column]
    more["r_image"] = np.full((len(IMAGES), *shape), np.nan)
    more["r_image"][:, *cell] = r[:, best]
    slices = np.full(shape, -1, np.int64)
    slices[cell] = at[best]
    scores = more["r_image"][primary]
    return Band(name, rows, scores[None], slices[None], np.zeros(BINS, np.int64), more)


def best_pairs(query: Ints, patient: Ints, slices: Ints, r: NDArray[np.float64]) -> Ints:
    """Return which pair is the best of its query and patient: ties to the lower slice, no NaN."""
    there = np.flatnonzero(~np.isnan(r))
    order = there[np.lexsort((slices[there], -r[there], patient[there], query[there]))]
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(query[order]) != 0) | (np.diff(patient[order]) != 0)
    return order[first]
