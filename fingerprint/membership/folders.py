"""The folders of ImageCLEFmedical GANs, of 2023 and of 2024: what lies where, and what is known.

    DEV/   generated/  real_used/  real_not_used/            one task, as in 2023
    TEST/  generated/  real_unknown/
    DEV/   <task>/generated/ ...   <task>/generated/ ...     tasks side by side, as in 2024
    TEST/  <task>/generated/ ...   <task>/generated/ ...

TEST may be labelled: by ``real_used/`` and ``real_not_used/`` in place of ``real_unknown/``, or by
``labels.csv`` beside it (name of the file with or without its ending, comma, 1 or 0). Case, spaces
and hyphens in the names of folders do not count.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

GENERATED, USED, NOT_USED, UNKNOWN = ROLES = ("generated", "used", "not_used", "unknown")
LABELS = "labels.csv"
DEPTH = 3  # folders below DEV or TEST in which a task may lie
ALONE = "task"  # name of the only one
KNOWN = {"1": True, "0": False, "used": True, "not_used": False}


@dataclass(frozen=True)
class Names:
    """How the folders are called; each may be a path, ``real/used``."""

    generated: str = "generated"
    used: str = "real_used"
    not_used: str = "real_not_used"
    unknown: str = "real_unknown"

    def of(self, role: str) -> str:
        """Return the name of one of `ROLES`."""
        return str(getattr(self, role))


@dataclass(frozen=True)
class Task:
    """One generator and the slices that are asked about it.

    Attributes
    ----------
    name : str
    dev, test : mapping of role to Path
        Folders that hold at least one file.
    labels : mapping of name to bool; or None
        What ``labels.csv`` says of the slices of TEST, by the names that stand there; see `label`.
    """

    name: str
    dev: Mapping[str, Path]
    test: Mapping[str, Path]
    labels: Mapping[str, bool] | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """Roles of the slices of TEST that are asked about."""
        return tuple(role for role in (USED, NOT_USED, UNKNOWN) if role in self.test)

    def label(self, name: str) -> bool | None:
        """Return what ``labels.csv`` says of a file, whole or without what follows its last dot."""
        labels = self.labels or {}
        return labels.get(name, labels.get(Path(name).stem))


def tasks(dev: Path, test: Path, names: Names = Names()) -> list[Task]:  # noqa: B008 - frozen
    """Find the tasks in two folders, in the order of their names.

    Raises
    ------
    ValueError
        A folder that does not exist, no task in it, tasks of DEV and TEST that do not pair, or one
        that lacks what it needs: one line that says which folder lacks what.
    """
    found = [_tasks(side, root, names) for side, root in (("DEV", dev), ("TEST", test))]
    out = []
    for (name, first), (other, second) in _paired((dev, found[0]), (test, found[1])):
        mine = Task(name, _roles(first, names), _roles(second, names), _labels(second))
        _complete(mine, first, second, names)
        if _plain(other) != _plain(name):
            mine = Task(f"{name}~{other}", mine.dev, mine.test, mine.labels)
        out.append(mine)
    return out


def _tasks(side: str, root: Path, names: Names) -> dict[str, Path]:
    if not root.is_dir():
        raise ValueError(f"{side}: {root} is not a folder")
    there = {}
    for folder in _folders(root, DEPTH):
        if _folder(folder, names.generated):
            name = folder.relative_to(root).as_posix()
            there[ALONE if name == "." else name.replace("/", "-")] = folder
    if not there:
        raise ValueError(
            f"{side}: {root} holds no folder {names.generated!r} with generated images, nor does a "
            "folder in it; the setting generated_folder names it otherwise"
        )
    return there


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Yield a folder and those in it, each before what it holds; links are not followed."""
    yield root
    if depth:
        for path in sorted(root.iterdir()):
            if path.is_dir() and not path.is_symlink():
                yield from _folders(path, depth - 1)


Side = tuple[Path, dict[str, Path]]


def _paired(first: Side, second: Side) -> list[tuple[tuple[str, Path], tuple[str, Path]]]:
    """Pair tasks by name; where there is one on each side, their names do not count."""
    dev, test = first[1], second[1]
    if len(dev) == len(test) == 1 or _alike(dev) == _alike(test):
        by_name = (sorted(side.items(), key=lambda item: _plain(item[0])) for side in (dev, test))
        return list(zip(*by_name, strict=True))
    raise ValueError(
        f"TEST: {second[0]} holds the tasks {', '.join(test)}, but DEV, {first[0]}, holds "
        f"{', '.join(dev)}: give both the same names"
    )


def _alike(side: Mapping[str, Path]) -> list[str]:
    return sorted(map(_plain, side))


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "_").replace("-", "_")


def _folder(parent: Path, name: str) -> Path | None:
    """Return a folder by its name or path, whatever its case; None if it is not there."""
    for part in name.strip("/").split("/"):
        there = [p for p in parent.iterdir() if p.is_dir() and _plain(p.name) == _plain(part)]
        if not there:
            return None
        parent = there[0]
    return parent


def _roles(folder: Path, names: Names) -> dict[str, Path]:
    found = {role: _folder(folder, names.of(role)) for role in ROLES}
    return {role: path for role, path in found.items() if path and _has_files(path)}


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _labels(folder: Path) -> dict[str, bool] | None:
    path = folder / LABELS
    if not path.exists():
        return None
    out: dict[str, bool] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or (number == 1 and len(row) == 2 and row[1].strip() not in KNOWN):
                continue  # an empty line; a header
            if len(row) != 2 or row[1].strip() not in KNOWN:
                raise ValueError(f"TEST: {path}, line {number}: a name and 1 or 0 are needed")
            name, label = row[0].strip(), KNOWN[row[1].strip()]
            if out.setdefault(name, label) != label:
                raise ValueError(
                    f"TEST: {path}, line {number}: this name has the other label above"
                )
    return out


def _complete(task: Task, dev: Path, test: Path, names: Names) -> None:
    for role in (GENERATED, USED, NOT_USED):
        if role not in task.dev:
            raise ValueError(
                f"DEV: {dev} has no image in {names.of(role)!r}; development data need generated "
                "images and real slices of both classes, for a threshold is chosen on them"
            )
    if GENERATED not in task.test:
        raise ValueError(f"TEST: {test} has no image in {names.generated!r}")
    if not task.asked:
        raise ValueError(
            f"TEST: {test} has no image in {names.unknown!r}, nor in {names.used!r} or "
            f"{names.not_used!r}: nothing is asked"
        )
    if UNKNOWN in task.test and len(task.asked) > 1:
        raise ValueError(
            f"TEST: {test} has slices in {names.unknown!r} and in {names.used!r} or "
            f"{names.not_used!r}: either all are labelled, or none"
        )
