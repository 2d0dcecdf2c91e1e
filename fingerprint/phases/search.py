"""Search: every query against every slice as stored, then at every pose, then closely.

    search   raw r of every pair, exact, from the pixels
    poses    every query turned, resized and shifted over a grid at 32 px, kept in the run as int8
    screen   the best of those against every slice of 32 px
    refine   the best patients of each query, aligned at 64 and 128 px

Each stage writes its rows of ``correlation.zarr``; a corpus against itself has the first one only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from fingerprint.job import AuditJob
from fingerprint.ledger import Shard, Values
from fingerprint.search import candidates, correlation, itself, matrix, pose, raw, screen, tile
from fingerprint.search.pose import Grid


def plan_raw(job: AuditJob) -> list[Shard]:
    """Cut the exact search into shards that fit the memory of a worker."""
    s = job.settings
    if job.itself:
        return itself.plan(job.reference, s)
    if s.keep_matrix:
        matrix.check(job.against, s.keep_matrix_gib)
    return raw.plan(
        job.against,
        band=raw.band_for(job.against, s),
        shard=s.shard_slices,
        block=s.block_slices,
        keep=s.keep_matrix,
    )


def finish_raw(job: AuditJob, values: Iterator[Values]) -> None:
    """Fold the tiles into the matrix, or into the lists of a corpus against itself."""
    path, s = job.out / "correlation.zarr", job.settings
    if job.itself:
        itself.save(path, job.reference, values, s)
        return
    cut = {"band": raw.band_for(job.against, s), "shard": s.shard_slices}
    correlation.create(
        path, job.against, stages=correlation.STAGES if s.pose else ("raw",), image=s.image
    )
    shutil.rmtree(job.out / "matrix.zarr.wip", ignore_errors=True)  # of a run that was killed
    if s.keep_matrix:
        values = matrix.keep(job.out / "matrix.zarr", job.against, values, **cut)
    for against in job.against:
        correlation.write_stage(path, against.name, "raw", tile.fold(against, values, **cut))
    raw.forget()


def _grid(job: AuditJob) -> Grid:
    return pose.grid_of(job.settings)


def plan_poses(job: AuditJob) -> list[Shard]:
    """Turn, resize and shift every query once, whatever it is compared with."""
    return screen.plan_poses(job.against, _grid(job)) if job.searches_poses else []


def finish_poses(job: AuditJob, values: Iterator[Values]) -> None:
    """Leave the rows where they are, in the shards under their digests; note the grid."""
    del values
    if job.searches_poses:
        grid = _grid(job)
        job.update(grid=grid.as_json())


def plan_screen(job: AuditJob) -> list[Shard]:
    """Cut the search over poses into shards."""
    return screen.plan_screen(job.against, job.ledger, _grid(job)) if job.searches_poses else []


def finish_screen(job: AuditJob, values: Iterator[Values]) -> None:
    """Fold the tiles of the screen into the matrix."""
    if not job.searches_poses:
        return
    path = job.out / "correlation.zarr"
    for against in job.against:
        correlation.write_stage(
            path, against.name, "screen", screen.fold(against, values, _grid(job))
        )


def plan_refine(job: AuditJob) -> list[Shard]:
    """Choose the candidates of every query, a few queries to a shard."""
    if not job.searches_poses:
        return []
    path = job.out / "correlation.zarr"
    return candidates.plan(job.against, path, _grid(job), job.settings)


def finish_refine(job: AuditJob, values: Iterator[Values]) -> None:
    """Write best pose and r of every refined pair."""
    if not job.searches_poses:
        return
    path = job.out / "correlation.zarr"
    for against in job.against:
        bands = candidates.fold(against, values, job.settings)
        correlation.write_stage(path, against.name, "pose", bands)
