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
from fingerprint.corpus.identity import Key, pseudonym
from fingerprint.corpus.reading import Unit, order, read_units, survey_files, units_of
from fingerprint.corpus.scan import ReadOptions
from fingerprint.corpus.source import SourceFile, walk
from fingerprint.ledger import Counts, Damaged, Incomplete, Phase, Shard, Values, shard
from fingerprint.settings import Settings

SURVEY_FILES = 512
READ_SLICES = 1024
WRITE_CHUNKS = 16
LIMITS = ("reader_memory_gib", "reader_cpu_s")
TRY_AGAIN = ("reader_died", "not_listed", "no_patient")  # the cause may lie outside the file
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
    _clean(out)
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
    job = dataclasses.replace(job, files=tuple(_new_files(job, job.sealed)))
    if job.files and job.sealed and job.sealed.summary["participants_known"] == "clusters":
        raise ValueError(
            f"participants: {out} has clusters of near-duplicates for patients and cannot grow "
            "(a new image may join two); give slices.tsv, or rebuild it with --replace"
        )
    return job


def _clean(out: Path) -> None:
    """Remove what killed writers of this corpus left half written."""
    ledger.clean(out / ".ingest" / "ledger")
    for base in (out, out / seal.STAGED):
        for orphan in base.glob("*/c/*/0/*.wip"):
            orphan.unlink()


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
    known = {row.token: row for row in read_book(corpus).files.itertuples(index=False)}
    changed = told = 0
    for file in job.files:
        row = known.get(file.token)
        if row is None or row.code in TRY_AGAIN:
            yield file
            continue
        told += file.told(job.key) != row.told
        stat = (file.size, file.mtime_ns, file.ctime_ns)
        if stat != (row.bytes, row.mtime_ns, row.ctime_ns) and row.sha256:
            with file.path.open("rb") as data:
                changed += hashlib.file_digest(data, "sha256").hexdigest() != row.sha256
    told += _told_otherwise(job, corpus)
    if changed or told:
        raise Damaged(
            f"source_changed: {changed} files differ from what {job.corpus.name} was made of, and "
            f"the tables say something else of {told}; restore them, or rebuild with --replace"
        )


def _told_otherwise(job: IngestJob, corpus: store.Corpus) -> int:
    """Count the people of whom participants.tsv now says something else than the corpus."""
    there = corpus.scans.drop_duplicates("participant").set_index("participant")
    changed = 0
    for name, person in job.people.items():
        who = pseudonym(job.key, name)
        if who in there.index:
            sex, age = there.loc[who, "sex"], there.loc[who, "age"]
            changed += bool(person.sex and person.sex != sex) or 0 <= person.age_y != age
    return changed


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
    return book.value_range(job.sealed.head.get("value_range") if job.sealed else None)


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
        "summary": book.summary(job.set_name) | {"bytes_out": 0},
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


def leave(job: IngestJob) -> None:
    """Remove the working folder of an ingest that is sealed."""
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
