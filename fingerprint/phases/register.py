"""Register: the best patients of every query put in correspondence, and listed with all scores.

Plan and finish go through the queries in the same parts, `ROWS` at a time, so that neither holds
all pairs. A corpus against itself is listed only: its pairs are not registered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from fingerprint.corpus import tables
from fingerprint.job import AuditJob
from fingerprint.ledger import Shard, Values
from fingerprint.phases import judge
from fingerprint.register import kept, listed
from fingerprint.register.listed import How, Listed
from fingerprint.search import blocks, correlation, matches
from fingerprint.search.sets import QuerySet
from fingerprint.warp import POSE

ROWS = 64  # queries at a time: whole shards


def plan(job: AuditJob) -> list[Shard]:
    """Cut the listed pairs into shards."""
    if not job.registers:
        return []
    s, real = job.settings, job.reference
    how = How(s.engine, s.elastic_patients)
    return [
        shard
        for queries, table in _parts(job)
        for shard in listed.plan(
            queries, real.corpus, real.digest, _pairs(table, len(queries), _most(job, queries)), how
        )
    ]


def finish(job: AuditJob, values: Iterator[Values]) -> None:
    """Write ``matches.parquet`` with all scores, ``registration.zarr``, and what to withhold."""
    withheld: list[list[str]] = []
    tables_of = _itself(job) if job.itself else _scored(job, values)

    def watched() -> Iterator[pd.DataFrame]:
        for table in tables_of:
            withheld.extend(matches.to_withhold(table))
            yield table

    matches.save_bands(watched(), job.out / "matches.parquet")
    tables.save(job.out / "drop.tsv", withheld, matches.WITHHELD)


def _itself(job: AuditJob) -> Iterator[pd.DataFrame]:
    real = job.corpora["real"]
    matrix = correlation.load(job.out / "correlation.zarr")
    return matches.bands(matrix, list(real.label("digest")), real, job.settings.keep_itself)


def _parts(job: AuditJob) -> Iterator[tuple[QuerySet, pd.DataFrame]]:
    """Yield some queries and the table of their matches; its index says which of them."""
    matrix, real, start = correlation.load(job.out / "correlation.zarr"), job.corpora["real"], 0
    told = judge.load(job)
    for queries in job.against[0].sets:
        for first in range(0, len(queries), ROWS):
            part = queries[first : first + ROWS]
            here = slice(start + first, start + first + len(part))
            digests, rows = blocks.digests_of([part]), matrix.isel(query=here)
            bands = matches.bands(rows, digests, real, job.settings.keep_patients)
            yield part, matches.with_verdict(pd.concat(bands), told[here].reset_index(drop=True))
        start += len(queries)


def _most(job: AuditJob, queries: QuerySet) -> int:
    """Return how many patients of each query are registered.

    What is compared between sets is the best pair of each query, which was chosen before: of
    controls and canaries it alone is needed; of generated images people look at the next ones too.
    """
    most = job.settings.register_patients
    return most if queries.name == "generated" else min(most, 1)


def _registered(table: pd.DataFrame, most: int) -> pd.Series:
    """Tell which rows are registered: the first `most` of each query."""
    return table["rank"] <= most


def _pairs(table: pd.DataFrame, queries: int, most: int) -> Listed:
    rows = table[_registered(table, most)]
    poses = rows[list(POSE)].to_numpy(np.float64, na_value=np.nan)
    counts = np.bincount(rows.index, minlength=queries).astype(np.int64)
    return Listed(counts, rows["slice"].to_numpy(np.int64), poses)


def _scored(job: AuditJob, values: Iterator[Values]) -> Iterator[pd.DataFrame]:
    """Yield the tables of matches with the scores of the registration."""
    if not job.registers:
        yield from (table for _, table in _parts(job))
        return
    done: Counter[str] = Counter()
    sets = job.against[0].sets
    names = [label for queries in sets for label in queries.labels]
    with kept.writing(job.out / "registration.zarr", blocks.names_of(sets), names) as store:
        for queries, table in _parts(job):
            shards = range(0, len(queries), listed.QUERIES)
            read = [dict(next(values)) for _ in shards]
            found = {name: np.concatenate([part[name] for part in read]) for name in read[0]}
            most = _most(job, queries)
            for name, scores in listed.columns(found).items():
                table.loc[_registered(table, most).to_numpy(), name] = scores
            done.update(listed.counted(found))
            store.add(listed.of_queries(found, _pairs(table, len(queries), most)))
            yield table
    job.update(registration=dict(done))
