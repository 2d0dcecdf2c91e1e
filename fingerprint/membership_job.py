"""One membership run as it lies on disk: tasks, corpora, who is asked, which half chooses.

OUT/
  membership.json      settings, digests, how far it is
  corpora/<task>/<dev|test>/<role>/    what the folders held, as corpora
  models/<task>/<part>/                shadow generators, and the masked autoencoder
  scores.parquet       one row per real slice, one column per arm of a method
  metrics.json, findings.json, roc.svg, report.html
  submission_<method>.csv              with tasks side by side in a folder for each
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.job import OnDisk, begun, input_of, read_run, write_json
from fingerprint.membership import Dev, Real, memory, methods
from fingerprint.membership.folders import GENERATED, NOT_USED, ROLES, UNKNOWN, USED
from fingerprint.membership.split import Bools, Groups, Ints, folds_of, grouped
from fingerprint.membership.stored import Stored, taken, whole
from fingerprint.settings import Settings

FORMAT = (1, 0)
DOCUMENT = "membership.json"
TEST = "test"
DECIDES = (
    *("methods", "folds", "seed", "compare_px", "top_images", "noise", "table_slices"),
    *("mae_px", "mae_width", "mae_steps", "mae_batch", "mae_learning_rate"),
    *("shadow_px", "shadow_steps", "shadow_width", "shadow_images"),
    *("same_kind", "same_kind_width"),
    *("pose", "mirror", "angle_deg", "angle_step_deg", "scale", "scale_step", "controls"),
    *("shift_px", "shift_step_px"),
)


@dataclass(frozen=True)
class Sets:
    """The corpora of one task.

    Attributes
    ----------
    name : str
    dev, test : mapping of role to Path
        Only roles that have a slice.
    truth : mapping of token to bool, or None
        Which slices of TEST were used, where ``labels.csv`` says so.
    """

    name: str
    dev: Mapping[str, Path]
    test: Mapping[str, Path]
    truth: Mapping[str, bool] | None = None


@dataclass(frozen=True)
class Question:
    """What one scorer is fitted on and asked: everything that a shard is sent."""

    dev: Dev
    asked: Stored
    generated: Stored
    control: Stored

    @property
    def digest(self) -> str:
        """Name of it, for the key of a shard."""
        sets = (self.dev.generated, self.dev.used.images, self.dev.not_used.images)
        each = (*sets, self.asked, self.generated, self.control)
        return ledger.digest_of([images.digest for images in each if isinstance(images, Stored)])


@dataclass(frozen=True)
class Asked:
    """The real slices of one side of a task, the used before the others.

    Attributes
    ----------
    images : Stored
    used : bool, shape (n,), or None
        None where nobody says.
    groups : Groups
        Of whom each is.
    role, token : object, shape (n,)
        Two folders may hold files of one name, and so of one token.
    """

    images: Stored
    used: Bools | None
    groups: Groups
    role: NDArray[np.object_]
    token: NDArray[np.object_]


@dataclass(frozen=True)
class TaskData:
    """One task, opened."""

    sets: Sets
    settings: Settings

    @cached_property
    def corpora(self) -> dict[str, dict[str, store.Corpus]]:
        """Opened corpora by side, ``dev`` and ``test``, and role."""
        return {
            side: {role: store.open_corpus(paths[role]) for role in ROLES if role in paths}
            for side, paths in (("dev", self.sets.dev), (TEST, self.sets.test))
        }

    @property
    def px(self) -> int:
        """Side of a slice."""
        return self.corpora["dev"][GENERATED].size_px

    def generated(self, side: str) -> Stored:
        """Return the images of the generator in question."""
        return whole([self.corpora[side][GENERATED]], self.px)

    @cached_property
    def dev(self) -> Asked:
        """Slices of which it is known."""
        return self._asked("dev")

    @cached_property
    def test(self) -> Asked:
        """Slices that are asked about."""
        return self._asked(TEST)

    def _asked(self, side: str) -> Asked:
        there = {
            r: self.corpora[side][r] for r in (USED, NOT_USED, UNKNOWN) if r in self.corpora[side]
        }
        images = whole(list(there.values()), self.px)
        token = np.concatenate([c.label("token") for c in there.values()])
        role = np.repeat(np.array(list(there), object), [c.n for c in there.values()])
        used: Bools | None = None
        if UNKNOWN not in there:
            used = role == USED
        elif self.sets.truth is not None:
            used = np.array([self.sets.truth[name] for name in token])
        return Asked(images, used, self._groups(list(there.values()), images, used), role, token)

    def _groups(self, there: Sequence[store.Corpus], images: Stored, used: Bools | None) -> Groups:
        if all(c.summary["participants_known"] == "known" for c in there):
            _, of = np.unique(
                np.concatenate([c.label("participant") for c in there]), return_inverse=True
            )
            return Groups(of.astype(np.int64))
        known = np.zeros(len(images), bool) if used is None else used
        return grouped(images.mids(), known, self.settings.folds)

    @cached_property
    def fold(self) -> Ints:
        """The fold of every development slice."""
        used = self.dev.used
        assert used is not None  # DEV is labelled, or is refused
        return folds_of(self.dev.groups.patient, used, self.settings.folds, self.settings.seed)

    @property
    def parts(self) -> list[str]:
        """What is asked: each fold of DEV by what the others teach, and TEST by all of DEV."""
        return [*map(str, range(self.settings.folds)), TEST]

    def question(self, part: str) -> Question:
        """Return what one scorer is fitted on and asked."""
        dev, used = self.dev, self.dev.used
        assert used is not None
        teach = np.ones(len(used), bool) if part == TEST else self.fold != int(part)

        def real(mask: Bools) -> Real:
            return Real(taken(dev.images, mask), dev.groups.patient[mask])

        taught = Dev(self.generated("dev"), real(used & teach), real(~used & teach))
        asked = self.test.images if part == TEST else taken(dev.images, ~teach)
        side = TEST if part == TEST else "dev"
        return Question(taught, asked, self.generated(side), taken(dev.images, ~used & teach))


@dataclass(frozen=True)
class MembershipJob(OnDisk):
    """What is asked, with which settings, in which folder. Made by `membership_job`."""

    sets: tuple[Sets, ...]
    settings: Settings
    rejected: Mapping[str, int]

    DOCUMENT: ClassVar[str] = DOCUMENT

    @cached_property
    def tasks(self) -> list[TaskData]:
        """The tasks in order."""
        return [TaskData(sets, self.settings) for sets in self.sets]

    def models(self, task: TaskData, part: str) -> Path:
        """Where what is trained for one question lies."""
        return self.out / "models" / task.sets.name / part


def membership_job(
    sets: Sequence[Sets], out: Path, settings: Settings, rejected: Mapping[str, int] | None = None
) -> MembershipJob:
    """Open or create the run in `out`.

    Parameters
    ----------
    rejected : mapping, optional
        How many files of which corpus, ``<task>.<side>.<role>``, could not be read.

    Raises
    ------
    ValueError
        A class of DEV that has no slice left or too few patients for the folds, slices of several
        sizes, or another run in `out`.
    """
    job = MembershipJob(Path(out).resolve(), tuple(sets), settings, dict(rejected or {}))
    for text in settings.networks:
        _, path, _ = methods.network(text)
        if not path.is_file():
            raise ValueError(f"networks: {path} is not a file")
    for task in job.tasks:
        _complete(task)
    fresh = _document(job)
    job.out.mkdir(parents=True, exist_ok=True)
    os.chmod(job.out, 0o700)
    if (job.out / DOCUMENT).exists():
        _same_run(read_run(job.out, DOCUMENT), fresh, job.out)
        (job.out / "manifest.json").unlink(missing_ok=True)  # unsealed before anything changes
        job.update(status="running")
    else:
        write_json(job.out / DOCUMENT, fresh)
    ledger.clean(job.ledger)
    ledger.clean(job.out / "models")
    return job


def _complete(task: TaskData) -> None:
    """Refuse a task in which something that is needed could not be read."""
    for side, needed in (("dev", (GENERATED, USED, NOT_USED)), (TEST, (GENERATED,))):
        for role in needed:
            corpus = task.corpora[side].get(role)
            if corpus is None or corpus.n == 0:
                raise ValueError(
                    f"{side.upper()}: task {task.sets.name}: no image of the set {role} could be "
                    "read; see rejections.tsv in its corpus"
                )
    if len(task.test.images) == 0:
        raise ValueError(f"TEST: task {task.sets.name}: no slice that is asked about could be read")
    _ = task.fold  # too few patients: said before the work
    memory.refuse_more(task.sets.name, _counts(task), task.settings)


def _counts(task: TaskData) -> memory.Counts:
    """Return the counts of the largest question: of TEST, by all of DEV."""
    dev, test = task.corpora["dev"], task.corpora[TEST]
    return memory.Counts(
        max(len(task.dev.images), len(task.test.images)),
        max(dev[GENERATED].n, test[GENERATED].n),
        dev[NOT_USED].n,
        task.px,
    )


def _document(job: MembershipJob) -> dict[str, Any]:
    inputs = {
        f"{task.sets.name}.{side}.{role}": input_of(job.out, corpus)
        for task in job.tasks
        for side, corpora in task.corpora.items()
        for role, corpus in corpora.items()
    }
    truth = [sets.truth and sorted(sets.truth.items()) for sets in job.sets]
    decides = job.settings.matters_to(*DECIDES) | {"networks": networks_of(job.settings)}
    digests = {name: one["digest"] for name, one in inputs.items()}
    named = {"inputs": digests, "truth": ledger.digest_of(truth), "settings": decides}
    return {
        "format": list(FORMAT),
        "run": ledger.digest_of(named),
        "inputs": inputs,
        "notes": _notes(job),
    } | begun(job.settings)


def networks_of(settings: Settings) -> list[list[str]]:
    """Return the networks by name and file: what a document may say of them."""
    parts = (text.split("=") for text in settings.networks)
    return [[part[0], Path(part[1]).name, *part[2:]] for part in parts if len(part) > 1]


def _notes(job: MembershipJob) -> list[str]:
    return [
        f"{task.sets.name}, {side.upper()}: patients unknown: {asked.groups.note}"
        for task in job.tasks
        for side, asked in (("dev", task.dev), (TEST, task.test))
        if asked.groups.note
    ]


def _same_run(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    if old["run"] == new["run"]:
        return
    differs = [name for name in DECIDES if old["settings"].get(name) != new["settings"][name]]
    differs += [
        name
        for name in {**old["inputs"], **new["inputs"]}
        if old["inputs"].get(name, {}).get("digest") != new["inputs"].get(name, {}).get("digest")
    ]
    raise ValueError(
        f"out: {out} holds a membership run with other "
        f"{', '.join(differs) or 'labels or networks'}; choose another"
    )
