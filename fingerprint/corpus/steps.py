"""From files to a sealed corpus, in four phases, each of them a set of resumable shards.

    survey   headers of every file, in limited children: what it is, whose, where in which stack
    read     stacks of slices, whole participants together: pixels to uint8, sums and digests
    write    bands of chunks, in the order (participant, scan, series, z)
    seal     labels, tables, manifest, and the swap of one pointer

Every file ends accepted, excluded (by a rule that was asked for) or rejected (with a code), and the
three add up to what was seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fingerprint import lease as leases
from fingerprint import ledger
from fingerprint.corpus import seal, store
from fingerprint.corpus.books import Book, outcomes_of, read_book
from fingerprint.corpus.ingest import MADE_WITH, IngestJob, leave
from fingerprint.corpus.reading import Unit, order, read_units, survey_files, units_of
from fingerprint.corpus.scan import ReadOptions
from fingerprint.ledger import Counts, Damaged, Incomplete, Phase, Shard, Values, shard
from fingerprint.settings import Settings

SURVEY_FILES = 512
READ_SLICES = 1024
WRITE_CHUNKS = 16
LIMITS = ("reader_memory_gib", "reader_cpu_s")


# -- survey


def _plan_survey(job: IngestJob) -> list[Shard]:
    readable = [f for f in job.files if not f.code and not f.reason]
    batches = [readable[i : i + SURVEY_FILES] for i in range(0, len(readable), SURVEY_FILES)]
    settings = job.settings
    return [
        shard(
            "survey",
            SURVEY.version,
            {
                "files": [
                    (f.token, f.size, f.mtime_ns, f.ctime_ns, f.told(job.key)) for f in batch
                ],
                "key": job.key.key_id,
                "people": ledger.digest_of({k: [v.sex, v.age_y] for k, v in job.people.items()}),
                "settings": settings.matters_to(*LIMITS, "size_px"),
            },
            survey_files,
            batch,
            dict(job.people),
            job.key,
            _options(job),
            (settings.reader_memory_gib, settings.reader_cpu_s),
        )
        for batch in batches
    ]


def _finish_survey(job: IngestJob, values: Iterator[Values]) -> None:
    book = Book.of_files(job.files, job.key)
    headers = [outcomes_of(json.loads(bytes(value["rows"]))) for value in values]
    book = book.with_headers(headers, job.settings.require)
    if job.settings.range is None:
        book = book.within(_sealed_range(job))
    book.save(job.note("survey"))


# -- read


def _options(job: IngestJob, value_range: tuple[float, float] | None = None) -> ReadOptions:
    s = job.settings
    return ReadOptions(
        window_hu=s.window_hu,
        size_px=s.size_px,
        generated=job.set_name == "generated",
        hu=s.hu,
        value_range=s.range or value_range,
        orient=s.orient or "as-is",
    )


def _plan_read(job: IngestJob) -> list[Shard]:
    book = Book.load(job.note("survey"))
    options = _options(job, _value_range(job, book))
    return [
        shard(
            "read",
            READ.version,
            {
                "units": [u.depends() for u in batch],
                "options": [str(v) for v in options.__dict__.values()],
                "key": job.key.key_id,
                "settings": job.settings.matters_to(*LIMITS),
            },
            read_units,
            batch,
            options,
            job.key,
            (job.settings.reader_memory_gib, job.settings.reader_cpu_s),
        )
        for batch in _batches(units_of(book, job.files))
    ]


def _value_range(job: IngestJob, book: Book) -> tuple[float, float] | None:
    return book.value_range(_sealed_range(job))


def _sealed_range(job: IngestJob) -> list[float] | None:
    return job.sealed.head.get("value_range") if job.sealed else None


def _batches(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Pack stacks of slices, in order, into shards of about `READ_SLICES`."""
    batch: list[Unit] = []
    for unit in units:
        if batch and sum(u.frames for u in batch) + unit.frames > READ_SLICES:
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch


def _finish_read(job: IngestJob, values: Iterator[Values]) -> None:
    book = Book.load(job.note("survey"))
    shards = _plan_read(job)
    files, slices, series, mids = [], [], [], []
    for piece, value in zip(shards, values, strict=True):
        read = json.loads(bytes(value["rows"]))
        files.append(outcomes_of(read["files"]))
        slices.append(pd.DataFrame(read["slices"]).assign(shard=piece.key))
        series += read["series"]
        mids.append(np.asarray(value["mids"], np.uint8))
    book = book.with_outcomes(files).with_series(series)
    if not series:
        book.save(job.note("read"))
        if job.sealed is None:
            raise ValueError(
                f"source: no readable slice among {len(job.files)} files ({book.tally()})"
            )
        return
    rows = pd.concat([table for table in slices if len(table)], ignore_index=True)
    book.with_slices(order(rows, [m for m in mids if len(m)], job.set_name)).save(job.note("read"))


# -- write


def _plan_write(job: IngestJob) -> list[Shard]:
    slices = Book.load(job.note("read")).slices
    first = job.sealed.n if job.sealed else 0
    step = job.settings.chunk_slices
    last = first + len(slices)
    band = WRITE_CHUNKS * step
    shards = []
    for low in range(first - first % step, last, band) if len(slices) else ():
        rows = slices.iloc[max(0, low - first) : low + band - first]
        shards.append(
            shard(
                "write",
                WRITE.version,
                {
                    "first": [low, first, job.replacing],
                    "chunk": step,
                    "digests": list(rows["digest"]),
                },
                _write_band,
                job.corpus,
                job.ledger,
                low,
                first,
                rows[["shard", "member", "index"]],
                job.settings,
                job.replacing,
            )
        )
    _forget_lost_chunks(job, shards)
    return shards


def _forget_lost_chunks(job: IngestJob, shards: Sequence[Shard]) -> None:
    """Take back the shards whose chunks are no longer there as written: they are done again."""
    for one in shards:
        path = ledger.path_of(job.ledger, one)
        try:
            entries = json.loads(bytes(ledger.read(path)["entries"]))
        except (FileNotFoundError, Damaged):
            continue
        if not all(seal.is_written(job.corpus, name, entries[name]) for name in entries):
            path.unlink()


def _write_band(
    corpus: Path,
    spool: Path,
    low: int,
    first: int,
    rows: pd.DataFrame,
    settings: Settings,
    replacing: bool,
) -> tuple[Values, Counts]:
    """Write the chunks that hold the slices from `low` on; `first` is the first new slice."""
    step, size = settings.chunk_slices, settings.size_px
    pixels = np.zeros((max(first - low, 0) + len(rows), size, size), np.uint8)
    if low < first:
        pixels[: first - low] = store.open_corpus(corpus).read(low, first)
    at = max(first - low, 0) + np.arange(len(rows))
    groups = rows.assign(at=at).groupby("shard", sort=False)
    for name, members in groups:
        values = ledger.read(spool / "read" / f"{name}.shard")
        for member, wanted in members.groupby("member", sort=False):
            stack = np.frombuffer(store.BLOSC.decode(bytes(values[str(member)])), np.uint8)
            stack = stack.reshape(-1, size, size)
            pixels[wanted["at"].to_numpy()] = stack[wanted["index"].to_numpy()]
    entries: dict[str, Any] = {}
    for i in range(0, len(pixels), step):
        k = (low + i) // step
        shared = replacing or low + i < first
        entries |= seal.write_chunk(corpus, k, pixels[i : i + step], step, shared=shared)
    return {"entries": ledger.as_json(entries)}, {"slices": len(rows)}


def _finish_write(job: IngestJob, values: Iterator[Values]) -> None:
    entries: dict[str, Any] = {}
    for value in values:
        entries |= json.loads(bytes(value["entries"]))
    with ledger.replacing(job.note("written.json")) as out:
        out.write(store.canonical(entries))


# -- seal


def _finish_seal(job: IngestJob, values: Iterator[Values]) -> None:
    del values
    new = Book.load(job.note("read"))
    old = read_book(job.sealed) if job.sealed else Book.empty()
    book = old.plus(new, part=len(job.sealed.head["parts"]) if job.sealed else 0)
    parts = list(job.sealed.head["parts"]) if job.sealed else []
    if len(new.slices):
        part = {"n": len(new.slices), "digest": store.content_digest(new.slices)}
        parts.append(part)
    made_with = job.settings.matters_to(*MADE_WITH) | {"set": job.set_name}
    attributes = {
        "set": job.set_name,
        "key_id": job.key.key_id,
        "window_hu": list(job.settings.window_hu),
        "size_px": job.settings.size_px,
        "chunk_slices": job.settings.chunk_slices,
        "parts": parts,
        "made_with": made_with,
        "value_range": _value_range(job, new),
        "derived": dict.fromkeys(store.SMALLER, 1),
    }
    if job.lease and not leases.held(job.corpus / leases.NAME, job.lease):
        raise Incomplete(f"{job.corpus}: another process took this corpus over; run again")
    written = json.loads(job.note("written.json").read_bytes())
    kept = job.sealed.manifest if job.sealed else {}
    chunks = {k: v for k, v in kept.items() if store.is_chunk(k)} | written
    attributes["summary"] = book.summary(job.set_name) | {
        "bytes_out": sum(entry[0] for entry in chunks.values())
    }
    seal.seal(
        job.corpus,
        book.slices,
        book.series,
        attributes,
        written,
        book.sidecars(),
        replacing=job.replacing,
    )
    leave(job)


SURVEY = Phase("survey", "Read the headers of every file", 1, _plan_survey, _finish_survey)
READ = Phase("read", "Turn scans and images into slices", 1, _plan_read, _finish_read)
WRITE = Phase("write", "Write the chunks of the corpus", 1, _plan_write, _finish_write)
SEAL = Phase("seal", "Seal the corpus", 1, lambda job: [], _finish_seal)
