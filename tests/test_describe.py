"""Sets before anything is asked: Table 1 obeys what means and minima obey; histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from generators import blobs
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fingerprint.corpus.window import fit
from fingerprint.measure.structural import three_ssim
from fingerprint.membership import describe
from fingerprint.membership.describe import (
    Spread,
    between,
    drawn,
    histogram,
    reduced,
    table_1,
    total_variation,
)

PX = 24
FLOAT32 = 1e-6  # SSIM maps are float32
Told = dict[str, float | int | None]


def naive(others: np.ndarray, references: np.ndarray, *, same: bool = False) -> Told:
    """Return mean, min, max, pairs: a pair at a time; the reference is the second image."""
    found = []
    for i, other in enumerate(others):
        for j, reference in enumerate(references):
            if same and i == j:
                continue
            pair = (torch.from_numpy(image)[None, None].float() for image in (other, reference))
            found.append(three_ssim(*pair).item())
    there = [v for v in found if not math.isnan(v)]
    if not there:
        return {"mean": None, "min": None, "max": None, "pairs": 0}
    mean = sum(there) / len(there)
    return {"mean": mean, "min": min(there), "max": max(there), "pairs": len(there)}


def alike(found: Told, truth: Told) -> None:
    assert found["pairs"] == truth["pairs"]
    for key, value in truth.items():
        assert found[key] == (None if value is None else pytest.approx(value, abs=FLOAT32)), key


# -- Table 1


def test_pairs_are_compared_as_in_a_slow_loop(monkeypatch) -> None:
    monkeypatch.setattr(describe, "TOGETHER", 3)
    generated, real = blobs(7, PX, 1), blobs(4, PX, 2)
    alike(between(generated, real).told(), naive(generated, real))
    alike(between(real, real, same=True).told(), naive(real, real, same=True))
    # not symmetric: the real slice is the reference
    assert between(generated, real).told()["mean"] != between(real, generated).told()["mean"]


def test_a_slice_is_not_compared_with_itself_but_with_its_twin() -> None:
    images = blobs(3, PX, 3)
    alone, twins = between(images, images, same=True), between(images[[0, 0]], images[[0]])
    assert alone.pairs == 6
    assert alone.most < 0.99
    assert twins.told() == pytest.approx({"mean": 1, "min": 1, "max": 1, "pairs": 2}, abs=FLOAT32)
    assert between(images[[0, 0]], images[[0, 0]], same=True).least == pytest.approx(1, abs=FLOAT32)


def test_pairs_without_an_answer_do_not_count() -> None:
    flat, some = np.full((2, PX, PX), 9, np.uint8), blobs(2, PX, 4)
    nothing = {"mean": None, "min": None, "max": None, "pairs": 0}
    assert between(some, flat).told() == nothing  # no reference has an edge
    assert between(some[:1], some[:1], same=True).told() == nothing
    assert between(some[:0], some).told() == nothing
    assert between(some, some[:0]).told() == nothing
    assert between(some, np.concatenate([flat, some])) == between(some, some)


def rows_of(real: Sequence[str]) -> dict[str, Told]:
    sets = {name: blobs(3 + k, PX, 10 + k) for k, name in enumerate(("generated", *real))}
    return table_1(sets)


def test_rows_of_a_labelled_set_are_those_of_the_paper_and_of_its_text() -> None:
    generated, used, others = (blobs(3 + k, PX, 10 + k) for k in range(3))  # as `rows_of`
    found = rows_of(("used", "not_used"))
    real = np.concatenate([used, others])
    truth = {
        "real-real": naive(real, real, same=True),
        "generated-real": naive(generated, real),
        "generated-generated": naive(generated, generated, same=True),
        "generated-used": naive(generated, used),
        "generated-not_used": naive(generated, others),
    }
    assert list(found) == list(truth)
    for name, row in truth.items():
        alike(found[name], row)


def test_e12_the_whole_obeys_its_parts() -> None:
    """E12: the paper's mean is not between its parts, and its minimum above that of a part."""
    found = rows_of(("used", "not_used"))
    whole, *parts = (found[f"generated-{name}"] for name in ("real", "used", "not_used"))
    pairs = [part["pairs"] for part in parts]
    assert whole["pairs"] == sum(pairs)
    assert whole["mean"] == pytest.approx(np.average([p["mean"] for p in parts], weights=pairs))
    assert whole["min"] == min(part["min"] for part in parts)
    assert whole["max"] == max(part["max"] for part in parts)
    assert all(-1 <= row[key] <= 1 for row in found.values() for key in ("mean", "min", "max"))


def test_rows_of_slices_that_are_not_labelled() -> None:
    assert list(rows_of(("unknown",))) == ["real-real", "generated-real", "generated-generated"]


@given(st.lists(st.lists(st.floats(-1, 1), max_size=5), max_size=6), st.randoms())
@examples(max_examples=50, deadline=None)
def test_spreads_add_up_in_any_order(parts: list[list[float]], chance) -> None:
    values = [v for part in parts for v in part]
    spreads = [Spread(sum(p), min(p), max(p), len(p)) if p else Spread() for p in parts]
    chance.shuffle(spreads)
    told = sum(spreads, Spread()).told()
    if not values:
        assert told == {"mean": None, "min": None, "max": None, "pairs": 0}
        return
    assert (told["min"], told["max"], told["pairs"]) == (min(values), max(values), len(values))
    assert told["mean"] == pytest.approx(sum(values) / len(values), abs=1e-12)


# -- histograms


def test_histogram_counts_grey_levels(monkeypatch) -> None:
    images = blobs(5, PX, 1)
    found = histogram(images)
    truth = [np.count_nonzero(images == level) / images.size for level in range(256)]
    np.testing.assert_allclose(found, truth, rtol=1e-15)
    assert found.sum() == pytest.approx(1)
    monkeypatch.setattr(describe, "blocks", lambda given: (given[k : k + 1] for k in range(5)))
    np.testing.assert_array_equal(histogram(images), found)


def test_histogram_of_nothing_is_nothing() -> None:
    assert histogram(np.empty((0, PX, PX), np.uint8)).tolist() == [0.0] * 256


def test_histogram_of_a_grey_wedge_is_flat() -> None:
    wedge = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert histogram(wedge).tolist() == [1 / 256] * 256


def test_total_variation_by_its_closed_forms() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    p, dark, light = (histogram(x) for x in (levels, levels // 2, 128 + levels // 2))
    assert total_variation(p, p) == 0
    assert total_variation(dark, light) == pytest.approx(1)  # nothing in common
    assert total_variation(p, dark) == pytest.approx(0.5)  # half of p lies where dark has none
    assert total_variation(dark, p) == total_variation(p, dark)
    fewer = np.full(256, 1 / 246)
    fewer[:10] = 0  # even on all levels but ten
    assert total_variation(p, fewer) == pytest.approx(10 / 256)


# -- drawn


def test_some_images_are_drawn_each_once_in_their_order() -> None:
    images = np.arange(40, dtype=np.uint8).repeat(16).reshape(40, 4, 4)
    found = np.asarray(drawn(images, 12, seed=1))[:, 0, 0]
    assert len(found) == 12
    assert (np.diff(found.astype(int)) > 0).all()
    assert (np.asarray(drawn(images, 12, seed=1))[:, 0, 0] == found).all()
    assert (np.asarray(drawn(images, 12, seed=2))[:, 0, 0] != found).any()
    assert drawn(images, 40, seed=1) is images


def test_reduced_images_are_area_means() -> None:
    images = blobs(6, 48, 5)
    np.testing.assert_array_equal(reduced(images, PX, 10, 1), fit(images, PX, 0)[0])
    assert reduced(images, PX, 4, 1).shape == (4, PX, PX)
