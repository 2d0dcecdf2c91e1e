"""Curve: when in its training a generator begins to copy, from states that were kept.

Images of each state are compared with the training set, and so are held-out slices made as small
and as smooth as they are; at the stored pose, at the size it was trained at, raw r, exactly. That
is a small audit without poses and registration: it shows when, the audit of the pool shows whether.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.job import write_json
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.measure import fdr, fisher, null
from fingerprint.models import sampling, training
from fingerprint.phases import train
from fingerprint.phases.sample import COPY, correlations
from fingerprint.search import blocks
from fingerprint.search.draw import spread
from fingerprint.search.sets import opened
from fingerprint.study_job import Point, StudyJob

VERSION = 1
IMAGES = 64  # of each state
RESAMPLES = 1_000
TOLD = "curve.json"


def plan(job: StudyJob) -> list[Shard]:
    """Cut by generator and state."""
    if job.brought or not job.settings.snapshots:
        return []
    told = train.told(job)
    return [
        _shard(job, point, int(step), sha256)
        for point in job.sizes
        for step, sha256 in told[point.name]["snapshots"].items()
    ]


def _shard(job: StudyJob, point: Point, step: int, sha256: str) -> Shard:
    s, recipe = job.settings, job.recipe(point)
    cohort, held = (store.open_corpus(job.cohort(name)) for name in (point.cohort, point.held_out))
    asked = (step, recipe.px, recipe.seed, s.q, s.controls, s.seed)
    depends = {"state": sha256, "cohort": cohort.digest, "held_out": held.digest, "asked": asked}
    weights = training.snapshot(job.model(point.name), step)
    sets = (cohort.path, cohort.digest), (held.path, held.digest)
    return ledger.shard("curve", VERSION, depends, compare, weights, sha256, *sets, asked)


def compare(
    weights: Path,
    sha256: str,
    cohort: tuple[Path, str],
    held: tuple[Path, str],
    asked: tuple[int, int, int, float, int, int],
) -> tuple[Values, Counts]:
    """Compare images of one state, and held-out slices, with the training set."""
    step, px, drawn_with, q, controls, seed = asked
    trained, strangers = opened(*cohort), opened(*held)
    rng = np.random.default_rng(seed)
    who, where = blocks.patients_of(strangers), strangers.label("region")
    drawn = spread(who, where, trained.label("region"), controls, rng)
    slices = train.images_of(trained, px)
    columns = np.unique(blocks.patients_of(trained), return_inverse=True)[1]
    images = sampling.sample(weights, sha256, 0, IMAGES, drawn_with)
    generated = best_z(images, slices, columns)
    control = best_z(train.images_of(strangers, px)[drawn], slices, columns)
    told = {"step": step, "images": len(images)} | summary(generated, control, who[drawn], q, seed)
    return {"told": ledger.as_json(told)}, {"images": len(images)}


def best_z(
    images: NDArray[np.uint8], slices: NDArray[np.uint8], patient: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return Fisher z of the best slice of each patient, float64 (images, patients)."""
    best = np.full((len(images), int(patient.max()) + 1), -np.inf)
    for first, r in correlations(images, slices):
        np.fmax.at(best.T, patient[first : first + r.shape[1]], r.numpy().T)
    return fisher.z_of(np.where(np.isfinite(best), best, np.nan))


def summary(
    generated: NDArray[np.float64],
    control: NDArray[np.float64],
    owner: NDArray[Any],
    q: float,
    seed: int,
) -> dict[str, Any]:
    """Return how much closer images are to the training set than strangers are.

    Parameters
    ----------
    generated, control : float64, shape (images, patients)
        `best_z` of images and of held-out slices.
    owner : shape (slices,)
        Whose each held-out slice is.

    Returns
    -------
    dict
        ``excess``: mean best z of images less that of held-out slices, with a 95 % interval over
        images and held-out patients; ``nearest``: share of images with r > 0.95; ``found``: images
        that Benjamini-Hochberg rejects at q, None where there are too few controls.
    """
    best, stranger = null.s_r(generated), null.s_r(control)
    k = null.ranks_of(generated.shape[1])
    score, other = (null.s_excess(z, k) for z in (generated, control)) if k else (best, stranger)
    one = np.full(len(owner), "", object)
    controls = null.Controls(other, owner, one)
    p = null.p_values(score, np.full(len(score), "", object), controls, seed).image
    low, high = _interval(best, stranger, owner, seed)
    return {
        "excess": float(best.mean() - stranger.mean()),
        "low": low,
        "high": high,
        "nearest": float((np.tanh(best) > COPY).mean()),
        "found": None if np.isnan(p).all() else int(fdr.benjamini_hochberg(p, q).sum()),
    }


def _interval(
    best: NDArray[np.float64], stranger: NDArray[np.float64], owner: NDArray[Any], seed: int
) -> tuple[float, float]:
    """Resample images and held-out patients."""
    rng = np.random.default_rng(seed)
    _, who = np.unique(owner, return_inverse=True)
    total, count = np.bincount(who, stranger), np.bincount(who)
    drawn = rng.integers(0, len(count), (RESAMPLES, len(count)))
    mine = best[rng.integers(0, len(best), (RESAMPLES, len(best)))].mean(1)
    excess = mine - total[drawn].sum(1) / count[drawn].sum(1)
    low, high = np.quantile(excess, [0.025, 0.975])
    return float(low), float(high)


def finish(job: StudyJob, values: Iterator[Values]) -> None:
    """Keep the curve of each generator, by step."""
    out: dict[str, list[Any]] = {}
    if not job.brought and job.settings.snapshots:
        told = train.told(job)
        for point in job.sizes:
            states = told[point.name]["snapshots"]
            curve = [json.loads(bytes(next(values)["told"])) for _ in states]
            out[point.name] = sorted(curve, key=lambda state: state["step"])
    write_json(job.out / TOLD, out)
