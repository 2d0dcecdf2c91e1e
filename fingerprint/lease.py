"""One writer per folder: a second command is refused, a dead one is not waited for.

No file locks: on network file systems they lie. A lease is a file made exclusively, that names its
owner and is touched while the owner lives. It is stale if its process is gone from this machine,
or if nobody has touched it for `EXPIRES_S`. Whoever publishes asks `held` first: a process that
slept through its lease must not.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TOUCH_S = 15.0
EXPIRES_S = 90.0


NAME = ".lease"


@contextmanager
def lease(path: Path) -> Iterator[str]:
    """Hold the lease `path` (a file in the folder) for the length of the block; yield its token.

    Raises
    ------
    ValueError
        Somebody else holds it; the message names machine and process.
    """
    token = _take(path)
    stop = threading.Event()
    beat = threading.Thread(target=_touch, args=(path, token, stop), daemon=True)
    beat.start()
    try:
        yield token
    finally:
        stop.set()
        beat.join()
        if held(path, token):
            path.unlink(missing_ok=True)


def held(path: Path, token: str) -> bool:
    """Whether the lease is still the one that was taken."""
    owner = _owner(path)
    return owner is not None and owner.get("token") == token


def _take(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())}
    wip = path.with_name(f"{path.name}.{token}.wip")
    wip.write_text(json.dumps(mine | {"token": token}))
    try:
        while True:
            try:
                os.link(wip, path)  # atomic, and fails if it is there, on network folders too
            except FileExistsError:
                _remove_if_stale(path)
            else:
                return token
    finally:
        wip.unlink(missing_ok=True)


def _remove_if_stale(path: Path) -> None:
    owner = _owner(path)
    if owner is None:
        return  # gone meanwhile
    if not _is_stale(path, owner):
        raise ValueError(
            f"{path.parent}: process {owner.get('pid')} on {owner.get('host')} is writing "
            "here; wait for it, or choose another folder"
        )
    # rename before unlink: of two that see it stale, one takes it away and none takes a new one
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.stale")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _owner(aside) != owner:
        with suppress(FileExistsError):  # it was a new one: put it back, unless a third is there
            os.link(aside, path)
    aside.unlink()


def _is_stale(path: Path, owner: dict[str, object]) -> bool:
    if owner.get("host") == socket.gethostname():
        return _born(int(str(owner.get("pid", 0)))) != owner.get("born")
    try:
        return time.time() - path.stat().st_mtime > EXPIRES_S
    except FileNotFoundError:
        return True


def _born(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot: tells a reused id; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rsplit(")", 1)[1].split()[19]


def _owner(path: Path) -> dict[str, object] | None:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _touch(path: Path, token: str, stop: threading.Event) -> None:
    while not stop.wait(TOUCH_S):
        if held(path, token):
            os.utime(path)
