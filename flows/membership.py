"""Which real slices was a generator trained on? The published systems and ours as a Prefect flow.

Trainings, methods, folds and bands of slices fan out over the workers of the cluster; what is done
is in the ledger, and running it again goes on.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import asked, chain, progress, tell


@flow(name="membership", persist_result=False)
def membership(
    dev: str,
    test: str,
    out: str,
    settings_file: str | None = None,
    knobs: dict[str, Any] | None = None,
    key_file: str | None = None,
    cluster: str = "local",
    dated: bool = False,
) -> State:
    """Score, choose on DEV, rate, answer; see `flows.chain.membership_of`."""
    with tell.sealed_lips("membership"), progress.shown() as watch:
        done = chain.membership_of(
            dev,
            test,
            out,
            settings_file=settings_file,
            knobs=knobs,
            key_file=key_file,
            dated=dated,
            how=chain.How(cluster, watch, tell.step),
        )
        tell.table("membership", asked.told_of(done.run), "How well each method tells")
    if done.refused:
        return Failed(name="TooManyRejected", message="too many inputs were rejected", data=done)
    return Completed(message="done", data=done)
