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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fingerprint import lease as leases
from fingerprint import ledger
from fingerprint.corpus import seal, store
from fingerprint.corpus.books import (
    Book,
    outcomes_of,
    parquet,
    read_book,
    series_of,
    slices_of,
)
from fingerprint.corpus.ingest import MADE_WITH, IngestJob, leave
from fingerprint.corpus.reading import (
    MID_PX,
    Stacks,
    Unit,
    order,
    read_units,
    stacks_of,
    survey_files,
)
from fingerprint.corpus.scan import ReadOptions
from fingerprint.ledger import Counts, Damaged, Incomplete, Phase, Shard, Values, shard
from fingerprint.settings import Settings

SURVEY_FILES = 512
READ_SLICES = 1024
WRITE_CHUNKS = 16
LIMITS = ("reader_memory_gib", "reader_cpu_s")


# -- survey


def _plan_survey(job: IngestJob) -> list[Shard]:
    keep = [not f.code and not f.reason for f in job.files]
    readable = job.files if all(keep) else job.files.take(np.flatnonzero(keep))
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
    headers = (outcomes_of(json.loads(bytes(value["rows"]))) for value in values)
    book = book.with_headers(headers, job.settings.require)
    if job.settings.range is None:
        book = book.within(_sealed_range(job))
    book.save(job.note("survey"), "files")


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
    book = Book.load(job.note("survey"), "files")
    options = _options(job, _value_range(job, book))
    stacks = stacks_of(book, job.files)
    del book
    shards = [
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
            stacks[part],
            options,
            job.key,
            (job.settings.reader_memory_gib, job.settings.reader_cpu_s),
        )
        for part, batch in _batches(stacks)
    ]
    with ledger.replacing(job.note("read.json")) as out:
        out.write(store.canonical([one.key for one in shards]))
    return shards


def _value_range(job: IngestJob, book: Book) -> tuple[float, float] | None:
    return book.value_range(_sealed_range(job))


def _sealed_range(job: IngestJob) -> list[float] | None:
    return job.sealed.head.get("value_range") if job.sealed else None


def _batches(stacks: Stacks) -> Iterator[tuple[slice, list[Unit]]]:
    """Pack stacks of slices, in order, into shards of about `READ_SLICES`: which files, which."""
    batch: list[Unit] = []
    first = last = frames = 0
    for unit in stacks:
        if batch and frames + unit.frames > READ_SLICES:
            yield slice(first, last), batch
            batch, first, frames = [], last, 0
        batch.append(unit)
        last, frames = last + len(unit.files), frames + unit.frames
    if batch:
        yield slice(first, last), batch


def _finish_read(job: IngestJob, values: Iterator[Values]) -> None:
    slices, series = [], []

    def outcomes() -> Iterator[pd.DataFrame]:
        with job.note("mids").open("wb") as mids:
            for i, value in enumerate(values):
                read = json.loads(bytes(value["rows"]))
                slices.append(slices_of(read["slices"], i))
                series.append(series_of(read["series"]))
                mids.write(np.asarray(value["mids"], np.uint8).tobytes())
                yield outcomes_of(read["files"])

    book = Book.load(job.note("survey"), "files").with_outcomes(outcomes()).with_series(series)
    if not len(book.series) and job.sealed is None:
        raise ValueError(f"source: no readable slice among {len(job.files)} files ({book.tally()})")
    book.save(job.note("read"), "files")
    book = replace(book, files=Book.empty().files)  # large, and done with
    slices[:] = [pd.concat([slices_of([], 0), *slices], ignore_index=True)]
    book = book.with_slices(order(slices.pop(), _mids(job), job.set_name))
    book.save(job.note("read"), "slices", "series")


def _mids(job: IngestJob) -> NDArray[np.uint8]:
    """Open the small images of slices without a participant: a million of them are 15 GiB."""
    side = min(MID_PX, job.settings.size_px)
    if not job.note("mids").stat().st_size:
        return np.zeros((0, side, side), np.uint8)
    return np.memmap(job.note("mids"), np.uint8, "r").reshape(-1, side, side)


# -- write


def _plan_write(job: IngestJob) -> list[Shard]:
    columns = ["digest", "shard", "member", "index"]
    slices = pd.read_parquet(job.note("read") / "slices.parquet", columns=columns)
    keys = json.loads(job.note("read.json").read_bytes())
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
                {i: keys[i] for i in rows["shard"].unique()},
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
    keys: Mapping[int, str],
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
    for number, members in groups:
        values = ledger.read(spool / "read" / f"{keys[number]}.shard")
        for member, wanted in members.groupby("member", sort=False):
            stack = np.frombuffer(store.BLOSC.decode(bytes(values[f"p{member}"])), np.uint8)
            stack = stack.reshape(-1, size, size)
            pixels[wanted["at"].to_numpy()] = stack[wanted["index"].to_numpy()]
    entries: dict[str, Any] = {}
    sums = []
    for i in range(0, len(pixels), step):
        k = (low + i) // step
        shared = replacing or low + i < first
        more, found = seal.write_chunk(corpus, k, pixels[i : i + step], step, shared=shared)
        entries |= more
        sums.append({name: column[max(0, first - low - i) :] for name, column in found.items()})
    values = {name: np.concatenate([part[name] for part in sums]) for name in store.SUMS}
    return values | {"entries": ledger.as_json(entries)}, {"slices": len(rows)}


def _finish_write(job: IngestJob, values: Iterator[Values]) -> None:
    entries: dict[str, Any] = {}
    sums = []
    for value in values:
        entries |= json.loads(bytes(value["entries"]))
        sums.append(pd.DataFrame({name: value[name] for name in store.SUMS}))
    with ledger.replacing(job.note("sums.parquet")) as out:
        out.write(parquet(pd.concat([pd.DataFrame(columns=store.SUMS, dtype="int64"), *sums])))
    with ledger.replacing(job.note("written.json")) as out:
        out.write(store.canonical(entries))


# -- seal


def _finish_seal(job: IngestJob, values: Iterator[Values]) -> None:
    del values
    new = Book.load(job.note("read"), "files", "slices", "series").with_sums(
        pd.read_parquet(job.note("sums.parquet"))
    )
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
    }
    del new, old  # of a million files these are large
    if job.lease and not leases.held(job.corpus / leases.NAME, job.lease):
        raise Incomplete(f"{job.corpus}: another process took this corpus over; run again")
    written = json.loads(job.note("written.json").read_bytes())
    kept = job.sealed.manifest if job.sealed else {}
    chunks = {k: v for k, v in kept.items() if store.is_chunk(k)} | written
    attributes["summary"] = book.summary(job.set_name) | {
        "bytes_out": sum(entry[0] for entry in chunks.values())
    }
    extra, rows, series = book.sidecars(), book.slices, book.series
    del book
    seal.seal(job.corpus, rows, series, attributes, written, extra, replacing=job.replacing)
    leave(job)


SURVEY = Phase("survey", "Read the headers of every file", 1, _plan_survey, _finish_survey)
READ = Phase("read", "Turn scans and images into slices", 4, _plan_read, _finish_read)
WRITE = Phase("write", "Write the chunks of the corpus", 3, _plan_write, _finish_write)
SEAL = Phase("seal", "Seal the corpus", 1, lambda job: [], _finish_seal)
