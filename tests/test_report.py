"""The page of a run: what it says, what it leaves out, and what cannot happen on it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from fingerprint.ledger import Damaged
from fingerprint.measure import findings as measure
from fingerprint.report import blocks, figures, sections
from fingerprint.report.build import build
from fingerprint.search import correlation, matches

SCHEMA = json.loads(files("fingerprint.report").joinpath("findings.schema.json").read_text())
NEVER = ("private", "safe", "anonymous", "compliant", "no leakage", "probability of copying")


# -- a run without a search: synthetic patients, and r from the same integers


def thorax(patient: int, level: float, size: int) -> np.ndarray:
    """Draw an axial slice of a made-up patient: body, lungs, heart, spine, vessels, texture."""
    rng = np.random.default_rng(patient)
    p = rng.normal(0, 1, 24)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]

    def inside(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        edge = 1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2
        return np.clip(edge * size / 12, 0, 1)

    image = np.full((size, size), 6.0)
    image += 118 * inside(0.03 * p[0], 0.05, 0.86 + 0.04 * p[1], 0.62 + 0.05 * p[2])
    image += 12 * inside(0.03 * p[0], 0.05, 0.79 + 0.04 * p[1], 0.54 + 0.05 * p[2])
    grow = 1 - 0.25 * level
    for side in (-1, 1):
        lung = inside(
            side * (0.40 + 0.02 * p[3]),
            0.03 * p[4],
            (0.27 + 0.03 * p[5 + side]) * grow,
            (0.40 + 0.04 * p[7 + side]) * grow,
        )
        image -= 100 * lung
        for k in range(9):
            cx = side * (0.40 + 0.12 * np.sin(7.1 * k + p[9]))
            cy = 0.25 * np.cos(5.3 * k + p[10] + 2 * level)
            image += 55 * lung * inside(cx, cy, 0.012 + 0.003 * k, 0.012 + 0.003 * k)
    image += 22 * inside(0.08 + 0.03 * p[11], -0.04 + 0.1 * level, 0.22 + 0.02 * p[12], 0.2)
    image += 90 * inside(0.01 * p[13], 0.42, 0.09, 0.08)
    image += 60 * inside(0.0, 0.72, 0.95, 0.02)
    texture = np.random.default_rng([patient, int(1000 * level)]).normal(0, 4, (size, size))
    return np.clip(np.round(image + texture), 0, 255).astype(np.uint8)


@dataclass
class FakeCorpus:
    """A corpus in memory: what a page asks of one."""

    pixels: np.ndarray
    labels: pd.DataFrame
    summary: dict[str, Any]
    digest: str = "d" * 64
    damaged: set[int] = field(default_factory=set)

    @property
    def n(self) -> int:
        return len(self.pixels)

    def label(self, name: str) -> np.ndarray:
        return self.labels[name].to_numpy()

    def at(self, indices) -> np.ndarray:
        if self.damaged & {int(i) for i in indices}:
            raise Damaged("real: pixels/c/0/0/0 is not what was sealed")
        return self.pixels[np.asarray(indices)]


def fake(pixels: np.ndarray, owners: list[str], **summary: Any) -> FakeCorpus:
    labels = pd.DataFrame(
        {
            "participant": owners,
            "scan": ["S" + p[1:] for p in owners],
            "digest": [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels],
            "token": [f"{i:012x}" for i in range(len(pixels))],
        }
    )
    n = len(pixels)
    table = {
        "seen": n + 3, "accepted": n, "excluded": {"no_age": 1}, "rejected": {"truncated": 2},
        "bytes_in": n * 526_336, "bytes_out": n * 262_144, "scans": len(set(owners)),
        "participants": len(set(owners)), "men": 3, "women": 2, "slices": n,
        "slices_m": n // 2, "slices_f": n - n // 2, "slices_per_scan": 5.5, "no_age": 0,
        "no_sex": 0, "flags": {"deidentified": n}, "participants_known": "known", "notes": [],
    }  # fmt: skip
    return FakeCorpus(pixels, labels, table | summary)


def exact_r(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    x, y = (a.reshape(len(a), -1).astype(np.float64) for a in (queries, slices))
    n = x.shape[1]
    num = n * (x @ y.T) - x.sum(1)[:, None] * y.sum(1)
    var_x, var_y = (n * (a * a).sum(1) - a.sum(1) ** 2 for a in (x, y))
    return num / np.sqrt(var_x[:, None] * var_y)


def best_per_patient(r: np.ndarray, owner: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, ...]:
    n = int(owner.max()) + 1
    best, at = np.full((len(r), n), np.nan), np.full((len(r), n), -1, np.int64)
    for p in range(n):
        members = np.flatnonzero(owner == p)
        k = r[:, members].argmax(axis=1)
        best[:, p], at[:, p] = r[np.arange(len(r)), members[k]], members[k]
    left_out = own[:, None] == np.arange(n)
    best[left_out], at[left_out] = np.nan, -1
    return best, at


@dataclass
class MadeRun:
    """A run folder and the corpora it points to."""

    path: Path
    corpora: dict[str, FakeCorpus]

    def open(self, path: Path) -> FakeCorpus:
        return self.corpora[path.name]

    def build(self, **options: Any) -> str:
        return build(self.path, open_corpus=self.open, **options).read_text(encoding="utf-8")

    @property
    def findings(self) -> dict[str, Any]:
        return json.loads((self.path / "findings.json").read_bytes())


def make_run(
    path: Path,
    *,
    queries: int = 12,
    patients: int = 5,
    slices: int = 3,
    size: int = 48,
    copies: int = 2,
    controls: bool = True,
    notes: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
    **summary: Any,
) -> MadeRun:
    """Leave in `path` what an audit leaves, made from synthetic patients.

    The first `copies` generated images are exact copies, the next `copies` noisy ones.
    """
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    levels = np.linspace(0, 1, slices)
    real = np.array([thorax(p, z, size) for p in range(patients) for z in levels])
    owner = np.repeat(np.arange(patients), slices)
    names = [f"P{hashlib.sha256(bytes([p])).hexdigest()[:12]}" for p in range(patients)]
    copied = rng.choice(len(real), 2 * copies, replace=False)
    noisy = np.clip(real[copied[copies:]] + rng.normal(0, 6, (copies, size, size)), 0, 255)
    novel = [thorax(1000 + k, rng.uniform(), size) for k in range(queries - 2 * copies)]
    generated = np.array([*real[copied[:copies]], *noisy.astype(np.uint8), *novel])

    own = np.full(len(generated), -1)
    images, sets = generated, ["generated"] * len(generated)
    if controls:
        chosen = np.flatnonzero(np.arange(len(real)) % slices == slices // 2)
        images = np.concatenate([generated, real[chosen]])
        own = np.append(own, owner[chosen])
        sets += ["control"] * len(chosen)
    r_all = exact_r(images, real)
    best, at = best_per_patient(r_all, owner, own)
    r_all[own[:, None] == owner] = np.nan  # a control is not compared with its own patient
    counts = {
        s: np.histogram(r_all[np.array(sets) == s], 4096, (-1, 1))[0].astype(np.int64)
        for s in dict.fromkeys(sets)
    }
    tokens = [f"{'g' if s == 'generated' else 'c'}_{i:012x}" for i, s in enumerate(sets)]
    correlation.save(
        path / "correlation.zarr", np.stack([best, best]), np.stack([at, at]), counts,
        queries=tokens, sets=sets, patients=names, excluded={"queries": 1, "slices": 2},
    )  # fmt: skip
    corpora = {
        "real": fake(real, [names[p] for p in owner], **summary),
        "generated": fake(generated, [""] * len(generated), participants=0),
    }
    matrix = correlation.load(path / "correlation.zarr")
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    table = matches.matches(matrix, digests, corpora["real"], 4)
    matches.save(table, path / "matches.parquet")
    run = {
        "format": [1, 0], "run": "ab12" * 16, "status": "complete",
        "settings": {"window_hu": [-1000, 1000], "q": 0.05, "seed": 7, "range": None}
        | (settings or {}),
        "inputs": {
            role: {"digest": c.digest, "path": f"corpora/{role}", "key_id": "0" * 12, "n": c.n,
                   "patients": patients}
            for role, c in corpora.items()
        } | {"controls": None},
        "versions": {"fingerprint": "0.1.0", "python": "3.11.7"},
        "hardware": {"machine": "x86_64", "cores": 2}, "seeds": {"seed": 7},
        "started": "2026-11-20T10:00:00+00:00", "ended": "2026-11-20T10:01:00+00:00",
        "notes": list(notes),
        "phases": {name: {"planned": 2, "done": 2} for name in ("search", "match", "stats")},
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(run))
    summaries = {role: corpus.summary for role, corpus in corpora.items()}
    found = measure.collect(matrix, matches.load(path / "matches.parquet"), run, summaries)
    (path / "findings.json").write_text(json.dumps(found, allow_nan=False))
    return MadeRun(path, corpora)
