"""The drawings of the verdict: planted copies found, scores beside the null, the whole set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from fingerprint.measure.null import Tail
from fingerprint.report.figures import (
    INK,
    MUTED,
    NAME,
    RC,
    STYLE,
    _figure,
    _plain_log,
    _spread,
    _svg,
)

ALL, SOME = "#0b4f75", "#8fb8d0"
BAR_IN, GAP = 0.19, 1.25  # height of a bar in inches; of the space between kinds, in bars
SET_BINS = 40

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bar:
    """Planted copies of one strength: shares found, and with the right patient first."""

    label: str
    found: float
    first: float


LOWEST = 1e-6  # p down to which a tail is drawn


def limits(kinds: Mapping[str, Sequence[Bar]]) -> str:
    """Draw a bar for each strength of each kind, easiest first: the share that was found."""
    bars = sum(len(of_kind) for of_kind in kinds.values())
    with mpl.rc_context(RC | {"axes.grid.axis": "x", "axes.spines.left": False}):
        height = BAR_IN * (bars + GAP * len(kinds)) + 0.6
        figure = Figure(figsize=(5.4, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        at, places, labels = 0.0, list[float](), list[str]()
        for kind, of_kind in kinds.items():
            axes.text(0, at - 0.78, kind, fontsize=9.5, fontweight="bold", va="center")
            for bar in of_kind:
                axes.barh(at, 100 * bar.first, 0.74, fill=False, edgecolor=MUTED, linewidth=0.8)
                axes.barh(at, 100 * bar.found, 0.74, color=ALL if bar.found >= 1 else SOME)
                places.append(at)
                labels.append(bar.label)
                at += 1
            at += GAP
        axes.set(xlim=(0, 100.5), ylim=(at - GAP, -1.4), xlabel="planted copies found (%)")
        axes.set_yticks(places, labels, fontsize=9.5)
        axes.tick_params(axis="y", length=0)
        return _svg(figure, "limit")


def survival(scores: Mapping[str, Floats], tail: Tail | None, name: str) -> str:
    """Draw the share of each set that scores at least so much, on a log scale, and the tail.

    Parameters
    ----------
    scores : mapping
        Set -> scores, finite.
    tail : Tail, optional
        As it was fitted to the controls: drawn from its threshold down to `LOWEST`. Images beyond
        that are as sure as any: how many there are is written at the edge.
    name : str
        Of the score.
    """
    with mpl.rc_context(RC):
        figure, axes = _figure()
        far = max(float(s.max()) for s in scores.values())
        low = min(float(s.min()) for s in scores.values())
        least = min(1 / len(s) for s in scores.values())
        if tail is not None:
            far = min(far, tail.reach(LOWEST))
            s = np.linspace(tail.start, max(far, tail.start + 1e-6) * 1.02, 200)
            p = tail.p(s)
            axes.plot(s, p, color=INK, linewidth=1.2, linestyle=(0, (1, 1.4)),
                      label="tail of the controls, fitted")  # fmt: skip
            axes.axvline(tail.start, color=MUTED, linewidth=0.8)
            least = min(least, float(p[-1]))
        for query_set, values in scores.items():
            x = np.sort(values)
            at_least = np.arange(len(x), 0, -1) / len(x)
            few = np.union1d(_spread(len(x)), np.arange(max(0, len(x) - 200), len(x)))
            axes.plot(x[few], at_least[few], drawstyle="steps-pre",
                      label=f"{NAME[query_set]} (n = {len(x):,})", **STYLE[query_set])  # fmt: skip
        axes.set(yscale="log", xlabel=name, ylabel="share at least so high", xlim=(low, far * 1.03))
        axes.set_ylim(least / 2, 1.3)
        _plain_log(axes, "y")
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda v, _: f"{v:.12f}".rstrip("0").rstrip("."))
        )
        beyond = sum(int((values > far * 1.03).sum()) for values in scores.values())
        if beyond:
            axes.text(0.99, 0.02, f"{beyond:,} images further right", transform=axes.transAxes,
                      ha="right", fontsize=9.5)  # fmt: skip
        axes.legend(loc="best", fontsize=10)
        return _svg(figure, "survival")


def differences(sets: Mapping[str, Floats]) -> str:
    """Draw how many images of each set lie at every D: nearer to T at the right of 0."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        both = np.concatenate(list(sets.values()))
        low, high = float(both.min()), float(both.max())
        edges = np.linspace(low, high if high > low else low + 1e-6, SET_BINS + 1)
        for query_set, d in sets.items():
            share = np.histogram(d, edges)[0] / len(d) * 100
            axes.stairs(share, edges, label=f"{NAME[query_set]} (n = {len(d):,})",
                        color=STYLE[query_set]["color"], linewidth=1.8,
                        linestyle=STYLE[query_set]["linestyle"])  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set(xlabel="D: best z over trained less best z over held-out", ylabel="images (%)")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.legend(loc="best", fontsize=10)
        return _svg(figure, "difference")
