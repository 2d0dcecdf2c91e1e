"""Sample: images of every generator, from its weights and a seed alone, sealed as corpora.

A pool is larger than what is audited: 240 images are drawn of it without replacement, as in paper
000. Images of the smallest set's generator that copy one of its slices are sealed once more, with
the patient they show: they are planted in the audits of larger sets (METHOD.md, section 3.12).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint import ledger
from fingerprint.corpus import made, store
from fingerprint.corpus.images import enlarged
from fingerprint.corpus.scan import sums
from fingerprint.job import write_json
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.models import sampling
from fingerprint.models.resuming import WEIGHTS
from fingerprint.phases import train
from fingerprint.search import blocks
from fingerprint.search.correlate import correlate, queries_from, slices_from
from fingerprint.study_job import Point, StudyJob

VERSION = 1
AT_ONCE = 128  # images in one shard
SLICES = 4096  # that images are compared with at a time
COPY = 0.95  # r with a slice that its generator was trained on, above which an image is a copy
MOST_COPIES = 29  # all of them found: 95 % confident of more than nine in ten
TOLD = "sampling.json"


def plan(job: StudyJob) -> list[Shard]:
    """Cut the pools into shards of a few images."""
    if job.brought:
        return []
    told = train.told(job)
    return [one for point in job.points for one in shards_of(job, point, told[point.name])]


def shards_of(job: StudyJob, point: Point, trained: dict[str, Any]) -> list[Shard]:
    """Return the shards that draw the pool of a point."""
    weights = job.model(point.name) / WEIGHTS
    return [
        _shard("sample", weights, trained["weights"], first, count, job.recipe(point).seed)
        for first, count in _cuts(wanted(job, point))
    ]


def wanted(job: StudyJob, point: Point) -> int:
    """Return how many images are drawn: a pool; for a set of Fig. 4 as many as it holds."""
    return job.settings.pool if point.held_out else max(point.asked, job.audited_with().sample or 0)


def _cuts(n: int) -> list[tuple[int, int]]:
    return [(first, min(AT_ONCE, n - first)) for first in range(0, n, AT_ONCE)]


def _shard(phase: str, weights: Path, sha256: str, first: int, count: int, seed: int) -> Shard:
    depends = {"weights": sha256, "first": first, "count": count, "seed": seed}
    return ledger.shard(phase, VERSION, depends, draw, weights, sha256, first, count, seed)


def draw(weights: Path, sha256: str, first: int, count: int, seed: int) -> tuple[Values, Counts]:
    """Draw some images of a pool, uint8 (count, px, px); no slice is read."""
    return {"images": sampling.sample(weights, sha256, first, count, seed)}, {"images": count}


def finish(job: StudyJob, values: Iterator[Values]) -> None:
    """Seal every pool, and the copies of the smallest set."""
    if job.brought:
        return
    told = train.told(job)
    out = {}
    for point in job.points:
        n = wanted(job, point)
        images = np.concatenate([next(values)["images"] for _ in _cuts(n)])
        made_with = {"weights": told[point.name]["weights"], "seed": job.recipe(point).seed}
        out[point.name] = {"pool": n} | made_with
        seal(job.pool(point.name), job.source, images, made_with)
        if point == job.sizes[0]:
            seal_copies(job, point, images, made_with)
    write_json(job.out / TOLD, out)


def seal(
    path: Path, like: store.Corpus, images: NDArray[np.uint8], made_with: dict[str, Any]
) -> store.Corpus:
    """Seal images of a generator as a corpus; weights and seed are its provenance."""
    made_with = made_with | {"generated": len(images), "size_px": like.size_px}
    tokens = [_token(made_with, k) for k in range(len(images))]
    note = f"{len(images)} images of a generator with the weights {made_with['weights'][:12]}"
    return made.write_images(path, "generated", images, tokens, like.head, made_with, note=note)


def _token(made_with: dict[str, Any], k: int) -> str:
    text = f"{made_with['weights']} {made_with['seed']} {k}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# -- what the generator of the smallest set copied


def seal_copies(
    job: StudyJob, point: Point, images: NDArray[np.uint8], made_with: dict[str, Any]
) -> None:
    """Seal images that are copies of slices of the smallest set, as many as a limit needs."""
    cohort = store.open_corpus(job.cohort(point.cohort))
    r, at = nearest(images, train.images_of(cohort, images.shape[-1]))
    copies = np.flatnonzero(r > COPY)[:MOST_COPIES]
    job.update(copies={"images": len(images), "copies": int((r > COPY).sum())})
    made_with = made_with | {"copies": copies.tolist()}
    if not len(copies) or made.is_made(job.positives, made_with):
        return
    side, source = cohort.size_px, at[copies]
    large = enlarged(images[copies], side)
    tokens = [_token(made_with, int(k)) for k in copies]
    kept = ("z_mm", "sex", "age", "region", "region_confidence")
    labels = pd.DataFrame({name: cohort.label(name)[source] for name in kept}).assign(
        participant=blocks.patients_of(cohort)[source],
        scan=cohort.label("token")[source],  # which slice it copies
        series=tokens,
        token=tokens,
        native_px=images.shape[-1],
    )
    chunks = made.in_chunks(large, cohort.chunk_slices)
    made.write(job.positives, "canary", chunks, labels, cohort.head, made_with)


def correlations(
    images: NDArray[np.uint8], slices: NDArray[np.uint8]
) -> Iterator[tuple[int, Tensor]]:
    """Yield r of all images with some slices at a time, exact: the first of these, and r (m, k)."""
    queries = queries_from(images, *sums(images))
    for first in range(0, len(slices), SLICES):
        part = slices[first : first + SLICES]
        yield first, correlate(queries, slices_from(part, *sums(part)))


def nearest(
    images: NDArray[np.uint8], slices: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the highest raw r of each image over slices, and which slice has it; exact.

    Parameters
    ----------
    images : uint8, shape (m, px, px)
    slices : uint8, shape (n, px, px)

    Returns
    -------
    r : float64, shape (m,)
        -1 for an image of one grey level.
    at : int64, shape (m,)
    """
    best, at = (
        torch.full((len(images),), -1.0, dtype=torch.float64),
        torch.zeros(len(images)).long(),
    )
    for first, r in correlations(images, slices):
        top, where = r.nan_to_num(-1.0).max(1)
        at = torch.where(top > best, where + first, at)
        best = torch.maximum(top, best)
    return best.numpy(), at.numpy()
