"""An audit as a plain loop, and a finished run as an object.

    from fingerprint import audit, open_run
    run = audit("ct/", "generated/", out="audit/")
    run.findings["identical.images"], run.matches, run.correlation

No Prefect and no Dask: the same phases as on a cluster, one shard after the other, the same files
and the same digest.
"""

from __future__ import annotations

import html
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import xarray as xr

from fingerprint import lease, ledger, phases
from fingerprint.corpus import identity, ingest, store
from fingerprint.job import AuditJob, OnDisk, audit_job, claim, read_run
from fingerprint.measure import findings
from fingerprint.report import build
from fingerprint.search import correlation, matches
from fingerprint.settings import Settings
from fingerprint.verify import MANIFEST, outputs, seal_run

EVERY_S = 2.0  # between two looks at how far trainings are


@dataclass(frozen=True)
class Outcome:
    """What a long command left in its folder: its document, its findings, its page."""

    out: Path

    DOCUMENT: ClassVar[str]

    @property
    def findings(self) -> dict[str, Any]:
        """Every number of the report, flat."""
        return dict(json.loads(self._there("findings.json").read_bytes()))

    def _there(self, name: str) -> Path:
        """Return a file of the run; an unfinished one may lack it."""
        if not (self.out / name).exists():
            raise ValueError(f"open_run: {self.out} has no {name} yet; run the audit again")
        return self.out / name

    @property
    def report(self) -> Path:
        """The page."""
        return self.out / "report.html"

    @property
    def complete(self) -> bool:
        """Whether every phase is done and the outputs are sealed."""
        status = read_run(self.out, self.DOCUMENT)["status"]
        return status == "complete" and (self.out / MANIFEST).exists()


@dataclass(frozen=True)
class Run(Outcome):
    """What an audit left in its folder."""

    DOCUMENT: ClassVar[str] = AuditJob.DOCUMENT

    @property
    def matches(self) -> pd.DataFrame:
        """One row per match: the best patients of each query, with every score."""
        return matches.load(self._there("matches.parquet"))

    @property
    def correlation(self) -> xr.Dataset:
        """The query x patient matrix."""
        return correlation.load(self._there("correlation.zarr"))

    @property
    def exit_code(self) -> int:
        """Return 10 if copies were found, 0 if none, 4 if the run is not complete."""
        return findings.exit_code(self.findings) if self.complete else 4

    def _repr_html_(self) -> str:
        path = html.escape(self.report.resolve().as_uri())
        images = self.findings.get("identical.images") if self.complete else None
        state = "not complete" if images is None else f"{images} identical images"
        return f'<p><b>Audit</b>: {state}. <a href="{path}">Open the report</a></p>'


def open_run(out: Path | str) -> Run:
    """Open a run folder.

    Raises
    ------
    ValueError
        It holds no run.
    """
    read_run(Path(out))
    return Run(Path(out))


def silent(phase: str, done: int, planned: int) -> None:
    """Watch nothing."""


@contextmanager
def steps_shown(steps: Callable[[], tuple[int, int]], watch: phases.Watch) -> Iterator[None]:
    """Watch how many steps of all trainings are done, of how many: one of them takes hours."""
    stop, planned = threading.Event(), steps()[1]
    if not planned:
        yield
        return

    def look() -> None:
        watch("steps", 0, planned)
        while not stop.wait(EVERY_S):
            done, _ = steps()
            if done:  # nothing done says that a phase begins
                watch("steps", done, planned)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        stop.set()
        looking.join()


log = logging.getLogger(__name__)

Ingest = Callable[[ingest.IngestJob], None]


def corpus_for(
    source: Path | str,
    role: str,
    out: Path,
    settings: Settings,
    key_file: Path | None,
    run: Ingest,
    *,
    update: bool = False,
) -> Path:
    """Return `source` if it is a corpus, else ingest it into ``OUT/corpora`` and return that.

    Parameters
    ----------
    role : str
        ``real``, ``generated`` or ``control``: position on the command line decides it.
    run : callable
        Runs the phases of an ingest: a plain loop, or a flow.
    update : bool
        Let the corpus of a finished run grow.
    """
    source = Path(source)
    if store.is_corpus(source):
        return source
    key = identity.load_key(key_file, create=True)
    out.mkdir(parents=True, exist_ok=True)
    os.chmod(out, 0o700)
    path = out / "corpora" / role
    if role != "generated":  # the real sets say which way is up
        settings = settings.model_copy(update={"orient": None})
    with lease.lease(path / lease.NAME) as token:
        job = ingest.ingest_job(
            [source], path, set_name=role, settings=settings, key=key, lease=token, skip=out
        )
        if job.sealed and job.files and (out / "run.json").exists() and not update:
            raise ValueError(
                f"out: {out} holds a run of {role} files of which there are {len(job.files)} more "
                "now; choose another OUT, or give --update"
            )
        run(job)
    return path


def run_ingest(
    job: ingest.IngestJob,
    execute: ledger.Execute = ledger.in_this_process,
    watch: phases.Watch = silent,
    step: phases.Step = phases.run_phase,
) -> None:
    """Run the phases of an ingest; nothing is written if there is nothing new."""
    if job.sealed is not None and not job.files:
        ingest.leave(job)  # nothing is new; a kill after the seal may have left its working folder
        return
    for phase in phases.INGEST:
        step(phase, job, execute, watch)


def run_audit(
    job: AuditJob,
    execute: ledger.Execute = ledger.in_this_process,
    watch: phases.Watch = silent,
    step: phases.Step = phases.run_phase,
) -> Run:
    """Run the phases of an audit; a report is left even when a phase fails.

    `step` runs one phase: as it is, or with a task run around it.
    """
    try:
        for phase in phases.AUDIT:
            step(phase, job, execute, watch)
        seal_run(job.out)
    except BaseException:
        leave_report(job, build.build)
        raise
    return Run(job.out)


@contextmanager
def private() -> Iterator[None]:
    """Make every new file readable by its owner alone: reports show patients' slices."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def rebuild_report(out: Path, *, without_real_images: bool = False) -> tuple[Path, list[str]]:
    """Write the page of a finished or broken run again.

    Returns
    -------
    Path
        The page.
    list of str
        The outputs that are not as they were left. If there are any, the run is not sealed anew:
        the seal would vouch for what was changed.
    """
    write = partial(build.build, without_real_images=without_real_images)
    return rebuilt(open_run(out), write)


def rebuilt(left: Outcome, write: Callable[[Path], Path]) -> tuple[Path, list[str]]:
    """Write a page again by `write`, and seal what was sound; see `rebuild_report`."""
    complete, problems = left.complete, list(outputs(left.out))
    with private():
        page = write(left.out)
        if complete and not problems:
            seal_run(left.out)
    return page, problems


def leave_report(job: OnDisk, write: Callable[[Path], Path]) -> None:
    """Say INCOMPLETE on the page; what stopped the command is what the caller hears of."""
    try:
        job.update(status="incomplete")
        write(job.out)
    except Exception as error:
        what = job.DOCUMENT.removesuffix(".json")
        log.warning("no report of the unfinished %s (%s)", what, type(error).__name__)


def audit(
    real: Path | str,
    generated: Path | str,
    controls: Path | str | None = None,
    *,
    out: Path | str,
    settings: Settings | None = None,
    key_file: Path | None = None,
) -> Run:
    """Search every generated image for copies of the real patients.

    Parameters
    ----------
    real, generated, controls : path
        Corpora, or folders of files, which are ingested under ``OUT/corpora`` first.
    out : path
        The folder of the run; the same call again resumes or does nothing.
    settings : Settings, optional
    key_file : path, optional
        Key of the pseudonyms; by default the one in the user's data folder.

    Returns
    -------
    Run

    Raises
    ------
    ValueError, ledger.Incomplete, ledger.Damaged
        Input that cannot be used; shards that could not be done; stored bytes that changed.
    """
    s = settings or Settings()
    claim(Path(out))
    roles = {"real": real, "generated": generated, "control": controls}
    with private():
        paths = {
            role: corpus_for(source, role, Path(out), s, key_file, run_ingest)
            for role, source in roles.items()
            if source is not None
        }
    with private(), lease.lease(Path(out) / lease.NAME):
        job = audit_job(paths["real"], paths["generated"], paths.get("control"), Path(out), s)
        return run_audit(job)
