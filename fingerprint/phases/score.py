"""Score: every method asks every question of every task; methods, folds and bands side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.membership import methods
from fingerprint.membership.stored import taken
from fingerprint.membership_job import TEST, MembershipJob, Question, TaskData
from fingerprint.phases import shadow

VERSION = 1
SCORES = "scores.parquet"
WHERE = (
    "task",
    "side",
    "fold",
    "role",
    "token",
    "patient",
    "used",
)  # columns before those of the arms


@dataclass(frozen=True)
class _Piece:
    """One shard and the rows that it answers."""

    task: TaskData
    part: str
    rows: NDArray[np.int64]  # of all slices of that side
    shard: Shard


def plan(job: MembershipJob) -> list[Shard]:
    """Cut by task, fold, method, part of a method, and band of asked slices."""
    return [piece.shard for piece in _pieces(job)]


def _pieces(job: MembershipJob) -> Iterator[_Piece]:
    for task in job.tasks:
        digest = shadow.weights_of_mae(job, task) if shadow.has_mae(job) else ""
        for part in task.parts:
            question = task.question(part)
            n = len(task.dev.images)
            at = np.arange(len(question.asked)) if part == TEST else np.arange(n)[_in(task, part)]
            for method in _methods(job, task, part, digest):
                yield from _bands(task, part, question, at, method)


def _in(task: TaskData, part: str) -> NDArray[np.bool_]:
    return np.asarray(task.fold == int(part))


def _methods(
    job: MembershipJob, task: TaskData, part: str, digest: str
) -> Iterator[methods.Method]:
    folder = job.models(task, part)
    for name in job.settings.methods:
        for k in methods.parts_of(name, job.settings, bool(digest)):
            of_mae = digest if name == "embedding" else ""
            yield methods.Method(name, job.settings, task.px, folder, of_mae, k)


def _bands(
    task: TaskData, part: str, question: Question, at: NDArray[np.int64], method: methods.Method
) -> Iterator[_Piece]:
    n = len(question.asked)
    step = methods.BAND if method.name in methods.BANDED else n
    for first in range(0, n, step):
        mask = (np.arange(n) >= first) & (np.arange(n) < first + step)
        asked = replace(question, asked=taken(question.asked, mask))
        depends = {"question": asked.digest} | method.depends
        one = ledger.shard("score", VERSION, depends, answer, method, asked)
        yield _Piece(task, part, at[mask], one)


def answer(method: methods.Method, question: Question) -> tuple[Values, Counts]:
    """Fit a method and score what is asked: ``arms``, JSON, and ``scores`` float64 (arms, n)."""
    scorer = method.made().fit(question.dev)
    seed = method.settings.seed
    scores = scorer(question.asked, question.generated, question.control, seed=seed)
    table = np.stack(list(scores.values()))
    if not np.isfinite(table).all():
        bad = [arm for arm, row in scores.items() if not np.isfinite(row).all()]
        raise ValueError(f"{method.name}: scores must be finite, not so those of {', '.join(bad)}")
    arms = ledger.as_json([f"{method.name}/{arm}" for arm in scores])
    return {"arms": arms, "scores": table}, {"slices": table.shape[1]}


def finish(job: MembershipJob, values: Iterator[Values]) -> None:
    """Write all scores into one table: a row for each slice, a column for each arm."""
    tables = {(task.sets.name, side): _rows(task, side) for task in job.tasks for side in SIDES}
    for piece, value in zip(_pieces(job), values, strict=True):
        table = tables[piece.task.sets.name, TEST if piece.part == TEST else "dev"]
        for arm, row in zip(json.loads(bytes(value["arms"])), value["scores"], strict=True):
            table.setdefault(arm, np.full(len(table["token"]), np.nan))[piece.rows] = row
    frame = pd.concat([pd.DataFrame(table) for table in tables.values()], ignore_index=True)
    with ledger.replacing(job.out / SCORES) as out:
        frame.to_parquet(out, index=False)


SIDES = ("dev", TEST)


def _rows(task: TaskData, side: str) -> dict[str, Any]:
    asked = task.dev if side == "dev" else task.test
    n = len(asked.images)
    known = [None] * n if asked.used is None else asked.used.tolist()
    return {
        "task": [task.sets.name] * n,
        "side": [side] * n,
        "fold": task.fold if side == "dev" else np.full(n, -1),
        "role": asked.role,
        "token": asked.token,
        "patient": asked.groups.patient,
        "used": pd.array(known, dtype="boolean"),
    }
