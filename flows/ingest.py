"""Files to a sealed corpus, as a Prefect flow: one task run per phase, one table at the end."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import chain, progress, tell


@flow(name="ingest", persist_result=False)
def ingest(
    sources: list[str],
    out: str,
    set_name: str = "real",
    participants: str | None = None,
    replace: bool = False,
    settings_file: str | None = None,
    knobs: dict[str, Any] | None = None,
    key_file: str | None = None,
    cluster: str = "local",
) -> State:
    """Turn files into a sealed corpus; see `flows.chain.ingest_files`."""
    with tell.sealed_lips("ingest"), progress.shown() as watch:
        done = chain.ingest_files(
            sources,
            out,
            set_name=set_name,
            participants=participants,
            replace=replace,
            settings_file=settings_file,
            knobs=knobs,
            key_file=key_file,
            how=chain.How(cluster, watch, tell.step),
        )
        tell.table(f"data-{set_name}", done.corpus.summary, f"The {set_name} set, as ingested")
    if done.refused:
        return Failed(name="TooManyRejected", message="too many inputs were rejected", data=done)
    return Completed(message=f"{done.corpus.n} slices", data=done)
