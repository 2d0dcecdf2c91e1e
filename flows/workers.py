"""What the worker processes of a cluster of ours start with, and what they must not see.

`deploy/slurm.sh` gives the same to the workers that it starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

ALLOWED_FAILURES = 1  # the second worker that dies makes a shard suspect

THREADS = {
    # ITK takes all cores until its own variable is set before the process starts
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
        "ZARR_THREADING__MAX_WORKERS",
        "ZARR_ASYNC__CONCURRENCY",
    )
}
ALLOCATOR = {
    # Dask has glibc give memory back at every turn (64 KiB), and arrays are made and dropped all
    # the time: measured on a shard of `refine`, 7.6 million page faults and three times the seconds
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


def config(scratch: Path) -> dict[str, Any]:
    """Return the settings of Dask that keep pixels off the disk and everything on loopback."""
    environ = {
        **THREADS,
        **ALLOCATOR,
        "TMPDIR": str(scratch),
        # otherwise a failed task prints its arguments, which hold paths
        "DASK_LOGGING__DISTRIBUTED": "critical",
    }
    return {
        "temporary-directory": str(scratch),
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        # without spill nothing frees the memory of a paused worker: it would wait for ever
        "distributed.worker.memory.pause": False,
        # memory_gib is what a worker may use: what was projected to fit is not killed below it
        "distributed.worker.memory.terminate": 1.0,
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
        "distributed.comm.require-encryption": False,
        **{f"distributed.nanny.pre-spawn-environ.{name}": v for name, v in environ.items()},
    }


@contextmanager
def environment_kept() -> Iterator[None]:
    """Undo what nannies write into the environment of their parent before they spawn."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def main_hidden() -> Iterator[None]:
    """Show the workers an empty ``__main__``.

    A spawned process imports the main module of its parent again: under Prefect that is Prefect's
    engine, and in a script without a guard it is the whole script.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
