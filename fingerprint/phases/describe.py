"""Describe: what the sets of every task look like, and what a shadow generator is told apart by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fingerprint import ledger
from fingerprint.job import write_json
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.membership import describe, methods, texture
from fingerprint.membership.folders import GENERATED
from fingerprint.membership.shadow import Shadow, small
from fingerprint.membership.stored import Stored, taken, whole
from fingerprint.membership_job import TEST, MembershipJob, TaskData

VERSION = 1
TOLD = "described.json"
Named = tuple[str, Shard]


def plan(job: MembershipJob) -> list[Shard]:
    """Cut by task and side; and the check of paper 003, by task."""
    return [shard for _, shard in _named(job)]


def _named(job: MembershipJob) -> list[Named]:
    out = [_side(job, task, side) for task in job.tasks for side in ("dev", TEST)]
    if "texture" in job.settings.methods:
        out += [_check(job, task) for task in job.tasks]
    return out


def _side(job: MembershipJob, task: TaskData, side: str) -> Named:
    s = job.settings
    sets = {role: whole([corpus], task.px) for role, corpus in task.corpora[side].items()}
    halves = None
    if side == "dev":
        others = ~np.asarray(task.dev.used)
        halves = [taken(task.dev.images, others & (task.fold % 2 == k)) for k in (0, 1)]
    depends = s.matters_to("compare_px", "table_slices", "seed") | {
        "sets": {name: images.digest for name, images in sets.items()},
        "halves": [half.digest for half in halves or ()],
    }
    args = (sets, halves, min(s.compare_px, task.px), s.table_slices, s.seed)
    one = ledger.shard("describe", VERSION, depends, described, *args)
    return f"{task.sets.name}/{side}", one


def described(
    sets: Mapping[str, Stored], halves: list[Stored] | None, px: int, most: int, seed: int
) -> tuple[Values, Counts]:
    """Return Table 1 of paper 001 and Figure 1 of paper 002 of one side of a task."""
    small_ones = {name: describe.reduced(images, px, most, seed) for name, images in sets.items()}
    real = [images for name, images in sets.items() if name != GENERATED]
    shares = {
        "generated": describe.histogram(sets[GENERATED]),
        "real": describe.histogram(Stored(tuple(p for r in real for p in r.parts), real[0].px)),
    }
    of_halves = [describe.histogram(half) for half in halves or ()]
    told: dict[str, Any] = {name: share.tolist() for name, share in shares.items()}
    told["tv"] = describe.total_variation(*shares.values())
    told["tv_control"] = describe.total_variation(*of_halves) if of_halves else None
    out = {"table1": describe.table_1(small_ones), "histogram": told}
    return {"told": ledger.as_json(out)}, {"images": sum(map(len, sets.values()))}


def _check(job: MembershipJob, task: TaskData) -> Named:
    """Return the check of paper 003: with its shadow, and with two of one kind.

    The two were trained on the halves of the slices that were not used, which share no patient:
    what tells them apart is not their kind.
    """
    s = job.settings
    folders = {part: job.models(task, part) for part in task.parts}
    given = methods.shadow(s, task.px, folders[TEST])
    of_given = Trained(given, task.question(TEST).control)
    pairs: dict[str, tuple[Stored | Trained, Trained]] = {
        "given-against-shadow": (task.generated("dev"), of_given)
    }
    halves = task.parts[:2]
    two = [methods.same_kind(s, task.px, folders[part]) for part in halves]
    if two[0] is not None and two[1] is not None:
        first, second = (task.question(part).control for part in halves)
        pairs["same-kind"] = (Trained(two[0], first), Trained(two[1], second))
    method = methods.Method("texture", s, task.px, folders[TEST])
    depends = method.depends | {
        name: [source.digest for source in pair] for name, pair in pairs.items()
    }
    one = ledger.shard("describe", VERSION, depends, checked, method, pairs, s.seed)
    return f"{task.sets.name}/check", one


@dataclass(frozen=True)
class Trained:
    """Images of a shadow generator that was trained on some slices."""

    shadow: Shadow
    slices: Stored

    @property
    def digest(self) -> str:
        """Name of them, for the key of a shard."""
        return ledger.digest_of([asdict(self.shadow.recipe), self.slices.digest])


def checked(
    method: methods.Method, pairs: Mapping[str, tuple[Any, Any]], seed: int
) -> tuple[Values, Counts]:
    """Tell two generated sets apart by every feature and kernel."""
    features = method.made().features  # type: ignore[attr-defined]
    out: dict[str, Any] = {}
    for name, pair in pairs.items():
        px = next(one.shadow.recipe.px for one in pair if isinstance(one, Trained))
        first, second = (
            one.shadow.images(one.slices) if isinstance(one, Trained) else small(one, px)
            for one in pair
        )
        out[name] = {
            f"{kind}/{kernel}": texture.told_apart(of(first), of(second), kernel, seed=seed)
            for kind, of in features.items()
            for kernel in texture.KERNELS
        }
    return {"told": ledger.as_json(out)}, {"pairs": len(pairs)}


def finish(job: MembershipJob, values: Iterator[Values]) -> None:
    """Keep what was described."""
    names = [name for name, _ in _named(job)]
    told = [json.loads(bytes(np.asarray(value["told"]))) for value in values]
    write_json(job.out / TOLD, dict(zip(names, told, strict=True)))
