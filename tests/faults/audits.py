"""Small audits for the fault tests: run one, kill one, compare what two of them left.

As a program: ``python audits.py OUT PLACE PHASE N`` runs an audit of ``OUT/../sets`` into OUT and
kills itself, without warning, when phase PHASE has done N shards.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from corpora import make_corpus

from flows import chain

KNOBS = {"size_px": 64, "workers": 2, "shard_slices": 4, "controls": 4, "memory_gib": 1}


def make_sets(folder: Path) -> Path:
    """Make a real corpus of 24 slices, with twins, and a generated one with a copy in it."""
    draw = np.random.default_rng(20250123)
    real = draw.integers(0, 256, (24, 64, 64), dtype=np.uint8)
    real[9] = real[4]
    generated = np.concatenate([real[4:5], draw.integers(0, 256, (4, 64, 64), dtype=np.uint8)])
    make_corpus(folder / "real", real, [f"P{i // 3:012d}" for i in range(24)])
    make_corpus(folder / "generated", generated, [""] * 5, set_name="generated")
    return folder


def run_audit(sets: Path, out: Path, place: str = "serial", watch=None) -> None:
    """Run the audit."""
    how = chain.How(place) if watch is None else chain.How(place, watch)
    chain.audit_sets(str(sets / "real"), str(sets / "generated"), str(out), knobs=KNOBS, how=how)


def results(out: Path) -> dict[str, object]:
    """Return all that an audit states: every result file, and the numbers."""
    findings = json.loads((out / "findings.json").read_bytes())
    stated = [out / "matches.parquet", *(out / "correlation.zarr").rglob("*")]
    files = sorted([*stated, *(out / "ledger").rglob("*.shard")])
    held = {str(p.relative_to(out)): p.read_bytes() for p in files if p.is_file()}
    return held | {k: v for k, v in findings.items() if k not in ("run.started", "run.ended")}


def main(out: str, place: str, phase: str, n: str) -> None:
    def watch(name: str, done: int, planned: int) -> None:
        if (name, done) == (phase, int(n)):
            os.kill(os.getpid(), signal.SIGKILL)

    run_audit(Path(out).parent / "sets", Path(out), place, watch)


if __name__ == "__main__":
    main(*sys.argv[1:])
