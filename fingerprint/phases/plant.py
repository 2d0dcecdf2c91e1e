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
from typing import Any

import numpy as np
import pandas as pd

from fingerprint import ledger
from fingerprint.corpus import seal, store, tables
from fingerprint.corpus.scan import sums
from fingerprint.job import AuditJob
from fingerprint.ledger import Counts, Shard, Values
from fingerprint.phantom import canaries
from fingerprint.phantom.canaries import NAMED, Canary
from fingerprint.search import blocks
from fingerprint.search.sets import opened

VERSION = 1
AT_ONCE = 16  # canaries in one shard
HEAD = b"token\tbytes\tsha256\tcode\tdetail\n"


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
        return
    real = job.corpora["real"]
    side = real.size_px
    images = np.concatenate(
        [np.frombuffer(store.BLOSC.decode(bytes(value["images"])), np.uint8) for value in values]
    ).reshape(-1, side, side)
    made_with = {"planted": ledger.digest_of([real.digest, [asdict(one) for one in planted]])}
    seal.recover(path)  # a kill may have left half of a seal
    if not store.is_corpus(path) or store.open_corpus(path).head["made_with"] != made_with:
        shutil.rmtree(path, ignore_errors=True)
        _seal(path, real, planted, images, made_with)
    names = blocks.PREFIX["canary"] + pd.Series(store.open_corpus(path).label("token"))
    who = blocks.patients_of(real)
    tables.save(
        job.out / "canaries.tsv",
        (
            [name, one.kind, f"{one.level:g}", str(one.source), str(who[one.source])]
            for name, one in zip(names, planted, strict=True)
        ),
        NAMED,
    )


def _seal(
    path: Path,
    real: store.Corpus,
    planted: Sequence[Canary],
    images: np.ndarray,
    made_with: dict[str, str],
) -> None:
    written: dict[str, list[Any]] = {}
    found, step = [], real.chunk_slices
    for first in range(0, len(images), step):
        part = images[first : first + step]
        entries, more = seal.write_chunk(path, first // step, part, step, shared=False)
        written |= entries
        found.append(pd.DataFrame(more))
    rows = _rows(real, planted, images).assign(**pd.concat(found, ignore_index=True))
    head = {
        "set": "canary",
        "key_id": real.key_id,
        "window_hu": list(real.head["window_hu"]),
        "size_px": real.size_px,
        "chunk_slices": step,
        "parts": [{"n": len(rows), "digest": store.content_digest(rows)}],
        "made_with": made_with,
        "summary": {"participants": rows["participant"].nunique(), "seen": len(rows)},
    }
    seal.seal(path, rows, _series(rows), head, written, {"rejections.tsv": HEAD})


def _rows(real: store.Corpus, planted: Sequence[Canary], images: np.ndarray) -> pd.DataFrame:
    """Label canaries as their slices are labelled; each is a stack of its own."""
    source = np.array([one.source for one in planted])
    total, squares = sums(images)
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
        sum=total,
        sum_of_squares=squares,
        token=tokens,
        digest=[hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        part=np.int32(0),
    )


def _series(rows: pd.DataFrame) -> pd.DataFrame:
    missing = dict.fromkeys(name for name in store.SERIES if name.endswith("_mm"))
    table = rows.assign(n_slices=1, source_digest=rows["digest"], notes="", **missing)
    return table[list(store.SERIES)].astype(
        {name: kind for name, kind in store.SERIES.items() if kind != "str"}
    )
