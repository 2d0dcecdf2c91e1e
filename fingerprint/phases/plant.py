"""Plant: copies of real slices, of known kind and grade, made into a corpus of queries.

They lie in ``OUT/corpora/canary``; ``canaries.tsv`` says of each what it is a copy of.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from fingerprint import ledger
from fingerprint.corpus import made, store, tables
from fingerprint.job import AuditJob
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.phantom import canaries
from fingerprint.phantom.canaries import NAMED, Canary
from fingerprint.search import blocks
from fingerprint.search.sets import opened

VERSION = 1
AT_ONCE = 16  # canaries in one shard


def chosen(job: AuditJob) -> list[Canary]:
    """Choose what is planted: the same for the same corpora and settings."""
    if not job.plants:
        return []
    real, s = job.corpora["real"], job.settings
    there = np.flatnonzero(~blocks.is_constant(real))
    regions = job.corpora["generated"].label("region")
    who, where = blocks.patients_of(real)[there], real.label("region")[there]
    found = canaries.chosen(who, where, regions, s.canaries, s.seed)
    places = there.tolist()
    return [
        Canary(one.kind, one.level, places[one.source], places[one.stranger], one.seed)
        for one in found
    ]


def plan(job: AuditJob) -> list[Shard]:
    """Cut the canaries into shards."""
    real, planted = job.corpora["real"], chosen(job)
    return [
        _shard(real, planted[first : first + AT_ONCE]) for first in range(0, len(planted), AT_ONCE)
    ]


def _shard(real: store.Corpus, planted: Sequence[Canary]) -> Shard:
    depends = {"real": real.digest, "planted": [asdict(one) for one in planted]}
    return ledger.shard(
        "plant", VERSION, depends, make, real.path, real.digest, real.chunk_slices, planted
    )


def make(path: Path, digest: str, chunk: int, planted: Sequence[Canary]) -> tuple[Values, Counts]:
    """Make some canaries: ``images`` are their pixels, packed."""
    real = opened(path, digest)
    pairs = (real.at(np.array([one.source, one.stranger]), "pixels") for one in planted)
    images = np.stack([canaries.made(one, *pair) for one, pair in zip(planted, pairs, strict=True)])
    packed = np.frombuffer(store.BLOSC.encode(images), np.uint8)
    return {"images": packed}, {"canaries": len(planted)}


def finish(job: AuditJob, values: Iterator[Values]) -> None:
    """Seal the canaries as a corpus, unless it is there, and list them in ``canaries.tsv``."""
    planted, path = chosen(job), job.out / "corpora" / "canary"
    if not planted:
        shutil.rmtree(path, ignore_errors=True)
    else:
        _seal(job, path, planted, values)
    listed = [*_made(job, planted), *_sampled(job)]
    if listed:
        tables.save(job.out / "canaries.tsv", iter(listed), NAMED)


def _seal(job: AuditJob, path: Path, planted: Sequence[Canary], values: Iterator[Values]) -> None:
    real = job.corpora["real"]
    side = real.size_px
    images = np.concatenate(
        [np.frombuffer(store.BLOSC.decode(bytes(value["images"])), np.uint8) for value in values]
    ).reshape(-1, side, side)
    made_with = {"planted": ledger.digest_of([real.digest, [asdict(one) for one in planted]])}
    if not made.is_made(path, made_with):
        chunks = made.in_chunks(images, real.chunk_slices)
        made.write(path, "canary", chunks, _labels(real, planted), real.head, made_with)


def _made(job: AuditJob, planted: Sequence[Canary]) -> Iterator[list[str]]:
    """List what was made: its name, kind and level, and what it is a copy of."""
    if not planted or job.canaries is None:
        return
    who = blocks.patients_of(job.corpora["real"])
    for token, one in zip(job.canaries.label("token"), planted, strict=True):
        name = blocks.PREFIX["canary"] + str(token)
        yield [name, one.kind, f"{one.level:g}", str(one.source), str(who[one.source])]


def _sampled(job: AuditJob) -> Iterator[list[str]]:
    """List what a generator copied from slices of this corpus."""
    if job.sampled is None:
        return
    real = job.corpora["real"]
    who = blocks.patients_of(real)
    place = {token: k for k, token in enumerate(real.label("token"))}
    copied = job.sampled.label("scan")
    for k in blocks.copies_in(job.sampled, real):
        name, source = str(job.sampled.label("token")[k]), place[copied[k]]
        yield [blocks.PREFIX["canary"] + name, canaries.SAMPLED, "0", str(source), str(who[source])]


def _labels(real: store.Corpus, planted: Sequence[Canary]) -> pd.DataFrame:
    """Label canaries as their slices are labelled; each is a stack of its own."""
    source = np.array([one.source for one in planted])
    tokens = [
        hashlib.sha256(f"{real.digest} {k} {json.dumps(asdict(one))}".encode()).hexdigest()[:12]
        for k, one in enumerate(planted)
    ]
    kept = ("z_mm", "sex", "age", "region", "native_px")
    rows = pd.DataFrame({name: real.label(name)[source] for name in kept})
    return rows.assign(
        region_confidence=np.float32(1),
        participant=blocks.patients_of(real)[source],
        scan=tokens,
        series=tokens,
        token=tokens,
    )
