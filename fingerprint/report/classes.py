"""Slices by class: how many there are of each, and some of them to be looked at.

The classes are those of paper 000: c1 upper liver, c2 heart, c3 shoulders. They are told from
images by rules (`corpus.anatomy`), the same for real, generated and control slices, so people
should see what the rules chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fingerprint.report.blocks import Prose, Sheet, Table, Value
from fingerprint.report.page import Page
from fingerprint.report.pairs import Slices, webp

SETS = {"real": "Real", "generated": "Generated", "control": "Controls"}
CLASSES = {"c1": "c1, upper liver", "c2": "c2, heart", "c3": "c3, shoulders", "none": "none"}
ACROSS, TILE_PX = 8, 112


def classes(page: Page) -> list[Any]:
    """Return the table of classes, and a sheet of slices for each set and class."""
    sets = [s for s in SETS if page.has(f"class.{s}.none")]
    rows: list[list[str | Value]] = [
        [text, *(page.value(f"class.{s}.{name}") for s in sets)] for name, text in CLASSES.items()
    ]
    about = [
        "Told from each image by rules, without a trained network; scans as whole stacks, single "
        "images alone. Neck, head and abdomen are none. ",
        page.without_images or "Slices are spread evenly over what there is of a class.",
    ]
    return [
        Prose(about),
        Table(["Slices of each class"], ["", *(SETS[s] for s in sets)], rows),
        *(_sheet(s, name, uri) for (s, name), uri in page.sheets.items()),
    ]


def _sheet(query_set: str, name: str, uri: str) -> Sheet:
    title = f"{SETS[query_set]}: {CLASSES[name]}"
    return Sheet(title, uri, f"Some slices: {title}")


def sheets(corpora: Mapping[str, Slices]) -> dict[tuple[str, str], str]:
    """Draw some slices of each class: (set, class) -> data URI of a strip.

    Parameters
    ----------
    corpora : mapping
        Set -> corpus.
    """
    out = {}
    for query_set, corpus in corpora.items():
        region = corpus.label("region").astype(object)
        for name in CLASSES:
            there = np.flatnonzero(region == ("" if name == "none" else name))
            if name != "none" and len(there):
                out[query_set, name] = _strip(corpus.at(_spread(there).tolist()))
    return out


def _spread(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `ACROSS` of some places, the middles of equal stretches."""
    k = min(ACROSS, len(places))
    return places[((np.arange(k) + 0.5) * len(places) / k).astype(int)]


def _strip(images: NDArray[np.uint8]) -> str:
    strip = np.zeros((TILE_PX, ACROSS * TILE_PX), np.uint8)
    for k, image in enumerate(images):
        small = Image.fromarray(image).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        strip[:, k * TILE_PX : (k + 1) * TILE_PX] = np.asarray(small)
    return webp(strip, strip.shape[1])
