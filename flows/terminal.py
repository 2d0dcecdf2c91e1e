"""What a command prints: results on the standard output, words for people on the other one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.ending import DONE, REJECTED, visible

SHOWN_REJECTED = 20


def say(line: str) -> None:
    """Say one line to whoever watches."""
    print(f"fingerprint: {visible(line)}", file=sys.stderr)


def show(told: dict[str, Any], as_json: bool) -> None:
    """Print a flat table: aligned, or as one JSON object."""
    if as_json:
        print(json.dumps(told, default=str))
        return
    width = max(map(len, told), default=0)
    for name, value in told.items():
        print(f"{name:<{width}}  {'not run' if value is None else visible(str(value))}")


def plan(told: dict[str, Any], as_json: bool) -> int:
    """Print what a dry run foresees, with units for people; return the exit code."""
    from flows import words

    show(told if as_json else words.readable(told), as_json)
    return DONE


def rejected(paths: Sequence[tuple[Path, str, str]], where: str) -> None:
    """Name the first files that could not be read, and where all of them stand."""
    for path, code, detail in paths[:SHOWN_REJECTED]:
        say(f"rejected {path}: {code} {detail}".rstrip())
    if len(paths) > SHOWN_REJECTED:
        say(f"and {len(paths) - SHOWN_REJECTED} more: {where}")


def refused(why: str) -> int:
    """Say why too many inputs were rejected, if they were; return the exit code."""
    if why:
        say(why)
    return REJECTED if why else DONE


@contextmanager
def logged() -> Iterator[None]:
    """Log to the terminal while a long command runs: all where no bars are shown."""
    from flows import log

    with log.to_terminal(logging.WARNING if sys.stderr.isatty() else logging.INFO):
        yield
