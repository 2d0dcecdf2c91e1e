"""Images that repeat each other are one test: clusters, and how many images there are in effect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.measure.repeats import clusters, effective, threshold

NONE = np.zeros((0, 2), np.int64)
LINKS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30)


def naive_clusters(n: int, links: np.ndarray) -> list[int]:
    """Paint each image with the lowest number that it can reach."""
    colour = list(range(n))
    for _ in range(n):
        for a, b in links.tolist():
            colour[a] = colour[b] = min(colour[a], colour[b])
    return [sorted(set(colour)).index(c) for c in colour]


@given(LINKS)
def test_clusters_are_the_components_numbered_by_their_lowest_image(pairs):
    links = np.array(pairs, np.int64).reshape(-1, 2)
    found = clusters(12, links)
    assert found.cluster.tolist() == naive_clusters(12, links)
    assert clusters(12, links[::-1, ::-1]).cluster.tolist() == found.cluster.tolist()
    assert found.effective == pytest.approx(144 / (np.bincount(found.cluster) ** 2).sum())


def test_effective_numbers_of_the_method():
    assert clusters(7, NONE).effective == 7
    one = np.array([[0, k] for k in range(1, 7)])
    assert clusters(7, one).effective == 1
    halves = np.array([[0, 1], [1, 2], [3, 4], [4, 5]])
    assert clusters(6, halves).effective == 2
    assert effective(np.zeros(0, np.int64)) == 0


def test_the_representative_has_most_links():
    found = clusters(6, np.array([[0, 2], [1, 2], [2, 3], [4, 5]]))
    assert found.medoid.tolist() == [2, 4]


def test_the_threshold_is_a_quantile_of_strangers_and_needs_some():
    z = np.linspace(0, 1, 101)
    assert threshold(np.append(z, np.nan)) == pytest.approx(0.99)
    assert np.isnan(threshold(np.array([np.nan])))
