"""Distances of whole sets: which images stand for each, at one number, equally smooth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fingerprint.corpus.images import enlarged
from fingerprint.corpus.store import Corpus
from fingerprint.job import AuditJob
from fingerprint.measure import distances
from fingerprint.measure.distances import Images, Sets
from fingerprint.measure.entries import Findings
from fingerprint.measure.verdict import Told
from fingerprint.models import encoders
from fingerprint.search import blocks
from fingerprint.search.draw import spread
from fingerprint.search.sets import QuerySet, images_of, mids_of

MOST = 1_000  # images of each set: features take 20 ms each
FOR_FID = 10_000
SIDE = 128


def measured(job: AuditJob, told: Told) -> Findings:
    """Return every distance between sets of this run."""
    weights = job.settings.weights
    out = distances.measured(_sets(_chosen(job, told, MOST), told, mids=True), job.settings.seed)
    if weights is None:
        return out | distances.fid(None, {}) | distances.paper_000()
    loaded = encoders.load(job.settings.encoder, weights, job.settings.weights_sha256)
    sets = _sets(_chosen(job, told, FOR_FID), told, mids=False)
    features = {
        who: encoders.encode(loaded, images).astype(np.float64)
        for who, images in sets.images.items()
    }
    made_with = encoders.provenance(loaded)
    return out | distances.fid(features, made_with) | distances.paper_000()


def _sets(chosen: dict[str, QuerySet], told: Told, *, mids: bool) -> Sets:
    read = mids_of if mids else images_of
    images = {who: of_side(read(queries)) for who, queries in chosen.items()}
    named = {who: blocks.names_of([q]) for who, q in chosen.items() if who == "generated"}
    cluster = told.table.set_index("query")["cluster"]
    group = {"generated": cluster.loc[named["generated"]].to_numpy()}
    for who in set(chosen) - {"generated"}:
        corpus = blocks.opened(chosen[who].corpus, chosen[who].digest)
        group[who] = blocks.patients_of(corpus)[chosen[who].indices]
    return Sets(images, group)


def of_side(images: Images) -> Images:
    """Enlarge pictures of a corpus of small slices to the side that features are taken at."""
    if images.shape[1] >= SIDE:
        return images
    return enlarged(images, SIDE)


def _chosen(job: AuditJob, told: Told, most: int) -> dict[str, QuerySet]:
    """Draw as many images of each set: generated, real, and controls of other patients.

    Controls that were drawn from the real corpus are compared with real slices of other patients:
    half of the patients stand for real, the others for the floor.
    """
    sets = {queries.name: queries for queries in job.against[0].sets}
    kept = told.table["query"][told.table["query_set"] == "generated"]
    generated = _some(sets["generated"], np.isin(blocks.names_of([sets["generated"]]), kept))
    real = job.corpora["real"]
    who = blocks.patients_of(real)
    pool = {"generated": generated, "real": _all(real, generated, ~blocks.is_constant(real))}
    control = sets.get("control")
    if control is not None and len(control):
        pool["control"] = control
        if not job.given:
            people = np.unique(who)
            mine = np.random.default_rng(job.settings.seed).permutation(people)[: len(people) // 2]
            pool["real"] = _some(pool["real"], np.isin(who[pool["real"].indices], mine))
            pool["control"] = _some(control, ~np.isin(who[control.indices], mine))
    pool = {name: queries for name, queries in pool.items() if len(queries)}
    n = min(most, *(len(queries) for queries in pool.values()))
    rng = np.random.default_rng(job.settings.seed)
    regions = blocks.opened(generated.corpus, generated.digest).label("region")[generated.indices]
    return {name: _drawn(queries, regions, n, rng) for name, queries in pool.items()}


def _all(corpus: Corpus, like: QuerySet, there: np.ndarray) -> QuerySet:
    at = np.flatnonzero(there)
    native = blocks.enlarged_from(blocks.opened(like.corpus, like.digest), like)
    return QuerySet("real", corpus.path, corpus.digest, at, np.full(len(at), -1), native)


def _some(queries: QuerySet, which: np.ndarray) -> QuerySet:
    return replace(queries, indices=queries.indices[which], own=queries.own[which], withheld=None)


def _drawn(queries: QuerySet, regions: np.ndarray, n: int, rng: np.random.Generator) -> QuerySet:
    corpus = blocks.opened(queries.corpus, queries.digest)
    who, where = blocks.patients_of(corpus), corpus.label("region")
    at = queries.indices
    chosen = spread(who[at], where[at], regions, n, rng)
    return _some(queries, chosen)
