"""The shards of a search on clusters of GPUs; one worker is killed; the digest is the CPU's.

The same tests run on the CPU with plain Dask workers (``--runslow``): what is tested there is all
but the GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import gpu_worlds as worlds
import psutil
import pytest

from fingerprint import ledger
from fingerprint.settings import Settings
from flows import cluster

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(workers=2, memory_gib=12)
PLACES = [
    pytest.param("local", marks=pytest.mark.slow),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
pytestmark = pytest.mark.skipif(
    find_spec("distributed") is None, reason="dask is not installed on this machine"
)


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Keep our state out of the user's home; let workers import this package."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> worlds.World:
    return worlds.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def expected(world, tmp_path_factory) -> str:
    """Digest of the plain loop on the CPU, in a process that sees no GPU."""
    folder = tmp_path_factory.mktemp("serial")
    code = (
        f"import pathlib, sys\nsys.path[:0] = {[str(ROOT), *sys.path]!r}\n"
        "import gpu_worlds as worlds\nfrom fingerprint import ledger\n"
        f"world = worlds.found(pathlib.Path({str(world.folder)!r}))\n"
        f"print(worlds.search(world, pathlib.Path({str(folder)!r}), ledger.in_this_process))\n"
    )
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, env=hidden, stdout=-1, text=True).stdout.strip()


def dask(*words: str) -> list[str]:
    """Return the command line of ``dask ...`` under this Python, installed as a script or not."""
    return [sys.executable, "-c", "from dask.__main__ import main; main()", *words]


@pytest.fixture
def behind_a_file(request, tmp_path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start a scheduler and two commands for workers; lend its file and the two."""
    file = tmp_path / "scheduler.json"
    local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": (tmp_path / "said").open("wb"),
        "cwd": tmp_path,
    }
    head = dask("scheduler", *local, "--port", "0", "--scheduler-file", str(file))
    kind = ("cuda", "worker") if request.param == "cuda" else ("worker", "--nthreads", "1")
    hand = dask(*kind, *local, "--scheduler-file", str(file), "--memory-limit", "12GiB")
    running = [subprocess.Popen(head, **quiet)]
    try:
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        running += [subprocess.Popen(hand, **quiet) for _ in range(2)]
        yield str(file), running[1:]
    finally:
        below = [p for r in running for p in psutil.Process(r.pid).children(recursive=True)]
        for process in [*running, *below]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in running:
            process.wait()


def worker_below(command: subprocess.Popen[bytes]) -> psutil.Process:
    """Return the process that works for a command."""
    below = psutil.Process(command.pid).children(recursive=True)
    return next(p for p in below if "resource_tracker" not in " ".join(p.cmdline()))


@pytest.mark.parametrize("place", PLACES)
def test_a_cluster_of_this_machine_leaves_the_digest_of_the_cpu(
    place, world, expected, tmp_path
) -> None:
    with cluster.executor(place, SETTINGS) as execute:
        assert worlds.search(world, tmp_path / "ledger", execute) == expected


@pytest.mark.parametrize("behind_a_file", PLACES, indirect=True)
def test_two_workers_behind_a_file_one_killed_leave_the_digest_of_the_cpu(
    behind_a_file, world, expected, tmp_path
) -> None:
    file, commands = behind_a_file
    killed = []
    with cluster.executor(file, SETTINGS) as execute:

        def killing(folder: Path, shards: Sequence[ledger.Shard]) -> Iterator[ledger.Receipt]:
            for receipt in execute(folder, shards):
                if not killed:
                    killed.append(worker_below(commands[0]))
                    killed[0].kill()
                yield receipt

        assert worlds.search(world, tmp_path / "ledger", killing) == expected
    assert len(killed) == 1
