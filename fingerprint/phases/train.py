"""Train: a generator for each training set, each a shard that resumes from its last checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.corpus.window import fit
from fingerprint.job import write_json
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.models import training
from fingerprint.models.recipe import Recipe
from fingerprint.models.resuming import WEIGHTS
from fingerprint.search import device
from fingerprint.search.sets import opened
from fingerprint.study_job import Point, StudyJob

VERSION = 1
TOLD = "training.json"  # for the report: of each model its loss, seconds, digests
PROGRESS = "progress.json"
EVERY_S = 2.0  # between two words of how far a training is


def plan(job: StudyJob) -> list[Shard]:
    """Cut by generator: trained side by side, on as many GPUs or cores as there are."""
    return [] if job.brought else [shard_of(job, point) for point in job.points]


def shard_of(job: StudyJob, point: Point) -> Shard:
    """Return the shard that trains the generator of a point."""
    recipe, cohort = job.recipe(point), store.open_corpus(job.cohort(point.cohort))
    depends = {"cohort": cohort.digest, "recipe": asdict(recipe)}
    folder = job.model(point.name)
    one = ledger.shard("train", VERSION, depends, train, cohort.path, cohort.digest, recipe, folder)
    forget_unless_kept(job.ledger, one, folder)
    return one


def forget_unless_kept(kept: Path, one: Shard, folder: Path) -> None:
    """Let a training be done again if its weights were removed since."""
    if not (folder / WEIGHTS).exists():
        ledger.path_of(kept, one).unlink(missing_ok=True)


def train(path: Path, digest: str, recipe: Recipe, folder: Path) -> tuple[Values, Counts]:
    """Train one generator: ``trained`` says how, its weights lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    images = images_of(opened(path, digest), recipe.px)
    told = asdict(training.train(images, recipe, folder, word_in(folder))) | {
        "device": device.chosen()
    }
    return {"trained": ledger.as_json(told)}, {"steps": recipe.steps}


def word_in(folder: Path) -> training.Watch:
    """Leave word in a folder, now and then, of how far its training is."""
    said = 0.0

    def watch(done: int, planned: int, loss: float) -> None:
        nonlocal said
        if done == planned or time.monotonic() - said > EVERY_S:
            said = time.monotonic()
            write_json(folder / PROGRESS, {"done": done, "planned": planned, "loss": loss})

    return watch


def images_of(corpus: store.Corpus, px: int) -> NDArray[np.uint8]:
    """Return every slice of a corpus as area means, uint8 (n, px, px), a chunk in memory."""
    images = np.empty((corpus.n, px, px), np.uint8)
    step = corpus.chunk_slices
    for first in range(0, corpus.n, step):
        last = min(first + step, corpus.n)
        images[first:last] = fit(corpus.read(first, last), px, 0)[0]
    return images


def finish(job: StudyJob, values: Iterator[Values]) -> None:
    """Keep what the training of each generator said."""
    told = [json.loads(bytes(value["trained"])) for value in values]
    names = [] if job.brought else [point.name for point in job.points]
    write_json(job.out / TOLD, dict(zip(names, told, strict=True)))


def told(job: StudyJob) -> dict[str, Any]:
    """Read what the training of each generator said, by name; empty where none was trained."""
    return dict(json.loads((job.out / TOLD).read_bytes()))


def steps_done(job: StudyJob) -> tuple[int, int]:
    """Return how many steps all generators have made, of how many; for a bar, while they train."""
    done = steps_in(job.model(point.name) for point in job.points)
    return done, job.settings.train_steps * len(job.points)


def steps_in(folders: Iterable[Path]) -> int:
    """Return how many steps the trainings in some folders have made, by the word they leave."""
    done = 0
    for folder in folders:
        try:
            done += int(json.loads((folder / PROGRESS).read_bytes())["done"])
        except (OSError, ValueError, KeyError):
            continue  # it has not begun
    return done
