"""A Dask scheduler that somebody else started: it is found by its file, and may be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import audits
import psutil
import pytest
import toy_shards as toys
from distributed import Client

from fingerprint import ledger
from fingerprint.settings import Settings
from flows import cluster

TESTS = Path(__file__).parent.parent


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Keep our state out of the user's home; let workers import the tests and this package."""
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@contextmanager
def started(folder: Path, *hand: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a scheduler and workers on loopback; lend the scheduler and its file."""
    file = folder / "scheduler.json"
    dask = str(Path(sys.executable).parent / "dask")
    local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    head = [dask, "scheduler", *local, "--port", "0", "--scheduler-file", str(file)]
    running = [subprocess.Popen(head, **quiet)]
    while not file.exists():
        time.sleep(0.05)
    mine = [dask, "worker", *local, *hand, "--scheduler-file", str(file)]
    running.append(subprocess.Popen(mine, **quiet))
    below = psutil.Process(running[1].pid)
    try:
        yield running[0], str(file)
    finally:
        nannies_children = below.children(recursive=True)
        for process in [*running, *nannies_children]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in running:
            process.wait()


@pytest.fixture
def scheduler(tmp_path, places):
    """Lend a scheduler with one worker, which nobody restarts."""
    with started(tmp_path, "--nthreads", "2", "--no-nanny") as running:
        yield running


def workers_of(scheduler: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the worker processes of this test, not their nannies."""
    mine = psutil.Process(os.getpid()).children(recursive=True)
    return [p for p in mine if "spawn_main" in " ".join(p.cmdline()) and p.pid != scheduler.pid]


def test_shards_run_where_the_scheduler_file_says(scheduler, tmp_path):
    shards = toys.squares(toys.Toy(tmp_path, n=5))
    with cluster.executor(scheduler[1], Settings()) as execute:
        receipts = list(execute(tmp_path / "a", shards))
    assert {r.key for r in receipts} == {s.key for s in shards}
    list(ledger.in_this_process(tmp_path / "b", shards))
    assert toys.files(tmp_path / "a") == toys.files(tmp_path / "b")


def test_killed_scheduler_is_incomplete_and_resumed(scheduler, tmp_path):
    shards = toys.logged_squares(toys.Toy(tmp_path, n=8, seconds=0.3))
    start = 0.0

    def work() -> None:
        nonlocal start
        with cluster.executor(scheduler[1], Settings()) as execute:
            receipts = iter(execute(tmp_path, shards))
            next(receipts)
            scheduler[0].send_signal(signal.SIGKILL)
            start = time.monotonic()
            list(receipts)

    with pytest.raises(ledger.Incomplete, match="run the command again"):
        work()
    assert time.monotonic() - start < 30
    time.sleep(0.4)  # the worker finishes what it holds
    assert 1 <= len(toys.files(tmp_path)) < 8
    list(ledger.in_this_process(tmp_path, shards))
    assert len(toys.files(tmp_path)) == 8
    assert toys.tries(tmp_path) <= 8 + 2


def test_several_processes_behind_a_file_leave_what_the_loop_leaves(tmp_path, places):
    """One of them is killed in the middle."""
    audits.make_sets(tmp_path / "sets")
    audits.run_audit(tmp_path / "sets", tmp_path / "serial")
    killed = []

    def watch(phase: str, done: int, planned: int) -> None:
        if (phase, done) == ("search", 2) and not killed:
            killed.append(workers_of(scheduler)[0])
            killed[0].kill()

    with started(tmp_path, "--nworkers", "3", "--nthreads", "1") as (scheduler, file):
        audits.run_audit(tmp_path / "sets", tmp_path / "spread", file, watch)
    assert len(killed) == 1
    assert audits.results(tmp_path / "spread") == audits.results(tmp_path / "serial")


def test_shards_go_to_the_workers_that_declare_what_they_need(tmp_path, places):
    """As `deploy/slurm.sh` starts them: some with a GPU, some without."""
    shards = [toys.one(toys.look, i) for i in range(4)]
    needing = [replace(shard, phase="search") for shard in shards]
    local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    dask = str(Path(sys.executable).parent / "dask")
    with started(tmp_path, "--no-nanny", "--nthreads", "1", "--resources", "GPU=1") as (_, file):
        argv = [dask, "worker", *local, "--no-nanny", "--nthreads", "2", "--resources", "CPU=2"]
        other = subprocess.Popen(
            [*argv, "--scheduler-file", file],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        try:
            with Client(json.loads(Path(file).read_text())["address"]) as client:
                client.wait_for_workers(2, timeout=30)
            with cluster.executor(file, Settings()) as execute:
                list(execute(tmp_path / "a", shards))
                list(execute(tmp_path / "a", needing))
        finally:
            other.kill()
            other.wait()
    assert pids(tmp_path / "a", shards) == {str(other.pid)}
    assert len(pids(tmp_path / "a", needing) - {str(other.pid)}) == 1


def pids(folder: Path, shards: list[ledger.Shard]) -> set[str]:
    """Return who did the shards."""
    found = [ledger.read(ledger.path_of(folder, shard)) for shard in shards]
    return {dict(zip(f["names"], f["values"], strict=True))["pid"] for f in found}


def test_workers_of_another_version_are_refused_by_name(tmp_path, places, monkeypatch):
    """They would not import what they are sent, and the command would wait for ever."""
    old = tmp_path / "old" / "fingerprint-0.0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: fingerprint\nVersion: 0.0.1\n")
    monkeypatch.setenv("PYTHONPATH", f"{old.parent}:{os.environ['PYTHONPATH']}")
    with (
        started(tmp_path, "--no-nanny") as (_, file),
        pytest.raises(ValueError, match=r"tcp://127.* has fingerprint 0\.0\.1, here it is"),
        cluster.executor(file, Settings()),
    ):
        pass
