"""Toy work for the tests of clusters, flows and faults: quick, exact, importable by workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fingerprint import ledger
from fingerprint.ledger import Counts, Phase, Shard, Values


@dataclass(frozen=True)
class Toy:
    """A job: `n` squares are computed by shards, then added up."""

    ledger: Path
    n: int = 6
    seconds: float = 0.0

    def record(self, phase: str, planned: int, done: int) -> None:
        """Note nothing."""


def square(i: int, seconds: float) -> tuple[Values, Counts]:
    """Do honest work, some seconds long."""
    time.sleep(seconds)
    return {"square": np.array([i * i])}, {"numbers": 1}


def die(i: int) -> tuple[Values, Counts]:
    """Kill whoever does this shard."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}, {}


def fail(i: int) -> tuple[Values, Counts]:
    """Raise."""
    raise ValueError(f"fail: shard {i} is asked to fail")


def look(folder: str) -> tuple[Values, Counts]:
    """Tell what a worker is like: threads, folders, and whether Prefect came along."""
    seen = {
        "threads": os.environ.get("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", ""),
        "omp": os.environ.get("OMP_NUM_THREADS", ""),
        "tmp": os.environ.get("TMPDIR", ""),
        "prefect": str("prefect" in sys.modules),
        "main": str(getattr(sys.modules["__main__"], "__file__", "")),
        "pid": str(os.getpid()),
    }
    return {"names": np.array(list(seen)), "values": np.array(list(seen.values()))}, {}


def squares(job: Toy) -> Sequence[Shard]:
    """Plan the squares."""
    return [ledger.shard("square", 1, {"i": i}, square, i, job.seconds) for i in range(job.n)]


def logged_square(i: int, seconds: float, folder: Path) -> tuple[Values, Counts]:
    """Do honest work, and leave one byte for every try."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "tries", "ab") as out:
        out.write(b".")
    return square(i, seconds)


def logged_squares(job: Toy) -> Sequence[Shard]:
    """Plan the squares, with a log of tries; the same keys and the same files."""
    return [
        ledger.shard("square", 1, {"i": i}, logged_square, i, job.seconds, job.ledger)
        for i in range(job.n)
    ]


def tries(folder: Path) -> int:
    """Return how many times a shard was begun."""
    return (folder / "tries").stat().st_size


def add(job: Toy, values: Iterator[Values]) -> None:
    """Write the sum of the squares."""
    total = sum(int(v["square"][0]) for v in values)
    with ledger.replacing(job.ledger / "sum.txt") as out:
        out.write(str(total).encode())


SQUARE = Phase("square", "Squares", 1, squares, add)


def one(work, i: int) -> Shard:
    """Return one shard of an odd kind."""
    return ledger.shard(work.__name__, 1, {"i": i}, work, i)


def files(folder: Path) -> dict[str, bytes]:
    """Return every shard file of a ledger: relative name -> bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.shard"))}


def square_of(i: int) -> tuple[Values, Counts]:
    """Do honest work at once."""
    return square(i, 0.0)
