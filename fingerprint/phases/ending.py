"""Stats and report: from the matrix and the matches to the numbers and the page."""

from __future__ import annotations

from collections.abc import Iterator

from fingerprint.job import AuditJob, now, write_json
from fingerprint.ledger import Values
from fingerprint.measure import findings
from fingerprint.membership_job import MembershipJob
from fingerprint.phases import distances, judge, parts
from fingerprint.report import build
from fingerprint.report.membership import build as membership_page
from fingerprint.search import correlation, matches


def finish_stats(job: AuditJob, values: Iterator[Values]) -> None:
    """Put every number of the report into one flat dictionary."""
    del values
    path = job.out / "correlation.zarr"
    names = ["real"] if job.itself else [against.name for against in job.against]
    told = held = apart = None
    if not job.itself:
        told = judge.told_of(job)
        held = judge.held_of(job, told)
        apart = distances.measured(job, told)
    alike = matches.most_similar(job.out / "matches.parquet", job.settings.image)
    found = findings.collect(
        {name: correlation.load(path, name) for name in names},
        alike,
        job.read(),
        {role: corpus.summary for role, corpus in job.corpora.items()},
        best=matches.best_pairs(job.out / "matches.parquet"),
        parts=parts.regions_of(job, alike, told),
        told=told,
        held=held,
        apart=apart,
    )
    write_json(job.out / "findings.json", found)


def finish_report(job: AuditJob, values: Iterator[Values]) -> None:
    """Write the page of a run that is complete."""
    del values
    job.update(status="complete", ended=now())
    build.build(job.out)


def finish_membership(job: MembershipJob, values: Iterator[Values]) -> None:
    """Write the page of a membership run that is complete."""
    del values
    job.update(status="complete", ended=now())
    membership_page.figures(job.out)
    membership_page.build(job.out)
