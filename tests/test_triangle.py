"""Every pair of slices once, in shards of nearly equal pairs; a million are planned at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.search.tiling import Tile
from fingerprint.search.triangle import (
    Triangle,
    bytes_needed,
    most_lists,
    outline,
    pairs_of,
    triangle_of,
)

SIZES = {"block": 256, "chunk": 64, "side": 512, "shard_pairs": 200_000_000, "keep": 8}
shapes = st.builds(
    lambda n, chunk, chunks, pairs: Triangle(n, chunk * chunks, chunk, pairs),
    st.integers(0, 120),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 900),
)


def all_tiles(shape: Triangle) -> list[list[Tile]]:
    return [shape.tiles(k) for k in range(shape.shards)]


def above(tile: Tile) -> int:
    """Count the pairs of a tile one by one."""
    rows, columns = range(tile.q0, tile.q1), range(tile.s0, tile.s1)
    return sum(i < j for i in rows for j in columns)


@given(shape=shapes)
@settings(max_examples=300, deadline=None)
def test_every_pair_lies_in_exactly_one_tile(shape: Triangle) -> None:
    seen = np.zeros((shape.n, shape.n), int)
    for tile in (tile for tiles in all_tiles(shape) for tile in tiles):
        seen[tile.q0 : tile.q1, tile.s0 : tile.s1] += 1
        assert tile.q1 - tile.q0 <= shape.band
        assert tile.q0 % shape.chunk == tile.s0 % shape.chunk == 0
        assert tile.s1 % shape.chunk == 0 or tile.s1 == shape.n
        assert tile.q0 <= tile.s0
    upper = np.triu(np.ones_like(seen), 1).astype(bool)
    assert (seen[upper] == 1).all()
    assert (seen <= 1).all()


@given(shape=shapes)
@settings(max_examples=300, deadline=None)
def test_pairs_of_a_shard_differ_from_the_mean_by_less_than_a_cell(shape: Triangle) -> None:
    counts = [sum(above(tile) for tile in tiles) for tiles in all_tiles(shape)]
    assert counts == [sum(pairs_of(tile) for tile in tiles) for tiles in all_tiles(shape)]
    assert sum(counts) == shape.pairs
    mean = shape.pairs / max(1, shape.shards)
    assert all(0 < count and abs(count - mean) < shape.band * shape.chunk for count in counts)


@given(shape=shapes)
@settings(max_examples=200, deadline=None)
def test_the_outline_bounds_what_the_shards_do(shape: Triangle) -> None:
    told = outline(shape, block=4, side=8, keep=3)
    tiles = [tile for some in all_tiles(shape) for tile in some]
    lists = sum(tile.q1 - tile.q0 + tile.s1 - tile.s0 for tile in tiles)
    decoded = sum(tile.q1 - tile.q0 + max(0, tile.s1 - max(tile.s0, tile.q1)) for tile in tiles)
    assert told.shards == len(all_tiles(shape))
    assert told.pairs == sum(pairs_of(tile) for tile in tiles)
    assert lists <= told.lists
    assert decoded <= told.decoded


@given(shape=shapes)
@settings(max_examples=300, deadline=None)
def test_lists_of_a_shard_are_bounded_whatever_the_number_of_slices(shape: Triangle) -> None:
    most = most_lists(band=shape.band, chunk=shape.chunk, shard_pairs=shape.shard_pairs)
    for tiles in all_tiles(shape):
        assert sum(tile.q1 - tile.q0 + tile.s1 - tile.s0 for tile in tiles) <= most


def test_a_million_slices_against_themselves_are_planned_in_a_moment() -> None:
    start = time.perf_counter()
    shape = triangle_of(1_002_012, rows=0, memory=4 * 2**30, **SIZES)
    told = outline(shape, block=256, side=512, keep=8)
    middle = shape.tiles(shape.shards // 2)
    assert time.perf_counter() - start < 1.0
    assert told.pairs == 1_002_012 * 1_002_011 // 2
    assert told.shards == 2511
    assert told.memory_bytes <= 4 * 2**30
    assert told.result_bytes == 1_002_012 * 8 * 16
    assert sum(pairs_of(tile) for tile in middle) == pytest.approx(2e8, rel=0.01)


def test_one_pair_to_a_shard_makes_no_list_of_shards() -> None:
    shape = Triangle(1_002_012, 1, 1, 1)
    assert shape.shards == shape.pairs // 2
    assert shape.tiles(shape.shards - 1)[-1].s1 == 1_002_012


def test_the_memory_of_a_worker_does_not_depend_on_the_number_of_slices() -> None:
    bands = {
        triangle_of(n, rows=0, memory=2 * 2**30, **SIZES).band for n in (60_000, 1_002_012, 10**7)
    }
    assert len(bands) == 1
    assert bytes_needed(band=bands.pop(), **SIZES) <= 2 * 2**30


def test_more_memory_gives_higher_bands_up_to_a_square_tile() -> None:
    gib = [triangle_of(10**6, rows=0, memory=g * 2**30, **SIZES).band for g in (2, 4, 1000)]
    assert gib == sorted(gib)
    assert gib[-1] ** 2 <= SIZES["shard_pairs"]
    assert triangle_of(10**6, rows=500, memory=2**32, **SIZES).band == 448
    assert triangle_of(10, rows=0, memory=2**32, **SIZES).band == 64


def test_too_little_memory_is_said_before_anything_is_done() -> None:
    with pytest.raises(ValueError, match="memory_gib: a worker would need"):
        triangle_of(1000, rows=0, memory=2**29, **SIZES)


def test_plans_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="whole chunks"):
        Triangle(10, 3, 2, 1)
    with pytest.raises(IndexError, match="below 1"):
        Triangle(10, 4, 4, 1000).tiles(1)
    assert [Triangle(n, 4, 4, 9).shards for n in (0, 1)] == [0, 0]
