"""The curves of a page, as vector drawings.

Drawn with the object interface of matplotlib, without its global state; the same numbers give the
same bytes (no date, fixed salts). Colours are told apart by people who do not see red and green,
and every curve has a line style of its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

INK, MUTED, LINE = "#1d2733", "#5b6673", "#d5dbe1"
STYLE: dict[str, dict[str, Any]] = {
    "generated": {"color": "#0b4f75", "linestyle": "-", "linewidth": 2.0},
    "control": {"color": "#c0650c", "linestyle": (0, (5, 2)), "linewidth": 2.0},
    "generated_pose": {"color": "#3f9bc9", "linestyle": (0, (1, 1.2)), "linewidth": 2.4},
    "control_pose": {"color": "#e0a030", "linestyle": (0, (5, 1.5, 1, 1.5)), "linewidth": 2.4},
}
NAME = {
    "generated": "generated",
    "control": "controls",
    "generated_pose": "generated, best pose",
    "control_pose": "controls, best pose",
}
MARKER = {"generated": "o", "control": "D"}
RC: dict[str, Any] = {
    "svg.fonttype": "none",  # letters stay letters: searchable, and in the fonts of the reader
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
SIZE_IN = (5.4, 3.5)
LEAST = 1e-6  # deformation energy that is drawn: below it nothing was bent
DOTS = 2000  # dots of a set that are drawn; more would only make the page large


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """Return the drawing as an element to stand inside a page: own ids, no prolog, no metadata."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        # not savefig, which lays everything out twice, for the same bytes
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def sorted_curve(best: Mapping[str, NDArray[np.float64]]) -> str:
    """Draw the best r of every image, ascending, one curve per set: Fig. 2 of paper 000.

    Parameters
    ----------
    best : mapping
        A key of `STYLE` -> float64 (images,), finite.
    """
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for name, r in best.items():
            few = _spread(len(r))
            share = (few + 0.5) / len(r) * 100
            label = f"{NAME[name]} (n = {len(r):,})"
            axes.plot(share, np.sort(r)[few], label=label, **STYLE[name])
        axes.set(xlabel="images, sorted (%)", ylabel="best r over all slices", xlim=(0, 100))
        axes.legend(loc="best")
        return _svg(figure, "sorted")


def _spread(n: int) -> NDArray[np.int64]:
    """Return at most `DOTS` places of n, evenly, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, DOTS)).round().astype(np.int64))


def raw_against_pose(
    points: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> str:
    """Draw the best r at best pose of every image against its best r as stored.

    Parameters
    ----------
    points : mapping
        Set -> (as stored, at best pose), float64 (images,) each, finite.
    """
    with mpl.rc_context(RC):
        figure, axes = _figure()
        low = min(float(min(raw.min(), posed.min())) for raw, posed in points.values())
        axes.plot([low, 1], [low, 1], color=MUTED, linewidth=0.8, label="the same")
        for query_set, (raw, posed) in sorted(points.items()):  # controls below
            few = np.argsort(raw, kind="stable")[_spread(len(raw))]
            few = np.union1d(few, np.argsort(-posed, kind="stable")[: DOTS // 10])
            colour = STYLE[query_set]["color"]
            axes.plot(
                raw[few], posed[few], MARKER[query_set], color=colour, markersize=4.5, alpha=0.75,
                linestyle="none", label=f"{NAME[query_set]} (n = {len(raw):,})",
                markerfacecolor=colour if query_set == "generated" else "none",
            )  # fmt: skip
        axes.set(xlabel="best r, as stored", ylabel="best r, best pose")
        axes.legend(loc="best", fontsize=10)
        return _svg(figure, "poses")


def likeness_and_warp(
    points: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> str:
    """Draw the deformation energy of every best pair against its r after affine registration.

    Parameters
    ----------
    points : mapping
        Set -> (r, energy), float64 (images,) each, finite. Energies below `LEAST` stand at it.
    """
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for query_set, (r, energy) in sorted(points.items()):  # controls below
            few = np.union1d(
                np.argsort(r, kind="stable")[_spread(len(r))],
                np.argsort(energy, kind="stable")[: DOTS // 10],
            )
            colour = STYLE[query_set]["color"]
            axes.plot(
                r[few], np.maximum(energy[few], LEAST), MARKER[query_set], color=colour,
                markersize=4.5, alpha=0.75, linestyle="none",
                label=f"{NAME[query_set]} (n = {len(r):,})",
                markerfacecolor=colour if query_set == "generated" else "none",
            )  # fmt: skip
        axes.set(yscale="log", xlabel="r after affine registration", ylabel="deformation energy")
        _plain_log(axes, "y")
        axes.legend(loc="best", fontsize=10)
        return _svg(figure, "registered")


def effect_sizes(
    z: Mapping[str, NDArray[np.float64]], slices: int, printed: Sequence[Mapping[str, float]]
) -> str:
    """Draw mean, minimum and maximum of z against the number of real slices: Fig. 3 of paper 000.

    Parameters
    ----------
    z : mapping
        Set -> float64 (images,): Fisher z of the images that are not identical.
    slices : int
        Real slices that were searched.
    printed : sequence of mapping
        ``n, mean_z, min_z, max_z`` of the rows of paper 000, drawn in grey.
    """
    with mpl.rc_context(RC):
        figure, axes = _figure()
        n = np.array([row["n"] for row in printed])
        low, mid, high = (
            np.array([row[f"{x}_z"] for row in printed]) for x in ("min", "mean", "max")
        )
        axes.errorbar(
            n, mid, (mid - low, high - mid), fmt="s", color="#8a949e", markersize=5,
            elinewidth=1.2, capsize=3, label="paper 000, as printed",
        )  # fmt: skip
        for (query_set, values), shift in zip(z.items(), (0.82, 1.22), strict=False):
            style = STYLE[query_set]
            few = np.sort(values)[_spread(len(values))]
            spread = 1 + 0.3 * (np.arange(len(few)) * 0.618 % 1 - 0.5)  # even, not random
            axes.plot(
                slices * shift * spread, few, ".", color=style["color"], alpha=0.3, markersize=3
            )
            axes.errorbar(
                slices * shift, values.mean(),
                # the mean of equal values may lie beyond them by a rounding
                np.maximum([[values.mean() - values.min()], [values.max() - values.mean()]], 0),
                fmt=MARKER[query_set], color=style["color"], markersize=6,
                elinewidth=1.6, capsize=4, label=f"{NAME[query_set]}, this run",
            )  # fmt: skip
        axes.set(xscale="log", xlabel="real slices searched", ylabel="effect size, Fisher z")
        _plain_log(axes)
        axes.legend(loc="best", fontsize=10)
        return _svg(figure, "effect")


def histogram_of_r(counts: Mapping[str, NDArray[np.int64]], name: str = "histogram") -> str:
    """Draw the share of all pairs at every r, one curve per set; 4,096 exact bins joined to 256."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        lowest = 1.0
        for query_set, bins in counts.items():
            joined = bins.reshape(256, -1).sum(axis=1)
            edges = np.linspace(-1, 1, 257)
            share = np.where(joined > 0, joined / joined.sum() * 100, np.nan)
            centres = (edges[:-1] + edges[1:]) / 2
            axes.plot(centres, share, label=NAME[query_set], **STYLE[query_set])
            lowest = min(lowest, edges[np.flatnonzero(joined)[0]])
        axes.set(
            yscale="log", xlabel="r of a pair", ylabel="share of all pairs (%)",
            xlim=(lowest - 0.02, 1.01),
        )  # fmt: skip
        _plain_log(axes, "y")
        axes.legend(loc="best")
        return _svg(figure, name)


def rarefied(curves: Mapping[str, Mapping[int, float]]) -> str:
    """Draw the mean best r that fewer patients would give: per set, patients -> mean r."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for query_set, points in curves.items():
            style = STYLE[query_set] | {"marker": MARKER[query_set]}
            label = NAME[query_set]
            axes.plot(list(points), list(points.values()), label=label, markersize=4, **style)
        axes.set(xscale="log", xlabel="patients searched", ylabel="mean of the best r")
        _plain_log(axes)
        axes.legend(loc="best")
        return _svg(figure, "rarefied")


def _plain_log(axes: Axes, which: str = "x") -> None:
    """Write 1,000 and 0.01 instead of powers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
