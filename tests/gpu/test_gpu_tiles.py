"""Whole tiles, from a sealed corpus to the values of a shard: one digest on CPU and GPU."""

from __future__ import annotations

import contextlib
import threading

import gpu_worlds as worlds
import numpy as np
import pytest
import torch

from fingerprint import ledger
from fingerprint.search import device, finish, tile

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> worlds.World:
    return worlds.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def full_size(tmp_path_factory) -> worlds.World:
    return worlds.make(tmp_path_factory.mktemp("full"), side=512, per_patient=3)


def ran(world: worlds.World, folder, where: str, monkeypatch) -> str:
    monkeypatch.setattr(device, "chosen", lambda: where)
    return worlds.search(world, folder, ledger.in_this_process)


@pytest.mark.parametrize("size", ["world", "full_size"])
def test_raw_and_screen_tiles_have_one_digest(size, request, tmp_path, monkeypatch) -> None:
    world = request.getfixturevalue(size)
    want = ran(world, tmp_path / "cpu", "cpu", monkeypatch)
    assert ran(world, tmp_path / "cuda", "cuda", monkeypatch) == want


def test_tiles_have_it_without_the_fused_finish_too(world, tmp_path, monkeypatch) -> None:
    want = ran(world, tmp_path / "cpu", "cpu", monkeypatch)
    monkeypatch.setattr(tile, "available", lambda device: False)
    monkeypatch.setattr(finish, "available", lambda device: False)
    assert ran(world, tmp_path / "torch", "cuda", monkeypatch) == want


@pytest.mark.parametrize("block", [1, 7, 8, 20, 1000])
def test_blocks_on_the_gpu_hold_the_slices(world, block) -> None:
    corpus = world.real
    want = corpus.read(0, corpus.n).reshape(corpus.n, -1).astype(np.int64) - 128
    kept, at = [], 3
    for low, slices in device.blocks(corpus, 3, corpus.n, block, "cuda"):
        assert low == at
        assert slices.values.dtype == torch.int8
        kept.append(slices.values.cpu().numpy())
        np.testing.assert_array_equal(slices.total.cpu(), want[low : low + len(slices)].sum(1))
        squares = (want[low : low + len(slices)] ** 2).sum(1)
        np.testing.assert_array_equal(slices.squares.cpu(), squares)
        at += len(slices)
    np.testing.assert_array_equal(np.concatenate(kept), want[3:])


def test_a_page_is_not_overwritten_while_it_is_multiplied(full_size) -> None:
    """The work on a block is queued, not done, when the next is asked for."""
    corpus = full_size.real
    want = corpus.read(0, corpus.n).reshape(corpus.n, -1).astype(np.int64) - 128
    slow = torch.zeros((4096, 4096), device="cuda")
    sums = []
    for _ in range(3):
        for _, slices in device.blocks(corpus, 0, corpus.n, 1, "cuda"):
            for _ in range(3):
                slow = slow @ slow
            sums.append(slices.values.sum(1, dtype=torch.int64))
    np.testing.assert_array_equal(torch.cat(sums).cpu(), np.tile(want.sum(1), 3))


def test_whoever_stops_early_leaves_no_thread(world) -> None:
    with contextlib.closing(device.blocks(world.real, 0, world.real.n, 8, "cuda")) as blocks:
        next(blocks)
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]
