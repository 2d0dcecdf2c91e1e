"""Two writers of one folder: the second is refused; a dead one is not waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fingerprint.lease import EXPIRES_S, held, lease


def test_the_second_writer_is_refused_at_once_and_told_who(tmp_path: Path) -> None:
    path = tmp_path / "corpus" / ".ingest" / "lease"
    with lease(path):
        start = time.monotonic()
        with pytest.raises(ValueError, match=f"process {os.getpid()}"), lease(path):
            pass
        assert time.monotonic() - start < 5
    with lease(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_the_lease_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "x" / "lease"
    code = (
        "import sys, time; from pathlib import Path; from fingerprint.lease import lease\n"
        "with lease(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match=str(child.pid)), lease(path):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with lease(path) as token:
        assert held(path, token)


def test_a_lease_of_another_machine_expires(tmp_path: Path) -> None:
    path = tmp_path / "x" / "lease"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1", "token": "t"}))
    with pytest.raises(ValueError, match="elsewhere"), lease(path):
        pass
    old = time.time() - EXPIRES_S - 1
    os.utime(path, (old, old))
    with lease(path):
        assert not held(path, "t")


def test_of_many_at_once_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "x" / "lease"
    inside, most, won = 0, 0, 0
    gate = threading.Barrier(8)
    counting = threading.Lock()

    def write() -> None:
        nonlocal inside, most, won
        gate.wait()
        for _ in range(50):
            try:
                with lease(path):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                        won += 1
                    time.sleep(0.001)
                    with counting:
                        inside -= 1
            except ValueError:
                continue

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert won >= 1


def test_a_writer_that_lost_its_lease_can_tell(tmp_path: Path) -> None:
    path = tmp_path / "x" / "lease"
    with lease(path) as token:
        assert held(path, token)
        path.write_text(json.dumps({"token": "another"}))
        assert not held(path, token)
    assert path.exists()
