"""The curves: how similar the most similar slices are, as stored and at best pose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fingerprint.measure import fisher, rows
from fingerprint.measure.entries import UNFINISHED
from fingerprint.report import figures
from fingerprint.report.blocks import Chart, Value
from fingerprint.report.page import Page

SETS = ("generated", "control")
Curves = dict[str, NDArray[np.float64]]


def curves(page: Page) -> list[Any]:
    assert page.matrix is not None  # `no_curves` said so
    data, out = page.matrix, []
    best = {s: rows.best_r(data, s) for s in SETS}
    posed = {s: rows.best_r(data, s, image="raw") for s in SETS} if _poses(page) else {}
    finite = {s: r[np.isfinite(r)] for s, r in best.items() if np.isfinite(r).any()}
    if finite:
        out.append(_sorted(page, finite, posed))
    both = {s: np.isfinite(best[s]) & np.isfinite(r) for s, r in posed.items()}
    both = {s: there for s, there in both.items() if there.any()}
    if both:
        out.append(_against(page, {s: (best[s][k], posed[s][k]) for s, k in both.items()}))
    z = {s: fisher.z_of(r[~fisher.is_identical(r)]) for s, r in finite.items()}
    z = {s: values for s, values in z.items() if len(values)}
    if z and page.has("slices.searched"):
        out.append(_effect(page, z))
    for suffix in ("", ".screen"):
        counts = _histograms(data, suffix)
        if counts:
            out.append(_histogram(page, counts, suffix))
    fewer = {s: _rarefied(page.findings, s) for s in SETS}
    fewer = {s: points for s, points in fewer.items() if len(points) > 1}
    if fewer:
        out.append(Chart(
            "rarefied", "What fewer patients would give", figures.rarefied(fewer),
            "Expected best r against the number of patients searched.",
            ["Expected best r if only N' of the patients were searched (exact rarefaction, mean "
             "over images). A set is compared with another at an equal number of patients."],
        ))  # fmt: skip
    return out


def no_curves(page: Page) -> str:
    """Say why there is nothing to draw."""
    if page.matrix is None:
        return UNFINISHED
    finite = any(np.isfinite(rows.cells(band)).any() for band in rows.bands(page.matrix))
    return "" if finite else "no pair could be compared"


def _poses(page: Page) -> bool:
    return page.matrix is not None and rows.has_stage(page.matrix, "pose")


def _sorted(page: Page, best: Curves, posed: Curves) -> Chart:
    v, lines = page.value, dict(best)
    caption: list[str | Value] = [
        "As Fig. 2 of paper 000. Generated: mean r ", v("table1.generated.mean_r", "r"),
        ", smallest ", v("table1.generated.min_r", "r"), "; controls: mean r ",
        v("table1.control.mean_r", "r"), ". ",
    ]  # fmt: skip
    for s, r in posed.items():
        if np.isfinite(r).any():
            lines[f"{s}_pose"] = r[np.isfinite(r)]
    if len(lines) > len(best):
        caption += [
            "At best pose, raw image, 128 px: generated ",
            v("table1.generated_pose.mean_r", "r"), ", controls ",
            v("table1.control_pose.mean_r", "r"), ". The best of many poses is higher for "
            "strangers too. ",
        ]  # fmt: skip
    caption.append(
        "A generated curve says little alone: what counts is its distance from the controls."
    )
    return Chart(
        "sorted", "Best correlation of every image", figures.sorted_curve(lines),
        "Best r of every image, sorted ascending, for generated images and controls"
        + (", as stored and at best pose." if len(lines) > len(best) else "."), caption,
    )  # fmt: skip


def _against(
    page: Page, points: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> Chart:
    v = page.value
    return Chart(
        "poses", "As stored, and at best pose", figures.raw_against_pose(points),
        "Best r of every image at best pose against its best r as stored; controls apart.",
        ["One dot for each image; as stored over all slices, at best pose over the patients that "
         "were refined (raw image, 128 px). A dot far above the line is an image that fits a slice "
         "once it is moved. Largest at best pose: generated ",
         v("table1.generated_pose.max_r", "r"), ", controls ",
         v("table1.control_pose.max_r", "r"), "."],
    )  # fmt: skip


def _effect(page: Page, z: Curves) -> Chart:
    v = page.value
    printed = [row.__dict__ for row in fisher.PRINTED]
    return Chart(
        "effect", "Effect size",
        figures.effect_sizes(z, int(page.findings["slices.searched"]), printed),
        "Mean, smallest and largest Fisher z against the number of real slices.",
        ["As Fig. 3 of paper 000, as stored. Mean z of the generated images ",
         v("table1.generated.mean_z", "z"), ", of the controls ",
         v("table1.control.mean_z", "z"), "; ", v("table1.generated.identical"),
         " identical images have no finite z and are left out. z is an effect size: among "
         "more slices the best z of a stranger is larger by itself, so only controls against "
         "the same slices are a comparison."],
    )  # fmt: skip


def _histogram(page: Page, counts: Mapping[str, NDArray[Any]], suffix: str) -> Chart:
    v = page.value
    if suffix:
        return Chart(
            "screened", "All pairs, at the best of all poses",
            figures.histogram_of_r(counts, "screened"),
            "Share of all pairs at every r of the best pose at 32 px, for generated and controls.",
            ["The search over poses, 32 px, local contrast normalised. Generated: ",
             v("pose.pairs_screened.generated"), " pairs; controls: ",
             v("pose.pairs_screened.control"), ". Each pair stands at the best of ",
             v("pose.poses"), " poses."],
        )  # fmt: skip
    return Chart(
        "histogram", "All pairs, as stored" if _poses(page) else "All pairs",
        figures.histogram_of_r(counts),
        "Share of all pairs at every r, for generated images and controls.",
        ["Generated: ", v("pairs.compared.generated"), " pairs; controls: ",
         v("pairs.compared.control"), ". Exact counts, no sample."],
    )  # fmt: skip


def _histograms(data: xr.Dataset, suffix: str) -> dict[str, NDArray[Any]]:
    if "histogram" not in data:
        return {}
    named = list(data["histogram_of"].values.astype(object))
    found = {
        s: data["histogram"][named.index(s + suffix)].values for s in SETS if s + suffix in named
    }
    return {s: counts for s, counts in found.items() if counts.any()}


def _rarefied(findings: Mapping[str, Any], query_set: str) -> dict[int, float]:
    prefix = f"rarefied.{query_set}."
    keys = [k for k in findings if k.startswith(prefix) and findings[k] is not None]
    return {
        int(k.removeprefix(prefix)): findings[k]
        for k in sorted(keys, key=lambda k: int(k.rsplit(".", 1)[1]))
    }
