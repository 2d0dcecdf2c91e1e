"""What a membership run left in its folder, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerprint.report import build as audit

DOCUMENT, FINDINGS = "membership.json", "findings.json"


@dataclass(frozen=True)
class Lies:
    """Document and findings, a sentence for what is missing, and notes on what is damaged."""

    document: Mapping[str, Any]
    findings: Mapping[str, Any]
    missing: list[str]
    notes: list[str]


def read(out: Path) -> Lies:
    """Read the folder of a membership run.

    Raises
    ------
    ValueError
        It holds none.
    """
    if not (out / DOCUMENT).exists():
        raise ValueError(
            f"build: {out} is not a membership run (no {DOCUMENT}); make one with membership"
        )
    notes: list[str] = []
    document = _json(out / DOCUMENT, notes)
    findings = _json(out / FINDINGS, notes) if (out / FINDINGS).exists() else {}
    return Lies(document, findings, _missing(out, document), notes)


def _json(path: Path, notes: list[str]) -> Mapping[str, Any]:
    read = audit.tried(path.name, lambda: json.loads(path.read_bytes()), notes, "membership")
    return read if isinstance(read, dict) else {}


def _missing(out: Path, document: Mapping[str, Any]) -> list[str]:
    lines = audit.unfinished(document)
    if not (out / FINDINGS).exists():
        lines.append(f"{FINDINGS} is not there: no method has been judged yet.")
    if document.get("status") != "complete" and not lines:
        lines.append(f"The run is marked {document.get('status', 'unreadable')}, not complete.")
    return lines
