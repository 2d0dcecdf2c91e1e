"""Read untrusted files in one limited child process, and lose at most the file that kills it.

    parent   Reader: requests, deadlines, restarts, and who was to blame
    child    child.py: what a file is, the formats, the limits

They speak over pipes: a message is a JSON header and raw bytes, each with its length before it. No
pickle crosses. What the child says is checked like any other input.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus.scan import Header, ReadOptions, Rejected, Scan, Stack

log = logging.getLogger(__name__)

FILES_PER_BUDGET = 100  # a series of more files may take that much longer
MAX_JSON = 1 << 28
MAX_PIXELS = 512 * 512 * 4096
LEAST_GIB = 0.25
START_S = 120.0
PATIENCE = 4.0  # wall time to processor time: disks and networks are slow
_PREFIX = 8
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
_THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


T = TypeVar("T")


class Died(Exception):  # noqa: N818 - an event to handle, not an error to report
    """The child ended, was too late, answered nonsense, or met what nobody foresaw."""

    def __init__(self, why: Rejected | None = None) -> None:
        super().__init__()
        self.why = why or Rejected("reader_died")


# -- messages


def send(stream: IO[bytes], header: Mapping[str, Any], body: NDArray[Any] | None = None) -> None:
    """Write one message: two lengths, JSON, bytes."""
    text = json.dumps(header).encode()
    data = b"" if body is None else np.ascontiguousarray(body).reshape(-1).view(np.uint8).data
    stream.write(len(text).to_bytes(_PREFIX, "little") + len(data).to_bytes(_PREFIX, "little"))
    stream.write(text)
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one message, or None at the end. For the child, which trusts its parent."""
    lengths = stream.read(2 * _PREFIX)
    if len(lengths) < 2 * _PREFIX:
        return None
    n, m = (int.from_bytes(lengths[i : i + _PREFIX], "little") for i in (0, _PREFIX))
    return json.loads(stream.read(n)), stream.read(m)


# -- the parent's side


class Reader:
    """Reads files through a child process that is limited, and replaced after any failure.

    The child starts at the first request and ends with this object, or with the thread that
    started it: use a reader in one thread.

    Parameters
    ----------
    memory_gib : float
        Address space of the child.
    cpu_s : float
        Processor time for one file, or for each hundred files of a series.
    """

    def __init__(self, memory_gib: float = 2.0, cpu_s: float = 60.0) -> None:
        if memory_gib < LEAST_GIB or cpu_s <= 0:
            raise ValueError(
                f"Reader: memory_gib must be at least {LEAST_GIB} (the child itself takes most of "
                f"that) and cpu_s positive, got {memory_gib} and {cpu_s}"
            )
        self._memory_bytes = int(memory_gib * 2**30)
        self._cpu_s = cpu_s
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, if there is one."""
        return self._child.pid if self._child else None

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:  # a request that it never read
                    continue
        child.wait()

    def headers(self, paths: Sequence[Path], options: ReadOptions) -> list[list[Header] | Rejected]:
        """Read what the headers of some files say.

        Returns
        -------
        list, one entry per path
            Its headers, or why it is rejected. A file on which the child ends twice, the second
            time alone, is rejected as ``reader_died``; the others are not affected.
        """
        answers: list[list[Header] | Rejected] = []
        while len(answers) < len(paths):
            try:
                self._headers(paths[len(answers) :], options, answers)
            except Died:
                alone = paths[len(answers) : len(answers) + 1]
                try:
                    self._headers(alone, options, answers)
                except Died:
                    answers.append(Rejected("reader_died"))
        return answers

    def _headers(
        self,
        paths: Sequence[Path],
        options: ReadOptions,
        answers: list[list[Header] | Rejected],
    ) -> None:
        """Append an answer per path, until the child ends."""
        self._ask("headers", paths, options)
        for _ in paths:
            answer, _body = self._answer(self._cpu_s)
            answers.append(self._understood(_headers_or_rejected, answer))

    def read(
        self, paths: Sequence[Path], kind: str, options: ReadOptions, *, lost: int = 0
    ) -> Stack:
        """Read one series, or one image or NIfTI file.

        Parameters
        ----------
        paths : sequence of Path
        kind : str
            As a header said: ``dicom``, ``nifti`` or ``image``.
        options : ReadOptions
        lost : int
            Slices of this series whose files are known to be unreadable: a gap for each is no
            reason to reject the series.

        Returns
        -------
        Stack
            Indices are those of `paths`. If the child ends, each file is tried alone; those on
            which it ends again are rejected (``reader_died``), the rest is read as one series.
        """
        try:
            return self._read(paths, kind, options, lost)
        except Died as died:
            log.debug("a series of %d files failed: %s", len(paths), died.why.code)
        tried = {i: self._probe(path, kind, options) for i, path in enumerate(paths)}
        rejected = {i: why for i, why in tried.items() if why is not None}
        rest = [i for i, why in tried.items() if why is None]
        if not rest:
            return Stack(None, rejected, {})
        try:
            stack = self._read([paths[i] for i in rest], kind, options, lost + len(rejected))
        except Died as died:  # each alone is fine, together they are too much
            return Stack(None, dict.fromkeys(rest, died.why) | rejected, {})
        return _renumbered(stack, rest, rejected)

    def _probe(self, path: Path, kind: str, options: ReadOptions) -> Rejected | None:
        """Read one file alone; why it cannot be, if the child does not come back from it."""
        try:
            self._ask("probe", [path], options, kind=kind)
            _unless_failed(self._answer(self._cpu_s)[0])
        except Died as died:
            return died.why
        return None

    def _read(self, paths: Sequence[Path], kind: str, options: ReadOptions, lost: int) -> Stack:
        self._ask("read", paths, options, kind=kind, lost=lost)
        budget = self._cpu_s * max(1.0, len(paths) / FILES_PER_BUDGET)
        fields, pixels = self._answer(budget)
        _unless_failed(fields)
        return self._understood(lambda f: _stack(f, pixels, len(paths), options.size_px), fields)

    def _ask(
        self, what: str, paths: Sequence[Path], options: ReadOptions, kind: str = "", lost: int = 0
    ) -> None:
        request = {
            "do": what,
            "paths": [os.fspath(p) for p in paths],
            "options": asdict(options),
            "kind": kind,
            "lost": lost,
            "cpu_s": self._cpu_s,
        }
        child = self._child or self._start()
        assert child.stdin is not None
        try:
            send(child.stdin, request)
        except OSError as error:
            self._gone(error)

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parents[2])
        environment = {k: v for k, v in os.environ.items() if k in _KEPT_VARIABLES}
        command = [sys.executable, "-B", "-P", "-m", "fingerprint.corpus.child"]
        self._child = subprocess.Popen(
            [*command, str(os.getpid()), str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | _THREADS | {"PYTHONPATH": root},
        )
        try:
            self._answer(START_S / PATIENCE)
        except Died as error:
            raise RuntimeError("the reader process does not start") from error
        return self._child

    def _answer(self, cpu_s: float) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Wait for one message; `Died` if it does not come whole and in time."""
        deadline = time.monotonic() + PATIENCE * cpu_s + 1
        lengths = self._bytes(2 * _PREFIX, deadline).tobytes()
        n, m = (int.from_bytes(lengths[i : i + _PREFIX], "little") for i in (0, _PREFIX))
        if n > MAX_JSON or m > MAX_PIXELS:
            self._gone(ValueError("too long an answer"))
        text = self._bytes(n, deadline).tobytes()
        try:
            fields = json.loads(text)
        except ValueError as error:
            self._gone(error)
        return fields, self._bytes(m, deadline)

    def _bytes(self, n: int, deadline: float) -> NDArray[np.uint8]:
        data = np.empty(n, np.uint8)
        assert self._child is not None
        assert self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        at = 0
        while at < n:
            wait_s = deadline - time.monotonic()
            if wait_s <= 0 or not poll.poll(1000 * wait_s):
                self._gone(TimeoutError())
            got = os.readv(pipe, [data.data[at : at + (1 << 20)]])
            if got == 0:
                self._gone(EOFError())
            at += got
        return data

    def _understood(self, parse: Callable[[dict[str, Any]], T], fields: dict[str, Any]) -> T:
        try:
            return parse(fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._gone(error)

    def _gone(self, why: Exception) -> NoReturn:
        """Clear the child away and say so."""
        self.close()
        log.debug("a reader process ended: %s", type(why).__name__)
        raise Died from why


# -- what the child says, checked


def _unless_failed(fields: dict[str, Any]) -> None:
    """Raise if the child survived but a format met an error that nobody foresaw."""
    failed = fields.get("failed")
    if failed is None:
        return
    try:
        why = Rejected(*failed)
    except (TypeError, ValueError):
        why = Rejected("reader_died")
    raise Died(why)


def _headers_or_rejected(fields: dict[str, Any]) -> list[Header] | Rejected:
    if "rejected" in fields:
        code, detail = fields["rejected"]
        return Rejected(code, detail)
    return [Header(**{**h, "flags": tuple(h["flags"])}) for h in fields["headers"]]


def _stack(fields: dict[str, Any], pixels: NDArray[np.uint8], n_files: int, size_px: int) -> Stack:
    rejected = {int(i): Rejected(code, detail) for i, (code, detail) in fields["rejected"].items()}
    excluded = {int(i): str(reason) for i, reason in fields["excluded"].items()}
    scan = None if fields["scan"] is None else _scan(fields["scan"], pixels, size_px)
    used = set() if scan is None else set(scan.source.tolist())
    if not used <= set(range(n_files)) or used | set(rejected) | set(excluded) != set(
        range(n_files)
    ):
        raise ValueError("not every file is accounted for")
    return Stack(scan, rejected, excluded)


def _scan(fields: dict[str, Any], pixels: NDArray[np.uint8], size_px: int) -> Scan:
    z_mm = np.array(fields["z_mm"], np.float64)
    source = np.array(fields["source"], np.int64)
    n = len(z_mm)
    if source.shape != (n,) or pixels.size != n * size_px * size_px:
        raise ValueError("numbers of slices differ")
    z, y, x = (float(v) for v in fields["spacing_mm"])
    origin_y, origin_x = (float(v) for v in fields["origin_mm"])
    return Scan(
        pixels=pixels.reshape(n, size_px, size_px),
        z_mm=z_mm,
        spacing_mm=(z, y, x),
        origin_mm=(origin_y, origin_x),
        source=source,
        native_px=int(fields["native_px"]),
        sex=str(fields["sex"]),
        age_y=int(fields["age_y"]),
        notes=tuple(str(note) for note in fields["notes"]),
    )


def _renumbered(stack: Stack, rest: Sequence[int], rejected: dict[int, Rejected]) -> Stack:
    """Express a stack of some files in the indices of all of them."""
    scan = stack.scan
    if scan is not None:
        scan = replace(scan, source=np.array(rest, np.int64)[scan.source])
    return Stack(
        scan,
        rejected | {rest[i]: why for i, why in stack.rejected.items()},
        {rest[i]: reason for i, reason in stack.excluded.items()},
    )
