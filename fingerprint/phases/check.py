"""Check: could these sets be compared at all? Refuse what would make every later number wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus import orientation, tables
from fingerprint.corpus.store import Corpus
from fingerprint.job import AuditJob
from fingerprint.ledger import Values
from fingerprint.measure import hygiene as measured
from fingerprint.models import encoders
from fingerprint.phases import hygiene
from fingerprint.search import blocks

REJECTIONS = ("set", "token", "bytes", "sha256", "code", "detail")
SAMPLE = 240  # generated images that are compared in eight orientations


def finish(job: AuditJob, values: Iterator[Values]) -> None:
    del values
    real, generated = job.corpora["real"], job.corpora["generated"]
    if job.settings.weights:  # refused now, not after the search
        encoders.load(job.settings.encoder, job.settings.weights, job.settings.weights_sha256)
    if job.given:
        hygiene.judge(job, measured.certain(real, job.corpora["controls"]), suspected=False)
    for role, corpus in job.corpora.items():
        if job.searches_poses:
            corpus.require("screen", "sum_of_squares_screen")
        if blocks.is_constant(corpus).all():
            raise ValueError(f"{role}: every image has one grey level; nothing can be compared")
    few = _sample(generated, SAMPLE)
    turned = orientation.best_orientation(few, real)
    stored = generated.head["made_with"].get("orient")
    asked = job.settings.orient
    if asked not in (None, "as-is", stored):
        raise ValueError(
            f"--orient {asked}: {generated.path} is a corpus, stored {stored or 'as-is'}; "
            "ingest its files again with that orientation"
        )
    if turned.decided and stored is None and asked is None:
        raise ValueError(
            f"generated: turned as {turned.best} these images fit the real ones better than as "
            f"stored (mean z {turned.gap:.2f} higher, {turned.copies[turned.best]} of {len(few)} "
            f"are copies that way): give --orient {turned.best} and another OUT, or --orient as-is"
        )
    windows = orientation.same_window(few, real)
    notes = [] if windows.same else [windows.note]
    if real.summary.get("participants_known") == "clusters":
        notes.append(
            "patients unknown: groups of near-duplicate slices stand in for them"
            + (", and slices of one group were not compared with each other" * job.itself)
        )
    job.update(notes=notes)
    tables.save(job.out / "rejections.tsv", _rejections(job), REJECTIONS)


def _rejections(job: AuditJob) -> Iterator[list[str]]:
    for role, corpus in job.corpora.items():
        for line in corpus.stored("rejections.tsv").decode().splitlines()[1:]:
            yield [role, *line.split("\t")]


def _sample(corpus: Corpus, n: int) -> NDArray[np.uint8]:
    even = np.linspace(0, corpus.n - 1, min(n, corpus.n)).astype(np.int64)
    return corpus.at(even, "thumb")
