"""Lists of the best patients add up exactly: any parts, any order, ties to the lower slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.search.best import NOWHERE
from fingerprint.search.lists import Top, side_of, top_of


def slow_top(r: np.ndarray, who: np.ndarray, first: int, keep: int) -> list[list[tuple]]:
    """Sort everything; walk down; take each patient when it is met for the first time."""
    out = []
    for row in r:
        entries = [(-v, first + j, int(who[j])) for j, v in enumerate(row) if not np.isnan(v)]
        met: dict[int, tuple] = {}
        for value, at, patient in sorted(entries):
            met.setdefault(patient, (-value, at, patient))
        out.append(list(met.values())[:keep])
    return out


def as_rows(top: Top) -> list[list[tuple]]:
    return [
        [(v, a, w) for v, a, w in zip(*row, strict=True) if a != NOWHERE]
        for row in zip(top.r.tolist(), top.slice.tolist(), top.who.tolist(), strict=True)
    ]


def world(seed: int, slices: int, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Few values, so that ties are everywhere; a patient's slices are scattered."""
    rng = np.random.default_rng(seed)
    r = rng.integers(-3, 4, (5, slices)) / 3.0
    r[rng.random(r.shape) < 0.2] = np.nan
    return r, rng.integers(0, patients, slices)


worlds = st.builds(world, st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 50))


@given(world=worlds, keep=st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_a_block_gives_what_a_full_sort_gives(
    world: tuple[np.ndarray, np.ndarray], keep: int
) -> None:
    r, who = world
    got = top_of(torch.from_numpy(r), side_of(100, who), keep)
    assert as_rows(got) == slow_top(r, who, 100, keep)
    turned = top_of(torch.from_numpy(np.asfortranarray(r)), side_of(100, who), keep)
    assert as_rows(turned) == as_rows(got)


@given(
    world=worlds,
    keep=st.integers(1, 9),
    parts=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_parts_add_up_to_the_whole_in_any_order_and_grouping(
    world: tuple[np.ndarray, np.ndarray], keep: int, parts: int, seed: int
) -> None:
    r, who = world
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, r.shape[1] + 1, parts - 1))
    edges = [0, *cuts.tolist(), r.shape[1]]
    tops = [
        top_of(torch.from_numpy(r[:, a:b]), side_of(a, who[a:b]), keep)
        for a, b in zip(edges, edges[1:], strict=False)
        if a < b
    ]
    want = slow_top(r, who, 0, keep)
    assert as_rows(sum(tops, Top.empty(5, keep))) == want
    while len(tops) > 1:  # any two, until one is left
        rng.shuffle(tops)
        tops.append(tops.pop() + tops.pop())
    assert as_rows(tops[0]) == want
    assert as_rows(tops[0] + tops[0]) == want
    state = Top.empty(5, keep)
    state.put(slice(1, 4), tops[0][1:4])
    state.put(slice(0, 5), tops[0])
    assert as_rows(state) == want


@given(world=worlds, keep=st.integers(1, 9), cut=st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_what_lies_below_the_floor_is_not_missed(
    world: tuple[np.ndarray, np.ndarray], keep: int, cut: int
) -> None:
    r, who = world
    cut = min(cut, r.shape[1])
    state = Top.empty(5, keep)
    for part in (slice(0, cut), slice(cut, r.shape[1])):
        if part.start < part.stop:
            block = torch.from_numpy(r[:, part])
            found = top_of(block, side_of(part.start, who[part]), keep, floor=state.r[:, -1])
            state.put(slice(0, 5), found)
    assert as_rows(state) == slow_top(r, who, 0, keep)


def test_a_patient_stands_once_with_its_best_slice_and_the_lower_of_two_equal() -> None:
    r = torch.tensor([[0.5, 0.9, 0.9, 0.7, 0.9]], dtype=torch.float64)
    got = top_of(r, side_of(10, np.array([3, 3, 3, 1, 2])), 3)
    assert got.slice.tolist() == [[11, 14, 13]]
    assert got.who.tolist() == [[3, 2, 1]]


def test_of_ties_at_the_end_of_a_list_the_lowest_slices_stay() -> None:
    r = torch.full((1, 9), 0.25, dtype=torch.float64)
    assert top_of(r, side_of(0, np.arange(9)[::-1].copy()), 4).slice.tolist() == [[0, 1, 2, 3]]


def test_the_empty_list_changes_nothing() -> None:
    top = top_of(torch.tensor([[0.1, -0.2]], dtype=torch.float64), side_of(0, np.array([0, 1])), 3)
    for both in (top + Top.empty(1, 3), Top.empty(1, 3) + top):
        assert as_rows(both) == as_rows(top) == [[(0.1, 0, 0), (-0.2, 1, 1)]]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_lists(rng: np.random.Generator) -> None:
    r = torch.from_numpy(rng.integers(-9, 9, (64, 256)) / 9.0)
    for who in (np.arange(256), np.arange(256) // 30, rng.integers(0, 20, 256)):
        one, other = (top_of(r.to(d), side_of(0, who), 8) for d in ("cpu", "cuda"))
        assert as_rows(one) == as_rows(other)
