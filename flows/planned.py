"""What a study would do, before it does anything: its sets, its trainings, its audits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fingerprint.corpus import store
from fingerprint.corpus.counted import counted, line
from fingerprint.phases.sample import wanted
from fingerprint.settings import Settings
from fingerprint.study_job import StudyJob
from flows import forecast


def of_study(corpus: str, settings: Settings, brought: bool, cluster: str) -> dict[str, Any]:
    """Return the plan of a study, a flat table: nothing is written.

    Trainings are counted, not timed: what a step costs depends on the network and on the GPU.

    Raises
    ------
    ValueError
        Not a corpus, or one that does not hold such sets.
    """
    if not store.is_corpus(Path(corpus)):
        raise ValueError(f"study: {corpus} is no corpus; make one with ingest, or leave --dry-run")
    nowhere = Path("brought") if brought else None
    job = StudyJob(Path("planned"), Path(corpus), settings, nowhere)
    told: dict[str, Any] = {"cluster": cluster}
    for name, kind, rows in job.sets_of_slices():
        told[f"{kind}.{name}"] = line(counted(job.source.slices, rows))
    told["bytes.cohorts"] = sum(len(rows) for *_, rows in job.sets_of_slices()) * _bytes(job)
    if not brought:
        s, models = settings, job.points
        told["trainings"] = (
            f"{len(models)} of {s.generator}, {s.train_steps:,} steps of {s.train_batch} images "
            f"of {job.recipe(models[0]).px} px"
        )
        told["images.drawn"] = sum(wanted(job, point) for point in models)
    drawn = job.audited_with().sample
    for point in job.sizes:
        sizes = (job.cohorts.training[point.asked], job.cohorts.held_out[point.asked])
        real, held = (str(len(rows)) for rows in sizes)
        plan = forecast.of_audit(real, str(drawn), held, settings, cluster=cluster)
        told[f"hours.audit.{point.name}"] = plan["hours.total"]
    told["hours.audits"] = float(np.sum([told[f"hours.audit.{p.name}"] for p in job.sizes]))
    return told | {f"note.{k}": note for k, note in enumerate(job.cohorts.notes, 1)}


def _bytes(job: StudyJob) -> int:
    return job.source.size_px**2
