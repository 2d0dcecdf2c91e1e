"""Clusters: the same files from a loop, threads and Dask, whoever is killed; nothing is left."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import toy_shards as toys
from distributed import LocalCluster, Status

from fingerprint import ledger
from fingerprint.phases import AUDIT, INGEST, MEMBERSHIP, STUDY
from fingerprint.settings import Settings
from flows import cluster, places, poison, state

SETTINGS = Settings(workers=2, memory_gib=1)


@pytest.fixture(scope="module", autouse=True)
def state_home(tmp_path_factory):
    """Keep our state out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def local(state_home):
    """Lend one LocalCluster to the tests that do not take it down."""
    with cluster.executor("local", SETTINGS) as execute:
        yield execute


def workers() -> list[psutil.Process]:
    """Return the worker processes of this process (not the tracker of shared memory)."""
    below = psutil.Process().children(recursive=True)
    return [p for p in below if "spawn_main" in " ".join(p.cmdline())]


def alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(true, seconds: float = 5.0) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(true())


def expected(folder: Path, shards) -> dict[str, bytes]:
    """Return the files that the plain loop leaves."""
    list(ledger.in_this_process(folder, shards))
    return toys.files(folder)


@pytest.mark.parametrize("where", ["serial", "threads", "local"])
def test_every_place_leaves_the_same_files(where, tmp_path, request):
    shards = toys.squares(toys.Toy(tmp_path, n=7))
    execute = request.getfixturevalue("local") if where == "local" else None
    if execute is None:
        with cluster.executor(where, SETTINGS) as own:
            receipts = list(own(tmp_path / "a", shards))
    else:
        receipts = list(execute(tmp_path / "a", shards))
    assert toys.files(tmp_path / "a") == expected(tmp_path / "b", shards)
    assert sorted(r.key for r in receipts) == sorted(s.key for s in shards)


def test_done_shards_are_not_done_again(local, tmp_path):
    shards = toys.squares(toys.Toy(tmp_path, n=4))
    list(local(tmp_path, shards))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.shard")}
    assert len(list(local(tmp_path, shards))) == 4
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.shard")} == before


def test_killed_worker_costs_only_another_try(local, tmp_path):
    shards = toys.squares(toys.Toy(tmp_path, n=8, seconds=0.3))
    receipts = local(tmp_path / "a", shards)
    first = next(receipts)
    victim = workers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    rest = list(receipts)
    assert {r.key for r in [first, *rest]} == {s.key for s in shards}
    quick = toys.squares(toys.Toy(tmp_path, n=8))
    assert toys.files(tmp_path / "a") == expected(tmp_path / "b", quick)


@pytest.mark.slow
def test_many_random_kills_change_nothing(tmp_path):
    draw = random.Random(20250123)
    n, kills = 60, 20
    shards = toys.logged_squares(toys.Toy(tmp_path / "a", n=n, seconds=0.2))
    with cluster.executor("local", SETTINGS) as execute:
        for done, _ in enumerate(execute(tmp_path / "a", shards), 1):
            if done % 2 == 0 and done <= 2 * kills:
                os.kill(draw.choice(workers()).pid, signal.SIGKILL)  # one is always there
    missing = [s for s in shards if not ledger.is_done(tmp_path / "a", s)]
    assert missing == []
    assert toys.tries(tmp_path / "a") <= n + kills
    quick = toys.squares(toys.Toy(tmp_path, n=n))
    assert toys.files(tmp_path / "a") == expected(tmp_path / "b", quick)


def test_poison_is_left_out_and_the_rest_is_done(local, tmp_path):
    good = toys.squares(toys.Toy(tmp_path, n=5))
    poison = toys.one(toys.die, 0)
    receipts = list(local(tmp_path, [*good[:2], poison, *good[2:]]))
    assert {r.key for r in receipts} == {s.key for s in good}
    said = json.loads((tmp_path / "poison.json").read_text())
    assert list(said) == [poison.key]
    assert said[poison.key]["phase"] == "die"
    assert str(tmp_path) not in json.dumps(said)
    with pytest.raises(ledger.Incomplete, match=poison.key[:12]):
        ledger.finish(tmp_path, [*good, poison])


def test_poison_is_forgiven_when_it_is_tried_again(local, tmp_path):
    shard = toys.one(toys.square_of, 3)
    (tmp_path / "poison.json").write_text(json.dumps({shard.key: {"phase": "x", "reason": "y"}}))
    list(local(tmp_path, [shard]))
    assert poison.poisoned(tmp_path) == {}


@pytest.mark.parametrize("where", ["threads", "local"])
def test_exception_is_raised_after_the_others_finished(where, local, tmp_path):
    good = toys.squares(toys.Toy(tmp_path, n=4))
    receipts = []
    with cluster.executor("threads", SETTINGS) as threads:
        execute = local if where == "local" else threads
        with pytest.raises(ValueError, match="shard 0 is asked to fail"):
            receipts.extend(execute(tmp_path, [toys.one(toys.fail, 0), *good]))
    assert len(toys.files(tmp_path)) == 4


def test_many_failures_start_no_more_shards(local, tmp_path):
    bad = [toys.one(toys.fail, i) for i in range(40)]
    good = toys.squares(toys.Toy(tmp_path, n=4))
    with pytest.raises(ValueError, match="asked to fail"):
        list(local(tmp_path, [*bad, *good]))
    assert toys.files(tmp_path) == {}


def test_no_more_in_flight_than_there_are_threads(local, tmp_path, monkeypatch):
    shards = toys.squares(toys.Toy(tmp_path, n=9, seconds=0.02))
    seen = []
    original = cluster.as_completed.add

    def add(self, future):
        original(self, future)
        seen.append(self.count())

    monkeypatch.setattr(cluster.as_completed, "add", add)
    list(local(tmp_path, shards))
    assert max(seen) <= 2
    assert len(seen) == 9


def test_worker_has_one_thread_private_temp_and_no_prefect(local, tmp_path):
    shard = toys.one(toys.look, 0)
    list(local(tmp_path, [shard]))
    told = ledger.read(ledger.path_of(tmp_path, shard))
    seen = dict(zip(told["names"].tolist(), told["values"].tolist(), strict=True))
    assert seen["threads"] == seen["omp"] == "1"
    assert seen["prefect"] == "False"
    assert "pytest" not in seen["main"]
    assert Path(seen["tmp"]).parent == state.folder("scratch")
    assert Path(seen["tmp"]).stat().st_mode & 0o777 == 0o700


def test_nothing_listens_beyond_loopback(local, tmp_path):
    list(local(tmp_path, toys.squares(toys.Toy(tmp_path, n=2))))
    me = psutil.Process()
    heard = [
        c.laddr.ip
        for p in [me, *me.children(recursive=True)]
        for c in p.net_connections(kind="inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert heard
    assert set(heard) <= {"127.0.0.1", "::1"}


def test_a_closed_cluster_leaves_no_process_and_no_file(tmp_path):
    before = {p.pid for p in workers()}
    with cluster.executor("local", Settings(workers=1, memory_gib=1)) as execute:
        list(execute(tmp_path, toys.squares(toys.Toy(tmp_path, n=2))))
        mine = [p for p in workers() if p.pid not in before]
        folders = set(state.folder("scratch").glob("*/"))
        assert len(mine) == 1
    assert not any(alive(p) for p in mine)
    left = set(state.folder("scratch").glob("*/"))
    assert len(left) == len(folders) - 1


def test_a_cluster_leaves_the_environment_as_it_was(tmp_path):
    before = dict(os.environ)
    with cluster.executor("local", SETTINGS) as execute:
        assert len(list(execute(tmp_path, [toys.one(toys.square_of, 2)]))) == 1
    assert dict(os.environ) == before


def test_a_busy_cluster_closes_within_seconds(tmp_path):
    start = 0.0
    with cluster.executor("local", Settings(workers=1, memory_gib=1)) as execute:
        shards = [toys.one(toys.square_of, 1), *toys.squares(toys.Toy(tmp_path, n=1, seconds=60))]
        next(iter(execute(tmp_path, shards)))
        start = time.monotonic()
    assert time.monotonic() - start < 15


def test_a_nanny_that_waits_for_ever_does_not_stop_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CLOSE_S", 1.0)
    made = []
    monkeypatch.setattr(
        cluster, "LocalCluster", lambda **o: made.append(LocalCluster(**o)) or made[0]
    )
    start = time.monotonic()
    with cluster.executor("local", Settings(workers=1, memory_gib=1)) as execute:
        list(execute(tmp_path, toys.squares(toys.Toy(tmp_path, n=1))))
        (nanny,) = made[0].workers.values()
        worker = psutil.Process(nanny.pid)
        nanny.process.status = Status.starting
        nanny.process.running.clear()
    assert time.monotonic() - start < 10
    assert wait_for(lambda: not alive(worker))


def test_scratch_of_a_dead_owner_is_wiped_and_of_a_living_one_kept():
    dead = state.folder("scratch") / "dead"
    dead.mkdir()
    (dead / "pixels").write_bytes(b"secret")
    with state.scratch() as mine:
        assert not dead.exists()
        assert state.sweep() == 0
        assert mine.exists()
    assert not mine.exists()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("tcp://10.0.0.7:8786", "unencrypted"),
        ("tcp://scheduler.example:8786", "unencrypted"),
        ("moon", "got 'moon'"),
        ("missing.json", "not a scheduler file"),
        ("cuda", "--cluster cuda"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_clear_line(spec, says):
    with pytest.raises(ValueError, match=says) as caught, cluster.executor(spec, SETTINGS):
        pass
    assert "\n" not in str(caught.value)


class NVMLError(Exception):
    """What the driver's library raises where there is no driver."""


def fake_gpus(monkeypatch, found: int | None) -> list[dict]:
    """Put libraries in place that show some GPUs, or no driver; return what clusters are asked."""
    asked: list[dict] = []

    def init() -> None:
        if found is None:
            raise NVMLError("no driver")

    nvml = SimpleNamespace(NVMLError=NVMLError, nvmlInit=init, nvmlDeviceGetCount=lambda: found)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    def make(**options):
        asked.append(options)
        raise InterruptedError("enough was seen")

    monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=make))
    return asked


@pytest.mark.parametrize(("workers", "processes"), [(0, 4), (3, 3), (16, 4)])
def test_a_cluster_of_gpus_has_one_process_for_each(monkeypatch, tmp_path, workers, processes):
    asked = fake_gpus(monkeypatch, 4)
    shard = replace(toys.one(toys.square_of, 1), phase="search")
    with (
        pytest.raises(InterruptedError),
        cluster.executor("cuda", Settings(workers=workers, memory_gib=2)) as execute,
    ):
        list(execute(tmp_path, [shard]))
    assert asked[0]["n_workers"] == processes == min(workers or 4, places.gpus())
    assert asked[0]["threads_per_worker"] == 1
    assert asked[0]["memory_limit"] == 2 * 2**30
    assert asked[0]["host"] == "127.0.0.1"
    assert asked[0]["dashboard_address"] == "127.0.0.1:0"


def visible(i: int):
    """Tell which GPUs a worker sees."""
    return {"seen": np.array([os.environ.get("CUDA_VISIBLE_DEVICES", "all")])}, {}


def test_what_needs_no_gpu_is_done_by_cores_that_see_none(monkeypatch, tmp_path):
    asked = fake_gpus(monkeypatch, 1)
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    shard = toys.one(visible, 0)
    before = len(workers())  # of other tests
    with cluster.executor("cuda", Settings(memory_gib=1)) as execute:
        assert list(execute(tmp_path, [])) == []
        assert len(workers()) == before  # none starts before it is needed
        list(execute(tmp_path, [shard]))
        assert len(workers()) == before + 1
    assert asked == []
    assert ledger.read(ledger.path_of(tmp_path, shard))["seen"].tolist() == [""]


def churned(i: int):
    """Make and drop arrays of 1 MiB; tell the page faults of each."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for k in range(200):
        np.full(2**20, k, np.uint8)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return {"faults": np.array([(after - before) / 200])}, {}


def test_workers_keep_memory_for_the_next_array(local, tmp_path):
    """As Dask starts them, each array would be 257 page faults: more time than is computed."""
    shard = toys.one(churned, 0)
    list(local(tmp_path, [shard]))
    assert ledger.read(ledger.path_of(tmp_path, shard))["faults"][0] < 10


def test_phases_that_need_a_gpu_are_those_that_say_so():
    assert set(cluster.GPU_PHASES) == {
        p.name for p in (*AUDIT, *INGEST, *STUDY, *MEMBERSHIP) if p.needs_gpu
    }


@pytest.mark.parametrize("found", [0, None])
def test_a_cluster_of_gpus_without_any_is_one_clear_line(monkeypatch, found):
    fake_gpus(monkeypatch, found)
    with pytest.raises(ValueError, match="no GPU here.*--cluster local"):
        cluster.executor("cuda", SETTINGS)
    assert places.gpus() == 0


def test_scheduler_file_beyond_loopback_is_refused(tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"address": "tcp://192.168.1.5:8786"}))
    with pytest.raises(ValueError, match="unencrypted"), cluster.executor(str(path), SETTINGS):
        pass


def test_sum_of_the_squares(local, tmp_path):
    job = toys.Toy(tmp_path, n=6)
    list(local(tmp_path, toys.squares(job)))
    toys.add(job, ledger.finish(tmp_path, toys.squares(job)))
    assert (tmp_path / "sum.txt").read_text() == str(np.sum(np.arange(6) ** 2))
