"""What is in the source folders: every file with its token, and what the tables say of it.

Paths live here and in the memory of a reader, nowhere else; everything that is stored speaks of a
file by its token, the keyed hash of its path relative to the source.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from fingerprint.corpus import tables
from fingerprint.corpus.identity import Key, token
from fingerprint.corpus.listing import Files, SourceFile
from fingerprint.corpus.scan import Rejected

# files that belong to a dataset and hold no image: excluded, listed, never an error
NOT_DATA = {
    "participants.tsv",
    "participants.json",
    "slices.tsv",
    "dataset_description.json",
    "dicomdir",
    "sha256sums",
    "readme",
    "readme.md",
    "readme.txt",
    "license",
    "license.txt",
    "changes",
    "truth.tsv",
}


def walk(
    sources: Sequence[Path],
    key: Key,
    *,
    participant_from: str | None = None,
    slices: Path | None = None,
    skip: Path | None = None,
) -> Files:
    """List every file below the sources, in the order of their tokens.

    Links and files that a table does not name come with a rejection `code`; files that are not data
    with a `reason` for their exclusion. Links are never followed.

    Raises
    ------
    ValueError
        A source that does not exist or holds no file; two files with one relative path.
    """
    _check(sources)
    files = Files(_described(sources, key, participant_from, slices, skip))
    if not files:
        raise ValueError(f"source: no file in {', '.join(map(str, sources))}")
    tokens = files.tokens()
    order = np.argsort(tokens, kind="stable")
    files, tokens = files.take(order), tokens[order]
    twice = np.flatnonzero(tokens[1:] == tokens[:-1])
    if len(twice):
        first, second = files[int(twice[0])], files[int(twice[0]) + 1]
        raise ValueError(f"source: {second.path} and {first.path} share a relative path")
    return _told_apart(files, sources)


def _described(
    sources: Sequence[Path],
    key: Key,
    participant_from: str | None,
    slices: Path | None,
    skip: Path | None,
) -> Iterator[SourceFile]:
    """Yield every file, as it is met; only what is no data is remembered."""
    seen: set[str] = set()
    for source in sources:
        listed = _table(source, slices)
        for path in _files(source, skip):
            name = path.relative_to(source).as_posix() if path != source else path.name
            file = _describe(path, name, token(key, name), listed, participant_from)
            if file.reason or file.code:
                if file.token in seen and file.reason:  # each source may have its own README
                    file = replace(file, token=token(key, f"{source.name}/{name}"))
                seen.add(file.token)
            yield file


def _check(sources: Sequence[Path]) -> None:
    resolved = [source.resolve() for source in sources]
    for i, source in enumerate(sources):
        if not str(source).strip() or not source.exists():
            raise ValueError(f"source: {str(source)!r} does not exist")
        if (source / "manifests").is_dir() and (source / "zarr.json").exists():
            raise ValueError(f"source: {source} is a corpus already; audit takes it as it is")
        for j, other in enumerate(resolved):
            if i != j and resolved[i].is_relative_to(other):
                raise ValueError(f"source: {source} lies in {sources[j]}; name one of them")


def _told_apart(files: Files, sources: Sequence[Path]) -> Files:
    """Where two NIfTI files of nobody share a name (``p1/ct.nii``, ``p2/ct.nii``), use the path."""
    roots = sorted((str(s) for s in sources), key=len, reverse=True)
    names = Counter(f.participant for f in files if _named(f))
    if not names or max(names.values()) == 1:
        return files

    def whole(file: SourceFile) -> str:
        path = str(file.path)
        root = next((r for r in roots if path.startswith(r)), "")
        return path[len(root) :].strip("/").removesuffix(".gz").removesuffix(".nii")

    return Files(
        replace(f, participant=whole(f)) if _named(f) and names[f.participant] > 1 else f
        for f in files
    )


def _named(file: SourceFile) -> bool:
    """Whether a NIfTI file's own name stands in for its participant."""
    is_nifti = file.name.lower().endswith((".nii", ".nii.gz"))
    return is_nifti and not (file.participant or "sub-").startswith("sub-")


def _table(source: Path, given: Path | None) -> dict[str, tables.SliceRow] | None:
    beside = source / "slices.tsv"
    path = given or (beside if source.is_dir() and beside.exists() else None)
    return tables.read_slices(path) if path else None


def _files(source: Path, skip: Path | None) -> Iterator[Path]:
    if not source.is_dir():
        yield source
        return

    def fail(error: OSError) -> None:
        raise ValueError(f"source: cannot list {error.filename}: {error.strerror}")

    avoid = skip.resolve() if skip else None
    for folder, folders, files in os.walk(source, onerror=fail):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [
            name for name in folders if name not in links and (here / name).resolve() != avoid
        ]
        yield from (here / name for name in sorted(files + links))


def _describe(
    path: Path,
    name: str,
    its_token: str,
    listed: dict[str, tables.SliceRow] | None,
    participant_from: str | None,
) -> SourceFile:
    stat = path.lstat()
    file = SourceFile(
        str(path.parent),
        path.name,
        its_token,
        stat.st_size,
        stat.st_mtime_ns,
        stat.st_ctime_ns,
    )
    lower = path.name.lower()
    if path.is_symlink():
        return replace(file, code="hostile_name")
    if lower in NOT_DATA or lower.startswith("."):
        return replace(file, reason="not_data")
    if not path.is_file():
        return replace(file, code="unreadable")
    if listed is not None:
        row = listed.get(tables.same_name(name))
        if row is None:
            return replace(file, code="not_listed")
        return replace(
            file,
            participant=row.participant,
            scan=row.scan,
            z_mm=row.z_mm,
            sex=row.sex,
            age_y=row.age_y,
        )
    if lower.endswith((".nii", ".nii.gz")) and not participant_from:
        return replace(file, participant=who_of_nifti(PurePosixPath(name)))
    if participant_from:
        try:
            return replace(file, participant=tables.participant_from(participant_from, name))
        except Rejected as rejected:
            return replace(file, code=rejected.code)
    return file


def who_of_nifti(path: PurePosixPath) -> str:
    """Whose NIfTI file it is, by its path in the source: the ``sub-*`` folder, else the stem."""
    for part in reversed(path.parts[:-1]):
        if part.startswith("sub-"):
            return part
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return stem.split("_")[0] if stem.startswith("sub-") else stem
