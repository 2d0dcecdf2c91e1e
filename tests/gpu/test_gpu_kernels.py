"""On a GPU: product, correlation and finish have the bits of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fingerprint.search import finish, product
from fingerprint.search.best import BINS
from fingerprint.search.correlate import Pixels, correlate, queries_from, shifted, slices_from
from fingerprint.search.product import PIECE
from fingerprint.search.sets import Reference
from fingerprint.search.tile import Tally

pytestmark = pytest.mark.gpu


def signed(rng: np.random.Generator, rows: int, depth: int) -> torch.Tensor:
    values = rng.integers(-128, 128, (rows, depth), dtype=np.int8)
    values[0], values[-1] = -128, 127
    return torch.from_numpy(values)


def pixels(images: np.ndarray, *, queries: bool) -> Pixels:
    flat = images.reshape(len(images), -1).astype(np.int64)
    make = queries_from if queries else slices_from
    return make(images, flat.sum(1), (flat * flat).sum(1))


def images_of(rng: np.random.Generator, q: int, s: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    images = rng.integers(0, 256, (q + s, side, side), dtype=np.uint8)
    images[1], images[q], images[q - 1] = images[0], images[0], 77
    images[q + s // 2] = 255 - images[0]
    return images[:q], images[q:]


def test_int8_and_the_fused_finish_are_what_is_used() -> None:
    """Not the slower ways: they give the same bits, and nobody would notice."""
    assert product.chosen("cuda") == "int8"
    assert finish.chosen("cuda") == "fused (CuPy)"


@pytest.mark.parametrize(
    ("s", "n", "k"),
    [
        *((1, 1, 1), (5, 3, 36), (16, 8, 8), (17, 16, 16), (17, 17, 17), (31, 9, 100)),
        *((32, 8, 16), (33, 40, 65), (256, 480, 4096), (257, 481, 1024), (2048, 2058, 1024)),
        *((256, 480, PIECE), (256, 481, PIECE), (13, 7, PIECE), (1000, 24, PIECE)),
    ],
)
def test_int8_product_is_exact(rng, s, n, k) -> None:
    left, right = signed(rng, s, k), signed(rng, n, k)
    want = product.in_float64(left.cuda(), right.cuda())
    got = product.int8_product(left.cuda(), right.cuda())
    assert got.dtype == torch.int32
    assert torch.equal(got.long(), want)
    assert torch.equal(got.cpu(), product.int8_product(left, right))


def test_the_deepest_product_does_not_overflow() -> None:
    left = torch.full((40, PIECE), -128, dtype=torch.int8, device="cuda")
    got = product.int8_product(left, left)
    assert (got == 2**30).all()


@pytest.mark.parametrize(
    ("q", "s", "side"), [(2, 5, 16), (17, 33, 6), (17, 33, 64), (64, 256, 512), (40, 17, 384)]
)
def test_correlation_has_the_bits_of_the_cpu(rng, q, s, side) -> None:
    asked, met = images_of(rng, q, s, side)
    queries, slices = pixels(asked, queries=True), pixels(met, queries=False)
    want = correlate(queries, slices)
    for there in (slices.to("cuda"), shifted(slices).to("cuda"), shifted(slices.to("cuda"))):
        got = correlate(queries.to("cuda"), there).cpu()
        np.testing.assert_array_equal(got.numpy(), want.numpy())
    on_stream = torch.cuda.Stream()
    with torch.cuda.stream(on_stream):
        got = correlate(queries.to("cuda"), slices.to("cuda")).cpu()
    np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("other_stream", [False, True])
@pytest.mark.parametrize(
    ("q", "s", "side", "p", "block"),
    [(3, 5, 16, 2, 5), (40, 70, 6, 9, 11), (33, 300, 64, 40, 64), (70, 200, 512, 3, 100)],
)
def test_the_fused_finish_has_the_bits_of_the_cpu(rng, q, s, side, p, block, other_stream) -> None:
    asked, met = images_of(rng, q, s, side)
    queries, slices = pixels(asked, queries=True), pixels(met, queries=False)
    patients = np.sort(rng.integers(-1, p, s))
    patients[s // 2 :] = patients[s // 2 :][::-1].copy()
    capped, own = rng.random(s) < 0.6, rng.integers(-1, p, q)
    tally = Tally(q, Reference(None, "", 1, patients, capped), own, "cpu", start=500)
    stream = torch.cuda.Stream() if other_stream else torch.cuda.current_stream()
    with torch.cuda.stream(stream):
        fused = finish.Fused(own, patients, capped, p, start=500, device="cuda")
        again = finish.Fused(own, patients, capped, p, start=500, device="cuda")
        asked_there, met_there = queries.to("cuda"), shifted(slices).to("cuda")
        for low in range(0, s, block):
            part = slice(low, low + block)
            fused.add_product(asked_there, met_there[part], 500 + low)
            again.add(correlate(asked_there, met_there[part]), 500 + low)
            tally.add(correlate(queries, slices[part]), 500 + low)
        found = [fused.best(), again.best()]
    want = tally.values()
    for r, at, counts in found:
        np.testing.assert_array_equal(r[:, :, tally.met], want["r"])
        np.testing.assert_array_equal(at[:, :, tally.met], want["slice"])
        np.testing.assert_array_equal(counts, want["histogram"])
        assert counts.shape == (BINS,)


@pytest.mark.parametrize(("q", "n", "s"), [(1, 1, 3), (3, 31, 50), (5, 2058, 700), (2, 1001, 4100)])
def test_the_maximum_over_poses_has_the_bits_of_the_cpu(rng, q, n, s) -> None:
    rows = torch.from_numpy(rng.integers(-90, 91, (q, n, 1024), dtype=np.int8))
    screen = torch.from_numpy(rng.integers(-90, 91, (s, 1024), dtype=np.int8))
    got = finish.highest_over_poses(rows.cuda(), screen.cuda())
    few = slice(0, 64)
    want = product.int8_product(screen[few], rows.flatten(0, 1)).unflatten(1, (q, n)).amax(2).T
    assert torch.equal(got[:, few].cpu(), want)
    whole = product.in_float64(screen.cuda(), rows.cuda().flatten(0, 1))
    assert torch.equal(got.long(), whole.unflatten(1, (q, n)).amax(2).T)
    for most in (1, 2**16, 2**30):
        other = finish.highest_over_poses(rows.cuda(), screen.cuda(), most=most)
        assert torch.equal(other, got)
        if q * s * n > 10**6:
            break
