"""Shards that kill whoever does them: listed in ``poison.json`` beside a ledger's phases."""

from __future__ import annotations

import json
from pathlib import Path

from fingerprint import ledger
from fingerprint.ledger import Shard

FILE = "poison.json"


def poisoned(folder: Path) -> dict[str, dict[str, str]]:
    """Return the shards that a ledger's last run left out: key -> phase and reason."""
    path = folder / FILE
    return dict(json.loads(path.read_text())) if path.exists() else {}


def quarantine(folder: Path, shard: Shard) -> None:
    """Put a shard on the list."""
    why = {"phase": shard.phase, "reason": "every worker that tried it died (out of memory?)"}
    _write(folder, poisoned(folder) | {shard.key: why})


def forgive(folder: Path, keys: set[str]) -> None:
    """Take the shards that are about to be tried again off the list."""
    known = poisoned(folder)
    rest = {key: why for key, why in known.items() if key not in keys}
    if rest != known:
        _write(folder, rest)


def _write(folder: Path, shards: dict[str, dict[str, str]]) -> None:
    if not shards:
        (folder / FILE).unlink(missing_ok=True)
        return
    with ledger.replacing(folder / FILE) as out:
        out.write(json.dumps(shards, indent=1, sort_keys=True).encode())
