"""Shadow: what methods need trained: shadow generators (003), and the masked autoencoder (002).

A shadow generator for every question, on the slices of it that were not used; an autoencoder for
every task, on all images of DEV, used and not used alike: it never sees a label.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fingerprint import ledger
from fingerprint.job import write_json
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.membership import methods
from fingerprint.membership.folders import GENERATED
from fingerprint.membership.shadow import Shadow, small
from fingerprint.membership.stored import Stored, whole
from fingerprint.membership_job import MembershipJob, TaskData
from fingerprint.models import training
from fingerprint.models.recipe import Recipe
from fingerprint.phases import train
from fingerprint.search import device

VERSION = 1
TOLD = "training.json"  # of each model its loss, seconds, digest


@dataclass(frozen=True)
class _Training:
    """One model: what it is called, where it lies, in how many steps, and its shard."""

    name: str
    folder: Path
    steps: int
    shard: Shard


def plan(job: MembershipJob) -> list[Shard]:
    """Cut by model: trained side by side."""
    return [one.shard for one in _trainings(job)]


def _trainings(job: MembershipJob) -> list[_Training]:
    out: list[_Training] = []
    for task in job.tasks:
        if "texture" in job.settings.methods:
            out += [one for part in task.parts for one in _shadows(job, task, part)]
        if has_mae(job):
            out.append(_mae(job, task))
    return out


def has_mae(job: MembershipJob) -> bool:
    """Whether an autoencoder is trained."""
    return "embedding" in job.settings.methods and job.settings.mae_steps > 0


def _shadows(job: MembershipJob, task: TaskData, part: str) -> Iterator[_Training]:
    slices, folder = task.question(part).control, job.models(task, part)
    made = (methods.shadow, methods.same_kind)
    for shadow in (make(job.settings, task.px, folder) for make in made):
        if shadow is None:
            continue
        name = f"{task.sets.name}/{part}/{shadow.folder.name}"
        depends = {"slices": slices.digest, "recipe": asdict(shadow.recipe), "n": shadow.count}
        # by name too: tasks may share their slices, and each looks for the model in its own folder
        one = ledger.shard(
            "shadow", VERSION, depends | {"name": name}, train_shadow, shadow, slices
        )
        train.forget_unless_kept(job.ledger, one, shadow.folder)
        yield _Training(name, shadow.folder, shadow.recipe.steps, one)


def _mae(job: MembershipJob, task: TaskData) -> _Training:
    recipe, folder = methods.mae_recipe(job.settings, task.px), job.models(task, methods.MAE)
    corpora = task.corpora["dev"]
    images = whole([corpora[GENERATED], *(corpora[r] for r in corpora if r != GENERATED)], task.px)
    name = f"{task.sets.name}/{methods.MAE}"
    depends = {"images": images.digest, "recipe": asdict(recipe), "name": name}
    one = ledger.shard("shadow", VERSION, depends, train_mae, recipe, folder, images)
    train.forget_unless_kept(job.ledger, one, folder)
    return _Training(name, folder, recipe.steps, one)


def steps(job: MembershipJob) -> Callable[[], tuple[int, int]]:
    """Return what says how many steps all models have made, of how many; for a bar."""
    all_of_them = _trainings(job)
    planned = sum(one.steps for one in all_of_them)
    return lambda: (train.steps_in(one.folder for one in all_of_them), planned)


def train_shadow(shadow: Shadow, slices: Stored) -> tuple[Values, Counts]:
    """Train a shadow generator and draw its images, which lie in its folder."""
    shadow.images(slices, train.word_in(shadow.folder))
    told = shadow.told | {"device": device.chosen(), "images": len(slices)}
    return {"trained": ledger.as_json(told)}, {"steps": shadow.recipe.steps}


def train_mae(recipe: Recipe, folder: Path, images: Stored) -> tuple[Values, Counts]:
    """Train the masked autoencoder."""
    folder.mkdir(parents=True, exist_ok=True)
    told = asdict(training.train(small(images, recipe.px), recipe, folder, train.word_in(folder)))
    told |= {"device": device.chosen(), "images": len(images)}
    return {"trained": ledger.as_json(told)}, {"steps": recipe.steps}


def finish(job: MembershipJob, values: Iterator[Values]) -> None:
    """Keep what every training said."""
    names = [one.name for one in _trainings(job)]
    told = [json.loads(bytes(np.asarray(value["trained"]))) for value in values]
    write_json(job.out / TOLD, dict(zip(names, told, strict=True)))


def weights_of_mae(job: MembershipJob, task: TaskData) -> str:
    """Return the digest of the trained autoencoder; "" where there is none."""
    told: dict[str, Any] = json.loads((job.out / TOLD).read_bytes())
    return str(told.get(f"{task.sets.name}/{methods.MAE}", {}).get("weights", ""))
