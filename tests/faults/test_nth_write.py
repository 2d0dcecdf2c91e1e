"""The Nth write fails, for every N: a clear error, no lie afterwards, the same result again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import audits
import numpy as np
import pytest
import toy_shards as toys
from PIL import Image

from fingerprint import ledger, phases
from fingerprint.corpus import store
from fingerprint.run import silent
from fingerprint.verify import verify
from flows import chain


class Disk:
    """Counts what must reach the disk, and is full at one of them."""

    def __init__(self) -> None:
        self.seen = 0
        self.full_at = 0

    def watched(self, original: Callable) -> Callable:
        def call(*args, **kwargs):
            self.seen += 1
            if self.seen == self.full_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **kwargs)

        return call

    def run(self, work: Callable[[], None], full_at: int = 0) -> int:
        """Do some work, on a disk that is full at one write; return how many writes it had."""
        self.seen, self.full_at = 0, full_at
        work()
        return self.seen


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, disk.watched(getattr(os, name)))
    return disk


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def spread(writes: int, most: int) -> list[int]:
    """Return which writes fail: all, or `most` of them from the first to the last."""
    return sorted({round(n) for n in np.linspace(1, writes, min(writes, most))})


def test_every_write_of_a_phase_may_fail(disk, tmp_path):
    def run(name: str) -> None:
        job = toys.Toy(tmp_path / name, n=3)
        phases.run_phase(toys.SQUARE, job, ledger.in_this_process, silent)

    writes = disk.run(lambda: run("whole"))
    assert writes == 3 * (3 + 1)  # fsync, rename, fsync of the folder; three shards and the sum
    for n in range(1, writes + 1):
        with pytest.raises(OSError, match="No space left"):
            disk.run(lambda n=n: run(str(n)), full_at=n)
        for file in (tmp_path / str(n)).rglob("*.shard"):
            ledger.read(file)
        assert not list((tmp_path / str(n)).rglob("*.wip"))
        disk.run(lambda n=n: run(str(n)))
        assert toys.files(tmp_path / str(n)) == toys.files(tmp_path / "whole")
        assert (tmp_path / str(n) / "sum.txt").read_text() == "5"


@pytest.mark.parametrize("most", [2, pytest.param(10_000, marks=pytest.mark.slow)])
def test_writes_of_an_audit_may_fail(most, disk, tmp_path):
    sets = audits.make_sets(tmp_path / "sets")
    writes = disk.run(lambda: audits.run_audit(sets, tmp_path / "whole"))
    expected = audits.results(tmp_path / "whole")
    for n in spread(writes, most):
        out = tmp_path / str(n)
        with pytest.raises(OSError, match="No space left"):
            disk.run(lambda out=out: audits.run_audit(sets, out), full_at=n)
        disk.run(lambda out=out: audits.run_audit(sets, out))
        assert audits.results(out) == expected
        assert list(verify(out)) == []


@pytest.mark.parametrize("most", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_writes_of_an_ingest_may_fail(most, disk, tmp_path):
    draw = np.random.default_rng(7)
    (tmp_path / "images").mkdir()
    for i in range(5):
        pixels = draw.integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    knobs = {"size_px": 64, "chunk_slices": 2}

    def run(name: str) -> None:
        out, how = str(tmp_path / name), chain.How("serial")
        chain.ingest_files([str(tmp_path / "images")], out, knobs=knobs, how=how)

    run("key is made")
    writes = disk.run(lambda: run("whole"))
    expected = store.open_corpus(tmp_path / "whole").digest
    for n in spread(writes, most):
        with pytest.raises(OSError, match="No space left"):
            disk.run(lambda n=n: run(str(n)), full_at=n)
        disk.run(lambda n=n: run(str(n)))
        assert store.open_corpus(tmp_path / str(n)).digest == expected
        assert list(verify(tmp_path / str(n))) == []
