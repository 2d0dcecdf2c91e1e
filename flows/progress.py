"""How far a command is: one bar per phase with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY_S = 10.0  # between two plain lines of one phase

log = logging.getLogger(__name__)

Watch = Callable[[str, int, int], None]


@contextmanager
def shown() -> Iterator[Watch]:
    """Show progress while the context lasts: bars on a terminal, else log lines."""
    if sys.stderr.isatty():
        with bars() as watch:
            yield watch
    else:
        yield lines(log.info)


@contextmanager
def bars() -> Iterator[Watch]:
    """One bar per phase; a phase of the same name that starts again gets a new one."""
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        rows: dict[str, TaskID] = {}

        def watch(phase: str, done: int, planned: int) -> None:
            if done == 0 or phase not in rows:
                _fill(progress, rows.values())
                rows[phase] = progress.add_task(phase, total=planned or None)
            progress.update(rows[phase], completed=done)

        yield watch
        _fill(progress, rows.values())


def _fill(progress: Progress, rows: Iterable[TaskID]) -> None:
    """Show phases as done; one without shards moves to and fro until then."""
    for row in rows:
        total = progress.tasks[row].total or 1
        progress.update(row, total=total, completed=total)


def lines(say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Watch:
    """Say a line when a phase starts, every `EVERY_S` seconds, and when its shards are done."""
    began: dict[str, float] = {}
    told: dict[str, float] = {}

    def watch(phase: str, done: int, planned: int) -> None:
        now = clock()
        if done == 0 or phase not in began:
            began[phase] = told[phase] = now
            say(f"{phase}: {done} of {planned}" if planned else phase)
        elif done == planned or now - told[phase] >= EVERY_S:
            told[phase] = now
            left = (now - began[phase]) / done * (planned - done)
            say(f"{phase}: {done} of {planned}" + (f", {left:.0f} s left" if left else ""))

    return watch
