"""Log lines: plain on the terminal, JSON in a file, and in neither the text of an exception.

An exception may quote a path or a header; the file keeps its type and where it came from, so that a
log can be sent to whoever mends the program.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

OURS = ("fingerprint", "flows")
DEEPEST = 10  # exceptions in a chain
Raised = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class JsonLines(logging.Handler):
    """One JSON object per record, appended and flushed; the file is for its owner alone."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(handle, "a", encoding="utf-8")

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line |= frames(record.exc_info)
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def frames(raised: Raised) -> dict[str, object]:
    """Return the types of a chain of exceptions and where each was raised, without their text."""
    types: list[str] = []
    where: list[str] = []
    error, trace = raised[1], raised[2]
    while error is not None and len(types) < DEEPEST:
        types.append(type(error).__name__)
        found = traceback.extract_tb(trace)
        where += [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in found]
        error = error.__cause__ or error.__context__
        trace = error.__traceback__ if error is not None else None
    return {"exception": types, "traceback": where}


class Terminal(logging.Handler):
    """Plain lines on the standard error, wherever that goes at the moment (above the bars)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(f"fingerprint: {record.getMessage()}\n")


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Send what our loggers say, from INFO on, to a file; an exception that passes goes there too.

    It is written without its text, and passes on.
    """
    handler = JsonLines(path)
    with _attached(handler):
        try:
            yield
        except BaseException as error:
            handler.emit(_raised(error))
            raise


@contextmanager
def to_terminal(level: int) -> Iterator[None]:
    """Send what our loggers say, from `level` on, to the standard error."""
    handler = Terminal(level)
    with _attached(handler):
        yield


def leave(path: Path, error: BaseException) -> None:
    """Append to a file where an exception was raised, without its text."""
    handler = JsonLines(path)
    handler.emit(_raised(error))
    handler.close()


def _raised(error: BaseException) -> logging.LogRecord:
    raised = (type(error), error, error.__traceback__)
    return logging.LogRecord("flows", logging.ERROR, "", 0, "stopped", None, raised)


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in OURS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
