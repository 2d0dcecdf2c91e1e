"""Slices on their way to the product: decoded ahead, and uploaded while others are multiplied.

One shard runs on one device. Chunks are decoded by a few threads straight into pages that are used
again and again (a fresh 64 MiB array costs as much in page faults as its decoding); on a GPU a page
is pinned memory with a twin on the device, and a chunk is copied there on a stream of its own as
soon as it is decoded. So decoding, copying and multiplying overlap, and the slowest decides.

    chunk bytes --crc32c, blosc--> page --copy stream, - 128--> page on the device --> product

A decoder on the GPU was rejected: blosc with bitshuffle has none worth the change, and sixteen
cores decode a million slices in some eleven seconds.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.corpus import store
from fingerprint.ledger import Damaged
from fingerprint.search.correlate import SHIFT, Pixels, shifted_sums


def chosen() -> str:
    """Return the device of this process: ``cuda``, the first that it may see, or ``cpu``.

    dask-cuda shows every worker its own GPU first (``CUDA_VISIBLE_DEVICES``); an empty value keeps
    a worker on the CPU.
    """
    return "cuda" if torch.cuda.is_available() else "cpu"


def lanes(device: str) -> int:
    """Return how many threads decode: on a CPU one, which shares the cores with the product."""
    if device == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // max(1, torch.cuda.device_count()))


@dataclass
class _Page:
    """Room for some chunks: on the host, and the same memory or a twin on the device."""

    host: NDArray[np.uint8]
    pinned: Tensor
    there: Tensor
    copied: list[torch.cuda.Event] = field(default_factory=list)
    used: torch.cuda.Event | None = None


@dataclass(frozen=True)
class _Stretch:
    """Slices [first, last): they lie in the chunks from `chunk` on."""

    first: int
    last: int
    chunk: int
    n_chunks: int


def blocks(
    corpus: store.Corpus, first: int, last: int, block: int, device: str
) -> Generator[tuple[int, Pixels]]:
    """Yield slices `first` to `last` (exclusive) in order, at most `block` at a time.

    Each chunk is read, verified and decoded once, whatever `block` is. What is yielded is a view of
    a page: valid until the next block is asked for (on a GPU: for work that was queued on the
    current stream until then). Close the iterator (`contextlib.closing`) to stop early; no thread
    stays behind.

    Parameters
    ----------
    block : int
        Where it is larger than a chunk it is cut to whole chunks.
    device : str
        ``cpu`` or ``cuda``.

    Yields
    ------
    first : int
        Index of the first slice of the block.
    slices : Pixels (n, side * side) on `device`
        uint8 on a CPU, int8 (value - 128) on a GPU.

    Raises
    ------
    ValueError
        Slices that the corpus does not have, or a block without any.
    ledger.Damaged
        Naming the chunk whose bytes are not those that were sealed.
    """
    if not 0 <= first <= last <= corpus.n or block < 1:
        raise ValueError(
            f"blocks: 0 <= first <= last <= {corpus.n} and block >= 1 must hold, "
            f"got {first}, {last}, {block}"
        )
    return _blocks(corpus, first, last, block, device)


def _blocks(
    corpus: store.Corpus, first: int, last: int, block: int, device: str
) -> Generator[tuple[int, Pixels]]:
    stretches = _stretches(first, last, corpus.chunk_slices, block)
    if not stretches:
        return
    total, squares = _sums(corpus, first, last, device)
    with _Conveyor(corpus, stretches, device) as conveyor:
        for stretch, page in conveyor.pages():
            skip = stretch.first - stretch.chunk * corpus.chunk_slices
            for low in range(stretch.first, stretch.last, block):
                high = min(low + block, stretch.last)
                at = slice(low - stretch.first + skip, high - stretch.first + skip)
                labels = slice(low - first, high - first)
                yield low, Pixels(page[at], total[labels], squares[labels])


def _sums(corpus: store.Corpus, first: int, last: int, device: str) -> tuple[Tensor, Tensor]:
    rows = slice(first, last)
    total = torch.from_numpy(corpus.label("sum", rows))
    squares = torch.from_numpy(corpus.label("sum_of_squares", rows))
    if device != "cpu":
        total, squares = shifted_sums(total, squares, corpus.side("pixels") ** 2)
    return total.to(device), squares.to(device)


def _stretches(first: int, last: int, chunk: int, block: int) -> list[_Stretch]:
    """Cut slices into what one page holds: whole chunks, as many as fit into `block`, one at least.

        first                              last
          v                                  v
    |  .  #  |  #  #  |  #  #  |  #  #  |  # .  |      chunks of 3, block 6: 2 chunks in a page
    |<---------------->|<--------------->|<---->|      stretches
    """
    step = max(1, block // chunk)
    out = []
    for k in range(first // chunk, -(-last // chunk), step):
        low, high = max(first, k * chunk), min(last, (k + step) * chunk)
        out.append(_Stretch(low, high, k, -(-high // chunk) - k))
    return out


class _Conveyor:
    """Threads that decode ahead into a ring of pages. A context: leaving it ends the threads.

    The thread that asks for pages hands out the work; the others decode, and queue the copy of what
    they decoded. A page goes round:

        decoded and copied ahead -> yielded -> free when the next is asked for -> decoded ...
    """

    def __init__(self, corpus: store.Corpus, stretches: list[_Stretch], device: str) -> None:
        self._corpus = corpus
        self._stretches = stretches
        self._stop = Event()
        many = lanes(device)
        self._threads = ThreadPoolExecutor(many, thread_name_prefix="decode")
        self._copies = torch.cuda.Stream() if device != "cpu" else None
        chunks = max(s.n_chunks for s in stretches)
        room, rows = min(len(stretches), _room(many, chunks)), chunks * corpus.chunk_slices
        pixels = corpus.side("pixels") ** 2
        self._free = deque(_page(rows, pixels, device) for _ in range(room))

    def __enter__(self) -> _Conveyor:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._copies is not None:
            self._copies.synchronize()  # before the pages it still writes to are given back

    def pages(self) -> Iterator[tuple[_Stretch, Tensor]]:
        """Yield (stretch, its chunks on the device) in order."""
        waiting = deque(self._stretches)
        ahead: deque[tuple[_Stretch, _Page, list[Future[torch.cuda.Event | None]]]] = deque()
        while waiting or ahead:
            while waiting and self._free:
                stretch, page = waiting.popleft(), self._free.popleft()
                ahead.append((stretch, page, self._start(stretch, page)))
            stretch, page, parts = ahead.popleft()
            events = [part.result() for part in parts]
            page.copied = [event for event in events if event is not None]
            for event in page.copied:
                torch.cuda.current_stream().wait_event(event)
            yield stretch, page.there if self._copies is None else page.there.view(torch.int8)
            if self._copies is not None:
                page.used = torch.cuda.current_stream().record_event()
            self._free.append(page)

    def _start(self, stretch: _Stretch, page: _Page) -> list[Future[torch.cuda.Event | None]]:
        earlier, page.copied = page.copied, []
        return [
            self._threads.submit(self._fill, stretch.chunk + i, i, page, earlier)
            for i in range(stretch.n_chunks)
        ]

    def _fill(
        self, k: int, place: int, page: _Page, earlier: list[torch.cuda.Event]
    ) -> torch.cuda.Event | None:
        """Decode chunk `k` into its place in a page, and queue its copy to the device."""
        if self._stop.is_set():
            return None
        for event in earlier:
            event.synchronize()  # the last copy out of this page
        step = self._corpus.chunk_slices
        at = slice(place * step, (place + 1) * step)
        decode(self._corpus, k, page.host[at])
        if self._copies is None:
            return None
        with torch.cuda.stream(self._copies):
            if page.used is not None:
                self._copies.wait_event(page.used)
            there = page.there[at]
            there.copy_(page.pinned[at], non_blocking=True)
            there.bitwise_xor_(SHIFT)  # here it is hidden behind the next copy
            return self._copies.record_event()


def _room(threads: int, chunks: int) -> int:
    """Return how many pages go round: the one in use, what the threads fill, and one being copied.

    With one thread (a CPU) nothing is copied, and two pages are enough.
    """
    return 2 if threads == 1 else 2 + -(-threads // chunks)


def host_bytes(*, block: int, chunk: int, side: int, device: str) -> int:
    """Return what `blocks` holds in the memory of the host: its pages, and the stored chunks."""
    chunks, threads = max(1, block // chunk), lanes(device)
    return (_room(threads, chunks) * chunks + threads) * chunk * side * side


def _page(rows: int, pixels: int, device: str) -> _Page:
    """Allocate a page; torch keeps pinned memory for the next shard, so only the first pays."""
    if device == "cpu":
        host = np.empty((rows, pixels), np.uint8)  # numpy asks for huge pages, torch does not
        both = torch.from_numpy(host)
        return _Page(host, both, both)
    pinned = torch.empty((rows, pixels), dtype=torch.uint8, pin_memory=True)
    there = torch.empty((rows, pixels), dtype=torch.uint8, device=device)
    # the allocator hands out memory in the order of the current stream: copies wait for it
    return _Page(pinned.numpy(), pinned, there, [], torch.cuda.current_stream().record_event())


def decode(corpus: store.Corpus, k: int, out: NDArray[np.uint8]) -> None:
    """Decode one chunk of pixels into `out`, verified first, in the thread that asks for it.

    Parameters
    ----------
    out : uint8, shape (chunk_slices, side * side), contiguous

    Raises
    ------
    ledger.Damaged
        Naming the chunk.
    """
    name = store.chunk_name(k)
    stored = corpus.stored(name)
    # the size in the header of blosc; a shorter chunk would leave old pixels in the page
    if int.from_bytes(stored[4:8], "little") != out.nbytes:
        raise Damaged(f"{corpus.path.name}: {name} does not hold {len(out)} slices")
    store.BLOSC.decode(memoryview(stored)[:-4], out=out)
