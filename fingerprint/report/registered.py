"""Registration in one view: how alike the best pairs are once aligned, and after how much warp."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.measure import registered
from fingerprint.report import figures
from fingerprint.report.blocks import Chart, Table, Value
from fingerprint.report.page import Page

NAMES = {"generated": "Generated", "control": "Controls"}
ROWS = {
    "r_affine": ("r, affine", "r"),
    "r_elastic": ("r, elastic", "r"),
    "r_highpass_elastic": ("r, high-pass, elastic", "r"),
    "mi_bits_raw": ("mutual information, as stored, bits", "bits"),
    "mi_bits_affine": ("mutual information, affine, bits", "bits"),
    "mi_bits_elastic": ("mutual information, elastic, bits", "bits"),
    "deformation_energy": ("deformation energy", "energy"),
    "min_jacobian": ("smallest change of area", "share"),
}


def overview(page: Page) -> list[Any]:
    """Return the plot of r against deformation energy, and the medians of both sets."""
    v, out = page.value, list[Any]()
    points = {s: _points(page, s) for s in NAMES}
    points = {s: both for s, both in points.items() if len(both[0])}
    if points:
        caption: list[str | Value] = [
            "The best pair of each image: r after affine registration, and the mean squared "
            "gradient of the elastic displacement less its affine part. A copy lies at the right "
            "and low (below 1e-06 it is drawn there); strangers need more warp, and how much the "
            "controls show. Of ",
            v("register.pairs"), " registered pairs ", v("register.diverged"),
            " did not converge and keep their best pose.",
        ]  # fmt: skip
        out.append(Chart(
            "registered", "Likeness and warp", figures.likeness_and_warp(points),
            "Deformation energy of the best pair of every image against its r after affine "
            "registration; controls apart.", caption,
        ))  # fmt: skip
    sets = [s for s in NAMES if any(page.has(f"register.{name}.{s}.median") for name in ROWS)]
    rows = [
        [text, *(v(f"register.{name}.{s}.median", kind) for s in sets)]
        for name, (text, kind) in ROWS.items()
        if any(page.has(f"register.{name}.{s}.median") for s in sets)
    ]
    note = [
        "Medians over the best pair of each image. Elastic registration makes strangers alike too: "
        "a score after it means something beside that of the controls only."
    ]
    title = ["Before and after registration"]
    return [*out, Table(title, ["Median", *(NAMES[s] for s in sets)], rows, note)]


def _points(page: Page, query_set: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if page.best is None:
        return np.empty(0), np.empty(0)
    r, energy = (
        registered.of_set(page.best, query_set, name) for name in ("r_affine", "deformation_energy")
    )
    there = np.isfinite(r) & np.isfinite(energy)
    return r[there], energy[there]
