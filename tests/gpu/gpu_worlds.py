"""A small search that runs anywhere: corpora, who is compared with whom, shards, a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpora import make_corpus

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.search import pose, raw, screen, tiling
from fingerprint.search.sets import Against, QuerySet, Reference
from fingerprint.settings import Settings

PATIENTS, SLICES, SIDE = 7, 9, 64
CUT = {"band": 16, "shard": 16, "block": 12}


@dataclass(frozen=True)
class World:
    """Corpora of an audit in a folder."""

    folder: Path
    real: store.Corpus
    generated: store.Corpus
    againsts: tuple[Against, ...]


def make(folder: Path, side: int = SIDE, per_patient: int = SLICES, chunk: int = 8) -> World:
    """Make real and generated slices: twins, copies and constants among them."""
    draw = np.random.default_rng(20250123)
    n = PATIENTS * per_patient
    real = draw.integers(0, 256, (n, side, side), dtype=np.uint8)
    real[per_patient + 2], real[-1], real[5] = real[1], real[2], 80
    generated = draw.integers(0, 256, (21, side, side), dtype=np.uint8)
    generated[:6], generated[6] = real[3:9], 0
    names = [f"P{i // per_patient:012d}" for i in range(n)]
    make_corpus(folder / "real", real, names, chunk=chunk)
    make_corpus(folder / "generated", generated, [""] * 21, set_name="generated", chunk=8)
    return found(folder)


def found(folder: Path) -> World:
    """Open what `make` left in a folder."""
    one, other = (store.open_corpus(folder / name) for name in ("real", "generated"))
    return World(folder, one, other, (_against(one, other),))


def _against(real: store.Corpus, generated: store.Corpus) -> Against:
    """Compare generated slices, and controls drawn from the real ones, with the real ones."""
    names, patients = np.unique(real.label("participant").astype(str), return_inverse=True)
    capped = tiling.capped(patients, real.label("z_mm"), 4)
    reference = Reference(real.path, real.digest, real.chunk_slices, patients, capped)
    asked = np.arange(generated.n)
    drawn = np.arange(0, real.n, 5)
    sets = (
        QuerySet("generated", generated.path, generated.digest, asked, np.full(len(asked), -1)),
        QuerySet("control", real.path, real.digest, drawn, patients[drawn], real.size_px // 2),
    )
    return Against("real", reference, tuple(names.tolist()), sets)


def raw_shards(world: World) -> list[ledger.Shard]:
    """Cut the raw search."""
    return raw.plan(world.againsts, **CUT)


def search(world: World, folder: Path, execute: ledger.Execute) -> str:
    """Do the phases of a search somewhere; return the digest of all that they leave."""
    knobs = Settings(
        angle_deg=10, angle_step_deg=10, scale=0.05, scale_step=0.1, shift_px=16, shift_step_px=16
    )
    grid = pose.grid_of(knobs)
    plans: Sequence[Callable[[], list[ledger.Shard]]] = (
        lambda: raw_shards(world),
        lambda: screen.plan_poses(world.againsts, grid),
        lambda: screen.plan_screen(world.againsts, folder, grid),
    )
    done: list[ledger.Shard] = []
    for plan in plans:
        shards = plan()
        receipts = {receipt.key for receipt in execute(folder, shards)}
        assert receipts == {shard.key for shard in shards}
        done += shards
    raw.forget()
    screen.forget()
    return digest(folder, done)


def digest(folder: Path, shards: Iterable[ledger.Shard]) -> str:
    """Digest of all values of shards, in plan order; each file is verified."""
    total = hashlib.sha256()
    for shard in shards:
        values = ledger.read(ledger.path_of(folder, shard))
        for name in sorted(values):
            total.update(name.encode() + values[name].tobytes())
    return total.hexdigest()
