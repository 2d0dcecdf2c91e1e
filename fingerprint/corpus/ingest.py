"""An ingest before it starts and after it ends: what is new, what may not be, what was refused.

Running an ingest again on the same source writes nothing; a grown source adds a part; a file or a
table that changed is an error unless the corpus is replaced. The phases are in `steps`.
"""

from __future__ import annotations

import dataclasses
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
from fingerprint.corpus.books import read_book
from fingerprint.corpus.identity import Key, pseudonym
from fingerprint.corpus.listing import BATCH, Files, Places, SourceFile
from fingerprint.corpus.source import walk
from fingerprint.ledger import Damaged
from fingerprint.settings import Settings

TRY_AGAIN = ("reader_died", "not_listed", "no_patient")  # the cause may lie outside the file
MADE_WITH = ("window_hu", "size_px", "chunk_slices", "require", "hu", "range", "orient")


@dataclass(frozen=True)
class IngestJob:
    """One ingest: which new files become which corpus. Made by `ingest_job`."""

    corpus: Path
    set_name: str
    settings: Settings
    key: Key
    files: Files
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
    skip: Path | None = None,
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
    # whole paths: a worker may have been started in another folder
    out, sources = Path(out).absolute(), [Path(s).absolute() for s in sources]
    seal.recover(out)
    _clean(out)
    files = walk(
        sources,
        key,
        participant_from=settings.participant_from,
        skip=skip.absolute() if skip else out,
    )
    people = _people(sources, participants)
    job = IngestJob(
        out, set_name, settings, key, files, people, lease, replace and store.is_corpus(out)
    )
    if job.sealed is None:
        ours = {".ingest", leases.NAME}
        others = [p for p in out.iterdir() if p.name not in ours] if out.exists() else []
        if others and not job.ledger.exists() and not job.replacing:
            raise ValueError(f"out: {out} is not empty and not a corpus; choose another folder")
        return job
    _same_settings(job, job.sealed)
    job = dataclasses.replace(job, files=Files(_new_files(job, job.sealed)))
    if job.files and job.sealed and job.sealed.summary["participants_known"] == "clusters":
        raise ValueError(
            f"participants: {out} has clusters of near-duplicates for patients and cannot grow "
            "(a new image may join two); give slices.tsv, or rebuild it with --replace"
        )
    if job.files and job.sealed and not all(map(job.sealed.has, (*store.DERIVED, *store.SUMS))):
        raise ValueError(
            f"out: {out} was made by an earlier version, without the small pictures of this one, "
            "and cannot grow; rebuild it with --replace"
        )
    return job


def _people(sources: Sequence[Path], given: Path | None) -> dict[str, tables.Person]:
    """Read the table that was given, or those in the sources and in their folders (sites).

    Raises
    ------
    ValueError
        Two tables say different things of one participant.
    """
    beside = [p for s in sources for p in (s, *sorted(s.glob("*/"))) if s.is_dir()]
    found = [given] if given else [p / "participants.tsv" for p in beside]
    people: dict[str, tables.Person] = {}
    for table in found:
        for name, person in tables.read_participants(table).items() if table.exists() else ():
            if people.setdefault(name, person) != person:
                raise ValueError("participants.tsv: two tables differ about one participant")
    return people


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
    made = dict(corpus.head["made_with"])
    if wanted["orient"] == "as-is" and made.get("orient") is None:
        made["orient"] = "as-is"  # not questioned then, and what was stored is the same
    differs = sorted(name for name in wanted if wanted[name] != made.get(name))
    if differs:
        raise ValueError(
            f"settings: {job.corpus} was made with other {', '.join(differs)}; "
            "give the same settings, another place, or rebuild it with ingest --replace"
        )


def _new_files(job: IngestJob, corpus: store.Corpus) -> Iterator[SourceFile]:
    changed = told = 0
    for file, row in _known(job.files, read_book(corpus).files):
        if row is None or row.code in TRY_AGAIN:
            yield file
            continue
        told += file.told(job.key) != row.told
        stat = (file.size, file.mtime_ns, file.ctime_ns)
        if stat != (row.bytes, row.mtime_ns, row.ctime_ns) and row.sha256:
            changed += ledger.digest_of_file(file.path) != row.sha256
    told += _told_otherwise(job, corpus)
    if changed or told:
        raise Damaged(
            f"source_changed: {changed} files differ from what {job.corpus.name} was made of, and "
            f"the tables say something else of {told}; restore them, or rebuild with --replace"
        )


def _known(files: Files, known: pd.DataFrame) -> Iterator[tuple[SourceFile, Any]]:
    """Yield each file with the row of the account that speaks of it, or None."""
    places = Places(known["token"].to_numpy(np.bytes_))
    for first in range(0, len(files), BATCH):
        batch = files[first : first + BATCH]
        at = places.of(batch.tokens())
        rows = known.iloc[at].itertuples(index=False)
        for file, place, row in zip(batch, at, rows, strict=True):
            yield file, row if place >= 0 else None


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


def leave(job: IngestJob) -> None:
    """Remove the working folder of an ingest that is sealed."""
    shutil.rmtree(job.corpus / ".ingest", ignore_errors=True)


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
    corpus = store.open_corpus(job.corpus)
    if not corpus.summary["rejected"]:
        return  # a million rows need not be read to say so
    book = read_book(corpus)
    refused = book.files[book.files["code"] != ""].set_index("token")
    for file in job.files:
        if file.token in refused.index:
            row = refused.loc[file.token]
            yield file.path, str(row["code"]), str(row["detail"])
