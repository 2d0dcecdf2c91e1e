"""kill -9 of a whole command, at any shard: run it again, and the result is the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import audits
import psutil
import pytest
import toy_shards as toys

from fingerprint import ledger

TESTS = Path(__file__).parent

TOY = """
import sys
from pathlib import Path
import toy_shards as toys
from fingerprint.settings import Settings
from flows import cluster
folder = Path(sys.argv[1])
job = toys.Toy(folder, n=8, seconds=float(sys.argv[3]))
with cluster.executor(sys.argv[2], Settings(workers=2, memory_gib=1)) as execute:
    for receipt in execute(folder, toys.logged_squares(job)):
        print(receipt.key, flush=True)
"""


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", f"{TESTS.parent}:{TESTS}")


def start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, text=True)


def gone(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(alive(p) for p in processes):
            return True
        time.sleep(0.05)
    return False


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("place", "lanes"), [("serial", 1), ("threads", 2), ("local", 2)])
@pytest.mark.parametrize("after", [1, 4])
def test_killed_process_redoes_at_most_the_shards_in_flight(place, lanes, after, tmp_path):
    folder = tmp_path / "ledger"
    process = start("-c", TOY, str(folder), place, "0.1")
    for _ in range(after):
        process.stdout.readline()
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert gone(below)
    done = len(toys.files(folder))
    assert after <= done < 8
    list(ledger.in_this_process(folder, toys.logged_squares(toys.Toy(folder, n=8))))
    assert toys.tries(folder) <= 8 + lanes
    list(ledger.in_this_process(tmp_path / "oracle", toys.squares(toys.Toy(tmp_path, n=8))))
    assert toys.files(folder) == toys.files(tmp_path / "oracle")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run the audit once, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    audits.make_sets(folder / "sets")
    audits.run_audit(folder / "sets", folder / "run")
    return folder, audits.results(folder / "run")


KILLS = [
    *[("check", 0), ("search", 0), ("search", 2), ("search", 5)],
    *[("register", 0), ("register", 1), ("report", 0)],
]
ALWAYS = (("search", 2), ("register", 0), ("report", 0))


@pytest.mark.parametrize(
    ("phase", "done"),
    [pytest.param(*k, marks=() if k in ALWAYS else pytest.mark.slow) for k in KILLS],
)
def test_killed_audit_gives_the_same_result_when_run_again(phase, done, whole, tmp_path):
    folder, expected = whole
    (tmp_path / "sets").symlink_to(folder / "sets")
    killed = start(str(TESTS / "audits.py"), str(tmp_path / "run"), "serial", phase, str(done))
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    shards = list((tmp_path / "run" / "ledger").rglob("*.shard"))
    planned = sum(name.endswith(".shard") for name in expected)
    last = sum("/register/" in name for name in expected)
    there = {"check": 0, "search": done, "register": planned - last + done}
    assert len(shards) == there.get(phase, planned)
    assert last > 1
    assert planned > max(n for _, n in KILLS)
    before = {p: p.stat().st_mtime_ns for p in shards}
    audits.run_audit(tmp_path / "sets", tmp_path / "run")
    assert audits.results(tmp_path / "run") == expected
    assert {p: p.stat().st_mtime_ns for p in shards} == before


PLACES = [
    {"TZ": "Asia/Tokyo", "LC_ALL": "C"},
    pytest.param(
        {"TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize("place", PLACES)
def test_time_zone_locale_and_name_of_the_folder_do_not_matter(place, whole, tmp_path, monkeypatch):
    folder, expected = whole
    home = tmp_path / "ärger und 雪's"
    home.mkdir()
    (home / "sets").symlink_to(folder / "sets")
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    run = start(str(TESTS / "audits.py"), str(home / "run"), "serial", "never", "0")
    assert run.wait() == 0
    run.stdout.close()
    assert audits.results(home / "run") == expected


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(5))
def test_killed_command_leaves_no_process_and_the_same_result(repeat, whole, tmp_path):
    """The whole of it: Prefect, its server, a cluster of processes; killed at another moment."""
    folder, expected = whole
    knobs = tmp_path / "knobs.toml"
    knobs.write_text("\n".join(f"{name} = {value}" for name, value in audits.KNOBS.items()))
    sets = folder / "sets"
    program = ("-c", "from flows.cli import main; main()")
    argv = (*program, "audit", str(sets / "real"), str(sets / "generated"))
    argv = (*argv, str(tmp_path / "run"), "--settings", str(knobs))
    command = start(*argv)
    time.sleep(1.0 + 3.0 * repeat)
    below = psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGKILL)
    command.wait()
    command.stdout.close()
    assert gone(below)
    again = start(*argv)
    assert again.wait() == 10
    again.stdout.close()
    assert audits.results(tmp_path / "run") == expected
