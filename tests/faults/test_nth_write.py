"""The Nth write fails, for every N: a clear error, no lie afterwards, the same result again."""

from __future__ import annotations

import errno
import os

import audits
import numpy as np
import pytest
import toy_shards as toys
from PIL import Image

from fingerprint import ledger, phases
from fingerprint.corpus import store
from fingerprint.run import silent
from flows import chain


class Full(OSError):
    """The disk is full."""


@pytest.fixture
def failing(monkeypatch):
    """Lend a switch: the Nth fsync or rename from now on raises, once."""
    calls = {"left": -1}

    def wrap(original):
        def wrapped(*args, **kwargs):
            calls["left"] -= 1
            if calls["left"] == 0:
                raise Full(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **kwargs)

        return wrapped

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))

    def fail_at(n: int) -> None:
        calls["left"] = n

    return fail_at


def writes_of(failing, work) -> int:
    """Return how many writes a piece of work has, by letting a far one fail."""
    far = 1_000_000
    left = {}
    failing(far)
    work()
    # the switch is a closure: read what is left by making the next call fail
    for name in ("fsync",):
        left[name] = name
    return far


def test_every_write_of_a_phase_may_fail(failing, tmp_path):
    oracle = toys.Toy(tmp_path / "oracle", n=3)
    phases.run_phase(toys.SQUARE, oracle, ledger.in_this_process, silent)
    failures = 0
    for n in range(1, 1000):
        job = toys.Toy(tmp_path / str(n), n=3)
        failing(n)
        try:
            phases.run_phase(toys.SQUARE, job, ledger.in_this_process, silent)
        except Full:
            failures += 1
        else:
            break
        for file in job.ledger.rglob("*.shard"):
            ledger.read(file)
        assert not list(job.ledger.rglob("*.wip"))
        phases.run_phase(toys.SQUARE, job, ledger.in_this_process, silent)
        assert toys.files(job.ledger) == toys.files(oracle.ledger)
        assert (job.ledger / "sum.txt").read_text() == (oracle.ledger / "sum.txt").read_text()
    assert failures == 4 * 3  # fsync, rename, fsync of the folder, for three shards and the sum


def every(n_writes: int, budget: int) -> range:
    """Return which writes are made to fail: all of them, or as many as fit, spread evenly."""
    return range(1, n_writes, max(1, n_writes // budget))


def walk_through(failing, work, check, budget: int) -> int:
    """Let writes fail one at a time, each followed by a run without failure; return how many."""
    failures, n = 0, 1
    step = 1
    while True:
        failing(n)
        try:
            work(n)
        except OSError:
            failures += 1
        else:
            failing(-1)
            return failures
        failing(-1)
        work(n)
        check(n)
        n += step
        if failures >= budget:
            step = n


def audit_walk(failing, tmp_path, budget):
    sets = audits.make_sets(tmp_path / "sets")
    audits.run_audit(sets, tmp_path / "oracle")
    expected = audits.results(tmp_path / "oracle")

    def check(n: int) -> None:
        assert audits.results(tmp_path / str(n)) == expected

    return walk_through(
        failing, lambda n: audits.run_audit(sets, tmp_path / str(n)), check, budget
    )


def test_some_writes_of_an_audit_may_fail(failing, tmp_path):
    assert audit_walk(failing, tmp_path, budget=4) >= 4


@pytest.mark.slow
def test_every_write_of_an_audit_may_fail(failing, tmp_path):
    assert audit_walk(failing, tmp_path, budget=10_000) > 40
