"""What a GPU does of what it could: the product, the two fused finishes, and a shard from Zarr.

    python tests/bench/gpu.py [QUERIES SLICES]

Every way of a table runs once in every round, and the device is waited for. Rates of a product are
given beside those of a bare `torch._int_mm` of the same shapes and of a large square one, which is
taken for the peak. Skipped, visibly, where torch sees no GPU.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import zarr

# a GPU node may have neither this package nor its tests on its path
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from bench_images import SIDE, images
from corpora import make_corpus
from ratios import counts, machine

from fingerprint.corpus import screen as screen_image
from fingerprint.corpus import store
from fingerprint.search import device, finish, pose, product, raw, tile
from fingerprint.search.correlate import Pixels, correlate
from fingerprint.search.sets import QuerySet, Reference
from fingerprint.search.tile import Tally
from fingerprint.search.tiling import Tile
from fingerprint.settings import Settings

PIXELS, CHUNK, PER_PATIENT = SIDE * SIDE, 64, 118
SQUARE = 8192
Way = tuple[Callable[[], object], float]  # what is timed, and how much work it is


def rates(title: str, unit: str, ways: Mapping[str, Way], rounds: int = 7) -> dict[str, float]:
    """Print a Markdown table: median ms, spread, rate, share of the rate of the first way."""
    for way, _ in ways.values():
        way()
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (way, _) in ways.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            way()
            torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    print(f"\n### {title}\n\n| way | median ms | min .. max ms | {unit} | share of the first |")
    print("|---|---|---|---|---|")
    found: dict[str, float] = {}
    for name, taken in seconds.items():
        low, mid, high = (f(taken) for f in (min, statistics.median, max))
        found[name] = ways[name][1] / mid
        share = found[name] / next(iter(found.values()))
        times = f"{1e3 * mid:.2f} | {1e3 * low:.2f} .. {1e3 * high:.2f}"
        print(f"| {name} | {times} | {found[name]:.4g} | {share:.2f} |")
    return found


def random_bytes(rows: int, columns: int) -> torch.Tensor:
    return torch.randint(-128, 128, (rows, columns), dtype=torch.int8, device="cuda")


def random_pixels(n: int) -> Pixels:
    """Return images of random bytes, made on the device."""
    values = product.with_room(random_bytes(n, PIXELS), "cuda")
    total, squares = torch.zeros((2, n), dtype=torch.int64, device="cuda")
    for i in range(0, n, 64):  # int64 copies of all at once would not fit everywhere
        part = values[i : i + 64].long()
        total[i : i + 64], squares[i : i + 64] = part.sum(1), (part * part).sum(1)
    return Pixels(values, total, squares)


def peak() -> float:
    """Return operations per second of a large square product."""
    left, right = random_bytes(SQUARE, SQUARE), random_bytes(SQUARE, SQUARE)

    def square() -> None:
        for _ in range(10):
            torch._int_mm(left, right.T)

    work = 10 * 2 * SQUARE**3 / 1e12
    name = f"{SQUARE} x {SQUARE} x {SQUARE}"
    return rates("The peak: a bare square int8 product", "TOP/s", {name: (square, work)})[name]


def raw_product(n_queries: int, n_slices: int, block: int, best: float) -> None:
    """Time the product with its finish, fused and in torch, beside the bare product."""
    queries, slices = random_pixels(n_queries), random_pixels(n_slices)
    patients = np.arange(n_slices) // PER_PATIENT
    capped, own = np.arange(n_slices) % PER_PATIENT < 16, np.full(n_queries, -1)
    whole = Reference(Path(), "", 1, patients, capped)
    blocks = range(0, n_slices, block)

    def bare() -> None:
        for i in blocks:
            for k in range(0, PIXELS, product.PIECE):
                part = slices.values[i : i + block, k : k + product.PIECE]
                product.in_int8(part, queries.values[:, k : k + product.PIECE])

    def fused() -> None:
        sides = (own, patients, capped, int(patients[-1]) + 1)
        best_of = finish.Fused(*sides, start=0, device="cuda")
        for i in blocks:
            best_of.add_product(queries, slices[i : i + block], i)
        best_of.best()

    def in_torch() -> None:
        with without_fused():
            tally = Tally(n_queries, whole, own, "cuda", start=0)
            for i in blocks:
                tally.add(correlate(queries, slices[i : i + block]), i)
            tally.values()

    work = 2 * n_queries * n_slices * PIXELS / 1e12
    title = f"{n_queries} queries x {n_slices} slices, 512 x 512, on the device, blocks of {block}"
    ways = {"bare int8 product": (bare, work), "product, finish in torch": (in_torch, work)}
    if finish.available("cuda"):
        ways["product, fused finish"] = (fused, work)
    for name, rate in rates(title, "TOP/s", ways).items():
        print(f"- {name}: {rate / best:.2f} of the peak, {rate / 2 / PIXELS * 1e3:.3g} Gpairs/s")


@contextmanager
def without_fused() -> Iterator[None]:
    """Finish in torch, where a tally would choose the kernel."""
    chosen = finish.available
    finish.available = tile.available = lambda device: False
    try:
        yield
    finally:
        finish.available = tile.available = chosen


def screen(n_queries: int, n_poses: int, n_slices: int, best: float) -> None:
    """Time the product over poses with its maximum, by the memory that a product may take."""
    depth = screen_image.PIXELS
    rows = random_bytes(n_queries * n_poses, depth).view(n_queries, n_poses, depth)
    slices = random_bytes(n_slices, depth)
    flat, high = rows.flatten(0, 1), 2048

    def bare() -> None:
        for s in range(0, n_slices, high):
            for q in range(0, n_queries, 4):
                product.int8_product(slices[s : s + high], flat[q * n_poses : (q + 4) * n_poses])

    def ours(mib: int) -> Callable[[], object]:
        return lambda: finish.highest_over_poses(rows, slices, most=mib * 2**20)

    def in_torch() -> None:
        with without_fused():
            finish.highest_over_poses(rows, slices)

    work = 2 * n_queries * n_poses * n_slices * depth / 1e12
    ways: dict[str, Way] = {"bare int8 product": (bare, work)}
    ways["product, maximum in torch"] = (in_torch, work)
    for mib in (16, 32, 48, 96, 256, 1024):
        ways[f"product, maximum in a kernel, {mib} MiB at a time"] = (ours(mib), work)
    title = f"{n_queries} queries x {n_poses} poses x {n_slices} screen rows"
    for name, rate in rates(title, "TOP/s", ways, rounds=5).items():
        micro = 1e6 * 2 * n_queries * n_poses * depth / 1e12 / rate
        print(f"- {name}: {rate / best:.2f} of the peak, {micro:.3g} us per slice")


def from_zarr(n_queries: int, n_slices: int, blocks: tuple[int, ...]) -> None:
    """Time a shard of the search from a sealed corpus beside decoding, copying, multiplying."""
    with tempfile.TemporaryDirectory() as folder:
        patients = np.arange(n_slices) // PER_PATIENT
        names = [f"P{p}" for p in patients]
        corpus = make_corpus(Path(folder) / "real", images(n_slices, 2), names, chunk=CHUNK)
        asked = make_corpus(
            Path(folder) / "generated", images(n_queries, 1), ["g"] * n_queries, chunk=CHUNK
        )
        own, everyone = np.full(n_queries, -1, np.int64), np.arange(n_queries)
        queries = QuerySet("generated", asked.path, asked.digest, everyone, own)
        capped = np.arange(n_slices) % PER_PATIENT < 16
        reference = Reference(corpus.path, corpus.digest, CHUNK, patients, capped)
        with_zarr = zarr_on_gpu(corpus)
        for block in blocks:
            shard_and_parts(corpus, queries, reference, block, with_zarr)


def shard_and_parts(
    corpus: store.Corpus,
    queries: QuerySet,
    reference: Reference,
    block: int,
    with_zarr: Callable[[], object] | None,
) -> None:
    """Time one shard, and what it is made of, each alone."""
    n_queries, n_slices = len(queries), corpus.n
    held_q, held_s = random_pixels(n_queries), random_pixels(min(n_slices, 1024))

    def multiply() -> None:
        sides = (queries.own, reference.patients, reference.capped, int(reference.patients[-1]) + 1)
        fused = finish.Fused(*sides, start=0, device="cuda")
        for i in range(0, n_slices, block):
            fused.add_product(held_q, held_s[: min(block, n_slices - i)], i)
        fused.best()

    whole, work = Tile(0, n_queries, 0, n_slices), float(n_slices)
    shard = "a shard of the search"
    ways: dict[str, Way] = {
        shard: (lambda: raw.search_tile(queries, reference, whole, block), work),
        f"decode alone, {device.lanes('cuda')} threads": (lambda: decode(corpus), work),
        "copy alone, from pinned pages": (lambda: copy(n_slices), work),
    }
    if finish.available("cuda"):
        ways["product with its finish alone"] = (multiply, work)
    if with_zarr:
        ways["zarr's GPU buffers: decode and copy"] = (with_zarr, work)
    title = f"{n_queries} queries x {n_slices} slices from Zarr, blocks of {block}"
    found = rates(title, "slices/s", ways, rounds=5)
    limits = {name: rate for name, rate in found.items() if "alone" in name}
    slowest = min(limits, key=limits.__getitem__)
    ratio = limits[slowest] / found[shard]
    print(f"- the shard takes {ratio:.2f} times the slowest of its parts ({slowest})")


def decode(corpus: store.Corpus) -> None:
    """Decode all pixels into pages, as many threads as a shard on a GPU has."""
    many = device.lanes("cuda")
    pages = [np.empty((CHUNK, PIXELS), np.uint8) for _ in range(many)]
    chunks = range(-(-corpus.n // CHUNK))

    def lane(i: int) -> None:
        for k in chunks[i::many]:
            device.decode(corpus, k, pages[i])

    with ThreadPoolExecutor(many) as threads:
        list(threads.map(lane, range(many)))


def copy(n_slices: int) -> None:
    """Copy as many bytes as that many slices have, in pieces of a chunk."""
    pinned = torch.empty((4, CHUNK, PIXELS), dtype=torch.uint8, pin_memory=True)
    there = torch.empty((4, CHUNK, PIXELS), dtype=torch.uint8, device="cuda")
    for i in range(0, n_slices, CHUNK):
        there[i // CHUNK % 4].copy_(pinned[i // CHUNK % 4], non_blocking=True)


def zarr_on_gpu(corpus: store.Corpus) -> Callable[[], object] | None:
    """Return what reads all pixels into buffers of zarr on the GPU; None, and a line, if not."""

    def read() -> object:
        with zarr.config.enable_gpu():
            return zarr.open_array(corpus.path / "pixels", mode="r")[:]

    try:
        first = read()
    except Exception as error:
        # of zarr, CuPy or a codec that takes no buffer of the GPU: a row less, not a failure
        print(f"\nzarr's GPU buffers: not possible here ({type(error).__name__}: {error}), skipped")
        return None
    where = type(first).__module__
    print(f"\nzarr's GPU buffers: arrays of {where}")
    return read


def main(n_queries: int, n_slices: int) -> None:
    print(machine())
    if not torch.cuda.is_available():
        print("gpu: torch sees no GPU here, skipped")
        return
    known = torch.cuda.get_device_properties(0)
    try:
        cupy = import_module("cupy").__version__
    except ImportError:
        cupy = "none"
    print(f"{known.name}, {known.multi_processor_count} multiprocessors, CuPy {cupy}")
    print(f"product: {product.chosen('cuda')}; finish: {finish.chosen('cuda')}")
    best = peak()
    for queries, block in ((n_queries, 256), (n_queries, 1024), (4 * n_queries, 1024)):
        raw_product(queries, n_slices, block, best)
    screen(32, len(pose.grid_of(Settings())), 16_384, best)
    from_zarr(n_queries, n_slices, (256, 1024))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*counts(480, 2048))
