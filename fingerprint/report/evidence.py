"""What the search saw: identical images, the matrix, the curves, the most similar pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fingerprint.measure import findings as measure
from fingerprint.measure import fisher
from fingerprint.report import figures
from fingerprint.report.blocks import Chart, Pair, Pairs, Picture, Prose, Scale, Table, Value
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


def matrix(page: Page) -> list[Any]:
    assert page.matrix is not None  # `no_matrix` said so
    raw = page.matrix["r"].sel(stage="raw", slices="all").values
    sets = page.matrix["query_set"].values.astype(object)
    shown = {s: raw[sets == s] for s in ("generated", "control")}
    columns = np.argsort(-_largest(shown["generated"], 0), kind="stable")
    low = min(float(np.floor(np.nanquantile(raw, 0.02) * 20) / 20), 0.95)
    pictures = [
        _picture(s, r[np.argsort(-_largest(r, 1), kind="stable")][:, columns], low, page.person)
        for s, r in shown.items()
        if len(r) and r.shape[1]
    ]
    ends = [f"{low:.2f}".replace("-", "\u2212"), "1"]
    label = f"best r over the slices of a {page.person}; grey: not compared"
    return [Scale(figures.colour_bar(), ends, label), *pictures]


def _largest(r: NDArray[Any], axis: int) -> NDArray[Any]:
    if r.size == 0:
        return np.zeros(r.shape[1 - axis])
    return np.nan_to_num(np.fmax.reduce(r, axis=axis), nan=-2.0)


def _picture(query_set: str, r: NDArray[Any], low: float, person: str) -> Picture:
    uri, rows, columns = figures.matrix_image(r, low)
    at = np.argwhere(r == 1)[:MARKED]
    n, p = r.shape
    caption = [f"{n:,} images (most similar above) x {p:,} {person}s (most similar left)."]
    if rows > 1 or columns > 1:
        caption.append(f" One dot is the maximum of {rows} x {columns} cells.")
    if len(at):
        caption.append(" Rings: identical.")
    name = {"generated": "Generated images", "control": "Control images"}[query_set]
    return Picture(
        title=name,
        uri=uri,
        alt=f"{name} against {person}s: colour is the best r; rings: {len(at)} identical pairs.",
        x_label=f"{person}s",
        y_label="images",
        x_ticks=figures.ticks(p),
        y_ticks=figures.ticks(n),
        marks=[((j + 0.5) / p * 100, (i + 0.5) / n * 100) for i, j in at],
        height_px=int(np.clip(60 + 1.5 * n, 120, 420)),
        caption=caption,
    )


def no_matrix(page: Page) -> str:
    """Say why there is no matrix to draw."""
    if page.matrix is None:
        return measure.UNFINISHED
    finite = np.isfinite(page.matrix["r"].values).any()
    return "" if finite else "no pair could be compared"


# -- curves


def curves(page: Page) -> list[Any]:
    assert page.matrix is not None  # `no_matrix` said so
    v, data = page.value, page.matrix
    best = {s: measure.best_r(data, s) for s in ("generated", "control")}
    best = {s: r[np.isfinite(r)] for s, r in best.items() if np.isfinite(r).any()}
    z = {s: fisher.z_of(r[~fisher.is_identical(r)]) for s, r in best.items()}
    z = {s: values for s, values in z.items() if len(values)}
    out: list[Any] = []
    if best:
        out.append(Chart(
            "sorted", "Best correlation of every image", figures.sorted_curve(best),
            "Best r of every image, sorted ascending, for generated images and controls.",
            ["As Fig. 2 of paper 000. Generated: mean r ", v("table1.generated.mean_r", "r"),
             ", smallest ", v("table1.generated.min_r", "r"), "; controls: mean r ",
             v("table1.control.mean_r", "r"), ". The generated curve says little alone: what "
             "counts is its distance from the controls."],
        ))  # fmt: skip
    if z and page.has("slices.searched"):
        printed = [row.__dict__ for row in fisher.PRINTED]
        out.append(Chart(
            "effect", "Effect size",
            figures.effect_sizes(z, int(page.findings["slices.searched"]), printed),
            "Mean, smallest and largest Fisher z against the number of real slices.",
            ["As Fig. 3 of paper 000. Mean z of the generated images ",
             v("table1.generated.mean_z", "z"), ", of the controls ",
             v("table1.control.mean_z", "z"), "; ", v("table1.generated.identical"),
             " identical images have no finite z and are left out. z is an effect size: among "
             "more slices the best z of a stranger is larger by itself, so only controls against "
             "the same slices are a comparison."],
        ))  # fmt: skip
    counts = _histograms(data)
    if counts:
        out.append(Chart(
            "histogram", "All pairs", figures.histogram_of_r(counts),
            "Share of all pairs at every r, for generated images and controls.",
            ["Generated: ", v("pairs.compared.generated"), " pairs; controls: ",
             v("pairs.compared.control"), ". Exact counts, no sample."],
        ))  # fmt: skip
    fewer = {s: _rarefied(page.findings, s) for s in ("generated", "control")}
    fewer = {s: points for s, points in fewer.items() if len(points) > 1}
    if fewer:
        out.append(Chart(
            "rarefied", "What fewer patients would give", figures.rarefied(fewer),
            "Expected best r against the number of patients searched.",
            ["Expected best r if only N' of the patients were searched (exact rarefaction, mean "
             "over images). A set is compared with another at an equal number of patients."],
        ))  # fmt: skip
    return out


def _histograms(data: xr.Dataset) -> dict[str, NDArray[Any]]:
    if "histogram" not in data:
        return {}
    rows = dict(
        zip(data["histogram_of"].values.astype(object), data["histogram"].values, strict=True)
    )
    return {s: rows[s] for s in ("generated", "control") if s in rows and rows[s].any()}


def _rarefied(findings: Mapping[str, Any], query_set: str) -> dict[int, float]:
    prefix = f"rarefied.{query_set}."
    keys = [k for k in findings if k.startswith(prefix) and findings[k] is not None]
    return {
        int(k.removeprefix(prefix)): findings[k]
        for k in sorted(keys, key=lambda k: int(k.rsplit(".", 1)[1]))
    }


# -- pairs


def pairs(page: Page) -> list[Any]:
    shown = int(page.findings["pairs.shown"])
    about = (
        "The best patient of each of the most similar generated images, best first. Patients are "
        "pseudonyms: whoever holds the key turns them back with fingerprint locate. "
    )
    if page.without_images:
        about += page.without_images
    else:
        about += "Difference is generated minus real: black is equal. Pictures are compressed."
    out: list[Any] = [Prose([about])]
    if not page.without_images:
        out.append(_difference_scale())
    return [*out, Pairs([_pair(page, k) for k in range(1, shown + 1)])]


def _difference_scale() -> Scale:
    return Scale(
        figures.difference_bar(),
        [f"\u2212{figures.FULL_COLOUR}", f"+{figures.FULL_COLOUR}"],
        "difference in grey levels (blue: generated is darker; orange: brighter)",
    )


def _pair(page: Page, k: int) -> Pair:
    key = f"pair.{k}"
    names = {"query": ("Generated image", "text"), "participant": (page.person.title(), "text"),
             "slice": ("Slice", "n"), "r_raw": ("r", "r"), "z": ("z", "z"),
             "r_pose": ("r, best position", "r"), "r_affine": ("r, affine", "r"),
             "r_elastic": ("r, elastic", "r")}  # fmt: skip
    head = [
        (text, page.value(f"{key}.{name}", kind))
        for name, (text, kind) in names.items()
        if page.has(f"{key}.{name}")
    ]
    same = ""
    if page.findings[f"{key}.same_pixels"]:
        same = "same pixels"
    elif page.findings[f"{key}.r_raw"] == 1:
        same = "same up to brightness and contrast"
    found = page.pictures.get(k, "no picture")
    if page.without_images:
        return Pair(k, same, head)
    if isinstance(found, str):
        return Pair(k, same, head, absent=found)
    return Pair(k, same, head, *found)
