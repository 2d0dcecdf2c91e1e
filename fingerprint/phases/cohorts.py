"""Cohorts: the training sets of a study and its held-out slices, each sealed as a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import made, store
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.search.sets import opened
from fingerprint.study_job import StudyJob

VERSION = 1


def plan(job: StudyJob) -> list[Shard]:
    """Cut by set: one writer for each corpus."""
    shards = []
    for name, kind, rows in job.sets_of_slices():
        depends = {"corpus": job.source.digest, "slices": rows.tolist(), "set": kind}
        path = job.cohort(name)
        one = ledger.shard(
            "cohorts", VERSION, depends, take, job.corpus, job.source.digest, rows, path, kind
        )
        if not store.is_corpus(path):  # its folder was removed: written again
            ledger.path_of(job.ledger, one).unlink(missing_ok=True)
        shards.append(one)
    return shards


def take(
    source: Path, digest: str, rows: NDArray[np.int64], path: Path, kind: str
) -> tuple[Values, Counts]:
    """Seal some slices of a corpus as one of its own: ``digest`` is what it holds."""
    corpus = opened(source, digest)
    note = f"{len(rows)} slices of the corpus {digest[:12]}, chosen for a study"
    subset = made.write_subset(corpus, rows, path, kind, note)
    return {"digest": ledger.as_json(subset.digest)}, {"slices": len(rows)}


def finish(job: StudyJob, values: Iterator[Values]) -> None:
    """Read every receipt; what was scaled down is in the document already."""
    del job
    for _ in values:
        pass
