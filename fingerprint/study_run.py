"""A study as a plain loop: its phases, and between them an audit for each size.

The same phases run as a flow; what is done already is not done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from fingerprint import ledger, phases
from fingerprint.corpus import identity, ingest
from fingerprint.job import AuditJob, audit_job, digest_of_run, read_run
from fingerprint.measure import study
from fingerprint.phases import train
from fingerprint.report.study import build as study_page
from fingerprint.run import (
    Ingest,
    Outcome,
    Run,
    leave_report,
    rebuilt,
    run_audit,
    silent,
    steps_shown,
)
from fingerprint.study_job import DOCUMENT, Point, StudyJob
from fingerprint.verify import seal_run


@dataclass(frozen=True)
class Study(Outcome):
    """What a study left in its folder."""

    DOCUMENT: ClassVar[str] = DOCUMENT

    @property
    def exit_code(self) -> int:
        """Return 10 if an audit found something, 0 if none did, 4 if it is not complete."""
        return study.exit_code(self.findings) if self.complete else 4


def run_cohorts(
    job: StudyJob,
    execute: ledger.Execute = ledger.in_this_process,
    watch: phases.Watch = silent,
    step: phases.Step = phases.run_phase,
) -> None:
    """Choose and seal the training sets and the held-out slices, and no more."""
    step(phases.STUDY[0], job, execute, watch)


def run_study(
    job: StudyJob,
    execute: ledger.Execute = ledger.in_this_process,
    watch: phases.Watch = silent,
    step: phases.Step = phases.run_phase,
) -> Study:
    """Run the phases of a study and its audits; a page is left even when one fails."""
    try:
        for phase in phases.STUDY:
            trains = phase.name == "train" and job.brought is None
            with steps_shown(partial(train.steps_done, job), watch) if trains else nullcontext():
                step(phase, job, execute, watch)
        for point in job.sizes:
            audited(job, point, execute, watch, step)
        for phase in phases.STUDY_END:
            step(phase, job, execute, watch)
        seal_run(job.out)
    except BaseException:
        leave_report(job, study_page.build)
        raise
    return Study(job.out)


def audited(
    job: StudyJob,
    point: Point,
    execute: ledger.Execute,
    watch: phases.Watch,
    step: phases.Step,
) -> Run:
    """Audit the pool of one size against its training set, unless that is done."""
    out, settings = job.audit(point.name), job.audited_with()
    real, pool = job.cohort(point.cohort), job.pool(point.name)
    # copies of the smallest set are its own generated images
    known = point.cohort != job.sizes[0].cohort and (job.positives / "zarr.json").exists()
    positives = job.positives if known else None
    held = job.cohort(point.held_out)
    wanted = AuditJob(out, real, pool, held, settings, positives, point.name)
    done = Run(out)
    if (out / "run.json").exists() and done.complete:
        if read_run(out)["run"] == digest_of_run(wanted):
            return done
    again = audit_job(
        real, pool, held, out, settings, positives=positives, name=point.name, update=True
    )
    return run_audit(again, execute, watch, step)


def bring(job: StudyJob, key_file: Path | None, run: Ingest) -> None:
    """Ingest the images that the user's own generators made: a folder for each size.

    Raises
    ------
    ValueError
        A size has no folder.
    """
    if job.brought is None:
        return
    folders = brought_for(job.brought, [point.asked for point in job.sizes])
    key = identity.load_key(key_file, create=False)
    settings = job.settings.model_copy(
        update={"size_px": job.source.size_px, "chunk_slices": job.source.chunk_slices}
    )
    for point in job.sizes:
        run(
            ingest.ingest_job(
                [folders[point.asked]],
                job.pool(point.name),
                set_name="generated",
                settings=settings,
                key=key,
            )
        )


def brought_for(folder: Path, sizes: list[int]) -> Mapping[int, Path]:
    """Return the folder of images of each size: it is named by it, ``60`` or ``n60``."""
    found = {}
    for size in sizes:
        there = [folder / name for name in (str(size), f"n{size}") if (folder / name).is_dir()]
        if len(there) != 1:
            raise ValueError(
                f"--generated: {folder} must hold a folder {size} (or n{size}) with the images of "
                f"the generator that was trained on cohorts/n{size}; found {len(there)}"
            )
        found[size] = there[0]
    return found


def rebuild_report(out: Path, *, without_real_images: bool = False) -> tuple[Path, list[str]]:
    """Write the page of a finished or broken study again; see `run.rebuild_report`."""
    write = partial(study_page.build, without_real_images=without_real_images)
    return rebuilt(Study(out), write)
