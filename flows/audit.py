"""Does any generated image show a real patient? The audit as a Prefect flow."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from fingerprint.job import read_run
from fingerprint.measure.findings import COPIES_FOUND, levels_found
from fingerprint.run import Run
from flows import chain, progress, tell


@flow(name="audit", persist_result=False)
def audit(
    real: str,
    generated: str,
    out: str,
    controls: str | None = None,
    settings_file: str | None = None,
    knobs: dict[str, Any] | None = None,
    key_file: str | None = None,
    cluster: str = "local",
    update: bool = False,
    dated: bool = False,
) -> State:
    """Compare every generated image with every real slice; see `flows.chain.audit_sets`."""
    with tell.sealed_lips("audit"), progress.shown() as watch:
        done = chain.audit_sets(
            real,
            generated,
            out,
            controls=controls,
            settings_file=settings_file,
            knobs=knobs,
            key_file=key_file,
            update=update,
            dated=dated,
            how=chain.How(cluster, watch, tell.step),
        )
        _leave_tables(done.run)
    if done.refused:
        return Failed(name="TooManyRejected", message="too many inputs were rejected", data=done)
    if done.run.exit_code == COPIES_FOUND:
        where = ", ".join(levels_found(done.run.findings))
        return Completed(name="CopiesFound", message=f"something was found: {where}", data=done)
    return Completed(message="no list of findings holds anything", data=done)


def _leave_tables(run: Run) -> None:
    record = read_run(run.out)
    shards = {
        name: f"{phase['done']} of {phase['planned']}" for name, phase in record["phases"].items()
    }
    tell.table("shards", shards, "Shards done, by phase")
    verdict = {
        "verdict": "copies found" if run.exit_code == COPIES_FOUND else "none found",
        "report": run.report.resolve(),
        "run": record["run"],
    }
    numbers = {name: run.findings.get(name) for name in chain.FIRST_PAGE}
    tell.table("verdict", verdict | numbers, "What was found, and where the report is")
