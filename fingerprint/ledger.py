"""The ledger: a folder of finished shards. What is done is what is in it.

    plan    a phase is cut into shards, each named by the digest of all that decides its result
    work    one shard is computed and its file is written: temporary name, fsync, rename
    finish  the values are read back in plan order; every missing or damaged shard is named

A shard's file carries its own digest, so "done" means "there and verifies". To resume is to do the
set difference, and that is the only mode there is. What crosses a process is a `Shard` (going out)
and a `Receipt` (coming back); no pixel and no result does.

File format (version 1): one JSON line ``{"format", "key", "counts", "bytes", "sha256"}``, then the
payload, an uncompressed ``.npz`` without pickles.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
Values = Mapping[str, NDArray[Any]]
Counts = dict[str, int]


class Incomplete(RuntimeError):  # noqa: N818 - a state of a run, exit 4, not a mistake of anyone
    """Some shards are missing; the message names them. Running again does only those."""


class Damaged(RuntimeError):  # noqa: N818 - likewise; exit 5
    """Stored bytes are not the bytes that were written; the message names the file."""


@dataclass(frozen=True)
class Shard:
    """The unit of work: one picklable call, minutes long at most, one file on disk."""

    phase: str
    key: str
    work: Callable[..., tuple[Values, Counts]]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Receipt:
    """What comes back from a worker, and all that does."""

    key: str
    digest: str
    counts: Counts


@dataclass(frozen=True)
class Phase:
    """One step of the method: how it is cut, what a piece does, how the pieces are put together.

    `plan` and `finish` take the job (whatever the phases of one command share). Everything that
    decides a result is in the shard's key; `version` is the version of the algorithm.
    """

    name: str
    title: str
    version: int
    plan: Callable[[Any], Sequence[Shard]]
    finish: Callable[[Any, Iterator[Values]], None]
    needs_gpu: bool = False


def digest_of_file(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shard(
    phase: str,
    version: int,
    depends: Mapping[str, Any],
    work: Callable[..., tuple[Values, Counts]],
    *args: Any,
) -> Shard:
    """Name a piece of work by what decides its result: phase, version, inputs, settings."""
    key = digest_of({"phase": phase, "version": version, "depends": dict(depends)})
    return Shard(phase, key, work, args)


def as_json(value: Any) -> NDArray[np.uint8]:
    """Return a JSON document as an array, to stand among the values of a shard."""
    return np.frombuffer(json.dumps(value, separators=(",", ":")).encode(), np.uint8)


def path_of(ledger: Path, shard: Shard) -> Path:
    """Where the file of a shard is or will be."""
    return ledger / shard.phase / f"{shard.key}.shard"


def is_done(ledger: Path, shard: Shard) -> bool:
    """Whether the shard's file is there and verifies."""
    try:
        receipt(path_of(ledger, shard))
    except (FileNotFoundError, Damaged):
        return False
    return True


def work(ledger: Path, shard: Shard) -> Receipt:
    """Do one shard, unless it is there and verifies, and leave its file in the ledger."""
    path = path_of(ledger, shard)
    try:
        return receipt(path)
    except FileNotFoundError:
        pass
    except Damaged:
        path.unlink()
    values, counts = shard.work(*shard.args)
    payload = io.BytesIO()
    np.savez(payload, **dict(values))  # type: ignore[arg-type]  # savez's stub wants no mapping
    line = _head(shard.key, counts, payload.getbuffer())
    with replacing(path) as out:
        out.write(line)
        out.write(payload.getbuffer())
    return receipt(path)


def finish(ledger: Path, shards: Sequence[Shard]) -> Iterator[Values]:
    """Yield the values of all shards in plan order, each verified when it is its turn.

    Raises
    ------
    Incomplete
        Before the first value, naming every shard whose file is missing, cut short or another's;
        later, for one whose bytes changed since `work` verified them.
    """
    missing = [s.key[:12] for s in shards if not _is_whole(path_of(ledger, s))]
    if missing:
        raise Incomplete(
            f"{len(missing)} of {len(shards)} shards are missing from {ledger}: "
            f"{', '.join(missing[:20])}{' ...' if len(missing) > 20 else ''}; run the command again"
        )
    return _values(ledger, shards)


def _is_whole(path: Path) -> bool:
    """Whether a shard's file is there and as long as its head says; nothing is hashed yet."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            whole = file.tell() + int(head["bytes"])
            return bool(head["key"] == path.stem and path.stat().st_size == whole)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _values(ledger: Path, shards: Sequence[Shard]) -> Iterator[Values]:
    for one in shards:
        try:
            yield read(path_of(ledger, one))
        except (FileNotFoundError, Damaged) as error:
            raise Incomplete(
                f"shard {one.key[:12]} of {ledger} is damaged; run the command again"
            ) from error


def receipt(path: Path) -> Receipt:
    """Verify a shard's file and return its receipt.

    Raises
    ------
    FileNotFoundError, Damaged
    ValueError
        The file was written by a newer version.
    """
    head, _ = _open(path)
    return Receipt(path.stem, head["sha256"], dict(head["counts"]))


def read(path: Path) -> Values:
    """Verify a shard's file and return its arrays, each decoded when it is asked for."""
    _, payload = _open(path)
    arrays: Values = np.load(io.BytesIO(payload), allow_pickle=False)
    return arrays


def _head(
    key: str, counts: Mapping[str, int], payload: bytes | memoryview, version: int = FORMAT
) -> bytes:
    """Return the first line of a shard's file; its digest covers the line and the payload."""
    head = {"format": version, "key": key, "counts": dict(counts), "bytes": len(payload)}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    digest.update(payload)  # not joined: a payload may be as large as the memory allows
    return json.dumps(head | {"sha256": digest.hexdigest()}, sort_keys=True).encode() + b"\n"


def _open(path: Path) -> tuple[dict[str, Any], bytes]:
    with open(path, "rb") as file:
        line, payload = file.readline(), file.read()
    try:
        head = json.loads(line)
        version = int(head["format"])
        sound = line == _head(path.stem, head["counts"], payload, version)
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path.name}: unreadable head of a shard") from error
    if not sound:
        raise Damaged(f"{path.name}: the bytes are not those that were written")
    if version > FORMAT:
        raise ValueError(
            f"ledger: {path.name} has format {version}; install a newer version of fingerprint"
        )
    return head, payload


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that becomes `path` on success: fsync, rename, fsync the folder.

    A crash at any moment leaves the old file or the new one, never a part of either; the temporary
    name holds the machine and the process, so that two writers of one shard cannot mix their bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wip = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.wip")
    try:
        # for its owner alone, also on a worker with another umask: values are made of patients
        handle = os.open(wip, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        wip.replace(path)
        sync_folder(path.parent)
    finally:
        wip.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean(ledger: Path) -> int:
    """Remove what killed writers left behind; return how many files."""
    orphans = list(ledger.glob("*/*.wip"))
    for orphan in orphans:
        orphan.unlink(missing_ok=True)
    return len(orphans)


Execute = Callable[[Path, Sequence[Shard]], Iterable[Receipt]]
"""How shards are sent somewhere: a plain loop here, Dask in `flows/`. A shard that cannot be done
yields nothing; `finish` then names it."""


def in_this_process(ledger: Path, shards: Sequence[Shard]) -> Iterator[Receipt]:
    """Do the shards one after the other: the laptop run, the debugger run, and the oracle."""
    return (work(ledger, shard) for shard in shards)
