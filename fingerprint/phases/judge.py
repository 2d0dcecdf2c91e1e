"""Judge: every query compared with the controls, before anything is registered or shown.

Leaves ``queries.parquet``, one row for each query: scores, p-values, lists (METHOD.md, 3.4 to 3.8).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fingerprint.job import AuditJob
from fingerprint.ledger import Values, replacing
from fingerprint.measure import hygiene as measured
from fingerprint.measure import judged, rows
from fingerprint.measure.judged import Asked, Labels
from fingerprint.measure.verdict import Held, Told
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
    scores = judged.scored(real, judged.image_of(real, s.image), s.score)
    found = judged.table(
        real,
        scores,
        asked,
        judged.differences(real, control, np.array(left_out, object)),
        judged.repeated(real, control, generated, s.image),
        left_out=np.array(left_out, object),
        q=s.q,
        seed=s.seed,
    )
    with replacing(job.out / FILE) as out:
        found.to_parquet(out, index=False)
    job.update(judged={"score": scores.name, "ranks": scores.ranks, "left_out": left_out})


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


def told_of(job: AuditJob) -> Told:
    """Return what was judged, with what was planted."""
    table, planted, run = load(job), None, job.read()["judged"]
    if (job.out / "canaries.tsv").exists() and job.plants:
        listed = pd.read_csv(job.out / "canaries.tsv", sep="\t", dtype={"participant": str})
        truth = listed.rename(columns={"participant": "source"}).drop(columns="slice")
        planted = truth.merge(table, on="query", how="left", validate="one_to_one")
    s = job.settings
    out = tuple(run["left_out"])
    return Told(table, planted, run["score"], int(run["ranks"]), out, job.given, s.q, s.seed)


def held_of(job: AuditJob, told: Told) -> Held | None:
    """Return z of the judged images with all patients, T and H; None without held-out patients.

    Of very many images as many are drawn as fit into memory.
    """
    if not job.given:
        return None
    matrices = matrices_of(job)
    real, control = matrices["real"], matrices["control"]
    kept = ~np.isin(control["patient"].values.astype(object), told.left_out)
    patient = np.concatenate([real["patient"].values, control["patient"].values[kept]])
    trained = np.arange(len(patient)) < real.sizes["patient"]
    stage = judged.stage_of_all(real)
    names = np.array([str(name) for name in real["query"].values])
    mine = np.flatnonzero(rows.of_set(real, "generated"))
    most = max(1, judged.CELLS // len(patient))
    if len(mine) > most:
        mine = np.sort(np.random.default_rng(job.settings.seed).choice(mine, most, replace=False))
    both = [judged.z_of_all(matrix.isel(query=mine), stage) for matrix in (real, control)]
    z = np.concatenate([both[0], both[1][:, kept]], axis=1)
    there = np.isfinite(z).any(axis=0)  # a patient of whom every slice has one grey level has none
    z, trained, patient = z[:, there], trained[there], patient[there]
    most = max(int(trained.sum()), int((~trained).sum()))
    sound = np.isfinite(z).sum(axis=1) > most
    if trained.all() or not trained.any() or not sound.any():
        return None
    strata = _strata(job, patient, trained)
    return Held(z[sound], names[mine][sound], trained, patient.astype(object), strata)


def _strata(job: AuditJob, patient: Labels, trained: NDArray[np.bool_]) -> Labels:
    """Return the sex of each patient where all are known and each sex has both labels; else one."""
    sex: dict[str, str] = {}
    for role in ("real", "controls"):
        corpus = job.corpora[role]
        sex |= dict(zip(patients_of(corpus), corpus.label("sex"), strict=True))
    found = np.array([sex.get(str(name), "") for name in patient], object)
    both = all(len(np.unique(trained[found == name])) == 2 for name in np.unique(found))
    return found if both and "" not in found else np.full(len(patient), "", object)


def load(job: AuditJob) -> pd.DataFrame:
    """Read ``queries.parquet``."""
    return pd.read_parquet(job.out / FILE)
