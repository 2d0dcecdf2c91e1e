"""What a page is made of: text, tables, figures, pairs; and how a number is written.

A number stands on the page as a `Value`, which remembers its key in ``findings.json``: the page
can be checked against the file, number by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NOT_RUN = "not run"


@dataclass(frozen=True)
class Value:
    """One entry of ``findings.json`` as it is shown; `why` stands beside None."""

    key: str
    text: str
    why: str = ""


Inline = Sequence["str | Value"]
Cell = "str | Value | Inline"


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    parts: Inline
    kind: str = "prose"


@dataclass(frozen=True)
class Items:
    """A list of short sentences."""

    rows: Sequence[Inline]
    kind: str = "items"


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row is its head."""

    caption: Inline
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: Inline = ()
    text: bool = False  # columns of words, not of numbers
    beside: bool = False  # stands beside the drawing before it
    folded: bool = False  # is closed until the reader opens it
    kind: str = "table"


@dataclass(frozen=True)
class Explorer:
    """The images that are found at a rate q, which a script lets the reader choose.

    `counts`: (list, label, number found) at the q of the run. `rows`: the most extreme images, of
    which the first `near` are shown at that q. `data`: JSON for the script, no text from outside.
    """

    q: Value
    counts: Sequence[tuple[str, str, Any]]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    near: int
    data: str
    caption: Inline
    note: Inline = ()
    kind: str = "explorer"


@dataclass(frozen=True)
class Code:
    """Text to be copied as it is."""

    title: str
    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Chart:
    """A vector drawing made here; `svg` is markup that holds no text from outside."""

    name: str
    title: str
    svg: str
    alt: str
    caption: Inline
    kind: str = "chart"


@dataclass(frozen=True)
class Picture:
    """A matrix as an image, with its axes, its colour scale and marks, all in per cent."""

    title: str
    uri: str
    alt: str
    x_label: str
    y_label: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    marks: Sequence[tuple[float, float]]
    height_px: int
    caption: Inline
    kind: str = "picture"


@dataclass(frozen=True)
class Scale:
    """A bar of colours with its ends."""

    uri: str
    ends: Sequence[str]
    label: str
    kind: str = "scale"


@dataclass(frozen=True)
class Sheet:
    """A strip of small pictures."""

    title: str
    uri: str
    alt: str
    kind: str = "sheet"


@dataclass(frozen=True)
class View:
    """One picture of a pair: how a script finds it, what it shows; without `uri` a sentence."""

    name: str
    caption: str
    alt: str = ""
    uri: str = ""


@dataclass(frozen=True)
class Pair:
    """A generated image, as stored and moved, beside the most similar real slice."""

    place: int
    same: str
    head: Sequence[tuple[str, Value | Inline]]
    views: Sequence[View] = ()
    steps: Sequence[Table] = ()
    notes: Sequence[Inline] = ()
    absent: str = ""


@dataclass(frozen=True)
class Pairs:
    """All pairs that are shown."""

    rows: Sequence[Pair] = field(default_factory=tuple)
    kind: str = "pairs"


# -- how a number is written


def value(findings: Mapping[str, Any], key: str, kind: str = "n") -> Value:
    """Return an entry of the findings as it is shown; a missing one says why.

    Parameters
    ----------
    kind : str
        ``n`` count, ``r`` correlation, ``z`` effect size, ``sd`` spread, ``mean`` average,
        ``bytes``, ``text``; ``bits``, ``share`` and ``energy`` of a registration; of a pose
        ``turn``, ``size``, ``down``, ``right``; ``range`` and ``sizes`` of two ends; ``p`` of a
        test, ``q`` a rate, ``percent`` of a share, ``few`` some of a list of names, ``list`` the
        name of a list of findings.
    """
    entry = lookup(findings, key)
    if entry is None:
        return Value(key, NOT_RUN, str(findings.get(f"{key}.reason", "not recorded")))
    return Value(key, WRITE[kind](entry))


def lookup(findings: Mapping[str, Any], key: str) -> Any:
    """Return an entry; ``images.list.3.p_value`` is a field of an item of a list; else None."""
    if key in findings:
        return findings[key]
    parts = key.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        held = findings.get(".".join(parts[:cut]))
        if isinstance(held, list):
            return _inside(held, parts[cut:])
    return None


def _inside(held: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if isinstance(held, list) and part.isdigit() and int(part) < len(held):
            held = held[int(part)]
        elif isinstance(held, Mapping):
            held = held.get(part)
        else:
            return None
    return held


def _count(x: Any) -> str:
    return f"{x:,}"


def _correlation(x: float) -> str:
    """Four digits, but only 1 itself is written as 1."""
    if abs(x) == 1:
        return f"{x:.0f}"
    if round(abs(x), 4) == 1:
        return f"1 \u2212 {1 - x:.1e}" if x > 0 else f"\u22121 + {1 + x:.1e}"
    return f"{x:.4f}".replace("-", "\u2212")


def _effect(x: float) -> str:
    return f"{x:.3f}".replace("-", "\u2212")


def _spread(x: float) -> str:
    return f"{x:.5f}" if abs(x) < 1e-3 else f"{x:.4f}"


def _bytes(x: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if x < 1024:
            return f"{x:,.0f} B" if unit == "B" else f"{x:.1f} {unit}"
        x /= 1024
    return f"{x:.2f} TiB"


def _short(x: float) -> str:
    """One digit after the point, and none where it is 0."""
    return f"{x:.1f}".removesuffix(".0").replace("-", "\u2212")


def _ends(x: Sequence[float]) -> str:
    low, high = x
    return f"{_short(low)} to {_short(high)}"


def _sizes(x: Sequence[float]) -> str:
    low, high = x
    return f"{low:.2f} to {high:.2f}"


def _text(x: Any) -> str:
    if isinstance(x, bool):
        return "yes" if x else "no"
    return (", ".join(map(str, x)) or "none") if isinstance(x, list) else str(x)


def _p(x: float) -> str:
    """Two digits, and only 0 itself as 0: that of an identical image."""
    return f"{x:.2g}" if x < 1e-3 else f"{x:.4f}".rstrip("0").rstrip(".")


def _few(x: Sequence[str]) -> str:
    rest = len(x) - NAMED
    return ", ".join(map(str, x[:NAMED])) + (f" and {rest:,} more" if rest > 0 else "")


NAMED = 3  # names of a list that are written out
LIST_NAME = {
    "identical": "identical", "guaranteed": "guaranteed", "tail": "tail model",
    "patient": "patient level",
}  # fmt: skip
WRITE = {
    "n": _count,
    "r": _correlation,
    "z": _effect,
    "sd": _spread,
    "mean": lambda x: f"{x:,.1f}",
    "bytes": _bytes,
    "text": _text,
    "bits": lambda x: f"{x:.2f}",
    "share": lambda x: f"{x:.3f}".replace("-", "\u2212"),
    "energy": lambda x: f"{x:.2g}" if x else "0",
    "turn": lambda x: f"{_short(abs(x))}\u00b0 {'clockwise' if x > 0 else 'anticlockwise'}",
    "size": lambda x: f"{_short(abs(x - 1) * 100)} %",
    "down": lambda x: f"{abs(x):.0f} px {'down' if x > 0 else 'up'}",
    "right": lambda x: f"{abs(x):.0f} px {'right' if x > 0 else 'left'}",
    "range": _ends,
    "sizes": _sizes,
    "p": _p,
    "q": lambda x: f"{x:g}",
    "percent": lambda x: f"{100 * x:.1f}\u00a0%",
    "few": _few,
    "list": lambda x: LIST_NAME.get(x, str(x)),
}
