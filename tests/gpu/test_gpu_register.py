"""Whole shards of the registration: scores, warps and tiles on a GPU are those of the CPU, nearly.

The same tests run on the CPU, several pairs at a time against one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from corpora import make_corpus
from moved import bends, bodies, tensor

from fingerprint import warp
from fingerprint.register import listed, resample
from fingerprint.register.listed import How, Listed
from fingerprint.search import device
from fingerprint.search.sets import QuerySet

SIDE = 256
PLACES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("place", PLACES)
def test_a_shard_leaves_what_it_leaves_on_the_cpu(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bodies(6, SIDE)
    bent = resample.warp_field(tensor(real[:3]), bends(3.0, 3, SIDE)).round().byte().numpy()[:, 0]
    corpus = make_corpus(tmp_path / "real", real, [f"P{i}" for i in range(6)])
    asked = make_corpus(tmp_path / "asked", bent, [""] * 3, set_name="generated")
    queries = QuerySet("generated", asked.path, asked.digest, np.arange(3), np.full(3, -1))
    slices = np.array([0, 4, 1, 5, 3, 2])  # of each query its source among strangers
    pairs = Listed(np.array([2, 2, 2]), slices, np.tile(warp.IDENTITY, (6, 1)))
    monkeypatch.setattr(device, "chosen", lambda: "cpu")
    arguments = (queries, corpus.path, corpus.digest, pairs, How("torch", 1))
    want, counted = listed.register_pairs(*arguments)
    monkeypatch.setattr(device, "chosen", lambda: place)
    monkeypatch.setitem(listed.AT_ONCE, place, 4)  # the last part is not full
    got, counts = listed.register_pairs(*arguments)
    assert counts == counted
    sources = np.array([True, False, True, False, False, True])
    np.testing.assert_allclose(
        got["scores"][sources], want["scores"][sources], rtol=0, atol=2e-3, equal_nan=True
    )
    np.testing.assert_allclose(
        got["warp"][sources, 2], want["warp"][sources, 2], rtol=0, atol=0.02, equal_nan=True
    )
    np.testing.assert_array_equal(np.isnan(got["tiles"]), np.isnan(want["tiles"]))
    assert got["field"].shape == (3, 2, 64, 64)
    r = want["scores"][:, 1, 1]
    assert (r[sources].min()) > r[~sources].max()
