"""The fused finish gives the bits of the path in torch: its kernels run on the CPU here."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import kernels_on_cpu
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import best_per_patient, pearson

from fingerprint.search import finish, kernels, product
from fingerprint.search.best import BINS, NOWHERE, Best
from fingerprint.search.correlate import Pixels, correlate, queries_from, slices_from
from fingerprint.search.sets import Reference
from fingerprint.search.tile import Tally

HERE = "cpu"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if kernels_on_cpu.COMPILER is None:
        pytest.skip("no C++ compiler here: the kernels are compiled for the CPU by this test")
    return kernels_on_cpu.compiled(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(autouse=True)
def on_cpu(request, monkeypatch):
    """Launch kernels on the CPU, in the tests that ask for the library."""
    if "library" in request.fixturenames:
        run = functools.partial(kernels_on_cpu.launch, request.getfixturevalue("library"))
        monkeypatch.setattr(kernels, "launch", run)
        monkeypatch.setattr(kernels, "lend", lambda tensor: tensor)


def pixels(images: np.ndarray, *, queries: bool) -> Pixels:
    flat = images.reshape(len(images), -1).astype(np.int64)
    make = queries_from if queries else slices_from
    return make(images, flat.sum(1), (flat * flat).sum(1))


def with_twins(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    images = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    images[rng.integers(0, n, n // 2)] = images[rng.integers(0, n, n // 2)]
    images[rng.integers(0, n, 1 + n // 10)] = 9  # constant
    return images


class World:
    """A tile with twins, constants, own patients, patients that come back, and slices of none."""

    def __init__(self, rng: np.random.Generator, q: int, s: int, side: int, p: int) -> None:
        self.q_images, self.s_images = with_twins(rng, q, side), with_twins(rng, s, side)
        few = min(q, s) // 2
        self.s_images[:few] = self.q_images[:few]
        self.queries = pixels(self.q_images, queries=True)
        self.slices = pixels(self.s_images, queries=False)
        self.patients = np.sort(rng.integers(-1, p, s))
        self.patients[s // 2 :] = np.sort(self.patients[s // 2 :])[::-1]
        self.capped = rng.random(s) < 0.6
        self.own = rng.integers(-1, p, q)
        self.n_patients, self.start = p, 1000

    def fused(self) -> finish.Fused:
        sides = (self.own, self.patients, self.capped, self.n_patients)
        return finish.Fused(*sides, start=self.start, device=HERE)

    def blocks(self, block: int):
        return range(0, len(self.patients), block)

    def tally(self) -> Tally:
        reference = Reference(Path(), "", 1, self.patients, self.capped)
        return Tally(len(self.own), reference, self.own, HERE, start=self.start)


def same(world: World, found, tally: Tally) -> None:
    want = tally.values()
    r, at, counts = found
    np.testing.assert_array_equal(counts, want["histogram"])
    np.testing.assert_array_equal(r[:, :, want["met"]], want["r"])
    np.testing.assert_array_equal(at[:, :, want["met"]], want["slice"])
    rest = np.setdiff1d(np.arange(world.n_patients), want["met"])
    assert (r[:, :, rest] == -np.inf).all()
    assert (at[:, :, rest] == NOWHERE).all()


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32 - 1),
    q=st.integers(1, 40),
    s=st.integers(1, 70),
    p=st.integers(1, 9),
    block=st.integers(1, 70),
)
def test_the_kernel_gives_the_bits_of_the_torch_path(library, seed, q, s, p, block) -> None:
    world = World(np.random.default_rng(seed), q, s, 6, p)
    fused, tally = world.fused(), world.tally()
    for low in world.blocks(block):
        slices = world.slices[low : low + block]
        fused.add_product(world.queries, slices, world.start + low)
        tally.add(correlate(world.queries, slices), world.start + low)
    same(world, fused.best(), tally)


def test_blocks_may_come_in_any_order(library, rng) -> None:
    world = World(rng, 20, 64, 6, 5)
    forward, backward, tally = world.fused(), world.fused(), world.tally()
    for low in world.blocks(16):
        slices = world.slices[low : low + 16]
        forward.add_product(world.queries, slices, world.start + low)
        tally.add(correlate(world.queries, slices), world.start + low)
    for low in reversed(world.blocks(16)):
        backward.add_product(world.queries, world.slices[low : low + 16], world.start + low)
    same(world, forward.best(), tally)
    same(world, backward.best(), tally)


def test_the_kernel_sums_pieces_of_a_full_size_image(library, rng) -> None:
    world = World(rng, 3, 9, 384, 3)  # 147,456 pixels: three pieces
    world.s_images[1], world.q_images[1] = 255, 255
    world.s_images[1, 0], world.q_images[1, 0] = 0, 0
    world.queries, world.slices = (
        pixels(world.q_images, queries=True),
        pixels(world.s_images, queries=False),
    )
    fused, tally = world.fused(), world.tally()
    fused.add_product(world.queries, world.slices, world.start)
    tally.add(correlate(world.queries, world.slices), world.start)
    same(world, fused.best(), tally)


def test_the_kernel_finds_what_a_plain_loop_finds(library, rng) -> None:
    world = World(rng, 6, 25, 6, 4)
    world.patients = np.abs(world.patients)
    fused = world.fused()
    fused.add_product(world.queries, world.slices, world.start)
    r, at, counts = fused.best()
    found = Best(r[0], at[0]).found()
    want = best_per_patient(world.q_images, world.s_images, world.patients, 4, world.own)
    np.testing.assert_array_equal(found[0], want[0])
    np.testing.assert_array_equal(found[1], np.where(want[1] < 0, -1, want[1] + world.start))
    pairs = [
        pearson(a, b)
        for a, own in zip(world.q_images, world.own, strict=True)
        for b, who in zip(world.s_images, world.patients, strict=True)
        if who != own
    ]
    bins = [min(int((v + 1.0) * (BINS / 2)), BINS - 1) for v in pairs if not math.isnan(v)]
    np.testing.assert_array_equal(counts, np.bincount(bins, minlength=BINS))


@pytest.mark.parametrize("turned", [False, True])
def test_correlations_computed_before_are_taken_in_any_layout(library, rng, turned) -> None:
    world = World(rng, 35, 50, 6, 5)
    fused, tally = world.fused(), world.tally()
    for low in world.blocks(20):
        r = correlate(world.queries, world.slices[low : low + 20])
        fused.add(r.T.contiguous().T if turned else r.contiguous(), world.start + low)
        tally.add(r, world.start + low)
    same(world, fused.best(), tally)


def test_extremes_fall_into_the_first_and_the_last_bin(library) -> None:
    r = torch.tensor([[-1.0, 1.0, 0.0, torch.nan, np.nextafter(1.0, 0)]], dtype=torch.float64)
    own, who = np.array([-1]), np.zeros(5, np.int64)
    fused = finish.Fused(own, who, np.zeros(5, bool), 1, start=0, device=HERE)
    fused.add(r, 0)
    best, at, counts = fused.best()
    assert counts.sum() == 4
    assert (counts[0], counts[BINS // 2], counts[-1]) == (1, 1, 2)
    assert (best[0, 0, 0], at[0, 0, 0]) == (1.0, 1)
    assert (best[1, 0, 0], at[1, 0, 0]) == (-np.inf, NOWHERE)


@pytest.mark.parametrize("n_poses", [1, 31, 32, 33, 300])
def test_the_kernel_takes_the_maximum_over_poses(library, rng, n_poses) -> None:
    wide = torch.from_numpy(rng.integers(-(2**31), 2**31, (13, 3 * n_poses + 5), dtype=np.int32))
    product = wide[:, : 3 * n_poses]  # rows are further apart than they are wide
    out = torch.full((3, 13), 7, dtype=torch.int32)
    finish._highest(product, n_poses, out)
    assert torch.equal(out, product.unflatten(1, (3, n_poses)).amax(2).T)
    assert torch.equal(out, finish.highest(product, n_poses))


def test_the_self_test_passes_here_and_fails_for_a_kernel_that_is_wrong(
    library, monkeypatch
) -> None:
    assert finish._same_bits(HERE)
    assert finish._same_maximum(HERE)
    right = kernels.launch

    def skips_the_second_pass(name, *rest):
        if name != "lowest":
            right(name, *rest)

    monkeypatch.setattr(kernels, "launch", skips_the_second_pass)
    assert not finish._same_bits(HERE)


def test_without_cupy_the_torch_path_is_used_and_said(monkeypatch, caplog) -> None:
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(kernels, "import_module", absent)
    monkeypatch.setattr(finish, "int8_is_exact", lambda device: True)
    monkeypatch.setattr(finish, "_same_bits", lambda device: kernels.lend(torch.zeros(1)))
    assert not finish._tried.__wrapped__("cuda")
    assert "not available" in caplog.text
    assert not finish.available("cpu")
    assert finish.chosen("cpu") == "torch"


@given(st.lists(st.floats(allow_nan=False, allow_subnormal=True), min_size=2, max_size=9))
def test_integers_stand_for_doubles_in_order(values) -> None:
    doubles = np.array(values) + 0.0  # no negative zero: r has none
    keys = finish.ordered(doubles)
    np.testing.assert_array_equal(
        np.argsort(keys, kind="stable"), np.argsort(doubles, kind="stable")
    )
    np.testing.assert_array_equal(finish.ordered(keys), doubles)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    q=st.integers(1, 5),
    n=st.integers(1, 20),
    s=st.integers(1, 70),
    most=st.integers(1, 5000),
)
def test_maximum_over_poses_does_not_depend_on_the_memory_allowed(seed, q, n, s, most) -> None:
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.integers(-128, 128, (q, n, 64), dtype=np.int8))
    screen = torch.from_numpy(rng.integers(-128, 128, (s, 64), dtype=np.int8))
    got = finish.highest_over_poses(rows, screen, most=most)
    want = torch.einsum("qnk,sk->qsn", rows.double(), screen.double()).amax(2)
    assert got.dtype == torch.int32
    assert torch.equal(got.double(), want)


def test_a_product_that_does_not_hold_whole_queries_is_an_error() -> None:
    with pytest.raises(ValueError, match="multiple of 4 columns"):
        finish.highest(torch.zeros((3, 10), dtype=torch.int32), 4)


def test_strips_are_as_long_here_as_in_the_source() -> None:
    source = kernels.SOURCE.read_text()
    assert f"constexpr int STRIP = {finish.STRIP};" in source
    assert f"constexpr int BINS = {BINS};" in source
    assert product.PIECE * 128 * 128 < 2**31
