"""A forecast for people: a line for each phase and file, numbers with units."""

from __future__ import annotations

import math
from typing import Any

COLUMNS = {
    "shards": "shards",
    "multiply_adds": "multiply-adds",
    "bytes_read": "read",
    "bytes_written": "written",
    "hours": "",
}


def readable(told: dict[str, Any]) -> dict[str, Any]:
    """Return a forecast for people: one line for each phase and file, numbers with units."""
    lines: dict[str, Any] = {}
    rows: dict[str, list[str]] = {}
    for name, value in told.items():
        column, _, row = name.partition(".")
        if column in COLUMNS and row:
            said = f"{_in_words(name, value)} {COLUMNS[column]}".rstrip()
            rows.setdefault(row.removeprefix("ledger."), []).append(said)
        else:
            lines[name] = _in_words(name, value)
    total = rows.pop("total", [])
    lines |= {row: ", ".join(cells) for row, cells in rows.items()}
    return lines | ({"total": ", ".join(total)} if total else {})


def _in_words(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    if "bytes" in name:
        return _size(value)
    if "hours" in name:
        return _duration(value * 3600)
    if "multiply_adds" in name:
        return f"{value:.3g}"
    return f"{value:,}"


def _size(value: float) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    at = min(int(math.log(max(value, 1), 1024)), len(units) - 1)
    return f"{value / 1024**at:.3g} {units[at]}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
