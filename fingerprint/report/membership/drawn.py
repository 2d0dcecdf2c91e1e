"""The drawings of a membership run: ROC, histograms, differences, confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import escape

from fingerprint.report.figures import MUTED, NAME, RC, STYLE, _figure, _svg

POINTS = 300  # corners of a curve that are drawn
LOOK = {
    "similarity": ("#0b4f75", "-"),
    "embedding": ("#c0650c", (0, (5, 2))),
    "texture": ("#3f9bc9", (0, (1, 1.2))),
    "density": ("#7a4f9a", (0, (5, 1.5, 1, 1.5))),
    "vcmi": ("#2f7d5b", (0, (3, 1))),
    "calibrated": ("#1d2733", (0, (8, 2))),
}


def roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], name: str) -> str:
    """Draw the true against the false positive rate, method -> both, and the diagonal of chance."""
    with mpl.rc_context(RC):
        figure, axes = _figure()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, label="chance")
        for method, (fp, tp) in curves.items():
            few = np.unique(np.linspace(0, len(fp) - 1, min(len(fp), POINTS)).round().astype(int))
            colour, dashes = LOOK[method]
            axes.plot(np.asarray(fp)[few], np.asarray(tp)[few], color=colour, linestyle=dashes,
                      linewidth=2.0, label=method)  # fmt: skip
        axes.set(xlabel="false positive rate", ylabel="true positive rate",
                 xlim=(0, 1), ylim=(0, 1.01))  # fmt: skip
        axes.legend(loc="lower right", fontsize=9.5)
        return _svg(figure, name)


def histograms(shares: Mapping[str, Sequence[float]], name: str) -> str:
    """Draw the share of pixels at every grey level: Fig. 1 of paper 002."""
    looks = {"generated": STYLE["generated"], "real": STYLE["control"]}
    with mpl.rc_context(RC):
        figure, axes = _figure()
        for who, share in shares.items():
            axes.step(np.arange(len(share)), np.asarray(share) * 100, where="mid",
                      label=NAME.get(who, who), **looks[who] | {"linewidth": 1.5})  # fmt: skip
        axes.set(xlabel="grey level", ylabel="share of pixels (%)", xlim=(0, 255), yscale="symlog")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.legend(loc="best")
        return _svg(figure, name)


def differences(rows: Sequence[tuple[str, float, Sequence[float] | None]], name: str) -> str:
    """Draw a difference for each row with its interval, beside the line of none."""
    with mpl.rc_context(RC | {"font.size": 9.5}):
        figure, axes = _figure()
        figure.set_size_inches(5.4, 1.1 + 0.24 * len(rows))
        axes.axvline(0, color=MUTED, linewidth=0.9)
        for k, (_, value, ends) in enumerate(rows):
            low, high = ends if ends is not None else (value, value)
            axes.plot([low, high], [k, k], color="#0b4f75", linewidth=1.6)
            axes.plot([value], [k], "o", color="#0b4f75", markersize=5)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set(xlabel="AUC with noise less AUC without", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        return _svg(figure, name)


CELL, LEFT, TOP = 120, 130, 64


def confusion(counts: Mapping[str, int], keys: Mapping[str, str]) -> str:
    """Draw a confusion matrix: rows are the truth, columns the answer; Fig. 4 of paper 003."""
    cells = (("tp", 0, 0), ("fn", 0, 1), ("fp", 1, 0), ("tn", 1, 1))
    most = max(*counts.values(), 1)
    out = [
        f'<svg class="heat" viewBox="0 0 {LEFT + 2 * CELL + 8} {TOP + 2 * CELL + 8}" '
        'aria-hidden="true" focusable="false">'
    ]
    for k, word in enumerate(("used", "not used")):
        middle = CELL / 2 + k * CELL
        out.append(_text(LEFT + middle, TOP - 12, f"called {word}", "#566270"))
        out.append(_text(LEFT / 2 - 6, TOP + middle + 5, word, "#566270"))
    for name, i, j in cells:
        shade = mpl.colormaps["cividis"](0.15 + 0.8 * (1 - counts[name] / most))
        ink = (
            "#fff" if np.array(shade[:3]) @ np.array([0.2126, 0.7152, 0.0722]) < 0.5 else "#1d2733"
        )
        x, y = LEFT + j * CELL, TOP + i * CELL
        out.append(f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" '
                   f'fill="{mpl.colors.to_hex(shade)}" stroke="#fff"/>')  # fmt: skip
        text = f"{counts[name]:,}"
        out.append(_text(x + CELL / 2, y + CELL / 2 + 8, text, ink, keys[name], size=24))
    return "".join([*out, "</svg>"])


def _text(x: float, y: float, text: str, ink: str, key: str = "", size: int = 16) -> str:
    data = f' data-key="{escape(key)}"' if key else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="{size}" fill="{ink}"{data}>'
        f"{escape(text)}</text>"
    )
