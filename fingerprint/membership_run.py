"""A membership run as a plain loop: folders become corpora, the phases run, answers get names.

The same phases run as a flow; what is done already is not done again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from fingerprint import lease, ledger, phases
from fingerprint.corpus import identity, ingest, store
from fingerprint.corpus.identity import Key, token
from fingerprint.corpus.readers import Reader
from fingerprint.corpus.scan import ReadOptions
from fingerprint.corpus.source import walk
from fingerprint.membership.folders import GENERATED, UNKNOWN, Names, Task, tasks
from fingerprint.membership.submission import written
from fingerprint.membership_job import DOCUMENT, TEST, MembershipJob, Sets
from fingerprint.phases import decide, shadow
from fingerprint.report.membership import build
from fingerprint.run import Ingest, Outcome, leave_report, rebuilt, silent, steps_shown
from fingerprint.settings import Settings
from fingerprint.verify import seal_run

LOOKED_AT = 5  # files of a folder, to see how large its images are
STEP_PX = 32  # sides of a corpus are multiples of it


@dataclass(frozen=True)
class Membership(Outcome):
    """What a membership run left in its folder."""

    DOCUMENT: ClassVar[str] = DOCUMENT

    @property
    def exit_code(self) -> int:
        """Return 0 if it is complete, else 4."""
        return 0 if self.complete else 4


def names_in(settings: Settings) -> Names:
    """Return how the folders are called."""
    return Names(
        settings.generated_folder,
        settings.used_folder,
        settings.not_used_folder,
        settings.unknown_folder,
    )


def find(dev: Path, test: Path, settings: Settings) -> list[Task]:
    """Find the tasks; see `folders.tasks` for what is refused."""
    return tasks(Path(dev), Path(test), names_in(settings))


def corpora_of(
    found: list[Task], out: Path, settings: Settings, key_file: Path | None, run: Ingest
) -> list[Sets]:
    """Ingest the folders of every task, all of a task at the size of its smallest images.

    Parameters
    ----------
    run : callable
        Runs the phases of an ingest: a plain loop, or a flow.

    Raises
    ------
    ValueError
        No image of a set can be read.
    """
    key = identity.load_key(key_file, create=True)
    out.mkdir(parents=True, exist_ok=True)
    os.chmod(out, 0o700)
    sets = []
    for task in found:
        sized = settings.model_copy(update={"size_px": _side(task, settings)})
        both = {
            side: {
                role: _ingested(
                    folder, out / "corpora" / task.name / side / role, role, sized, key, run
                )
                for role, folder in folders.items()
            }
            for side, folders in (("dev", task.dev), (TEST, task.test))
        }
        sets.append(Sets(task.name, both["dev"], both[TEST], _truth(task, both[TEST], key)))
    return sets


def _ingested(
    source: Path, out: Path, role: str, settings: Settings, key: Key, run: Ingest
) -> Path:
    kind = "generated" if role == GENERATED else "real"
    with lease.lease(out / lease.NAME) as held:
        run(ingest.ingest_job([source], out, set_name=kind, settings=settings, key=key, lease=held))
    return out


def _side(task: Task, settings: Settings) -> int:
    """Return the side at which a task is compared: of its smallest images, at most `size_px`."""
    options = ReadOptions(settings.window_hu, settings.size_px, True, settings.hu, settings.range)
    with Reader() as reader:
        sides = [
            side
            for folders in (task.dev, task.test)
            for folder in folders.values()
            if (side := _native(folder, reader, options))
        ]
    least = min(sides, default=settings.size_px)
    return min(settings.size_px, max(STEP_PX, least - least % STEP_PX))


def _native(folder: Path, reader: Reader, options: ReadOptions) -> int:
    """Return the side of the first image of a folder that can be read; 0 if none of a few can."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[:LOOKED_AT]:
        scan = reader.read([path], "image", options).scan
        if scan is not None:
            return scan.native_px
    return 0


# -- names of files: in memory, and in a submission


def names_of(folder: Path, key: Key) -> dict[str, str]:
    """Return the file name of every slice in a folder, by token."""
    return {name: path.name for name, path in _files(folder, key)}


def _files(folder: Path, key: Key) -> Iterator[tuple[str, Path]]:
    for file in walk([folder], key):
        if not file.reason:
            yield file.token, file.path


def _truth(task: Task, corpora: Mapping[str, Path], key: Key) -> dict[str, bool] | None:
    """Return what ``labels.csv`` says, by token.

    Raises
    ------
    ValueError
        It does not speak of every slice.
    """
    if task.labels is None or UNKNOWN not in corpora:
        return None
    there = store.open_corpus(corpora[UNKNOWN]).label("token").tolist()
    said = {of: task.label(name) for of, name in _names(task.test[UNKNOWN], there, key).items()}
    out = {of: label for of in there if (label := said[of]) is not None}
    if len(out) < len(there):
        raise ValueError(
            f"TEST: labels.csv of task {task.name} lacks {len(there) - len(out)} of "
            f"{len(there)} slices"
        )
    return out


def submit(job: MembershipJob, found: list[Task], key_file: Path | None) -> None:
    """Write ``submission_<method>.csv`` of every task and method."""
    key = identity.load_key(key_file, create=False)
    table = pd.read_parquet(job.out / decide.CALLED)
    s = job.settings
    for task in found:
        folder = job.out if len(found) == 1 else job.out / task.name
        folder.mkdir(exist_ok=True, mode=0o700)
        mine = table[table["task"] == task.name]
        for method, rows in mine.groupby("method"):
            called = [
                (names[one.token], bool(one.called))
                for role, of_role in rows.groupby("role")
                for names in (_names(task.test[str(role)], of_role["token"], key),)
                for one in of_role.itertuples()
            ]
            text = written(called, header=s.submission_header, extension=s.submission_extension)
            with ledger.replacing(folder / f"submission_{method}.csv") as out:
                out.write(text.encode())


def _names(folder: Path, wanted: Any, key: Key) -> dict[str, str]:
    """Name all slices of a folder; images of files that hold several are ``name#0``, ``name#1``."""
    out = names_of(folder, key)
    left = set(wanted) - set(out)
    for file, name in list(out.items()):
        k = 0
        while left and (of := token(key, f"{file}#{k}")) in left:
            path = Path(name)
            out[of], k = f"{path.stem}#{k}{path.suffix}", k + 1
            left.discard(of)
    return out


# -- the run


def run_membership(
    job: MembershipJob,
    found: list[Task],
    key_file: Path | None = None,
    execute: ledger.Execute = ledger.in_this_process,
    watch: phases.Watch = silent,
    step: phases.Step = phases.run_phase,
) -> Membership:
    """Run the phases and write the submissions; a page is left even when one fails."""
    try:
        for phase in phases.MEMBERSHIP:
            trains = phase.name == "shadow"
            with steps_shown(shadow.steps(job), watch) if trains else nullcontext():
                step(phase, job, execute, watch)
        submit(job, found, key_file)
        seal_run(job.out)
    except BaseException:
        leave_report(job, build.build)
        raise
    return Membership(job.out)


def rebuild_report(out: Path, *, without_real_images: bool = False) -> tuple[Path, list[str]]:
    """Write the page of a finished or broken run again; see `run.rebuild_report`."""
    del without_real_images  # there is no picture of a slice on it
    return rebuilt(Membership(out), build.build)
