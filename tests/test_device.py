"""Blocks of slices: in order, exact, whatever is asked for; no error is lost, no thread is left."""

from __future__ import annotations

import contextlib
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpora import make_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.search import device

N, CHUNK = 53, 4


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (N, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def corpus(images, tmp_path_factory) -> store.Corpus:
    return make_corpus(tmp_path_factory.mktemp("c") / "real", images, ["Pa"] * N, chunk=CHUNK)


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("decode")]


def check(images: np.ndarray, blocks, first: int, last: int, block: int) -> None:
    """Read all blocks, and compare them and their sums with the images."""
    at = first
    for low, slices in blocks:
        assert low == at
        assert 1 <= len(slices) <= max(block, 1)
        values = slices.values.numpy().astype(np.int64)
        want = images[low : low + len(slices)].reshape(len(slices), -1)
        if slices.values.dtype == torch.int8:
            want = want.astype(np.int64) - 128
        np.testing.assert_array_equal(values, want)
        np.testing.assert_array_equal(slices.total.numpy(), values.sum(1))
        np.testing.assert_array_equal(slices.squares.numpy(), (values * values).sum(1))
        at += len(slices)
    assert at == last


@settings(deadline=None, max_examples=60)
@given(ends=st.tuples(st.integers(0, N), st.integers(0, N)), block=st.integers(1, 70))
def test_every_slice_comes_once_and_in_order(images, corpus, ends, block) -> None:
    first, last = sorted(ends)
    check(images, device.blocks(corpus, first, last, block, "cpu"), first, last, block)
    assert threads() == []


@pytest.mark.parametrize(
    ("first", "last", "block"), [(-1, 4, 2), (3, 2, 2), (0, N + 1, 2), (0, 4, 0)]
)
def test_slices_that_are_not_there_are_an_error(corpus, first, last, block) -> None:
    with pytest.raises(ValueError, match="blocks: 0 <= first"):
        device.blocks(corpus, first, last, block, "cpu")


@pytest.mark.parametrize("block", [1, 3, 4, 9, 100])
def test_each_chunk_is_decoded_once(corpus, monkeypatch, block) -> None:
    seen = []
    plain = device.decode

    def noted(corpus, k, out):
        seen.append(k)
        plain(corpus, k, out)

    monkeypatch.setattr(device, "decode", noted)
    for _ in device.blocks(corpus, 2, 50, block, "cpu"):
        pass
    assert sorted(seen) == list(range(13))


def test_a_damaged_chunk_is_named_after_the_blocks_before_it(images, tmp_path) -> None:
    corpus = make_corpus(tmp_path / "real", images, ["Pa"] * N, chunk=CHUNK)
    path = corpus.path / store.chunk_name(5)
    stored = bytearray(path.read_bytes())
    stored[40] ^= 1
    path.write_bytes(stored)
    seen = []
    with pytest.raises(ledger.Damaged, match=store.chunk_name(5)):
        seen.extend(low for low, _ in device.blocks(corpus, 0, N, 4, "cpu"))
    assert seen == [0, 4, 8, 12, 16]
    assert threads() == []


def test_a_chunk_of_another_size_is_damage(images, tmp_path, monkeypatch) -> None:
    corpus = make_corpus(tmp_path / "real", images, ["Pa"] * N, chunk=CHUNK)
    monkeypatch.setattr(store.Corpus, "stored", lambda self, name: store.encode(images[:2], 2))
    with pytest.raises(ledger.Damaged, match="does not hold 4 slices"):
        device.decode(corpus, 0, np.empty((CHUNK, 1024), np.uint8))


def test_whoever_stops_early_leaves_no_thread(corpus) -> None:
    with contextlib.closing(device.blocks(corpus, 0, N, 4, "cpu")) as blocks:
        next(blocks)
        assert threads() != []
    assert threads() == []


def test_an_error_of_the_reader_leaves_no_thread(corpus) -> None:
    def fails() -> None:
        with contextlib.closing(device.blocks(corpus, 0, N, 4, "cpu")) as blocks:
            for _ in blocks:
                raise KeyError("reader")

    with pytest.raises(KeyError, match="reader"):
        fails()
    assert threads() == []


def test_the_next_page_is_decoded_while_one_is_used(corpus, monkeypatch) -> None:
    seen = []
    plain = device.decode

    def noted(corpus, k, out):
        plain(corpus, k, out)
        seen.append(k)

    monkeypatch.setattr(device, "decode", noted)
    blocks = device.blocks(corpus, 0, N, 4, "cpu")
    next(blocks)
    end = time.monotonic() + 5
    while 1 not in seen and time.monotonic() < end:
        time.sleep(0.001)
    assert seen == [0, 1]  # and no further: two pages are all there is
    blocks.close()


def test_memory_is_that_of_its_pages(corpus) -> None:
    sizes = {"chunk": 64, "side": 512, "device": "cpu"}
    chunk = 64 * 512 * 512
    assert device.host_bytes(block=17, **sizes) == 3 * chunk
    assert device.host_bytes(block=256, **sizes) == 9 * chunk


def test_without_a_gpu_the_cpu_is_chosen(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.chosen() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.chosen() == "cuda"


class Stream:
    """A stream that does everything at once, and notes what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_event(self, event: SimpleNamespace) -> None:
        self.told.append(f"wait {event.of}")

    def synchronize(self) -> None:
        self.told.append("synchronize")

    def record_event(self) -> SimpleNamespace:
        return SimpleNamespace(of=id(self), synchronize=lambda: None)


def test_the_way_to_a_gpu_is_the_same_with_streams_and_twins(images, corpus, monkeypatch) -> None:
    """What would run on a GPU, with streams that do everything at once; ``cpu:0`` is no ``cpu``."""
    compute, copies = Stream(), Stream()
    monkeypatch.setattr(torch.cuda, "Stream", lambda: copies)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: compute)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(device, "lanes", lambda device: 3)
    made = []

    def page(rows, pixels, device_name):
        pinned = torch.full((rows, pixels), 99, dtype=torch.uint8)
        there = torch.full((rows, pixels), 77, dtype=torch.uint8)
        made.append(rows)
        return device._Page(pinned.numpy(), pinned, there, [], compute.record_event())

    monkeypatch.setattr(device, "_page", page)
    for block in (1, 4, 9, 100):
        check(images, device.blocks(corpus, 2, 51, block, "cpu:0"), 2, 51, block)
        assert copies.told[-1] == "synchronize"
    assert f"wait {id(copies)}" in compute.told
    assert f"wait {id(compute)}" in copies.told
    assert max(made) == 13 * CHUNK
    with contextlib.closing(device.blocks(corpus, 0, N, 4, "cpu:0")) as blocks:
        next(blocks)
    assert threads() == []
