"""The listed pairs of a run, registered: affine, then elastic, and scored before and after each.

    plan     the best patients of each query, as they are listed, a few queries to a shard
    work     `register_pairs`: affine for all of them, started from the best pose; elastic for the
             most alike of those
    fold     the columns of ``matches.parquet``, and what is kept of the first pair of each query

What a shard leaves does not depend on how many pairs are registered at a time, or in which order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint import ledger, warp
from fingerprint.ledger import Counts, Values
from fingerprint.register import affine, energy, resample, scores, tiles
from fingerprint.register.engines import ENGINES
from fingerprint.register.scores import NAMES, STEPS
from fingerprint.search import device
from fingerprint.search.sets import QuerySet, images_of, opened

VERSION = 1  # raised with whatever affine, elastic, scores or tiles give
QUERIES = 4  # in one shard
AT_ONCE = {"cpu": 1, "cuda": 64}  # pairs: on a CPU one pair stays in the cache
KEPT_PX = 64  # side of the field that is kept: 8 px of 512 are bilinear to a tenth of a pixel
WARP = ("deformation_energy", "bending_energy", "min_jacobian")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Listed:
    """Pairs in the order in which they are listed.

    Attributes
    ----------
    counts : int64, shape (q,)
        Pairs of each query; the first of them is its best.
    slices : int64, shape (n,)
        Slice of the real corpus in each pair.
    poses : float64, shape (n, 5)
        Best pose of the query on that slice; NaN where it was not searched.
    """

    counts: Ints
    slices: Ints
    poses: Floats

    @property
    def queries(self) -> Ints:
        """Which query each pair is of."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def first(self) -> NDArray[np.bool_]:
        """Which pairs are the best of their query."""
        first = np.zeros(len(self.slices), bool)
        first[(np.cumsum(self.counts) - self.counts)[self.counts > 0]] = True
        return first

    def part(self, a: int, b: int) -> Listed:
        """Return the pairs of queries [a, b)."""
        at = slice(int(self.counts[:a].sum()), int(self.counts[:b].sum()))
        return Listed(self.counts[a:b], self.slices[at], self.poses[at])


@dataclass(frozen=True)
class How:
    """Settings that decide what comes out.

    Attributes
    ----------
    engine : str
        A key of `ENGINES`.
    elastic : int
        How many pairs of each query are registered elastically: the most alike after affine.
    """

    engine: str
    elastic: int


def plan(
    queries: QuerySet, reference: Path, digest: str, listed: Listed, how: How
) -> list[ledger.Shard]:
    """Cut the pairs of some queries into shards.

    Parameters
    ----------
    reference, digest
        The real corpus.
    """
    return [
        _shard(queries[a : a + QUERIES], reference, digest, listed.part(a, a + QUERIES), how)
        for a in range(0, len(queries), QUERIES)
    ]


def _shard(
    queries: QuerySet, reference: Path, digest: str, listed: Listed, how: How
) -> ledger.Shard:
    pairs = (listed.counts, listed.slices, np.ascontiguousarray(listed.poses))
    depends = {
        "queries": [queries.digest, queries.indices.tolist(), queries.native_px],
        "slices": digest,
        "pairs": hashlib.sha256(b"".join(part.tobytes() for part in pairs)).hexdigest(),
        "how": [how.engine, how.elastic],
    }
    return ledger.shard(
        "register", VERSION, depends, register_pairs, queries, reference, digest, listed, how
    )


# -- work


def register_pairs(
    queries: QuerySet, reference: Path, digest: str, listed: Listed, how: How
) -> tuple[Values, Counts]:
    """Register the listed pairs of some queries.

    Returns
    -------
    values
        Of each pair, in order: ``matrix`` float64 (n, 2, 3), ``converged`` bool (n,), ``scores``
        float64 (n, `STEPS`, `NAMES`), ``warp`` float64 (n, `WARP`); NaN where a step was not done.
        Of the first pair of each query: ``field`` float32 (q, 2, 64, 64), what the elastic step
        added to the affine map, in pixels of the slice, and ``tiles`` float64 (q, t, t), Fisher z
        of each tile; NaN for a query without a pair.
    counts
    """
    torch.set_num_threads(1)  # sums in one order; shards run side by side
    where, engine = device.chosen(), ENGINES[how.engine]()
    corpus, first = opened(reference, digest), np.flatnonzero(listed.first)
    asked, real = images_of(queries), corpus.at(listed.slices)  # each chunk is decoded once
    out = _blank(listed, corpus.size_px)

    def images(at: Ints) -> tuple[Tensor, Tensor]:
        return _grey(asked[listed.queries[at]], where), _grey(real[at], where)

    for at in _batches(np.arange(len(listed.slices)), where):
        moving, fixed = images(at)
        found = engine.affine(moving, fixed, start=_starts(listed.poses[at], corpus.size_px, where))
        shown = resample.warp_affine(moving, found.matrix)
        out["matrix"][at], out["converged"][at] = _numpy(found.matrix), _numpy(found.converged)
        out["scores"][at, 0] = scores.stored_scores(moving, fixed)
        inside = resample.inside(resample.affine_field(found.matrix, corpus.size_px))
        out["scores"][at, 1] = scores.scores(shown, fixed, inside)
    alike = out["scores"][:, 1, NAMES.index("r_highpass")]
    for at in _batches(most_alike(listed, alike, how.elastic), where):
        moving, fixed = images(at)
        start = torch.from_numpy(out["matrix"][at]).to(where)
        field = engine.elastic(moving, fixed, start=start).field
        shown, inside = resample.warp_field(moving, field), resample.inside(field)
        out["scores"][at, 2] = scores.scores(shown, fixed, inside)
        out["warp"][at] = _warp(field)
        here = np.isin(at, first)
        if here.any():
            bent = field - resample.affine_field(start, corpus.size_px)
            of = listed.queries[at[here]]
            out["field"][of] = _numpy(_reduced(bent[here]))
            out["tiles"][of] = tiles.local_z(shown[here], fixed[here], inside[here])
    return out, counted(out)


def most_alike(listed: Listed, alike: Floats, keep: int) -> Ints:
    """Return the `keep` most alike pairs of each query, and its first, in the order of the list."""
    order = np.lexsort((np.arange(len(alike)), -np.nan_to_num(alike, nan=-2.0), listed.queries))
    place = np.arange(len(order)) - np.repeat(
        np.cumsum(listed.counts) - listed.counts, listed.counts
    )
    chosen: NDArray[np.bool_] = np.logical_and(listed.first, keep > 0)
    chosen[order[place < keep]] = True
    return np.flatnonzero(chosen)


def _blank(listed: Listed, side: int) -> dict[str, NDArray[Any]]:
    n, q, along = len(listed.slices), len(listed.counts), tiles.tiles_of(side)
    small = min(KEPT_PX, side)
    return {
        "matrix": np.full((n, 2, 3), np.nan),
        "converged": np.zeros(n, bool),
        "scores": np.full((n, len(STEPS), len(NAMES)), np.nan),
        "warp": np.full((n, len(WARP)), np.nan),
        "field": np.full((q, 2, small, small), np.nan, np.float32),
        "tiles": np.full((q, along, along), np.nan),
    }


def _batches(pairs: Ints, where: str) -> Iterator[Ints]:
    step = AT_ONCE[where]
    return (pairs[i : i + step] for i in range(0, len(pairs), step))


def _grey(images: NDArray[np.uint8], where: str) -> Tensor:
    """Return images (b, h, h) as the registration takes them: float32 (b, 1, h, h)."""
    return torch.from_numpy(images).to(where).float()[:, None]


def _starts(poses: Floats, side: int, where: str) -> Tensor:
    """Return where affine registration starts: the best pose, else as stored."""
    known: NDArray[np.bool_] = np.asarray(np.isfinite(poses).all(axis=1))
    return affine.from_poses(np.where(known[:, None], poses, warp.IDENTITY), side).to(where)


def _warp(field: Tensor) -> Floats:
    """Return the columns `WARP` of displacement fields: float64 (b, 3)."""
    found = energy.warp_of(field)
    return np.stack(
        [_numpy(part) for part in (found.deformation, found.bending, found.min_jacobian)], axis=1
    )


def _reduced(field: Tensor) -> Tensor:
    """Return the means of a field over the cells of a coarser grid."""
    return torch.nn.functional.adaptive_avg_pool2d(field, min(KEPT_PX, field.shape[-1]))


def _numpy(values: Tensor) -> NDArray[Any]:
    return np.asarray(values.cpu().numpy())


# -- fold


def counted(values: Mapping[str, NDArray[Any]]) -> Counts:
    """Count pairs: all, those that were registered elastically, those that did not converge."""
    return {
        "pairs": len(values["matrix"]),
        "elastic": int(np.isfinite(values["warp"][:, 0]).sum()),
        "diverged": int((~values["converged"]).sum()),
    }


def of_queries(values: Mapping[str, NDArray[Any]], listed: Listed) -> dict[str, NDArray[Any]]:
    """Return what `kept` stores of a shard or several: rows of queries, from their first pairs."""
    has, first = listed.counts > 0, listed.first
    matrix = np.full((len(has), 2, 3), np.nan)
    slices = np.full(len(has), -1, np.int64)
    matrix[has], slices[has] = values["matrix"][first], listed.slices[first]
    kept = {"matrix": matrix, "slice": slices}
    return kept | {name: values[name] for name in ("field", "tiles")}


def columns(values: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """Return the columns of ``matches.parquet`` that a shard fills, by name, one value per pair."""
    out = {}
    for name, (step, score) in scores.COLUMNS.items():
        out[name] = values["scores"][:, STEPS.index(step), NAMES.index(score)]
    return out | {name: values["warp"][:, k] for k, name in enumerate(WARP)}
