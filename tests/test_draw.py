"""Slices that stand for a corpus: evenly over patients, in the regions of what is judged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.search.draw import spread, turns

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60)


@given(LABELS, st.integers(0, 80), st.integers(0, 9))
def test_every_slice_is_drawn_once_at_most_and_as_many_as_there_are(people, n, seed):
    who = np.array(people)
    drawn = spread(who, np.zeros(len(who)), np.zeros(3), n, np.random.default_rng(seed))
    assert len(drawn) == len(np.unique(drawn)) == min(n, len(who))
    assert (np.diff(drawn) > 0).all()


@given(LABELS, st.integers(0, 60), st.integers(0, 9))
def test_nobody_has_two_more_than_another_who_has_some_left(people, n, seed):
    who = np.array(people)
    drawn = spread(who, np.zeros(len(who)), np.zeros(3), n, np.random.default_rng(seed))
    taken = np.bincount(who[drawn], minlength=6)
    left = np.bincount(who, minlength=6) > taken
    for person in np.flatnonzero(left):
        assert taken.max() <= taken[person] + 1


def test_regions_are_drawn_as_they_are_wanted():
    who, region = np.repeat(np.arange(40), 6), np.tile(["c1", "c2", "c3"], 80)
    wanted = np.repeat(["c1", "c2"], [30, 10])
    drawn = spread(who, region, wanted, 80, np.random.default_rng(1))
    names, counts = np.unique(region[drawn], return_counts=True)
    assert dict(zip(names, counts, strict=True)) == {"c1": 60, "c2": 20}
    assert np.bincount(who[drawn]).max() <= 3


def test_what_a_region_lacks_is_taken_from_the_others():
    who, region = np.arange(30), np.repeat(["c1", "c2"], [3, 27])
    drawn = spread(who, region, np.array(["c1"]), 20, np.random.default_rng(1))
    assert (region[drawn] == "c1").sum() == 3
    assert len(drawn) == 20


@pytest.mark.parametrize("wanted", [np.array(["none"]), np.array([], object)])
def test_unknown_regions_take_whatever_there_is(wanted):
    drawn = spread(np.arange(9), np.full(9, "c1"), wanted, 5, np.random.default_rng(1))
    assert len(drawn) == 5


def test_one_seed_draws_one_choice_and_another_another():
    who = np.repeat(np.arange(20), 5)
    draws = [
        spread(who, np.zeros(100), np.zeros(1), 30, np.random.default_rng(seed)).tolist()
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_turns_take_everybodys_first_before_anybodys_second():
    who = np.array([3, 3, 3, 1, 1, 2])
    assert sorted(who[turns(who)][:3].tolist()) == [1, 2, 3]
    assert who[turns(who)][-1] == 3
