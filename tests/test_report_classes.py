"""Slices by class on the page: how many of each, and strips to look at."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from test_report import Parsed, make_run

from fingerprint.report import classes

COUNTS = {"c1": 3, "c2": 5, "c3": 0, "none": 7}


def labelled(path: Path, **summary: object):
    made = make_run(path, **summary)
    for corpus in made.corpora.values():
        corpus.labels["region"] = ["c1"] * 3 + ["c2"] * 5 + [""] * (corpus.n - 8)
    return made


def test_strips_hold_slices_of_their_class_evenly_spread() -> None:
    class Corpus:
        def label(self, name: str) -> np.ndarray:
            return np.array(["c2"] * 80 + ["c1"] * 2, object)

        def at(self, indices) -> np.ndarray:
            asked.append(list(indices))
            return np.full((len(indices), 64, 64), 200, np.uint8)

    asked: list[list[int]] = []
    found = classes.sheets({"real": Corpus()})
    assert list(found) == [("real", "c1"), ("real", "c2")]
    assert asked == [[80, 81], [5, 15, 25, 35, 45, 55, 65, 75]]
    strip = Image.open(BytesIO(base64.b64decode(found["real", "c1"].split(",")[1])))
    assert strip.size == (classes.ACROSS * classes.TILE_PX, classes.TILE_PX)
    row = np.asarray(strip.convert("L"))[50]
    assert (row[: 2 * classes.TILE_PX - 4] > 190).all()
    assert (row[2 * classes.TILE_PX + 4 :] < 10).all()


def test_counts_and_strips_stand_on_the_page(tmp_path: Path) -> None:
    made = labelled(tmp_path, classes=COUNTS)
    parsed = Parsed(made.build())
    on_page = {key: text for key, text, section in parsed.numbers if section == "classes"}
    assert on_page["class.real.c2"] == "5"
    assert on_page["class.real.c3"] == "0"
    assert sum("Some slices" in (found.get("alt") or "") for found in parsed.of("img")) >= 2
    passed_on = Parsed(made.build(without_real_images=True))
    assert not any("Some slices" in (found.get("alt") or "") for found in passed_on.of("img"))
    assert "class.real.c2" in {key for key, _, _ in passed_on.numbers}


def test_a_corpus_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    parsed = Parsed(make_run(tmp_path).build())
    assert "told no classes; ingest it again" in parsed.text
