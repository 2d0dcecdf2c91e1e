"""What Prefect is told: a task run for each phase, progress, tables, and how it ended.

Prefect shows and schedules; the ledger decides what is done. Nothing that goes into its database
holds pixels, names of files or the text of an exception, which may quote them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect import Flow, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed

from fingerprint.ledger import Execute, Phase
from fingerprint.phases import Job, Watch, run_phase
from flows import state

EVERY_S = 2.0  # between two updates of a progress artifact


class Stopped(RuntimeError):  # noqa: N818 - tells Prefect that a phase ended early, and no more
    """Carries the type of what happened; the cause, with its text, stays in this process."""


def step(phase: Phase, job: Job, execute: Execute, watch: Watch) -> None:
    """Run a phase as one task run, with a progress artifact."""
    # an audit of folders ingests up to three sets; a study makes audits of several sizes
    of = getattr(job, "set_name", "") or getattr(job, "name", "")

    # a closure without parameters: jobs hold the key, and Prefect records what a task is given
    @task(name=phase.name, task_run_name="-".join(filter(None, (phase.name, of))))
    def run() -> None:
        key = "-".join(filter(None, ("progress", of, phase.name)))
        artifact = create_progress_artifact(0.0, key=key, description=phase.title)
        with sealed_lips(phase.name):
            run_phase(phase, job, execute, _both(watch, _updates(artifact)))
        update_progress_artifact(artifact, 100.0)

    run.with_options(cache_policy=NO_CACHE, persist_result=False)()


def _both(first: Watch, second: Watch) -> Watch:
    def watch(phase: str, done: int, planned: int) -> None:
        first(phase, done, planned)
        second(phase, done, planned)

    return watch


def _updates(artifact: UUID, clock: Callable[[], float] = time.monotonic) -> Watch:
    """Update a progress artifact now and then: a call costs as much as a small shard."""
    last = clock()

    def watch(phase: str, done: int, planned: int) -> None:
        nonlocal last
        if planned and clock() - last >= EVERY_S:
            last = clock()
            update_progress_artifact(artifact, 100.0 * done / planned)

    return watch


@contextmanager
def sealed_lips(what: str) -> Iterator[None]:
    """Turn an exception into one that says only of which type it was; the cause is kept."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        raise Stopped(f"{what}: {type(error).__name__}; the terminal has the reason") from error


def table(key: str, rows: Mapping[str, Any], description: str) -> None:
    """Leave a table of two columns."""
    cells = [{"what": name, "value": str(value)} for name, value in rows.items()]
    create_table_artifact(cells, key=key, description=description)


def outcome(run: Flow[..., State], request: Mapping[str, Any]) -> Any:
    """Run a flow in this process; return what its chain gave, or raise what stopped it."""
    if os.environ.get("PREFECT_HOME") == str(state.folder("prefect")):
        bury_dead_runs()
    # a heartbeat costs every run a second, and finds dead runs only through automations
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        ended = run(**request, return_state=True)
    given = ended.result(raise_on_failure=False)
    if isinstance(given, BaseException):
        raise given
    return given


def bury_dead_runs() -> int:
    """Mark what is still Running on a server of ours as crashed; return how many.

    Only for the child server: nobody else uses its database, so at its start nothing can be alive.
    """
    living = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=living))
        )
        for one in runs:
            client.set_flow_run_state(one.id, Crashed(message="its process ended"), force=True)
    return len(runs)
