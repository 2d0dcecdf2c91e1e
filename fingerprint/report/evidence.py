"""What the search saw: identical images, and every image against every patient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fingerprint.measure import rows
from fingerprint.measure.entries import UNFINISHED
from fingerprint.report import raster
from fingerprint.report.blocks import Picture, Prose, Scale, Table, Value
from fingerprint.report.page import Page

LISTED = 100  # identical pairs that are written out on the page
MARKED = 400  # identical pairs that get a ring on the matrix


def identical(page: Page) -> list[Any]:
    pairs = page.findings["identical.list"]
    if not pairs:
        return [Prose(["None: no pair of a generated image and a real slice has r = 1."])]
    rows = [[pair["query"], pair["participant"], f"{pair['slice']:,}"] for pair in pairs[:LISTED]]
    note = ["The slice is its number in the real corpus; the lowest where a patient has several."]
    if len(pairs) > LISTED:
        note.append(f" The first {LISTED} are listed; all are in findings.json.")
    about: list[str | Value] = [
        "r = 1 exactly: the same pixels, or the same up to brightness and contrast. ",
        page.value("identical.images"), " images, ", page.value("identical.slices"), " slices.",
    ]  # fmt: skip
    return [
        Prose(about),
        Table(
            ["Identical pairs"],
            ["Generated image", page.person.title(), "Slice"],
            rows,
            note,
            text=True,
        ),
    ]


# -- the matrix

NAMES = {"generated": "Generated images", "control": "Control images"}


def matrix(page: Page) -> list[Any]:
    assert page.matrix is not None  # `no_matrix` said so
    data = page.matrix
    columns = np.argsort(-_of_patients(data, "generated"), kind="stable")
    drawn = {s: _drawn(data, s, columns) for s in NAMES if rows.of_set(data, s).any()}
    cells = np.concatenate([joined.ravel() for joined, *_ in drawn.values()])
    low = min(float(np.floor(np.nanquantile(cells, 0.02) * 20) / 20), 0.95)
    ends = [f"{low:.2f}".replace("-", "\u2212"), "1"]
    label = f"best r over the slices of a {page.person}, as stored; grey: not compared"
    return [
        Scale(raster.colour_bar(), ends, label),
        *(_picture(page, s, len(columns), low, *parts) for s, parts in drawn.items()),
    ]


def _of_patients(data: xr.Dataset, query_set: str) -> NDArray[np.float64]:
    """Return the largest r of each patient with any query of a set; -2 where there is none."""
    best = np.full(data.sizes["patient"], np.nan)
    for band in rows.bands(data):
        r = rows.cells(band)[rows.of_set(band, query_set)]
        best = np.fmax(best, np.fmax.reduce(r, axis=0)) if len(r) else best
    return np.nan_to_num(best, nan=-2.0)


def _drawn(
    data: xr.Dataset, query_set: str, columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64], int, int, int, list[tuple[int, int]]]:
    """Return the matrix of a set as it is drawn, most similar above and left.

    Returns
    -------
    (joined, rows, columns, n, same)
        As `raster.join`; how many queries there are; place and column of identical pairs.
    """
    best = np.nan_to_num(rows.best_r(data, query_set), nan=-2.0)
    place = np.empty(len(best), np.int64)
    place[np.argsort(-best, kind="stable")] = np.arange(len(best))
    same: list[tuple[int, int]] = []

    def parts() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        first = 0
        for band in rows.bands(data):
            r = rows.cells(band)[rows.of_set(band, query_set)][:, columns]
            here = place[first : first + len(r)]
            first += len(r)
            same.extend((int(here[i]), int(j)) for i, j in np.argwhere(r == 1))
            yield here, r

    joined, tall, wide = raster.join(parts(), len(best), len(columns))
    return joined, tall, wide, len(best), sorted(same)[:MARKED]


def _picture(
    page: Page,
    query_set: str,
    p: int,
    low: float,
    joined: NDArray[np.float64],
    tall: int,
    wide: int,
    n: int,
    same: list[tuple[int, int]],
) -> Picture:
    person, name = page.person, NAMES[query_set]
    caption = [f"{n:,} images (most similar above) x {p:,} {person}s (most similar left)."]
    if tall > 1 or wide > 1:
        caption.append(f" One dot is the maximum of {tall} x {wide} cells.")
    if same:
        caption.append(" Rings: identical.")
    return Picture(
        title=name,
        uri=raster.matrix_image(joined, low),
        alt=f"{name} against {person}s: colour is the best r; rings: {len(same)} identical pairs.",
        x_label=f"{person}s",
        y_label="images",
        x_ticks=raster.ticks(p),
        y_ticks=raster.ticks(n),
        marks=[((j + 0.5) / p * 100, (i + 0.5) / n * 100) for i, j in same],
        height_px=int(np.clip(60 + 1.5 * n, 120, 420)),
        caption=caption,
    )


def no_matrix(page: Page) -> str:
    """Say why there is no matrix to draw."""
    if page.matrix is None:
        return UNFINISHED
    if rows.ranks_only(page.matrix):
        return (
            f"a corpus was compared with itself: only the best {page.matrix.sizes['rank']} "
            f"{page.person}s of each slice were kept"
        )
    finite = any(np.isfinite(rows.cells(band)).any() for band in rows.bands(page.matrix))
    return "" if finite else "no pair could be compared"
