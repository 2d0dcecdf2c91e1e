"""What a long command would do: files, slices, shards, bytes and hours, before it does anything.

Rough on purpose: nothing is opened but the heads of corpora. Rates are those measured on one core.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fingerprint.corpus import store
from fingerprint.corpus.steps import READ_SLICES, SURVEY_FILES, WRITE_CHUNKS
from fingerprint.settings import Settings
from flows.cluster import cores

BYTES_A_SLICE = 512 * 512 * 2  # as scanners store them
SLICES_A_SECOND = 100.0  # ingest, one core
PACKED = 1.7  # blosc-lz4 with bitshuffle on CT
PRODUCTS_A_SECOND = 4e11  # multiplications and additions of the search, one core


def of_ingest(sources: Sequence[str], settings: Settings) -> dict[str, Any]:
    """Return the forecast of an ingest."""
    files, size = _count(sources)
    return _ingest(files, size, settings)


def of_audit(real: str, generated: str, controls: str | None, settings: Settings) -> dict[str, Any]:
    """Return the forecast of an audit; folders are counted as if they were scans."""
    known: dict[str, Any] = {}
    n = {}
    for role, source in (("real", real), ("generated", generated), ("control", controls)):
        if source is None:
            continue
        if store.is_corpus(Path(source)):
            n[role] = store.open_corpus(Path(source)).n
        else:
            known[f"ingest.{role}"] = of_ingest([source], settings)
            slices = known[f"ingest.{role}"]["slices_about"]
            n[role] = slices if role != "generated" else known[f"ingest.{role}"]["files"]
    asked = min(n["generated"], settings.sample or n["generated"])
    queries = asked + n.get("control", settings.controls)
    bands = -(-queries // (settings.band_queries or 512))
    shards = bands * -(-n["real"] // settings.shard_slices)
    products = 2.0 * queries * n["real"] * settings.size_px**2
    hours = products / PRODUCTS_A_SECOND / (settings.workers or cores()) / 3600
    return known | {
        "queries_about": queries,
        "slices_about": n["real"],
        "search_shards_about": shards,
        "matrix_bytes_about": 2 * 16 * queries * max(1, n["real"] // 100),
        "hours_about": round(hours + sum(k["hours_about"] for k in known.values()), 3),
    }


def _ingest(files: int, size: int, settings: Settings) -> dict[str, Any]:
    slices = min(max(files, size // BYTES_A_SLICE), max(files, 1) * 4096) if files else 0
    step = WRITE_CHUNKS * settings.chunk_slices
    return {
        "files": files,
        "bytes_in": size,
        "slices_about": slices,
        "shards_about": sum(-(-a // b) for a, b in _cuts(files, slices, step)),
        "bytes_out_about": int(slices * settings.size_px**2 / PACKED),
        "hours_about": round(slices / SLICES_A_SECOND / (settings.workers or cores()) / 3600, 3),
    }


def _cuts(files: int, slices: int, step: int) -> tuple[tuple[int, int], ...]:
    return ((files, SURVEY_FILES), (slices, READ_SLICES), (slices, step))


def _count(sources: Sequence[str]) -> tuple[int, int]:
    """Return the number of files below the sources and their bytes."""
    found = [Path(source) for source in sources]
    for source in found:
        if not source.exists():
            raise ValueError(f"source: {source} is not there")
    files = [p for p in found if p.is_file()]
    for folder in (p for p in found if p.is_dir()):
        files += [Path(top) / name for top, _, names in os.walk(folder) for name in names]
    return len(files), sum(p.lstat().st_size for p in files)
