"""One study as it lies on disk: the experiment of paper 000 on one corpus.

OUT/
  study.json           settings, digests, how far it is
  cohorts/<name>/      training sets n6, n60, .. and set1, set2, ..; held-out patients
  models/<name>/       what was trained on them: weights.safetensors, step-<n>.safetensors
  pools/<name>/        images that a generator made, as a corpus
  audits/<name>/       an audit of each pool against its training set
  findings.json, report.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from fingerprint import ledger
from fingerprint.corpus import cohort, store
from fingerprint.corpus.cohort import Cohorts
from fingerprint.corpus.design import Design
from fingerprint.job import DECIDES, OnDisk, begun, input_of, read_run, write_json
from fingerprint.models.recipe import Recipe
from fingerprint.settings import Settings

FORMAT = (1, 0)
DOCUMENT = "study.json"
DRAWN = 240  # images of a pool that are audited, as in paper 000
DESIGN = (
    *("sizes", "ages", "ages_largest", "balance_sex", "classes", "nested", "held_out"),
    *("sets", "set_size", "shrink", "seed"),
)
RECIPE = (
    *("generator", "train_px", "train_steps", "train_batch", "learning_rate", "width", "ema"),
    *("half", "snapshots", "sample_steps", "predicts"),
)
STUDY_DECIDES = (*DESIGN, *RECIPE, *DECIDES, "runs", "pool")


@dataclass(frozen=True)
class Point:
    """A training set and one generator of it: a size of the study, or a set of Fig. 4.

    Attributes
    ----------
    name : str
        ``n60``, ``n60-s2`` (trained again with another seed), ``set3``.
    cohort : str
        Name of its training set.
    held_out : str
        Name of its control slices; "" for a set of Fig. 4.
    asked : int
        Slices that were asked for.
    run : int
        0, 1, .. of those trained on the same set.
    """

    name: str
    cohort: str
    held_out: str
    asked: int
    run: int


@dataclass(frozen=True)
class StudyJob(OnDisk):
    """What is studied, with which settings, in which folder. Made by `study_job`."""

    corpus: Path
    settings: Settings
    brought: Path | None = None

    DOCUMENT: ClassVar[str] = DOCUMENT

    @cached_property
    def source(self) -> store.Corpus:
        """The corpus that everything is drawn from."""
        return store.open_corpus(self.corpus)

    @cached_property
    def cohorts(self) -> Cohorts:
        """Which slices are in which set; see `cohort.chosen` for what is refused."""
        names = ("participant", "sex", "age", "region")
        labels = pd.DataFrame({name: self.source.label(name) for name in names})
        chosen = {name: getattr(self.settings, name) for name in DESIGN}
        return cohort.chosen(labels, Design(**chosen | {"sets": 0} if self.brought else chosen))

    @cached_property
    def sizes(self) -> list[Point]:
        """A point for each size and run, in order of size."""
        runs = 1 if self.brought else self.settings.runs
        return [
            Point(_of_run(f"n{size}", k), f"n{size}", self._held_out(size), size, k)
            for size in self.cohorts.training
            for k in range(runs)
        ]

    @cached_property
    def sets(self) -> list[Point]:
        """A point for each set of Fig. 4."""
        return [
            Point(f"set{k}", f"set{k}", "", len(rows), 0)
            for k, rows in enumerate(self.cohorts.sets, 1)
        ]

    @property
    def points(self) -> list[Point]:
        """Every generator that is trained."""
        return [*self.sizes, *self.sets]

    def _held_out(self, size: int) -> str:
        """Name the control slices of a size; sizes of the same ages share them."""
        held = self.cohorts.held_out
        first = next(s for s in held if np.array_equal(held[s], held[size]))
        return "held-out" if first == min(held) else f"held-out-n{first}"

    def sets_of_slices(self) -> Iterator[tuple[str, str, Any]]:
        """Yield name, kind (``real`` or ``control``) and slices of every set, each once."""
        for size, rows in self.cohorts.training.items():
            yield f"n{size}", "real", rows
        held = {self._held_out(s): rows for s, rows in self.cohorts.held_out.items()}
        for name, rows in held.items():
            yield name, "control", rows
        for k, rows in enumerate(self.cohorts.sets, 1):
            yield f"set{k}", "real", rows

    def cohort(self, name: str) -> Path:
        """Where a set of slices lies."""
        return self.out / "cohorts" / name

    def model(self, name: str) -> Path:
        """Where the weights of a generator lie."""
        return self.out / "models" / name

    def pool(self, name: str) -> Path:
        """Where the images of a generator lie."""
        return self.out / "pools" / name

    def audit(self, name: str) -> Path:
        """Where the audit of a pool lies."""
        return self.out / "audits" / name

    @property
    def positives(self) -> Path:
        """Where samples lie that copy slices of the smallest set, and therefore of every set."""
        return self.out / "pools" / "copies"

    def recipe(self, point: Point) -> Recipe:
        """Return how the generator of a point is trained."""
        s = self.settings
        return Recipe(
            generator=s.generator,
            px=min(s.train_px, self.source.size_px),
            steps=s.train_steps,
            batch=s.train_batch,
            learning_rate=s.learning_rate,
            width=s.width,
            ema=s.ema,
            seed=_seed(s.seed, point.name),
            snapshots=snapshots(s.train_steps, s.snapshots),
            sample_steps=s.sample_steps,
            half=s.half,
            predicts=s.predicts,
        )

    def audited_with(self) -> Settings:
        """Return the settings of its audits: 240 images are drawn where nothing else is said."""
        return self.settings.model_copy(update={"sample": self.settings.sample or DRAWN})


def snapshots(steps: int, n: int) -> tuple[int, ...]:
    """Return the steps after which a state is kept: each half as far as the next, the end last."""
    return tuple(sorted({max(1, steps >> k) for k in range(n + 1)}))


def _of_run(name: str, run: int) -> str:
    return f"{name}-s{run + 1}" if run else name


def _seed(seed: int, name: str) -> int:
    """Return a seed of its own for each generator."""
    return int(ledger.digest_of([seed, name])[:8], 16)


def study_job(
    corpus: Path, out: Path, settings: Settings, *, brought: Path | None = None
) -> StudyJob:
    """Open or create the study in `out`.

    Parameters
    ----------
    brought : Path, optional
        A folder with images of the user's own generators, a folder for each size: nothing is
        trained.

    Raises
    ------
    ValueError
        The corpus does not hold such sets, or `out` holds another study.
    """
    job = StudyJob(
        Path(out).resolve(), Path(corpus).resolve(), settings, brought and Path(brought).resolve()
    )
    fresh = _document(job)
    job.out.mkdir(parents=True, exist_ok=True)
    os.chmod(job.out, 0o700)
    if (job.out / DOCUMENT).exists():
        _same_study(read_run(job.out, DOCUMENT), fresh, job.out)
        (job.out / "manifest.json").unlink(missing_ok=True)  # unsealed before anything changes
        job.update(status="running")
    else:
        write_json(job.out / DOCUMENT, fresh)
    ledger.clean(job.ledger)
    ledger.clean(job.out / "models")
    return job


def _document(job: StudyJob) -> dict[str, Any]:
    decides = job.settings.matters_to(*STUDY_DECIDES) | {"brought": job.brought is not None}
    return {
        "format": list(FORMAT),
        "study": ledger.digest_of({"corpus": job.source.digest, "settings": decides}),
        "brought": job.brought is not None,
        "inputs": {"corpus": input_of(job.out, job.source)},
        "notes": [*job.cohorts.notes, *_groups(job.source)],
    } | begun(job.settings)


def _groups(corpus: store.Corpus) -> list[str]:
    """Note that groups of near-duplicates stand in for patients, divided as patients are."""
    if corpus.summary.get("participants_known") != "clusters":
        return []
    return [
        "patients unknown: groups of near-duplicate slices stand in for them, so that a patient "
        "may be both trained on and held out"
    ]


def _same_study(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    if old["study"] == new["study"]:
        return
    differs = [name for name in STUDY_DECIDES if old["settings"].get(name) != new["settings"][name]]
    if old["inputs"]["corpus"]["digest"] != new["inputs"]["corpus"]["digest"]:
        differs.insert(0, "corpus")
    if old["brought"] != new["brought"]:
        differs.append("--generated")
    raise ValueError(f"out: {out} holds a study with other {', '.join(differs)}; choose another")
