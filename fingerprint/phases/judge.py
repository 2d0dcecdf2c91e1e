"""Judge: every query compared with the controls, before anything is registered or shown.

Leaves ``queries.parquet``, one row for each query: scores, p-values, lists (METHOD.md, 3.4 to 3.8).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from fingerprint.job import AuditJob
from fingerprint.ledger import Values, replacing
from fingerprint.measure import hygiene as measured
from fingerprint.measure import judged
from fingerprint.measure.judged import Asked
from fingerprint.phases import hygiene
from fingerprint.search import correlation
from fingerprint.search.blocks import patients_of
from fingerprint.search.sets import opened

FILE = "queries.parquet"


def finish(job: AuditJob, values: Iterator[Values]) -> None:
    """Score, compare, list; refuse controls that leak."""
    del values
    if job.itself:
        return
    matrices, asked = matrices_of(job), asked_of(job)
    real = matrices["real"]
    leaks = [
        *(measured.certain(job.corpora["real"], job.corpora["controls"]) if job.given else []),
        *measured.near(real, asked.owner),
    ]
    left_out = hygiene.judge(job, leaks, suspected=True)
    hygiene.note(job, leaks, left_out)
    s = job.settings
    control, generated = matrices.get("control"), matrices.get("generated")
    scores = judged.scored(real, judged.image_of(real, s.image))
    found = judged.table(
        real,
        scores,
        asked,
        judged.differences(real, control),
        judged.repeated(real, control, generated, s.image),
        left_out=np.array(left_out, object),
        q=s.q,
        seed=s.seed,
    )
    with replacing(job.out / FILE) as out:
        found.to_parquet(out, index=False)
    job.update(judged={"spacings": scores.spacings, "left_out": left_out})


def matrices_of(job: AuditJob) -> dict[str, xr.Dataset]:
    """Open every matrix of the run."""
    return {a.name: correlation.load(job.out / "correlation.zarr", a.name) for a in job.against}


def asked_of(job: AuditJob) -> Asked:
    """Return whose slice each row of the matrix is, and its region; "" where that is nobody."""
    owner, region = [], []
    for queries in job.against[0].sets:
        corpus = opened(queries.corpus, queries.digest)
        who = patients_of(corpus) if queries.name != "generated" else corpus.label("participant")
        owner.append(who[queries.indices])
        region.append(corpus.label("region")[queries.indices])
    return Asked(np.concatenate(owner), np.concatenate(region))


def load(job: AuditJob) -> pd.DataFrame:
    """Read ``queries.parquet``."""
    return pd.read_parquet(job.out / FILE)
