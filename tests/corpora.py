"""Corpora straight from arrays, for tests that are not about reading files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fingerprint.corpus import seal, store

BLOCKS = 16  # on a side of a slice of `big_corpus`
# environment of a process whose peak is compared with another's: what is freed goes back, whichever
# thread it was of. With glibc's arena per thread two runs of the same work differ by 30 MiB
ONE_ARENA = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
HEAD = b"token\tbytes\tsha256\tcode\tdetail\n"


def label_rows(
    images: np.ndarray, participants: Sequence[str], part: int = 0, native_px: int = 0
) -> pd.DataFrame:
    flat = images.reshape(len(images), -1).astype(np.int64)
    n = len(images)
    return pd.DataFrame(
        {
            "participant": list(participants),
            "scan": [f"S{p[1:]}" for p in participants],
            "series": [f"S{p[1:]}" for p in participants],
            "z_mm": np.arange(n, dtype=float),
            "sex": ["M", "F"] * (n // 2) + ["M"] * (n % 2),
            "age": np.full(n, 40, np.int16),
            "region": [""] * n,
            "region_confidence": np.full(n, 0.5, np.float32),
            "sum": flat.sum(1),
            "sum_of_squares": (flat * flat).sum(1),
            "native_px": np.full(n, native_px or images.shape[1], np.int16),
            "token": [hashlib.sha256(f"{part}/{i}".encode()).hexdigest()[:12] for i in range(n)],
            "digest": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
            "part": np.full(n, part, np.int32),
        }
    )


def series_rows(rows: pd.DataFrame, spacing_mm: float = 1.0) -> pd.DataFrame:
    groups = rows.groupby("series", sort=False)
    table = groups.first().reset_index()
    table["n_slices"] = groups.size().to_numpy()
    for name in ("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"):
        table[name] = spacing_mm
    table["origin_y_mm"], table["origin_x_mm"] = -100.0, -100.0
    table["source_digest"], table["notes"] = "0" * 64, ""
    return table[list(store.SERIES)]


def make_corpus(
    path: Path,
    images: np.ndarray,
    participants: Sequence[str],
    *,
    set_name: str = "real",
    chunk: int = 4,
    key_id: str = "0123456789ab",
    native_px: int = 0,
) -> store.Corpus:
    """Seal images as a new corpus, or as a further part of the corpus that is there."""
    old = store.open_corpus(path) if store.is_corpus(path) else None
    first, part = (old.n, len(old.head["parts"])) if old else (0, 0)
    rows = label_rows(images, participants, part, native_px)
    parts = list(old.head["parts"]) if old else []
    parts.append({"n": len(rows), "digest": store.content_digest(rows)})
    written, sums = {}, []
    stored = images
    if first % chunk and old:
        stored = np.concatenate([old.read(first - first % chunk, first), images])
    for i in range(0, len(stored), chunk):
        k = first // chunk + i // chunk
        shared = k * chunk < first
        entries, found = seal.write_chunk(path, k, stored[i : i + chunk], chunk, shared=shared)
        written |= entries
        sums.append(pd.DataFrame(found))
    sums_of_all = pd.concat(sums, ignore_index=True)[-len(rows) :].reset_index(drop=True)
    rows = rows.assign(**sums_of_all)
    all_rows = pd.concat([old.slices, rows], ignore_index=True) if old else rows
    head = {
        "set": set_name,
        "key_id": key_id,
        "window_hu": [-1000.0, 1000.0],
        "size_px": images.shape[1],
        "chunk_slices": chunk,
        "parts": parts,
        "made_with": {},
        "summary": {"participants": len(set(participants)), "rejected": {}, "seen": len(rows)},
    }
    spacing_mm = np.nan if native_px else 1.0  # images that were enlarged have no geometry
    seal.seal(
        path, all_rows, series_rows(all_rows, spacing_mm), head, written, {"rejections.tsv": HEAD}
    )
    return store.open_corpus(path)


def big_corpus(
    path: Path,
    n: int,
    size_px: int,
    patients: int,
    seed: int,
    *,
    chunk: int = 64,
    set_name: str = "real",
) -> store.Corpus:
    """Seal n slices of 16 x 16 grey blocks, those of one patient alike (r about 0.5).

    One chunk is in memory at a time, and it packs well: 60,000 slices of 512 px take 1.6 GB of
    disk and three minutes. What is sealed depends on `n, size_px, patients, seed` alone.
    """
    times = size_px // BLOCKS
    draw = np.random.default_rng(seed)
    of = np.arange(n) * patients // n
    alike = draw.integers(64, 192, (patients, BLOCKS, BLOCKS))
    written: dict[str, list] = {}
    tables = []
    for first in range(0, n, chunk):
        who = of[first : first + chunk]
        small = alike[who] + draw.integers(-64, 64, (len(who), BLOCKS, BLOCKS))
        images = small.astype(np.uint8).repeat(times, 1).repeat(times, 2)
        entries, sums = seal.write_chunk(path, first // chunk, images, chunk, shared=False)
        written |= entries
        tables.append(_big_rows(images, small, who, first).assign(**sums))
    rows = pd.concat(tables, ignore_index=True)
    rows["z_mm"] = rows.groupby("participant").cumcount().astype(float)
    head = {
        "set": set_name,
        "key_id": "0123456789ab",
        "window_hu": [-1000.0, 1000.0],
        "size_px": size_px,
        "chunk_slices": chunk,
        "parts": [{"n": n, "digest": store.content_digest(rows)}],
        "made_with": {},
        "summary": {"participants": patients, "rejected": {}, "seen": n},
    }
    seal.seal(path, rows, series_rows(rows), head, written, {"rejections.tsv": HEAD})
    return store.open_corpus(path)


def _big_rows(images: np.ndarray, small: np.ndarray, who: np.ndarray, first: int) -> pd.DataFrame:
    """Label one chunk of a big corpus; the sums are those of the blocks."""
    n, area = len(who), (images.shape[1] // BLOCKS) ** 2
    names = [f"P{i:012x}" for i in who]
    scans = [f"S{name[1:]}" for name in names]
    return pd.DataFrame(
        {
            "participant": names,
            "scan": scans,
            "series": scans,
            "z_mm": 0.0,
            "sex": ["MF"[i % 2] for i in who],
            "age": np.full(n, 40, np.int16),
            "region": "",
            "region_confidence": np.float32(0.5),
            "sum": small.sum((1, 2)) * area,
            "sum_of_squares": (small**2).sum((1, 2)) * area,
            "native_px": np.full(n, images.shape[1], np.int16),
            "token": [f"{i:012x}" for i in range(first, first + n)],
            "digest": [hashlib.sha256(image).hexdigest() for image in images],
            "part": np.zeros(n, np.int32),
        }
    )
