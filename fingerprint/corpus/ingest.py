"""From files to a sealed corpus, in four phases, each of them a set of resumable shards.

    survey   headers of every file, in limited children: what it is, whose, where in which stack
    read     stacks of slices, whole participants together: pixels to uint8, sums and digests
    write    bands of chunks, in the order (participant, scan, series, z)
    seal     labels, tables, manifest, and the swap of one pointer

Every file ends accepted, excluded (by a rule that was asked for) or rejected (with a code), and the
three add up to what was seen. Running it again on the same source writes nothing; a grown source
adds a part; a changed file is an error unless the corpus is replaced.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fingerprint import lease as leases
from fingerprint import ledger
from fingerprint.corpus import seal, store, tables
from fingerprint.corpus.books import Book, outcomes_of, read_book
from fingerprint.corpus.identity import Key
from fingerprint.corpus.reading import Unit, mids_of, order, read_units, survey_files, units_of
from fingerprint.corpus.scan import ReadOptions, Rejected
from fingerprint.corpus.source import SourceFile, walk
from fingerprint.ledger import Counts, Damaged, Incomplete, Phase, Shard, Values, shard
from fingerprint.settings import Settings

SURVEY_FILES = 512
READ_SLICES = 1024
WRITE_CHUNKS = 16
MADE_WITH = ("window_hu", "size_px", "chunk_slices", "require", "hu", "range", "orient")


@dataclass(frozen=True)
class IngestJob:
    """One ingest: which new files become which corpus. Made by `ingest_job`."""

    corpus: Path
    set_name: str
    settings: Settings
    key: Key
    files: tuple[SourceFile, ...]
    people: Mapping[str, tables.Person]
    lease: str = ""
    replacing: bool = False

    @property
    def ledger(self) -> Path:
        """The folder of finished shards; it goes when the corpus is sealed."""
        return self.corpus / ".ingest" / "ledger"

    @cached_property
    def sealed(self) -> store.Corpus | None:
        """The corpus that grows, if there is one and it is not to be replaced."""
        there = store.is_corpus(self.corpus) and not self.replacing
        return store.open_corpus(self.corpus) if there else None

    def record(self, phase: str, planned: int, done: int) -> None:
        """Keep no other record than the ledger: it goes with the seal."""

    def note(self, name: str) -> Path:
        """Where one phase leaves a small file for the next."""
        return self.corpus / ".ingest" / name


def ingest_job(
    sources: Sequence[Path],
    out: Path,
    *,
    set_name: str,
    settings: Settings,
    key: Key,
    participants: Path | None = None,
    replace: bool = False,
    lease: str = "",
) -> IngestJob:
    """List the sources and compare them with what the corpus already holds.

    To be called by whoever holds the lease of `out`; with its token, only its holder can seal.

    Raises
    ------
    ValueError
        No source, another key, or other settings than the corpus was made with.
    ledger.Damaged
        A file that was ingested has changed since (`source_changed`), and not `replace`.
    """
    if set_name not in ("real", "generated", "control"):
        raise ValueError(f"set: one of real, generated, control; got {set_name!r}")
    out = Path(out)
    seal.recover(out)
    ledger.clean(out / ".ingest" / "ledger")
    files = walk(
        [Path(s) for s in sources],
        key,
        participant_from=settings.participant_from,
        skip=out,
    )
    table = participants or next(
        (p for p in (Path(s) / "participants.tsv" for s in sources) if p.exists()), None
    )
    people = tables.read_participants(table) if table else {}
    job = IngestJob(
        out, set_name, settings, key, tuple(files), people, lease, replace and store.is_corpus(out)
    )
    if job.sealed is None:
        ours = {".ingest", leases.NAME}
        others = [p for p in out.iterdir() if p.name not in ours] if out.exists() else []
        if others and not job.ledger.exists() and not job.replacing:
            raise ValueError(f"out: {out} is not empty and not a corpus; choose another folder")
        return job
    _same_settings(job, job.sealed)
    return dataclasses.replace(job, files=tuple(_new_files(job, job.sealed)))


def _same_settings(job: IngestJob, corpus: store.Corpus) -> None:
    if corpus.key_id != job.key.key_id:
        raise ValueError(
            f"key: {job.corpus} was made with key {corpus.key_id}, this is {job.key.key_id}; "
            "give that key with --key-file, or another --out"
        )
    wanted = job.settings.matters_to(*MADE_WITH) | {"set": job.set_name}
    made = corpus.head["made_with"]
    differs = sorted(name for name in wanted if wanted[name] != made.get(name))
    if differs:
        raise ValueError(
            f"settings: {job.corpus} was made with other {', '.join(differs)}; "
            "give the same settings, another --out, or --replace"
        )


def _new_files(job: IngestJob, corpus: store.Corpus) -> Iterator[SourceFile]:
    known = read_book(corpus).files.set_index("token")
    changed = 0
    for file in job.files:
        if file.token not in known.index:
            yield file
            continue
        row = known.loc[file.token]
        stat = (file.size, file.mtime_ns, file.ctime_ns)
        if stat == (row["bytes"], row["mtime_ns"], row["ctime_ns"]) or not row["sha256"]:
            continue
        changed += hashlib.sha256(file.path.read_bytes()).hexdigest() != row["sha256"]
    if changed:
        raise Damaged(
            f"source_changed: {changed} files differ from what {job.corpus.name} was made of; "
            "restore them, or rebuild the corpus with --replace"
        )


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
                "files": [(f.token, f.size, f.mtime_ns) for f in batch],
                "key": job.key.key_id,
                "people": ledger.digest_of({k: [v.sex, v.age_y] for k, v in job.people.items()}),
                "settings": settings.matters_to("participant_from"),
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
    book = Book.of_files(job.files)
    headers = [outcomes_of(json.loads(bytes(value["rows"]))) for value in values]
    book = book.with_headers(headers, job.settings.require)
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
    options = _options(job, book.value_range())
    return [
        shard(
            "read",
            READ.version,
            {
                "units": [u.depends() for u in batch],
                "options": [str(v) for v in options.__dict__.values()],
                "key": job.key.key_id,
            },
            read_units,
            batch,
            options,
            job.key,
            (job.settings.reader_memory_gib, job.settings.reader_cpu_s),
        )
        for batch in _batches(units_of(book, job.files))
    ]


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
        mids.append(mids_of(value))
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
    return shards


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
    if not job.files:
        return _leave(job)
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
        "summary": book.summary(job.set_name),
    }
    if job.lease and not leases.held(job.corpus / leases.NAME, job.lease):
        raise Incomplete(f"{job.corpus}: another process took this corpus over; run again")
    written = json.loads(job.note("written.json").read_bytes())
    seal.seal(
        job.corpus,
        book.slices,
        book.series,
        attributes,
        written,
        book.sidecars(),
        replacing=job.replacing,
    )
    _leave(job)


def _leave(job: IngestJob) -> None:
    shutil.rmtree(job.corpus / ".ingest", ignore_errors=True)


SURVEY = Phase("survey", "Read the headers of every file", 1, _plan_survey, _finish_survey)
READ = Phase("read", "Turn scans and images into slices", 1, _plan_read, _finish_read)
WRITE = Phase("write", "Write the chunks of the corpus", 1, _plan_write, _finish_write)
SEAL = Phase("seal", "Seal the corpus", 1, lambda job: [], _finish_seal)


class TooManyRejected(RuntimeError):  # noqa: N818 - an outcome, exit 3
    """More inputs were rejected than the settings allow; the corpus is sealed all the same."""


def check_rejected(job: IngestJob) -> None:
    """Raise `TooManyRejected` if the share of rejected files exceeds the setting."""
    summary = store.open_corpus(job.corpus).summary
    rejected, seen = sum(summary["rejected"].values()), summary["seen"]
    allowed = job.settings.max_rejected_share(job.set_name)
    if rejected > allowed * seen:
        raise TooManyRejected(
            f"{rejected} of {seen} files of the {job.set_name} set were rejected, more than "
            f"{allowed:.0%}: see {job.corpus / 'rejections.tsv'}, or raise "
            f"max_rejected_share_{job.set_name}"
        )


def rejected_paths(job: IngestJob) -> Iterator[tuple[Path, str, str]]:
    """Yield (path, code, detail) of what was rejected: for the terminal, never for a file."""
    book = read_book(store.open_corpus(job.corpus))
    refused = book.files[book.files["code"] != ""].set_index("token")
    for file in job.files:
        if file.token in refused.index:
            row = refused.loc[file.token]
            yield file.path, str(row["code"]), str(row["detail"])


__all__ = ["READ", "SEAL", "SURVEY", "WRITE", "IngestJob", "Rejected", "ingest_job"]
