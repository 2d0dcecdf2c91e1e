"""Recompute every digest of a corpus or of a run, and name what is not as it was left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.job import read_run
from fingerprint.membership_job import DOCUMENT as MEMBERSHIP
from fingerprint.study_job import DOCUMENT as STUDY

MANIFEST = "manifest.json"
# not part of what a run states: shards have their own digests, corpora theirs, a log grows
APART = ("ledger/", "corpora/", "before/", "log.jsonl", ".lease", MANIFEST)
APART_IN_STUDY = (*APART, "cohorts/", "pools/", "audits/")
APART_IN_MEMBERSHIP = (*APART, "models/")


def seal_run(out: Path) -> None:
    """List every file of a finished run with its SHA-256, in ``manifest.json``."""
    files = {name: ledger.digest_of_file(out / name) for name in _files(out)}
    document = {"format": 1, "files": files, "seal": ledger.digest_of(files)}
    with ledger.replacing(out / MANIFEST) as file:
        file.write(store.canonical(document))
    for name in [*files, MANIFEST]:
        (out / name).chmod(0o600)  # the report shows patients' slices


def verify(path: Path) -> Iterator[str]:
    """Yield one line for each thing in a corpus or a run that is not as it was left.

    Raises
    ------
    ValueError
        It is neither a corpus nor a run.
    """
    if (path / STUDY).exists():
        yield from _verify_study(path)
    elif (path / MEMBERSHIP).exists():
        yield from _verify_membership(path)
    elif (path / "run.json").exists() or (path / MANIFEST).exists():
        yield from _verify_run(path)
    else:
        yield from store.verify(path)


def _verify_study(out: Path) -> Iterator[str]:
    yield from outputs(out)
    yield from _shards(out)
    for audit in sorted(p for p in out.glob("audits/*") if p.is_dir()):
        yield from (f"{out.name}: audits/{line}" for line in _verify_run(audit))
    for folder in ("corpora", "cohorts", "pools"):
        for corpus in sorted(p for p in out.glob(f"{folder}/*") if p.is_dir()):
            yield from (f"{out.name}: {folder}/{line}" for line in store.verify(corpus))


def _verify_membership(out: Path) -> Iterator[str]:
    yield from outputs(out)
    yield from _shards(out)
    for corpus in sorted(p.parent for p in out.glob("corpora/*/*/*/zarr.json")):
        name = corpus.relative_to(out).parent.as_posix()
        yield from (f"{out.name}: {name}/{line}" for line in store.verify(corpus))


def _shards(out: Path) -> Iterator[str]:
    for file in sorted(out.glob("ledger/*/*.shard")):
        try:
            ledger.receipt(file)
        except ledger.Damaged as error:
            yield f"{out.name}: ledger/{file.parent.name}/{error}"


def _verify_run(out: Path) -> Iterator[str]:
    yield from outputs(out)
    yield from _shards(out)
    yield from _missing(out)
    for corpus in sorted(p for p in out.glob("corpora/*") if p.is_dir()):
        yield from (f"{out.name}: corpora/{line}" for line in store.verify(corpus))


def _missing(out: Path) -> Iterator[str]:
    """Yield what ``run.json`` names and is not there: shards, and corpora inside the run."""
    try:
        run = read_run(out)
    except (ValueError, ledger.Damaged):
        return  # said already
    for name, phase in run["phases"].items():
        there = len(list(out.glob(f"ledger/{name}/*.shard")))
        if there < phase["done"]:
            yield f"{out.name}: {phase['done'] - there} shards of ledger/{name} are missing"
    for role, given in run["inputs"].items():
        if given and not Path(given["path"]).is_absolute():
            try:
                same = store.open_corpus(out / given["path"]).digest == given["digest"]
            except (ValueError, ledger.Damaged):
                same = False
            if not same:
                yield f"{out.name}: the {role} corpus in {given['path']} is not that of the run"


def outputs(out: Path) -> Iterator[str]:
    """Yield one line for each output of a run that is not as it was left."""
    try:
        status = read_run(out, _document(out))["status"]
    except (ValueError, ledger.Damaged) as error:
        yield str(error)
        return
    try:
        data = (out / MANIFEST).read_bytes()
        document = json.loads(data)
        files = document["files"]
        if data != store.canonical(document) or document["seal"] != ledger.digest_of(files):
            yield f"{out.name}: {MANIFEST} is not what was written"
            return
    except FileNotFoundError:
        if status == "complete":
            yield f"{out.name}: {MANIFEST} is missing: the run was stopped at its end, run it again"
        return
    except (ValueError, KeyError, TypeError):
        yield f"{out.name}: {MANIFEST} is not what was written"
        return
    present = set(_files(out))
    for name in sorted(set(files) | present):
        if name not in present:
            yield f"{out.name}: {name} is missing"
        elif name not in files:
            yield f"{out.name}: {name} does not belong to the run"
        elif ledger.digest_of_file(out / name) != files[name]:
            yield f"{out.name}: {name} is not what was written"


def _files(out: Path) -> list[str]:
    names = (p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    apart = {STUDY: APART_IN_STUDY, MEMBERSHIP: APART_IN_MEMBERSHIP}.get(_document(out), APART)
    return sorted(name for name in names if not name.startswith(apart))


def _document(out: Path) -> str:
    """Name the document of a folder: of a study, of a membership run, or of an audit."""
    return next((name for name in (STUDY, MEMBERSHIP) if (out / name).exists()), "run.json")
