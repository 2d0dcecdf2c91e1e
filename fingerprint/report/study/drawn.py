"""The drawings of a study: what falls and what rises with the size of the training set.

Sizes are ordered, so they have the colours of a scale that is read without red and green; the
controls of a size are dashed in the colour of that size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator
from numpy.typing import NDArray

from fingerprint.report.blocks import WRITE
from fingerprint.report.figures import MUTED, RC, _figure, _plain_log, _spread, _svg

Floats = NDArray[np.float64]
STEPS = 6  # that are written below the axis, at most
DASHED = (0, (4, 2))
GENERATED, CONTROL, PRINTED = "#0b4f75", "#c0650c", "#8a949e"


@dataclass(frozen=True)
class Mark:
    """A number at a size, with its ends; `run` sets further trainings beside the first."""

    size: int
    run: int
    value: float
    low: float | None = None
    high: float | None = None


def colours(n: int) -> list[str]:
    """Return n colours, dark for the smallest size."""
    at = np.linspace(0.0, 0.8, n) if n > 1 else np.array([0.25])
    return [mpl.colors.to_hex(c) for c in mpl.colormaps["viridis"](at)]


def sorted_curves(curves: Sequence[tuple[str, Mapping[str, Floats]]]) -> str:
    """Draw the best r of every image, ascending, for each size and for its controls: Fig. 2."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for colour, (label, sets) in zip(colours(len(curves)), curves, strict=True):
            for who, r in sets.items():
                few = _spread(len(r))
                dashed = who == "control"
                axes.plot(
                    (few + 0.5) / len(r) * 100, np.sort(r)[few], color=colour,
                    linewidth=1.5 if dashed else 2.2, linestyle=DASHED if dashed else "-",
                    label=None if dashed else label,
                )  # fmt: skip
        axes.set(xlabel="images, sorted (%)", ylabel="best r over all slices", xlim=(0, 100))
        _legend(axes)
        return _svg(figure, "sorted")


def equal_numbers(curves: Sequence[tuple[str, Mapping[str, Mapping[int, float]]]]) -> str:
    """Draw the mean best r that fewer patients would give, for each size and its controls."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for colour, (label, sets) in zip(colours(len(curves)), curves, strict=True):
            for who, points in sets.items():
                dashed = who == "control"
                axes.plot(
                    list(points), list(points.values()), color=colour, marker="o", markersize=3.5,
                    linewidth=1.4 if dashed else 2.0, linestyle=DASHED if dashed else "-",
                    label=None if dashed else label,
                )  # fmt: skip
        axes.set(xscale="log", xlabel="patients searched", ylabel="mean of the best r")
        _plain_log(axes)
        _legend(axes)
        return _svg(figure, "equal")


def _legend(axes: Axes) -> None:
    """Name the sizes, and once what is dashed."""
    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color=MUTED, linewidth=1.4, linestyle=DASHED, label="controls"))
    axes.legend(handles=handles, loc="best", fontsize=9.5, title="training slices",
                title_fontsize=9.5)  # fmt: skip


def effect_sizes(sets: Mapping[str, Sequence[Mark]], printed: Sequence[Mark]) -> str:
    """Draw mean, smallest and largest z against the size of the training set: Fig. 3."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        looks = {"generated": (GENERATED, "o", 0.9), "control": (CONTROL, "D", 1.12)}
        if printed:
            _bars(axes, printed, "s", PRINTED, 1.3, "paper 000, as printed")
        for who, marks in sets.items():
            colour, marker, shift = looks[who]
            name = "generated" if who == "generated" else "controls"
            _bars(axes, marks, marker, colour, shift, name)
        axes.set(xlabel="training slices", ylabel="effect size, Fisher z")
        _size_axis(axes, [mark.size for marks in (*sets.values(), printed) for mark in marks])
        axes.legend(loc="best", fontsize=9.5)
        return _svg(figure, "effect")


def against_size(
    sets: Mapping[str, Sequence[Mark]],
    name: str,
    label: str,
    *,
    percent: bool = False,
    zero: bool = True,
) -> str:
    """Draw numbers with their intervals against the size of the training set, a line through."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for colour, marker, (who, marks) in zip(
            (GENERATED, CONTROL), ("o", "D"), sets.items(), strict=False
        ):
            scale = 100 if percent else 1
            scaled = [_times(mark, scale) for mark in marks]
            first = [mark for mark in scaled if not mark.run]
            axes.plot([m.size for m in first], [m.value for m in first], color=colour,
                      linewidth=1.2, alpha=0.6)  # fmt: skip
            _bars(axes, scaled, marker, colour, 1.0, who)
        axes.set(xlabel="training slices", ylabel=label)
        _size_axis(axes, [mark.size for marks in sets.values() for mark in marks])
        if percent:
            axes.set_ylim(-3, 103)
        elif zero:
            axes.axhline(0, color=MUTED, linewidth=0.8)
        if len(sets) > 1:
            axes.legend(loc="best", fontsize=9.5)
        return _svg(figure, name)


def _times(mark: Mark, scale: float) -> Mark:
    ends = [None if end is None else end * scale for end in (mark.low, mark.high)]
    return Mark(mark.size, mark.run, mark.value * scale, *ends)


def _bars(
    axes: Axes, marks: Sequence[Mark], marker: str, colour: str, shift: float, label: str
) -> None:
    for run in sorted({mark.run for mark in marks}):
        of = [mark for mark in marks if mark.run == run]
        value = np.array([mark.value for mark in of])
        low, high = (
            np.array([m.value if end is None else end for m, end in zip(of, ends, strict=True)])
            for ends in ([m.low for m in of], [m.high for m in of])
        )
        axes.errorbar(
            np.array([mark.size for mark in of]) * shift * 1.12**run, value,
            # a mean of equal values may lie beyond them by a rounding
            np.maximum([value - low, high - value], 0), fmt=marker, color=colour, markersize=6,
            markerfacecolor="white" if run else colour, elinewidth=1.4, capsize=3.5,
            label=None if run else label,
        )  # fmt: skip


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    there = sorted(set(sizes))
    axes.set_xscale("log")
    if there:
        axes.set_xlim(there[0] / 1.9, there[-1] * 1.9)
        axes.set_xticks(there, [f"{n:,}" for n in there])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Line:
    """A number of each state of a training, with its ends; empty: none."""

    label: str
    steps: Sequence[int]
    value: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def training(lines: Sequence[Line], name: str, label: str) -> str:
    """Draw a number against the steps of the training, one line for each size."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for colour, line in zip(colours(len(lines)), lines, strict=True):
            axes.plot(line.steps, line.value, color=colour, marker="o", markersize=4,
                      linewidth=2.0, label=line.label)  # fmt: skip
            if line.low:
                axes.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.15,
                                  linewidth=0)  # fmt: skip
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(xscale="log", xlabel="training steps", ylabel=label)
        steps = sorted({step for line in lines for step in line.steps})
        shown = steps[:: -(-len(steps) // STEPS) or 1]
        axes.set_xticks(shown, [f"{n:,}" for n in shown])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(loc="best", fontsize=9.5, title="training slices", title_fontsize=9.5)
        return _svg(figure, name)


# -- Fig. 4, by hand: its numbers carry their keys

CELL, LEFT, TOP = 62, 66, 34


def heat(matrix: Sequence[Sequence[float]], key: str, kind: str) -> str:
    """Draw a matrix of distances, dark is near; each number carries its key in the findings."""
    F = np.asarray(matrix, np.float64)
    k, spread = len(F), max(float(F.max() - F.min()), 1e-12)
    shades = mpl.colormaps["cividis"]((F - F.min()) / spread)
    out = [
        f'<svg viewBox="0 0 {LEFT + k * CELL} {TOP + k * CELL + 2}" class="heat" '
        'xmlns="http://www.w3.org/2000/svg" focusable="false">'
    ]
    for i in range(k):
        at = LEFT + i * CELL + CELL / 2
        out.append(_text(at, TOP - 10, f"Gen-{i + 1}", "#566270"))
        out.append(_text(LEFT / 2 - 3, TOP + i * CELL + CELL / 2 + 5, f"Real-{i + 1}", "#566270"))
    for (i, j), value in np.ndenumerate(F):
        x, y, shade = LEFT + j * CELL, TOP + i * CELL, shades[i, j]
        edge = ' stroke="#9a2c12" stroke-width="3"' if i == j else ' stroke="#fff"'
        inset = 2 if i == j else 0.5
        out.append(
            f'<rect x="{x + inset}" y="{y + inset}" width="{CELL - 2 * inset}" '
            f'height="{CELL - 2 * inset}" fill="{mpl.colors.to_hex(shade)}"{edge}/>'
        )
        dark = shade[:3] @ np.array([0.2126, 0.7152, 0.0722]) < 0.5
        ink = "#fff" if dark else "#1d2733"
        out.append(_text(x + CELL / 2, y + CELL / 2 + 6, WRITE[kind](value), ink, f"{key}.{i}.{j}"))
    return "".join([*out, "</svg>"])


def _text(x: float, y: float, text: str, ink: str, key: str = "") -> str:
    data = f' data-key="{escape(key)}"' if key else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="16" fill="{ink}"{data}>'
        f"{escape(text)}</text>"
    )
