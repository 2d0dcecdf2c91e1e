"""What is done is what is in the ledger, and what is in the ledger is what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fingerprint import ledger
from fingerprint.ledger import Damaged, Incomplete, Shard, shard

CALLS: list[int] = []


def square(n: int) -> tuple[ledger.Values, ledger.Counts]:
    CALLS.append(n)
    return {"n": np.arange(n) ** 2}, {"n": n}


def plan(count: int) -> list[Shard]:
    return [shard("toy", 1, {"n": n}, square, n) for n in range(1, count + 1)]


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def test_values_come_back_in_plan_order(tmp_path: Path) -> None:
    shards = plan(5)
    for one in reversed(shards):
        ledger.work(tmp_path, one)
    values = [v["n"].tolist() for v in ledger.finish(tmp_path, shards)]
    assert values == [(np.arange(n) ** 2).tolist() for n in range(1, 6)]


def test_a_finished_shard_is_not_done_again(tmp_path: Path) -> None:
    first = [ledger.work(tmp_path, s) for s in plan(3)]
    again = [ledger.work(tmp_path, s) for s in plan(3)]
    assert first == again
    assert CALLS == [1, 2, 3]


def test_key_depends_on_phase_version_and_inputs() -> None:
    keys = {
        shard(phase, version, {"n": n}, square, n).key
        for phase in ("a", "b")
        for version in (1, 2)
        for n in (1, 2)
    }
    assert len(keys) == 8


def test_finish_names_every_missing_shard(tmp_path: Path) -> None:
    shards = plan(4)
    ledger.work(tmp_path, shards[1])
    with pytest.raises(Incomplete, match="3 of 4") as error:
        ledger.finish(tmp_path, shards)
    assert all(shards[i].key[:12] in str(error.value) for i in (0, 2, 3))


def test_a_flipped_bit_at_any_byte_is_seen_and_the_shard_redone(tmp_path: Path) -> None:
    one = plan(3)[2]
    ledger.work(tmp_path, one)
    path = ledger.path_of(tmp_path, one)
    sound = path.read_bytes()
    for i in range(len(sound)):
        path.write_bytes(sound[:i] + bytes([sound[i] ^ 1]) + sound[i + 1 :])
        with pytest.raises(Damaged):
            ledger.receipt(path)
    ledger.work(tmp_path, one)
    assert path.read_bytes() == sound


@pytest.mark.parametrize("keep", [0, 1, 50, -1])
def test_a_truncated_file_is_not_done(tmp_path: Path, keep: int) -> None:
    one = plan(1)[0]
    ledger.work(tmp_path, one)
    path = ledger.path_of(tmp_path, one)
    path.write_bytes(path.read_bytes()[:keep])
    assert not ledger.is_done(tmp_path, one)


def test_a_file_under_another_key_is_not_done(tmp_path: Path) -> None:
    first, second = plan(2)
    ledger.work(tmp_path, first)
    ledger.path_of(tmp_path, first).rename(ledger.path_of(tmp_path, second))
    assert not ledger.is_done(tmp_path, second)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"

    def fail() -> None:
        with ledger.replacing(target) as out:
            out.write(b"half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half"):
        fail()
    assert list(target.parent.iterdir()) == []


def test_what_a_killed_writer_left_is_cleaned(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "abc.shard.123.wip").write_bytes(b"half")
    assert ledger.clean(tmp_path) == 1
    assert list((tmp_path / "toy").iterdir()) == []


def test_a_newer_format_is_refused_with_its_version(tmp_path: Path) -> None:
    one = plan(1)[0]
    ledger.work(tmp_path, one)
    path = ledger.path_of(tmp_path, one)
    payload = path.read_bytes().split(b"\n", 1)[1]
    path.write_bytes(ledger._head(one.key, {"n": 1}, payload, 9) + payload)
    with pytest.raises(ValueError, match="format 9"):
        ledger.work(tmp_path, one)
    assert path.exists()
