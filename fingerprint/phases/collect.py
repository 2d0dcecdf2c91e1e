"""Collect: what every step of a study left, put together into its findings and its page."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fingerprint.corpus import store
from fingerprint.corpus.counted import counted
from fingerprint.job import now, write_json
from fingerprint.ledger import Values
from fingerprint.measure import study
from fingerprint.measure.distances import FEATURES
from fingerprint.phases import cross, curve, sample, train
from fingerprint.report.study import build as study_page
from fingerprint.study_job import Point, StudyJob

# as a page names them
SHORT = {"patients_women": "women", "slices_c1": "c1", "slices_c2": "c2", "slices_c3": "c3"}


def finish_stats(job: StudyJob, values: Iterator[Values]) -> None:
    """Put every number of the study into one flat dictionary."""
    del values
    trained, sampled, curves = (
        _read(job.out / name) for name in (train.TOLD, sample.TOLD, curve.TOLD)
    )
    points = [
        study.Point(
            name=point.name,
            asked=point.asked,
            seed=point.run,
            cohort=_cohort(job, point),
            training=_training(job, point, trained.get(point.name)),
            sampling=sampled.get(point.name),
            curve=curves.get(point.name, []),
            findings=_read(job.audit(point.name) / "findings.json") or None,
            audit_seconds=_seconds(job.audit(point.name)),
        )
        for point in job.sizes
    ]
    write_json(job.out / "findings.json", study.collect(job.read(), points, _crossed(job)))


def finish_report(job: StudyJob, values: Iterator[Values]) -> None:
    """Write the page of a study that is complete."""
    del values
    job.update(status="complete", ended=now())
    study_page.build(job.out)


def _cohort(job: StudyJob, point: Point) -> dict[str, Any]:
    """Describe a training set, and the held-out slices that it is compared with."""
    described: dict[str, Any] = {}
    for prefix, name in (("", point.cohort), ("held_out.", point.held_out)):
        labels = store.open_corpus(job.cohort(name)).slices
        for key, value in counted(labels, np.arange(len(labels))).items():
            known = None if math.isnan(value) else value
            described[prefix + SHORT.get(key, key)] = known
    return described


def _training(job: StudyJob, point: Point, told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if told is None:
        return None
    recipe = job.recipe(point)
    return {"generator": recipe.generator, "px": recipe.px, "steps": recipe.steps} | dict(told)


def _crossed(job: StudyJob) -> study.Crossed | None:
    told = _read(job.out / cross.TOLD)
    if not told:
        return None
    names = (*FEATURES, "fid")
    matrices = {name: told.get(name, told.get(f"{name}.reason")) for name in names}
    return study.Crossed(matrices, told["images"])


def _seconds(out: Path) -> float | None:
    """Return how long an audit took, from its first start to its end."""
    run = _read(out / "run.json")
    if not run.get("ended"):
        return None
    began, ended = (datetime.datetime.fromisoformat(run[key]) for key in ("started", "ended"))
    return (ended - began).total_seconds()


def _read(path: Path) -> dict[str, Any]:
    """Read a document; an empty one where a step was not asked for."""
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
