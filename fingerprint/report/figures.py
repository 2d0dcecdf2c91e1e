"""The pictures of a page: curves as vector drawings, the matrix as an image.

Drawn with the object interface of matplotlib, without its global state; the same numbers give the
same bytes (no date, fixed salts). Colours are told apart by people who do not see red and green,
and every curve has a line style of its own.
"""

from __future__ import annotations

import base64
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
from PIL import Image

INK, MUTED, LINE = "#1d2733", "#5b6673", "#d5dbe1"
STYLE: dict[str, dict[str, Any]] = {
    "generated": {"color": "#0b4f75", "linestyle": "-", "linewidth": 2.0},
    "control": {"color": "#c0650c", "linestyle": (0, (5, 2)), "linewidth": 2.0},
}
NAME = {"generated": "generated", "control": "controls"}
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
WIDEST, TALLEST = 1000, 480  # cells of a matrix that are drawn before neighbours are joined


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """Return the drawing as an element to stand inside a page: own ids, no prolog, no metadata."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
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
        ``generated`` (and ``control``) -> float64 (images,), finite.
    """
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for query_set, r in best.items():
            share = (np.arange(len(r)) + 0.5) / len(r) * 100
            label = f"{NAME[query_set]} (n = {len(r):,})"
            axes.plot(share, np.sort(r), label=label, **STYLE[query_set])
        axes.set(xlabel="images, sorted (%)", ylabel="best r over all slices", xlim=(0, 100))
        axes.legend(loc="best")
        return _svg(figure, "sorted")


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
            spread = 1 + 0.3 * (np.arange(len(values)) * 0.618 % 1 - 0.5)  # even, not random
            axes.plot(
                slices * shift * spread, values, ".", color=style["color"], alpha=0.3, markersize=3
            )
            axes.errorbar(
                slices * shift, values.mean(),
                ([values.mean() - values.min()], [values.max() - values.mean()]),
                fmt="o" if query_set == "generated" else "D", color=style["color"], markersize=6,
                elinewidth=1.6, capsize=4, label=f"{NAME[query_set]}, this run",
            )  # fmt: skip
        axes.set(xscale="log", xlabel="real slices searched", ylabel="effect size, Fisher z")
        _plain_log(axes)
        axes.legend(loc="best", fontsize=10)
        return _svg(figure, "effect")


def histogram_of_r(counts: Mapping[str, NDArray[np.int64]]) -> str:
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
        return _svg(figure, "histogram")


def rarefied(curves: Mapping[str, Mapping[int, float]]) -> str:
    """Draw the mean best r that fewer patients would give: per set, patients -> mean r."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for query_set, points in curves.items():
            style = STYLE[query_set] | {"marker": "o" if query_set == "generated" else "D"}
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


# -- the matrix


def matrix_image(r: NDArray[np.float64], low: float) -> tuple[str, int, int]:
    """Colour a matrix of r from `low` to 1; return a PNG data URI and how many cells were joined.

    Parameters
    ----------
    r : float64, shape (queries, patients)
        In the order to be drawn; NaN is grey.

    Returns
    -------
    (uri, rows, columns)
        A drawn cell is the maximum of rows x columns cells, so that no high r is lost.
    """
    rows, columns = -(-r.shape[0] // TALLEST), -(-r.shape[1] // WIDEST)
    joined = _joined(_joined(r, rows, 0), columns, 1)
    level = np.clip(np.round((joined - low) / max(1 - low, 1e-9) * 254), 0, 254)
    image = Image.fromarray(np.where(np.isnan(joined), 255, level).astype(np.uint8), mode=None)
    image.putpalette(_palette())
    return png(image), rows, columns


def _joined(r: NDArray[np.float64], step: int, axis: int) -> NDArray[np.float64]:
    if step == 1:
        return r
    out: NDArray[np.float64] = np.fmax.reduceat(r, np.arange(0, r.shape[axis], step), axis=axis)
    return out


def _palette() -> list[int]:
    colours = mpl.colormaps["cividis"](np.linspace(0, 1, 255))[:, :3]
    return [*np.round(colours * 255).astype(int).ravel().tolist(), 205, 210, 215]


def colour_bar() -> str:
    """Return the colours of the matrix, lowest first, as a data URI."""
    image = Image.fromarray(np.arange(255, dtype=np.uint8)[None])
    image.putpalette(_palette())
    return png(image)


def png(image: Image.Image) -> str:
    """Return a lossless data URI."""
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def ticks(n: int) -> list[tuple[float, str]]:
    """Return about five places along `n` cells, in per cent of the side, and their numbers."""
    step = next(s * 10**k for k in range(12) for s in (1, 2, 5) if n <= 6 * s * 10**k)
    numbers = [1, *range(step, n + 1, step)] if step > 1 else list(range(1, n + 1))
    return [((k - 0.5) / n * 100, f"{k:,}") for k in numbers]


# -- differences of two images

FULL_COLOUR = 50  # grey levels of difference that are drawn at full colour
BRIGHTER, DARKER = (255, 176, 64), (96, 176, 255)  # orange and blue on black: not red and green


def difference(generated: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour generated minus real: black is equal, orange brighter, blue darker.

    Parameters
    ----------
    generated, real : uint8, shape (y, x)

    Returns
    -------
    uint8, shape (y, x, 3)
    """
    return _coloured(generated.astype(np.float64) - real)


def difference_bar() -> str:
    """Return the colours of a difference, from darker to brighter, as a data URI."""
    return png(Image.fromarray(_coloured(np.linspace(-FULL_COLOUR, FULL_COLOUR, 256)[None])))


def _coloured(d: NDArray[np.float64]) -> NDArray[np.uint8]:
    d = np.clip(d / FULL_COLOUR, -1, 1)[..., None]
    colour = np.where(d > 0, np.array(BRIGHTER), np.array(DARKER)) * np.abs(d)
    return np.round(colour).astype(np.uint8)
