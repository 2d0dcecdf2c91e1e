"""How much do generators of growing training sets copy? The study of paper 000 as a Prefect flow.

Training and sampling of all sizes and sets fan out over the workers of the cluster; the audits
follow one another, each fanned out itself. What is done is in the ledger: running it again goes on.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from fingerprint.measure.findings import COPIES_FOUND
from flows import chain, progress, tell


@flow(name="study", persist_result=False)
def study(
    corpus: str,
    out: str,
    generated: str | None = None,
    only_cohorts: bool = False,
    settings_file: str | None = None,
    knobs: dict[str, Any] | None = None,
    key_file: str | None = None,
    cluster: str = "local",
    dated: bool = False,
) -> State:
    """Train on growing sets, sample, audit, collect; see `flows.chain.study_corpus`."""
    with tell.sealed_lips("study"), progress.shown() as watch:
        done = chain.study_corpus(
            corpus,
            out,
            generated=generated,
            only_cohorts=only_cohorts,
            settings_file=settings_file,
            knobs=knobs,
            key_file=key_file,
            dated=dated,
            how=chain.How(cluster, watch, tell.step),
        )
        tell.table("study", chain.told_of(done), "What was found at each size")
    if done.refused:
        return Failed(name="TooManyRejected", message="too many inputs were rejected", data=done)
    if not only_cohorts and done.study.exit_code == COPIES_FOUND:
        return Completed(name="CopiesFound", message="copies were found at a size", data=done)
    return Completed(message="done", data=done)
