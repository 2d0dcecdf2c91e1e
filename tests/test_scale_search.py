"""The memory of a worker does not grow with the corpus, and stays below what was projected."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from corpora import ONE_ARENA, big_corpus, make_corpus

from fingerprint import ledger, phases
from fingerprint.corpus import store
from fingerprint.job import AuditJob, audit_job
from fingerprint.ledger import Shard
from fingerprint.settings import Settings
from flows import forecast

MIB = 2**20
SEARCH = ("search", "poses", "screen", "refine")


def work_all(folder: Path, shards: Sequence[Shard]) -> float:
    """Do shards and return the most memory that this process ever had, in MiB."""
    for shard in shards:
        ledger.work(folder, shard)
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def peaks_of(job: AuditJob) -> dict[str, float]:
    """Run the search phases with one worker process; return its peak after each phase."""
    peaks = {}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for phase in phases.AUDIT:
            if phase.name not in SEARCH:
                continue
            shards = phase.plan(job)
            peaks[phase.name] = pool.apply(work_all, (job.ledger, shards))
            phase.finish(job, ledger.finish(job.ledger, shards))
    return peaks


def searched(
    folder: Path, real: store.Corpus, queries: store.Corpus, settings: Settings
) -> dict[str, float]:
    return peaks_of(audit_job(real.path, queries.path, None, folder, settings))


def some_of(real: store.Corpus, path: Path, n: int) -> store.Corpus:
    """Seal some slices of a corpus, brightened, as generated images."""
    at = np.linspace(0, real.n - 1, n).astype(np.int64)
    images = real.at(at) // 2 + 40
    return make_corpus(path, images, [""] * n, set_name="generated", chunk=64)


@pytest.mark.parametrize("most", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_the_peak_of_a_worker_is_flat_from_1_000_slices_to_many(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ONE_ARENA.items():
        monkeypatch.setenv(name, value)
    settings = Settings(controls=16, angle_deg=5, shift_px=16, refine_64=64, refine_128=16)
    peaks = []
    for n, patients in ((1_000, 70), (most, most // 100)):
        real = big_corpus(tmp_path / f"real{n}", n, 32, patients, seed=1, chunk=1024)
        queries = some_of(real, tmp_path / f"gen{n}", 24)
        peaks.append(searched(tmp_path / f"out{n}", real, queries, settings))
    few, many = peaks
    assert many["search"] < 1.05 * few["search"]
    assert many["screen"] < 1.05 * few["screen"] + 8 * 1024 * 65_536 / MIB / 8
    assert many["refine"] < 1.05 * few["refine"] + 64


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_60_000_slices_of_512_px_stay_below_the_projection(tmp_path: Path) -> None:
    settings = Settings(memory_gib=4)
    real = big_corpus(tmp_path / "real", 60_000, 512, 508, seed=1)
    queries = some_of(real, tmp_path / "generated", 240)
    told = forecast.of_audit(str(real.path), str(queries.path), None, settings)
    small = big_corpus(tmp_path / "small", 1_000, 512, 64, seed=1)
    few = searched(tmp_path / "few", small, some_of(small, tmp_path / "asked", 240), settings)
    many = searched(tmp_path / "many", real, queries, settings)
    assert max(many.values()) * MIB <= told["memory.worker_bytes"] <= 4 * 2**30
    assert many["search"] < 1.05 * few["search"]
