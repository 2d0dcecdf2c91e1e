"""The phases of every long command, in order: read this page for the method.

INGEST   survey -> read -> write -> seal                                 files to a sealed corpus
AUDIT    check -> plant -> search -> poses -> screen -> refine     who resembles whom
         judge -> register -> stats -> report                      who resembles beyond chance
STUDY    cohorts -> train -> sample -> curve -> cross              generators of growing sets
         an AUDIT of each -> stats -> report                       how much each of them copies
MEMBERSHIP shadow -> describe -> score -> decide -> report         which real slices were used

A phase is cut into shards (`plan`), the shards are worked off anywhere (`ledger.work`), and their
values are put together (`finish`). `run_phase` is that, and all that; `flows/` sends the shards to
a cluster and tells Prefect about it, `fingerprint.audit` does them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fingerprint import ledger
from fingerprint.corpus import steps
from fingerprint.job import AuditJob
from fingerprint.ledger import Execute, Phase, Shard
from fingerprint.membership_job import MembershipJob
from fingerprint.phases import (
    check,
    cohorts,
    collect,
    cross,
    curve,
    decide,
    describe,
    ending,
    judge,
    plant,
    register,
    sample,
    score,
    search,
    shadow,
    train,
)
from fingerprint.register import listed
from fingerprint.search import candidates, raw, screen
from fingerprint.study_job import StudyJob

Watch = Callable[[str, int, int], None]
"""Told (phase, shards done, shards planned) after every shard, and once before the first."""


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


def _nothing(job: AuditJob | StudyJob | MembershipJob) -> list[Shard]:
    """Return no shard: the step is done where the values are put together."""
    del job
    return []


INGEST = (steps.SURVEY, steps.READ, steps.WRITE, steps.SEAL)
AUDIT = (
    Phase("check", "Compare orientation and windows of the sets", 1, _nothing, check.finish),
    Phase(
        "plant", "Plant copies, to learn which are found", plant.VERSION, plant.plan, plant.finish
    ),
    Phase(
        "search",
        "Every query against every slice",
        raw.VERSION,
        search.plan_raw,
        search.finish_raw,
        needs_gpu=True,
    ),
    Phase(
        "poses",
        "Turn, resize and shift every query",
        screen.POSES_VERSION,
        search.plan_poses,
        search.finish_poses,
    ),
    Phase(
        "screen",
        "Every pose against every slice",
        screen.VERSION,
        search.plan_screen,
        search.finish_screen,
        needs_gpu=True,
    ),
    Phase(
        "refine",
        "Align the best patients of every query",
        candidates.VERSION,
        search.plan_refine,
        search.finish_refine,
    ),
    Phase("judge", "Compare every image with the controls", 1, _nothing, judge.finish),
    Phase(
        "register",
        "Put the best patients of every query in correspondence",
        listed.VERSION,
        register.plan,
        register.finish,
        needs_gpu=True,
    ),
    Phase("stats", "Put the numbers together", 1, _nothing, ending.finish_stats),
    Phase("report", "Write the report", 1, _nothing, ending.finish_report),
)

STUDY = (
    Phase(
        "cohorts",
        "Choose training sets and held-out slices",
        cohorts.VERSION,
        cohorts.plan,
        cohorts.finish,
    ),
    Phase(
        "train",
        "Train a generator on each set",
        train.VERSION,
        train.plan,
        train.finish,
        needs_gpu=True,
    ),
    Phase(
        "sample",
        "Draw images from every generator",
        sample.VERSION,
        sample.plan,
        sample.finish,
        needs_gpu=True,
    ),
    Phase(
        "curve",
        "See when copying begins",
        curve.VERSION,
        curve.plan,
        curve.finish,
        needs_gpu=True,
    ),
    Phase(
        "cross",
        "Compare every training set with every generated set",
        cross.VERSION,
        cross.plan,
        cross.finish,
    ),
)
STUDY_END = (
    Phase("stats", "Put the numbers together", 1, _nothing, collect.finish_stats),
    Phase("report", "Write the report", 1, _nothing, collect.finish_report),
)

MEMBERSHIP = (
    Phase(
        "shadow",
        "Train shadow generators and the autoencoder",
        shadow.VERSION,
        shadow.plan,
        shadow.finish,
        needs_gpu=True,
    ),
    Phase(
        "describe",
        "Compare whole sets",
        describe.VERSION,
        describe.plan,
        describe.finish,
        needs_gpu=True,
    ),
    Phase(
        "score",
        "Ask every method about every slice",
        score.VERSION,
        score.plan,
        score.finish,
        needs_gpu=True,
    ),
    Phase("decide", "Choose arms and thresholds, rate them", 1, _nothing, decide.finish),
    Phase("report", "Write the report", 1, _nothing, ending.finish_membership),
)
