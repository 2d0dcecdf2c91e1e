"""Folders of our own on this machine: the Prefect home, and scratch that never outlives its owner.

    $XDG_STATE_HOME/fingerprint/    0700
      prefect/                      database of the child Prefect server: the history of runs
      scratch/<random>/             one per cluster; wiped by its owner, or by the next one

A lock says who is alive, not a process id: ids are used again, and a lock goes with its process
even under kill -9.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"


def folder(*parts: str) -> Path:
    """Return (and make, 0700) a folder under the user's state folder."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    path = Path(base) / "fingerprint"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for part in parts:
        path /= part
        path.mkdir(exist_ok=True, mode=0o700)
    return path


def lock(path: Path, *, wait: bool = False) -> int | None:
    """Lock a file that is made where absent; return its descriptor, or None if another holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend an empty folder (0700), wiped at the end; those of dead owners are wiped first."""
    root = folder("scratch")
    with _alone(root):
        _sweep(root)
        path = Path(tempfile.mkdtemp(dir=root))
        handle = lock(path / LOCK)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def sweep() -> int:
    """Wipe the scratch folders whose owner is dead; return how many."""
    root = folder("scratch")
    with _alone(root):
        return _sweep(root)


def _sweep(root: Path) -> int:
    wiped = 0
    for path in [p for p in root.iterdir() if p.is_dir()]:
        handle = lock(path / LOCK)
        if handle is None:
            continue
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)
        wiped += 1
    return wiped


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the lock of the whole scratch folder: nobody sweeps between a mkdir and its lock."""
    handle = lock(root / LOCK, wait=True)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                os.close(handle)
