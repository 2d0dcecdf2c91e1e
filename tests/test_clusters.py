"""Near-duplicate clusters: exact, and the same for any block size and order."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fingerprint.corpus.clusters import clusters
from fingerprint.corpus.window import fit

DATA = os.environ.get("FINGERPRINT_DATA")


def naive_clusters(mid: NDArray[np.uint8], threshold: float) -> NDArray[np.int64]:
    """Pearson in Python integers pair by pair, then labels lowered until nothing changes."""
    images = [[int(v) for v in image.ravel()] for image in mid]
    n, p = len(images), mid[0].size if len(mid) else 0
    labels = list(range(n))
    linked = []
    for i in range(n):
        for j in range(i + 1, n):
            x, y = images[i], images[j]
            sxy = sum(a * b for a, b in zip(x, y, strict=True))
            vx = p * sum(a * a for a in x) - sum(x) ** 2
            vy = p * sum(b * b for b in y) - sum(y) ** 2
            if vx and vy and (p * sxy - sum(x) * sum(y)) / (vx * vy) ** 0.5 > threshold:
                linked.append((i, j))
    for _ in range(n):
        for i, j in linked:
            labels[i] = labels[j] = min(labels[i], labels[j])
    return np.array(labels, np.int64)


def families(rng: np.random.Generator, n: int, side: int = 8) -> NDArray[np.uint8]:
    """Images around a few templates, some exact twins, one constant."""
    templates = rng.integers(0, 256, (3, side, side))
    images = templates[rng.integers(0, 3, n)] + rng.integers(-30, 31, (n, side, side))
    images = np.clip(images, 0, 255).astype(np.uint8)
    if n > 3:
        images[3] = images[1]
        images[2] = 77
    return images


@given(seed=st.integers(0, 10_000), n=st.integers(0, 14), block=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_any_block_gives_the_components_of_the_oracle(seed: int, n: int, block: int) -> None:
    mid = families(np.random.default_rng(seed), n)
    assert np.array_equal(clusters(mid, block=block), naive_clusters(mid, 0.95))


@given(seed=st.integers(0, 10_000), block=st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_the_order_of_images_does_not_change_who_is_together(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    mid = families(rng, 40)
    order = rng.permutation(40)
    before, after = clusters(mid), clusters(mid[order], block=block)
    together = before[:, None] == before[None, :]
    assert np.array_equal(after[:, None] == after[None, :], together[order][:, order])
    assert all(label == np.flatnonzero(after == label).min() for label in after)


def test_a_chain_is_one_cluster_though_its_ends_differ() -> None:
    y, x = np.mgrid[:64, :64]
    images = [np.clip(255 - ((y - 32) ** 2 + (x - 12 - 2 * k) ** 2) / 2, 0, 255) for k in range(20)]
    mid = np.array(images).astype(np.uint8)
    ends = np.corrcoef(mid[0].ravel(), mid[-1].ravel())[0, 1]
    assert ends < 0.5
    for block in (1, 3, 7, 64):
        assert clusters(mid, block=block).tolist() == [0] * 20


def test_the_same_link_more_than_256_times_is_still_a_link() -> None:
    rng = np.random.default_rng(4)
    mid = np.repeat(rng.integers(0, 256, (1, 8, 8), np.uint8), 600, 0)
    assert set(clusters(mid, block=300).tolist()) == {0}


def test_constant_images_are_linked_to_none() -> None:
    mid = np.full((3, 8, 8), 9, np.uint8)
    assert clusters(mid).tolist() == [0, 1, 2]


def test_extreme_grey_levels_do_not_overflow() -> None:
    mid = np.zeros((2, 128, 128), np.uint8)
    mid[:, :, 64:] = 255
    mid[1, 0, 0] = 255
    assert clusters(mid).tolist() == [0, 0]


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 4), np.uint8), np.zeros((2, 4, 4)), np.zeros((1, 512, 512), np.uint8)]
)
def test_wrong_arrays_are_refused(bad: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="clusters: mid must be"):
        clusters(bad)
    with pytest.raises(ValueError, match="block must be 1"):
        clusters(np.zeros((1, 8, 8), np.uint8), block=0)


@pytest.mark.skipif(not DATA, reason="FINGERPRINT_DATA is not set: no real CT")
def test_repeated_real_images_share_a_cluster() -> None:
    root = Path(DATA or "")
    lines = (root / "known_pairs.csv").read_text().splitlines()
    pairs = [line.split(",") for line in lines if "iq_oth_nccd" in line]
    twins = [[c for c in cells if "iq_oth_nccd" in c][:2] for cells in pairs]
    names = sorted({name for pair in twins for name in pair})
    mid = np.stack([fit(np.asarray(Image.open(root / n)), 128, 0)[0] for n in names])
    labels = dict(zip(names, clusters(mid), strict=True))
    assert len(twins) >= 20
    assert all(labels[a] == labels[b] for a, b in twins)
    assert len(set(labels.values())) > 1
