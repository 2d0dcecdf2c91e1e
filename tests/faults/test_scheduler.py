"""A Dask scheduler that somebody else started: it is found by its file, and may be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_shards as toys

from fingerprint import ledger
from fingerprint.settings import Settings
from flows import cluster

TESTS = Path(__file__).parent.parent


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """Start a scheduler and a worker on loopback; lend the scheduler and its file."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "scheduler.json"
    dask = str(Path(sys.executable).parent / "dask")
    local = ("--host", "127.0.0.1", "--no-dashboard")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    head = [dask, "scheduler", *local, "--port", "0", "--scheduler-file", str(file)]
    hand = [dask, "worker", *local, "--nthreads", "2", "--no-nanny", "--scheduler-file", str(file)]
    started = [subprocess.Popen(head, **quiet)]
    while not file.exists():
        time.sleep(0.05)
    started.append(subprocess.Popen(hand, **quiet))
    yield started[0], str(file)
    for process in started:
        process.kill()
        process.wait()


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
