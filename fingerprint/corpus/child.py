"""The process in which untrusted files are read: limited, offline, killed with its parent.

Started by `readers.Reader` as ``python -m fingerprint.corpus.child PARENT MEMORY_BYTES``. It reads
one request at a time from its standard input and answers on what was its standard output; the
streams that a library may write to lead nowhere. Whatever happens here, the parent loses at most
the file that was being read.

Warnings
--------
The limits on memory and processor time are the kernel's. Refusing sockets, other programs and
writing is done by Python's audit hooks: it stops a library, not machine code in a crafted file.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import stat
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from fingerprint.corpus.readers import FILES_PER_BUDGET, receive, send
from fingerprint.corpus.scan import ReadOptions, Rejected, Stack

FORMATS = {"image": "images", "nifti": "nifti", "dicom": "dicom"}  # what reads them, as asked
OUT_OF_MEMORY = 3  # exit status, for whoever looks: the parent treats every end alike
_HEAD = 4096
_PR_SET_PDEATHSIG = 1
_DENIED = (
    *("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo"),
    *(
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
    ),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate"),
    "pickle.find_class",
)


def sniff(path: Path) -> str:
    """Tell what a file is by its content; its name does not matter.

    Returns
    -------
    str
        ``dicom``, ``nifti``, ``image`` or ``other``.

    Raises
    ------
    Rejected : ``empty_file``, or ``unreadable`` for what is not a plain file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Rejected("unreadable", "not a plain file")
    if status.st_size == 0:
        raise Rejected("empty_file")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    each = (kind for kind in FORMATS if getattr(reading(kind), f"is_{kind}")(path, head))
    return next(each, "other")


@cache
def reading(kind: str) -> ModuleType:
    """Import what reads a format: nibabel and pydicom take longer than many a folder of images."""
    return import_module(f"fingerprint.corpus.{FORMATS[kind]}")


def headers_of(path: Path, options: ReadOptions) -> dict[str, Any]:
    """Answer a request for one file's headers; never raises but for want of memory."""
    try:
        kind = sniff(path)
        if kind == "other":
            raise Rejected("unreadable", "neither DICOM nor NIfTI nor an image")
        return {"headers": [asdict(h) for h in reading(kind).headers(path, options)]}
    except Exception as error:
        return {"rejected": _coded(error)}


def stack_of(paths: list[Path], kind: str, options: ReadOptions, lost: int) -> Stack | Rejected:
    """Answer a request for one stack; after an unforeseen failure the parent tries each file."""
    more = {"lost": lost} if kind == "dicom" else {}
    try:
        stack: Stack = reading(kind).read(paths, options, **more)
    except Exception as error:
        return Rejected(*_coded(error))
    return stack


def _coded(error: Exception) -> tuple[str, str]:
    """Code and detail of a failure; a library's message may quote the file, its type cannot."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == 12:  # ENOMEM
        os._exit(OUT_OF_MEMORY)
    if isinstance(error, Rejected):
        return error.code, error.detail
    return "unreadable", type(error).__name__


# -- the loop


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    send(answers, {"ready": os.getpid()})
    while (message := receive(requests)) is not None:
        request = message[0]
        options = _options(request["options"])
        paths = [Path(p) for p in request["paths"]]
        if request["do"] == "headers":
            for path in paths:
                _allow_cpu(request["cpu_s"])
                send(answers, headers_of(path, options))
        else:
            _allow_cpu(request["cpu_s"] * max(1.0, len(paths) / FILES_PER_BUDGET))
            stack = stack_of(paths, request["kind"], options, request["lost"])
            _send_stack(answers, stack, probe=request["do"] == "probe")


def _options(fields: Mapping[str, Any]) -> ReadOptions:
    pair = fields["value_range"]
    return ReadOptions(
        **{
            **fields,
            "window_hu": tuple(fields["window_hu"]),
            "value_range": tuple(pair) if pair else None,
        }
    )


def _send_stack(answers: BinaryIO, stack: Stack | Rejected, *, probe: bool) -> None:
    """Send a stack: numbers as JSON, pixels as they are. A probe only tells that it came back."""
    if isinstance(stack, Rejected):
        send(answers, {"failed": (stack.code, stack.detail)})
        return
    scan = None if probe else stack.scan
    fields: dict[str, Any] = {
        "rejected": {i: (why.code, why.detail) for i, why in stack.rejected.items()},
        "excluded": stack.excluded,
        "scan": None,
    }
    if scan is None:
        send(answers, fields)
        return
    fields["scan"] = {
        "z_mm": scan.z_mm.tolist(),
        "spacing_mm": scan.spacing_mm,
        "origin_mm": scan.origin_mm,
        "source": scan.source.tolist(),
        "native_px": scan.native_px,
        "sex": scan.sex,
        "age_y": scan.age_y,
        "notes": scan.notes,
    }
    send(answers, fields, scan.pixels)


# -- the limits


def _allow_cpu(seconds: float) -> None:
    """Let this process use so much more processor time; beyond it the kernel ends it."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(0)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith(_DENIED):
        raise PermissionError(f"a reader may not use {event}")
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
        raise PermissionError("a reader may not write")


def _lock_down(memory_bytes: int) -> tuple[BinaryIO, BinaryIO]:
    """Apply the limits; return the streams of requests and answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    answers = os.fdopen(os.dup(1), "wb")
    requests = os.fdopen(os.dup(0), "rb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    sys.addaudithook(_refuse)
    return requests, answers


def main() -> None:
    """Run until the parent closes the pipe."""
    parent, memory_bytes = (int(word) for word in sys.argv[1:3])
    _die_with(parent)
    serve(*_lock_down(memory_bytes))


if __name__ == "__main__":
    main()
