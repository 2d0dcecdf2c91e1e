"""The chains of commands as plain functions, which Prefect wraps unchanged.

`How` says where shards go, who is told, and what is put around a phase: nothing under ``--plain``,
a task run in a flow. Parameters are paths and names as text, fit to be read in a list of runs.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fingerprint import lease, membership_run, run, settings, study_run
from fingerprint.corpus import identity, ingest, store
from fingerprint.job import audit_job, claim
from fingerprint.ledger import Execute
from fingerprint.membership_job import DOCUMENT as MEMBERSHIP
from fingerprint.membership_job import membership_job
from fingerprint.phases import Step, Watch, run_phase
from fingerprint.study_job import DOCUMENT, StudyJob, study_job
from flows import cluster, log

FIRST_PAGE = (
    "queries.generated",
    "patients.searched",
    "slices.searched",
    "identical.images",
    "images.found",
    "risk.patients",
    "set.p_value",
    "limit.weakest",
)

Knobs = Mapping[str, Any]


@dataclass(frozen=True)
class How:
    """Where the shards of a chain go, who watches, and what is put around a phase."""

    cluster: str = "local"
    watch: Watch = run.silent
    step: Step = run_phase


@dataclass(frozen=True)
class Ingested:
    """A sealed corpus; `refused` says so if too many inputs were rejected."""

    corpus: store.Corpus
    refused: str = ""
    rejected: tuple[tuple[Path, str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Audited:
    """A finished run; `refused` names each set of which too many inputs were rejected."""

    run: run.Run
    refused: str = ""


@dataclass(frozen=True)
class Studied:
    """A study, finished or not asked for beyond its cohorts."""

    study: study_run.Study
    job: StudyJob
    refused: str = ""


@dataclass(frozen=True)
class Asked:
    """A finished membership run; `refused` names each set of which too many were rejected."""

    run: membership_run.Membership
    refused: str = ""
    rejected: tuple[tuple[Path, str, str], ...] = field(default=(), repr=False)


def ingest_files(
    sources: Sequence[str],
    out: str,
    *,
    set_name: str = "real",
    participants: str | None = None,
    replace: bool = False,
    settings_file: str | None = None,
    knobs: Knobs | None = None,
    key_file: str | None = None,
    how: How | None = None,
) -> Ingested:
    """Turn files into a sealed corpus.

    Raises
    ------
    ValueError, ledger.Incomplete, ledger.Damaged
    """
    how = how or How()
    s = _settings(settings_file, knobs)
    with run.private(), lease.lease(Path(out) / lease.NAME) as token:
        job = ingest.ingest_job(
            [Path(source) for source in sources],
            Path(out),
            set_name=set_name,
            settings=s,
            key=identity.load_key(_path(key_file), create=True),
            participants=_path(participants),
            replace=replace,
            lease=token,
        )
        with cluster.executor(how.cluster, s) as execute:
            run.run_ingest(job, execute, how.watch, how.step)
    return _judged(job)


def audit_sets(
    real: str,
    generated: str,
    out: str,
    *,
    controls: str | None = None,
    settings_file: str | None = None,
    knobs: Knobs | None = None,
    key_file: str | None = None,
    update: bool = False,
    dated: bool = False,
    how: How | None = None,
) -> Audited:
    """Compare every generated image with every real slice; folders are ingested first.

    Parameters
    ----------
    update : bool
        If OUT holds another run, keep what it stated and use its shards again.
    dated : bool
        Make a new run in ``OUT/<date>``, as scheduled runs do.

    Raises
    ------
    ValueError, ledger.Incomplete, ledger.Damaged
    """
    how = how or How()
    s = _settings(settings_file, knobs)
    folder = Path(out) / datetime.date.today().isoformat() if dated else Path(out)
    claim(folder)
    sources = {"real": real, "generated": generated} | ({"control": controls} if controls else {})
    with _working(folder, how, s) as work:
        paths = {
            role: run.corpus_for(
                source, role, folder, s, _path(key_file), work.ingest, update=update
            )
            for role, source in sources.items()
        }
        job = audit_job(
            paths["real"], paths["generated"], paths.get("control"), folder, s, update=update
        )
        done = run.run_audit(job, work.execute, how.watch, how.step)
    return Audited(done, work.refusal)


def study_corpus(
    corpus: str,
    out: str,
    *,
    generated: str | None = None,
    only_cohorts: bool = False,
    settings_file: str | None = None,
    knobs: Knobs | None = None,
    key_file: str | None = None,
    dated: bool = False,
    how: How | None = None,
) -> Studied:
    """Train generators on growing sets of a corpus and audit what they make; see `study_job`.

    Parameters
    ----------
    generated : str, optional
        A folder with images of the user's own generators, a folder for each size.
    only_cohorts : bool
        Stop once the training sets are sealed.
    dated : bool
        Make a new study in ``OUT/<date>``, as scheduled runs do.

    Raises
    ------
    ValueError, ledger.Incomplete, ledger.Damaged
    """
    how = how or How()
    s = _settings(settings_file, knobs)
    folder = Path(out) / datetime.date.today().isoformat() if dated else Path(out)
    claim(folder, DOCUMENT)
    with _working(folder, how, s) as work:
        source = run.corpus_for(corpus, "real", folder, s, _path(key_file), work.ingest)
        job = study_job(source, folder, s, brought=_path(generated))
        if only_cohorts:
            study_run.run_cohorts(job, work.execute, how.watch, how.step)
        else:
            study_run.bring(job, _path(key_file), work.ingest)
            study_run.run_study(job, work.execute, how.watch, how.step)
    return Studied(study_run.Study(job.out), job, work.refusal)


def membership_of(
    dev: str,
    test: str,
    out: str,
    *,
    settings_file: str | None = None,
    knobs: Knobs | None = None,
    key_file: str | None = None,
    dated: bool = False,
    how: How | None = None,
) -> Asked:
    """Ask which real slices of TEST were used, with methods that DEV teaches and judges.

    Raises
    ------
    ValueError, ledger.Incomplete, ledger.Damaged
    """
    how = how or How()
    s = _settings(settings_file, knobs)
    folder = Path(out) / datetime.date.today().isoformat() if dated else Path(out)
    found = membership_run.find(Path(dev), Path(test), s)
    claim(folder, MEMBERSHIP)
    with _working(folder, how, s) as work:
        sets = membership_run.corpora_of(found, folder, s, _path(key_file), work.ingest)
        counts = {name: len(paths) for name, paths in work.rejected.items()}
        job = membership_job(sets, folder, s, counts)
        done = membership_run.run_membership(
            job, found, _path(key_file), work.execute, how.watch, how.step
        )
    every = tuple(one for paths in work.rejected.values() for one in paths)
    return Asked(done, work.refusal, every)


@dataclass(frozen=True)
class _Work:
    """What a chain works with inside its folder: where shards go, and which ingests complained."""

    how: How
    execute: Execute
    refused: list[str] = field(default_factory=list)
    rejected: dict[str, tuple[tuple[Path, str, str], ...]] = field(default_factory=dict)

    def ingest(self, job: ingest.IngestJob) -> None:
        """Run an ingest, and note if too many of its inputs were rejected."""
        run.run_ingest(job, self.execute, self.how.watch, self.how.step)
        done = _judged(job)
        self.refused.append(done.refused)
        self.rejected[".".join(job.corpus.parts[-3:])] = done.rejected

    @property
    def refusal(self) -> str:
        """Every complaint."""
        return "; ".join(filter(None, self.refused))


@contextmanager
def _working(folder: Path, how: How, s: settings.Settings) -> Iterator[_Work]:
    """Hold a folder for its owner alone, with a log in it and a cluster to work it off."""
    with (
        run.private(),
        lease.lease(folder / lease.NAME),
        log.to_file(folder / "log.jsonl"),
        cluster.executor(how.cluster, s) as execute,
    ):
        yield _Work(how, execute)


def told_of(done: Studied) -> dict[str, Any]:
    """Return what a study tells on the terminal: its page, and what was found at each size."""
    job = done.job
    if not (job.out / "findings.json").exists():
        names = (name for name, *_ in job.sets_of_slices())
        return {"cohorts": ", ".join(str(job.cohort(name)) for name in names)}
    found = done.study.findings
    told: dict[str, Any] = {"report": str(done.study.report.resolve())}
    for point in job.sizes:
        levels = found.get(f"{point.name}.levels") or ["nothing"]
        images, people = (
            found.get(f"{point.name}.{what}.found") for what in ("images", "patients")
        )
        told[point.name] = (
            f"{found[f'{point.name}.cohort.slices']:,} slices: found at: {', '.join(levels)}; "
            f"images {'not decided' if images is None else images}, "
            f"patients {'not run' if people is None else people}"
        )
    return told


def _judged(job: ingest.IngestJob) -> Ingested:
    corpus = store.open_corpus(job.corpus)
    try:
        ingest.check_rejected(job)
    except ingest.TooManyRejected as error:
        return Ingested(corpus, str(error), tuple(ingest.rejected_paths(job)))
    return Ingested(corpus, rejected=tuple(ingest.rejected_paths(job)))


def _settings(file: str | None, knobs: Knobs | None) -> settings.Settings:
    return settings.load(_path(file), **(knobs or {}))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
