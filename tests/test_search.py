"""Exact, in any block size, shard split and merge order; ties to the lower slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import best_per_patient, pearson

from fingerprint.search.best import BINS, Best, best_of, histogram
from fingerprint.search.correlate import (
    PIECE,
    Pixels,
    _float64,
    _int8,
    correlate,
    queries_from,
    slices_from,
)
from fingerprint.search.tiling import capped, tiles


def pixels(images: np.ndarray, *, queries: bool) -> Pixels:
    flat = images.reshape(len(images), -1).astype(np.int64)
    make = queries_from if queries else slices_from
    return make(images, flat.sum(1), (flat * flat).sum(1))


def r_of(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    return correlate(pixels(queries, queries=True), pixels(slices, queries=False)).numpy()


def with_twins(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Few grey levels and exact repeats: where a wrong tie rule or rounding shows."""
    images = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    images[rng.integers(0, n, n // 2)] = images[rng.integers(0, n, n // 2)]
    return images


def test_equals_python_integers_to_the_last_bit(rng: np.random.Generator) -> None:
    queries, slices = with_twins(rng, 9, 16), with_twins(rng, 12, 16)
    slices[3] = queries[2]
    slices[4] = 77
    got = r_of(queries, slices)
    want = np.array([[pearson(q, s) for s in slices] for q in queries])
    np.testing.assert_array_equal(got, want)


def test_identical_and_affinely_related_images_give_exactly_one(rng: np.random.Generator) -> None:
    images = rng.integers(0, 120, (40, 24, 24), dtype=np.uint8)
    assert (np.diag(r_of(images, images)) == 1.0).all()
    assert (np.diag(r_of(images, images * 2 + 5)) == 1.0).all()
    assert (np.diag(r_of(images, 255 - images)) == -1.0).all()


def test_never_exceeds_one(rng: np.random.Generator) -> None:
    base = rng.integers(0, 256, (1, 32, 32), dtype=np.uint8)
    images = np.repeat(base, 60, 0)
    images[np.arange(60), 0, rng.integers(0, 32, 60)] ^= 1
    assert np.abs(r_of(images, images)).max() <= 1.0


def test_constant_images_are_nan_and_nothing_else_is(rng: np.random.Generator) -> None:
    queries = rng.integers(0, 256, (4, 8, 8), dtype=np.uint8)
    slices = rng.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    queries[1], slices[2] = 0, 255
    nan = np.isnan(r_of(queries, slices))
    assert nan[1].all()
    assert nan[:, 2].all()
    assert nan.sum() == 5 + 4 - 1


def test_full_size_extremes_do_not_overflow() -> None:
    images = np.zeros((3, 512, 512), np.uint8)
    images[0, :256] = 255
    images[1, 256:] = 255
    images[2, :, ::2] = 255
    got = r_of(images, images)
    np.testing.assert_array_equal(got, [[1, -1, 0], [-1, 1, 0], [0, 0, 1]])


def test_both_products_agree_on_the_hardest_bytes() -> None:
    left = torch.full((17, PIECE), 255, dtype=torch.uint8)
    right = torch.full((9, PIECE), -128, dtype=torch.int8)
    assert torch.equal(_int8(left, right).long(), _float64(left, right))


def test_sizes_that_differ_are_an_error(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="one size"):
        r_of(np.zeros((1, 4, 4), np.uint8), np.zeros((1, 5, 5), np.uint8))


def search(
    queries: np.ndarray, slices: np.ndarray, patients: np.ndarray, block: int
) -> tuple[Best, np.ndarray]:
    n = int(patients.max()) + 1
    best, counts = Best.empty(len(queries), n), np.zeros(BINS, np.int64)
    for first in range(0, len(slices), block):
        part = slice(first, first + block)
        r = torch.from_numpy(r_of(queries, slices[part]))
        best += best_of(r, torch.from_numpy(patients[part]), n, first)
        counts += histogram(r)
    return best, counts


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), block=st.integers(1, 20))
def test_one_matrix_for_any_block_size(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    queries, slices = with_twins(rng, 4, 6), with_twins(rng, 17, 6)
    patients = np.sort(rng.integers(0, 4, 17))
    best, counts = search(queries, slices, patients, block)
    r, at = best_per_patient(queries, slices, patients.tolist(), int(patients.max()) + 1)
    np.testing.assert_array_equal(best.found()[0], r)
    np.testing.assert_array_equal(best.found()[1], at)
    assert counts.sum() == 4 * 17
    assert (counts == search(queries, slices, patients, 17)[1]).all()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(2, 6))
def test_merging_is_associative_and_order_free(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    pieces = [
        Best(rng.integers(0, 3, (3, 4)) / 2.0, rng.integers(0, 9, (3, 4))) for _ in range(parts)
    ]
    forward = sum(pieces, Best.empty(3, 4))
    order = rng.permutation(parts)
    shuffled = Best.empty(3, 4)
    for i in order:
        shuffled = pieces[i] + shuffled
    right = pieces[-1]
    for piece in reversed(pieces[:-1]):
        right = piece + right
    for other in (shuffled, right):
        np.testing.assert_array_equal(forward.r, other.r)
        np.testing.assert_array_equal(forward.slice, other.slice)


@given(
    queries=st.integers(0, 40),
    slices=st.integers(0, 300),
    band=st.integers(1, 50),
    shard=st.integers(1, 100),
    chunk=st.integers(1, 64),
)
def test_every_pair_lies_in_exactly_one_tile(
    queries: int, slices: int, band: int, shard: int, chunk: int
) -> None:
    seen = np.zeros((queries, slices), int)
    for tile in tiles(queries, slices, band=band, shard=shard, chunk=chunk):
        seen[tile.q0 : tile.q1, tile.s0 : tile.s1] += 1
        assert tile.s0 % chunk == 0
        assert tile.s1 % chunk == 0 or tile.s1 == slices
        assert tile.q1 - tile.q0 <= band
    assert (seen == 1).all()


def test_a_plan_without_sense_is_an_error() -> None:
    with pytest.raises(ValueError, match="sizes >= 1"):
        tiles(1, 1, band=0, shard=1, chunk=1)


def test_capped_takes_the_same_number_of_each_patient_evenly_in_z() -> None:
    patients = np.array([0] * 9 + [1] * 3)
    z = np.concatenate([np.arange(9.0)[::-1], [np.nan, 1.0, 2.0]])
    chosen = capped(patients, z, 0)
    assert np.bincount(patients[chosen]).tolist() == [3, 3]
    assert sorted(z[:9][chosen[:9]]) == [1.0, 4.0, 7.0]
    assert np.bincount(patients[capped(patients, z, 5)]).tolist() == [5, 3]


def test_histogram_counts_every_pair_once_and_one_in_the_last_bin() -> None:
    r = torch.tensor([[-1.0, 0.0, 1.0, torch.nan]], dtype=torch.float64)
    counts = histogram(r)
    assert counts.sum() == 3
    assert counts[0] == counts[BINS // 2] == counts[-1] == 1


@pytest.mark.gpu
@pytest.mark.parametrize(("q", "s", "side"), [(3, 5, 16), (17, 33, 64), (64, 256, 512)])
def test_a_gpu_gives_the_same_bits(rng: np.random.Generator, q: int, s: int, side: int) -> None:
    images = rng.integers(0, 256, (q + s, side, side), dtype=np.uint8)
    images[1], images[q] = images[0], images[0]
    queries, slices = pixels(images[:q], queries=True), pixels(images[q:], queries=False)
    patients = torch.from_numpy(np.sort(rng.integers(0, 3, s)))
    on_cpu = correlate(queries, slices)
    on_gpu = correlate(queries.to("cuda"), slices.to("cuda"))
    assert torch.equal(on_cpu, on_gpu.cpu())
    one, other = best_of(on_cpu, patients, 3, 0), best_of(on_gpu, patients.to("cuda"), 3, 0)
    np.testing.assert_array_equal(one.r, other.r)
    np.testing.assert_array_equal(one.slice, other.slice)
    np.testing.assert_array_equal(histogram(on_cpu), histogram(on_gpu))
