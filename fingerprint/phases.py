"""The phases of every long command, in order: read this page for the method.

INGEST   survey -> read -> write -> seal          files to a sealed corpus
AUDIT    check  -> search -> match -> stats -> report

A phase is cut into shards (`plan`), the shards are worked off anywhere (`ledger.work`), and their
values are put together (`finish`). `run_phase` is that, and all that; `flows/` sends the shards to
a cluster and tells Prefect about it, `fingerprint.audit` does them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import orientation, steps, tables
from fingerprint.corpus.store import Corpus
from fingerprint.job import AuditJob, now, write_json
from fingerprint.ledger import Execute, Phase, Shard, Values
from fingerprint.measure import findings
from fingerprint.report import build
from fingerprint.search import correlation, matches, raw, tiling
from fingerprint.search.sets import QuerySet, Reference

Watch = Callable[[str, int, int], None]
"""Told (phase, shards done, shards planned) after every shard, and once before the first."""

REJECTIONS = ("set", "token", "bytes", "sha256", "code", "detail")
SAMPLE = 240  # generated images that are compared in eight orientations


class Job(Protocol):
    """What the phases of one command share."""

    @property
    def ledger(self) -> Path:
        """The folder of finished shards."""

    def record(self, phase: str, planned: int, done: int) -> None:
        """Note how far a phase is."""


def run_phase(phase: Phase, job: Job, execute: Execute, watch: Watch) -> None:
    """Plan, work, finish.

    Raises
    ------
    ledger.Incomplete
        Naming every shard that could not be done.
    """
    shards = phase.plan(job)
    watch(phase.name, 0, len(shards))
    done = 0
    for done, _ in enumerate(execute(job.ledger, shards), 1):
        watch(phase.name, done, len(shards))
    job.record(phase.name, len(shards), done)
    phase.finish(job, ledger.finish(job.ledger, shards))


Step = Callable[[Phase, Job, Execute, Watch], None]


# -- check: could these sets be compared at all?


def _finish_check(job: AuditJob, values: Iterator[Values]) -> None:
    del values
    real, generated = job.corpora["real"], job.corpora["generated"]
    if not job.itself:
        _refuse_leaks(job)
    for role, corpus in job.corpora.items():
        if correlation.is_constant(corpus).all():
            raise ValueError(f"{role}: every image has one grey level; nothing can be compared")
    few, many = _sample(generated, SAMPLE), real.read(0, real.n, "thumb")
    turned = orientation.best_orientation(few, many)
    stored = generated.head["made_with"].get("orient")
    asked = job.settings.orient
    if asked not in (None, "as-is", stored):
        raise ValueError(
            f"--orient {asked}: {generated.path} is a corpus, stored {stored or 'as-is'}; "
            "ingest its files again with that orientation"
        )
    if turned.decided and stored is None and asked is None:
        raise ValueError(
            f"generated: turned as {turned.best} these images fit the real ones better than as "
            f"stored (mean z {turned.gap:.2f} higher, {turned.copies[turned.best]} of {len(few)} "
            f"are copies that way): give --orient {turned.best} and another OUT, or --orient as-is"
        )
    windows = orientation.same_window(few, many)
    notes = [] if windows.same else [windows.note]
    if real.summary.get("participants_known") == "clusters":
        notes.append(
            "patients unknown: groups of near-duplicate slices stand in for them"
            + (", and slices of one group were not compared with each other" * job.itself)
        )
    job.update(notes=notes)
    tables.save(job.out / "rejections.tsv", _rejections(job), REJECTIONS)


def _rejections(job: AuditJob) -> Iterator[list[str]]:
    for role, corpus in job.corpora.items():
        for line in corpus.stored("rejections.tsv").decode().splitlines()[1:]:
            yield [role, *line.split("\t")]


def _sample(corpus: Corpus, n: int) -> NDArray[np.uint8]:
    even = np.linspace(0, corpus.n - 1, min(n, corpus.n)).astype(np.int64)
    return corpus.at(even, "thumb")


def _refuse_leaks(job: AuditJob) -> None:
    """Refuse controls that are real slices: the null would be made of copies."""
    controls = job.corpora.get("controls")
    if controls is None:
        return
    real = job.corpora["real"]
    both = set(real.label("participant")) & set(controls.label("participant")) - {""}
    if both:
        raise ValueError(
            f"controls: {len(both)} patients are in the real corpus too ({min(both)}, ...); "
            "controls must be of other patients"
        )
    shared = set(real.label("digest")) & set(controls.label("digest"))
    if shared:
        raise ValueError(
            f"controls: {len(shared)} slices are in the real corpus too "
            f"(digest {min(shared)[:12]}, ...); controls must be of other patients"
        )


# -- search: every query x every real slice


def _search(job: AuditJob) -> tuple[list[QuerySet], Reference, list[str]]:
    s, real, generated = job.settings, job.corpora["real"], job.corpora["generated"]
    reference, who = correlation.reference(real, s.capped_slices)
    patients = [str(p) for p in who]
    drawn = s.sample or generated.n
    sets = [
        correlation.sampled_queries(
            "generated", generated, patients, drawn, s.seed, leave_out=job.itself
        )
    ]
    if "controls" in job.corpora:
        controls = job.corpora["controls"]
        sets.append(correlation.all_queries("control", controls, patients, leave_out=True))
    elif not job.itself and len(patients) > 1:
        sets.append(correlation.drawn_controls(real, patients, s.controls, s.seed))
    native = _enlarged_from(generated, sets[0])
    return [sets[0], *(replace(q, native_px=native) for q in sets[1:])], reference, patients


def _enlarged_from(corpus: Corpus, queries: QuerySet) -> int:
    """Return the side that most queries were enlarged from; 0 for scans, which never are."""
    if not corpus.scans["spacing_x_mm"].isna().all():
        return 0
    return int(np.bincount(corpus.label("native_px")[queries.indices]).argmax())


def _plan_search(job: AuditJob) -> list[Shard]:
    s, real = job.settings, job.corpora["real"]
    need = tiling.bytes_needed(
        band=s.band_queries or 512, block=s.block_slices, chunk=real.chunk_slices, side=real.size_px
    )
    if need > s.memory_gib * 2**30 / 2:  # the other half is the interpreter's and the allocator's
        raise ValueError(
            f"memory_gib: one tile needs {need / 2**30:.1f} GiB, half of {s.memory_gib} is the "
            "limit; lower band_queries or block_slices, or raise memory_gib"
        )
    sets, reference, _ = _search(job)
    return raw.plan(
        sets, reference, band=s.band_queries or 512, shard=s.shard_slices, block=s.block_slices
    )


def _finish_search(job: AuditJob, values: Iterator[Values]) -> None:
    sets, reference, patients = _search(job)
    s = job.settings
    r, at, counts = raw.fold(
        sets, reference, values, band=s.band_queries or 512, shard=s.shard_slices
    )
    correlation.save(
        job.out / "correlation.zarr",
        r,
        at,
        counts,
        queries=correlation.names_of(sets),
        sets=[q.name for q in sets for _ in range(len(q))],
        patients=patients,
        excluded={
            "queries": correlation.constant(sets),
            "slices": int(correlation.is_constant(job.corpora["real"]).sum()),
        },
    )


# -- match: the best patients of every query


def _finish_match(job: AuditJob, values: Iterator[Values]) -> None:
    del values
    sets, _, _ = _search(job)
    rows = matches.matches(
        correlation.load(job.out / "correlation.zarr"),
        correlation.digests_of(sets),
        job.corpora["real"],
        job.settings.keep_patients,
    )
    matches.save(rows, job.out / "matches.parquet")
    tables.save(job.out / "drop.tsv", matches.to_withhold(rows), matches.WITHHELD)


# -- stats and report


def _finish_stats(job: AuditJob, values: Iterator[Values]) -> None:
    del values
    found = findings.collect(
        correlation.load(job.out / "correlation.zarr"),
        matches.load(job.out / "matches.parquet"),
        job.read(),
        {role: corpus.summary for role, corpus in job.corpora.items()},
    )
    write_json(job.out / "findings.json", found)


def _finish_report(job: AuditJob, values: Iterator[Values]) -> None:
    del values
    job.update(status="complete", ended=now())
    build.build(job.out)


def _nothing(job: AuditJob) -> list[Shard]:
    """Return no shard: the step is done where the values are put together."""
    del job
    return []


INGEST = (steps.SURVEY, steps.READ, steps.WRITE, steps.SEAL)
AUDIT = (
    Phase("check", "Compare orientation and windows of the sets", 1, _nothing, _finish_check),
    Phase(
        "search", "Every query against every slice", raw.VERSION, _plan_search, _finish_search, True
    ),
    Phase("match", "List the best patients of every query", 1, _nothing, _finish_match),
    Phase("stats", "Put the numbers together", 1, _nothing, _finish_stats),
    Phase("report", "Write the report", 1, _nothing, _finish_report),
)
