"""Match, stats and report: from the matrix to the list of pairs, the numbers and the page."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from fingerprint.corpus import tables
from fingerprint.job import AuditJob, now, write_json
from fingerprint.ledger import Values
from fingerprint.measure import findings
from fingerprint.report import build
from fingerprint.search import blocks, correlation, matches


def finish_match(job: AuditJob, values: Iterator[Values]) -> None:
    """List the best patients of every query, and the generated images to withhold."""
    del values
    real, withheld = job.corpora["real"], list[list[str]]()
    digests = list(real.label("digest")) if job.itself else blocks.digests_of(job.against[0].sets)
    matrix = correlation.load(job.out / "correlation.zarr")
    keep = job.settings.keep_itself if job.itself else job.settings.keep_patients

    def listed() -> Iterator[pd.DataFrame]:
        for band in matches.bands(matrix, digests, real, keep):
            withheld.extend(matches.to_withhold(band))
            yield band

    matches.save_bands(listed(), job.out / "matches.parquet")
    tables.save(job.out / "drop.tsv", withheld, matches.WITHHELD)


def finish_stats(job: AuditJob, values: Iterator[Values]) -> None:
    """Put every number of the report into one flat dictionary."""
    del values
    path = job.out / "correlation.zarr"
    names = ["real"] if job.itself else [against.name for against in job.against]
    found = findings.collect(
        {name: correlation.load(path, name) for name in names},
        matches.most_similar(job.out / "matches.parquet", job.settings.image),
        job.read(),
        {role: corpus.summary for role, corpus in job.corpora.items()},
    )
    write_json(job.out / "findings.json", found)


def finish_report(job: AuditJob, values: Iterator[Values]) -> None:
    """Write the page of a run that is complete."""
    del values
    job.update(status="complete", ended=now())
    build.build(job.out)
