"""The eight orientations are one group, and a set that lies otherwise is noticed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fingerprint import phantom
from fingerprint.corpus.orientation import (
    INVERSE,
    ORIENTATIONS,
    SIDE_PX,
    best_orientation,
    same_window,
)
from fingerprint.corpus.window import fit, to_uint8
from fingerprint.settings import WINDOWS_HU, Orient

DATA = os.environ.get("FINGERPRINT_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="FINGERPRINT_DATA is not set: no real CT")
OTHERS = [name for name in ORIENTATIONS if name != "as-is"]
MARK = np.arange(12).reshape(3, 4)


def name_of(turned: NDArray[np.int64]) -> str:
    [name] = [n for n, turn in ORIENTATIONS.items() if np.array_equal(turn(MARK), turned)]
    return name


@cache
def thorax(first: int, last: int, window: str = "full") -> NDArray[np.uint8]:
    """Slices of synthetic patients, eight of each, at 64 px."""
    people = [phantom.patient(i, seed=5, n_slices=8, size_px=64).hu for i in range(first, last)]
    return to_uint8(np.concatenate(people), WINDOWS_HU[window])


@dataclass(frozen=True)
class Thumbs:
    """Reads like a corpus of these images, and remembers how many it was asked for at a time."""

    images: NDArray[np.uint8]
    asked: list[int] = field(default_factory=list)

    @property
    def n(self) -> int:
        return len(self.images)

    def read(self, first: int, last: int, array: str) -> NDArray[np.uint8]:
        assert array == "thumb"
        self.asked.append(last - first)
        return fit(self.images[first:last], SIDE_PX, 0)[0]


@cache
def real() -> NDArray[np.uint8]:
    paths = sorted(Path(DATA or "", "slices_8bit", "iq_oth_nccd").rglob("*.jp*g"))
    images = [np.asarray(Image.open(path)) for path in paths]
    return np.stack([fit(image, SIDE_PX, 0)[0] for image in images])


# -- the group


def test_the_names_are_those_of_the_settings() -> None:
    assert tuple(ORIENTATIONS) == get_args(Orient)


def test_the_eight_are_closed_under_composition() -> None:
    table = {
        (a, b): name_of(ORIENTATIONS[b](ORIENTATIONS[a](MARK)))
        for a, b in product(ORIENTATIONS, repeat=2)
    }
    for name in ORIENTATIONS:
        assert {table[name, other] for other in ORIENTATIONS} == set(ORIENTATIONS)
        assert table[name, INVERSE[name]] == table[INVERSE[name], name] == "as-is"
    assert table["flip-x", "turn-90"] != table["turn-90", "flip-x"]


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("as-is", lambda a, h, w, y, x: a[y, x]),
        ("flip-x", lambda a, h, w, y, x: a[y, w - 1 - x]),
        ("flip-y", lambda a, h, w, y, x: a[h - 1 - y, x]),
        ("turn-90", lambda a, h, w, y, x: a[h - 1 - x, y]),
        ("turn-180", lambda a, h, w, y, x: a[h - 1 - y, w - 1 - x]),
        ("turn-270", lambda a, h, w, y, x: a[x, w - 1 - y]),
        ("transpose", lambda a, h, w, y, x: a[x, y]),
        ("anti", lambda a, h, w, y, x: a[h - 1 - x, w - 1 - y]),
    ],
)
def test_each_is_the_operation_that_is_documented(name: str, formula: object) -> None:
    turned = ORIENTATIONS[name](MARK)
    for y, x in np.ndindex(turned.shape):
        assert turned[y, x] == formula(MARK, 3, 4, y, x)  # type: ignore[operator]
    stack = np.stack([MARK, MARK + 50])
    assert np.array_equal(ORIENTATIONS[name](stack)[1], turned + 50)


def test_a_quarter_turn_is_clockwise_as_seen() -> None:
    top_left = np.zeros((8, 8), np.uint8)
    top_left[0, 0] = 1
    assert ORIENTATIONS["turn-90"](top_left)[0, 7] == 1


# -- which one a set is in


def naive_score(generated: NDArray[np.uint8], real: NDArray[np.uint8], name: str) -> float:
    z = []
    for image in ORIENTATIONS[name](generated):
        r = max(np.corrcoef(image.ravel(), other.ravel())[0, 1] for other in real)
        z.append(np.arctanh(min(r, 0.9999)))
    return float(np.mean(z))


def test_scores_are_those_of_the_oracle() -> None:
    few, many = (fit(thorax(*who), 32, 0)[0] for who in ((0, 1), (1, 3)))
    check = best_orientation(few, Thumbs(many))
    for name in ORIENTATIONS:
        assert check.scores[name] == pytest.approx(naive_score(few, many, name), abs=1e-9)


@pytest.mark.parametrize("stored", OTHERS)
@pytest.mark.parametrize("n", [1, 7])
def test_exact_copies_stored_otherwise_are_always_noticed(stored: str, n: int) -> None:
    many = thorax(0, 4)
    check = best_orientation(ORIENTATIONS[stored](many[:n]), Thumbs(many))
    assert check.decided
    assert check.best == INVERSE[stored]
    assert check.copies[check.best] == n
    assert np.array_equal(ORIENTATIONS[check.best](ORIENTATIONS[stored](many[:n])), many[:n])


def test_exact_copies_as_they_are_are_not_stopped() -> None:
    check = best_orientation(thorax(0, 1), Thumbs(thorax(0, 4)))
    assert (check.best, check.decided, check.gap) == ("as-is", False, 0.0)
    assert check.copies["as-is"] == 8


def test_strangers_as_they_are_are_not_stopped() -> None:
    assert not best_orientation(thorax(0, 4), Thumbs(thorax(4, 8))).decided


@pytest.mark.parametrize("stored", ["flip-y", "turn-90", "turn-180", "turn-270", "transpose"])
def test_strangers_stored_otherwise_are_noticed(stored: str) -> None:
    check = best_orientation(ORIENTATIONS[stored](thorax(0, 4)), Thumbs(thorax(4, 8)))
    assert check.decided
    # left and right look alike, so the mirror of the right answer may win
    mirrored = ORIENTATIONS["flip-x"](ORIENTATIONS[INVERSE[stored]](MARK))
    assert check.best in (INVERSE[stored], name_of(mirrored))


def test_symmetric_and_constant_images_decide_nothing() -> None:
    y, x = np.mgrid[:64, :64] - 31.5
    disc = np.where(y**2 + x**2 < 600, 200, 3).astype(np.uint8)[None]
    assert not best_orientation(disc, Thumbs(disc)).decided
    check = best_orientation(np.zeros((5, 64, 64), np.uint8), Thumbs(thorax(0, 2)))
    assert (check.best, check.decided) == ("as-is", False)
    assert set(check.scores.values()) == {0.0}


def test_sizes_may_differ_and_the_block_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = thorax(0, 2), thorax(2, 5)[:-1]
    whole, window = best_orientation(few, Thumbs(many)), same_window(few, Thumbs(many))
    assert best_orientation(fit(few, 32, 0)[0], Thumbs(many)) == whole
    for block in (1, 3, 17):
        monkeypatch.setattr("fingerprint.corpus.orientation.BLOCK", block)
        thumbs = Thumbs(many)
        assert best_orientation(few, thumbs) == whole
        assert same_window(few, thumbs) == window
        assert max(thumbs.asked) <= block


def test_levels_are_compared_as_the_oracle_compares_them() -> None:
    few, many = thorax(0, 1), thorax(1, 4)[:-1]
    sets = [fit(images, 32, 0)[0] for images in (few, many, many[:11], many[11:])]
    p, q, a, b = (np.bincount(images.ravel() >> 3, minlength=32) / images.size for images in sets)
    check = same_window(few, Thumbs(many))
    assert check.distance == np.abs(p - q).sum() / 2
    assert check.floor == np.abs(a - b).sum() / 2


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(ValueError, match="real: "):
        best_orientation(thorax(0, 1), Thumbs(thorax(0, 1)[:0]))


@pytest.mark.parametrize("check", [best_orientation, same_window])
@pytest.mark.parametrize("shape", [(0, 64, 64), (2, 16, 16), (2, 64, 32), (64, 64)])
def test_other_arrays_are_refused(check: object, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="generated: "):
        check(np.zeros(shape, np.uint8), Thumbs(thorax(0, 1)))  # type: ignore[operator]


# -- windows


def test_one_window_is_one_window() -> None:
    check = same_window(thorax(0, 4), Thumbs(thorax(4, 8)))
    assert check.same
    assert check.note == ""


@pytest.mark.parametrize("windows", [("full", "lung"), ("lung", "full")])
@pytest.mark.parametrize("people", [1, 4])
def test_another_window_is_noticed(windows: tuple[str, str], people: int) -> None:
    check = same_window(thorax(0, people, windows[0]), Thumbs(thorax(4, 8, windows[1])))
    assert not check.same
    assert check.distance > check.limit
    assert "different windows" in check.note


# -- real CT


@needs_data
@pytest.mark.parametrize("stored", OTHERS)
def test_real_copies_stored_otherwise_are_always_noticed(stored: str) -> None:
    turned = ORIENTATIONS[stored](real())
    for images in (turned[:1], turned[150:157], turned):
        check = best_orientation(images, Thumbs(real()))
        assert (check.best, check.decided) == (INVERSE[stored], True)


@needs_data
def test_a_few_mirrored_copies_among_strangers_are_noticed() -> None:
    few = np.concatenate([real()[:6], real()[150:210]])
    check = best_orientation(ORIENTATIONS["flip-x"](few), Thumbs(real()[:140]))
    assert check.best == "flip-x"
    assert check.decided


@needs_data
def test_halves_of_a_real_set_raise_no_alarm_and_upside_down_ones_do() -> None:
    rng = np.random.default_rng(20250123)
    for _ in range(20):
        order = rng.permutation(len(real()))
        few, many = real()[order[:40]], Thumbs(real()[order[150:]])
        assert not best_orientation(few, many).decided
        assert best_orientation(ORIENTATIONS["flip-y"](few), many).decided
        assert same_window(few, many).same
