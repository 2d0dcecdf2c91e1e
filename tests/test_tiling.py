"""The plan: every pair in one tile, and as many queries at a time as memory holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpora import ONE_ARENA, big_corpus
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fingerprint.search import tiling
from fingerprint.search.tiling import Tile, band_for, bytes_folded, bytes_needed, capped, tiles
from fingerprint.settings import Settings

MIB = 2**20


@given(
    queries=st.integers(0, 40),
    slices=st.integers(0, 300),
    band=st.integers(1, 50),
    shard=st.integers(1, 100),
    chunk=st.integers(1, 64),
)
def test_every_pair_lies_in_exactly_one_tile(
    queries: int, slices: int, band: int, shard: int, chunk: int
) -> None:
    seen = np.zeros((queries, slices), int)
    for tile in tiles(queries, slices, band=band, shard=shard, chunk=chunk):
        seen[tile.q0 : tile.q1, tile.s0 : tile.s1] += 1
        assert tile.s0 % chunk == 0
        assert tile.s1 % chunk == 0 or tile.s1 == slices
        assert tile.q1 - tile.q0 <= band
    assert (seen == 1).all()


def test_the_tiles_of_one_band_stand_together() -> None:
    plan = tiles(5, 8, band=3, shard=4, chunk=4)
    assert plan == [Tile(0, 3, 0, 4), Tile(0, 3, 4, 8), Tile(3, 5, 0, 4), Tile(3, 5, 4, 8)]


def test_a_plan_without_sense_is_an_error() -> None:
    with pytest.raises(ValueError, match="sizes >= 1"):
        tiles(1, 1, band=0, shard=1, chunk=1)


def test_capped_takes_the_same_number_of_each_patient_evenly_in_z() -> None:
    patients = np.array([0] * 9 + [1] * 3)
    z = np.concatenate([np.arange(9.0)[::-1], [np.nan, 1.0, 2.0]])
    chosen = capped(patients, z, 0)
    assert np.bincount(patients[chosen]).tolist() == [3, 3]
    assert sorted(z[:9][chosen[:9]]) == [1.0, 4.0, 7.0]
    assert np.bincount(patients[capped(patients, z, 5)]).tolist() == [5, 3]


# -- how many queries at a time


@examples(deadline=None)
@given(
    memory_gib=st.floats(0.7, 64),
    side=st.sampled_from([32, 64, 256, 512]),
    block=st.sampled_from([1, 64, 256]),
    patients=st.integers(1, 20_000),
)
def test_the_band_is_the_largest_that_fits(
    memory_gib: float, side: int, block: int, patients: int
) -> None:
    s = Settings(memory_gib=memory_gib, block_slices=block)
    met = min(patients, 4096)
    try:
        band = band_for(s, side=side, chunk=64, patients=patients, met=met)
    except ValueError:
        band = 0
    assert band % 8 == 0
    assert band <= 4096

    def fits(b: int) -> bool:
        tile = bytes_needed(band=b, block=block, chunk=64, side=side, met=met)
        need = max(tile, bytes_folded(band=b, patients=patients, met=met))
        limit = memory_gib * 2**30
        return need <= limit / 2 and need + tiling.BASE_BYTES <= limit

    assert band == 0 or fits(band)
    assert band == 4096 or not fits(band + 8)


def test_a_band_that_is_asked_for_is_taken_or_refused_with_the_knobs_to_turn() -> None:
    assert band_for(Settings(band_queries=12), side=512, chunk=64) == 12
    with pytest.raises(ValueError, match=r"memory_gib: .* 4096 queries.* band_queries"):
        band_for(Settings(band_queries=4096, memory_gib=1), side=512, chunk=64)
    with pytest.raises(ValueError, match=r"memory_gib: .* 8 queries.* block_slices"):
        band_for(Settings(memory_gib=0.5), side=512, chunk=64)


# -- measured in a process of its own

TILE = """
import json, sys
import numpy as np
import flows.cluster
from pathlib import Path
from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.search import raw
from fingerprint.search.sets import Against, QuerySet, Reference

folder, band, block = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
corpus = store.open_corpus(folder / "real")
n = corpus.n
asked = np.arange(band) % n
queries = QuerySet("generated", corpus.path, corpus.digest, asked, np.full(band, -1))
every = Reference(corpus.path, corpus.digest, corpus.chunk_slices, np.arange(n), np.ones(n, bool))
against = Against("real", every, tuple(map(str, range(n))), (queries,))
for shard in raw.plan([against], band=band, shard=n, block=block, keep=True):
    ledger.work(folder / f"ledger-{band}-{block}", shard)
print(json.dumps({"peak": peak()}))
"""


def measured(script: str, *args: object, allocator: dict[str, str] | None = None) -> dict[str, int]:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | (allocator or {}),
    )
    assert not done.returncode, done.stderr
    print(done.stdout)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 slices at full size, each of another patient."""
    folder = tmp_path_factory.mktemp("pages")
    big_corpus(folder / "real", 128, 512, 128, 1)
    return folder


@pytest.mark.parametrize(("band", "block"), [(8, 64), (8, 128), (512, 64), (1024, 128)])
def test_a_tile_takes_no_more_memory_than_projected(pages: Path, band: int, block: int) -> None:
    found = measured(TILE, pages, band, block)
    need = tiling.BASE_BYTES + bytes_needed(
        band=band, block=block, chunk=64, side=512, met=128, kept=128
    )
    assert found["peak"] <= need
    assert need <= 1.7 * found["peak"]  # nor is it so careful that memory lies idle


SEARCH = """
import json, sys
import flows.cluster
from pathlib import Path
from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.search import blocks, correlation, raw
from fingerprint.settings import Settings

folder, n = Path(sys.argv[1]), sys.argv[2]
s = Settings(controls=16, shard_slices=512)
real, generated = store.open_corpus(folder / n), store.open_corpus(folder / "generated")
againsts = blocks.five_blocks(real, generated, None, None, s)
band = raw.band_for(againsts, s)
shards = raw.plan(againsts, band=band, shard=s.shard_slices, block=s.block_slices)
for shard in shards:
    ledger.work(folder / f"ledger-{n}", shard)
values = ledger.finish(folder / f"ledger-{n}", shards)
path = folder / f"correlation-{n}.zarr"
correlation.create(path, againsts, stages=["raw"], image="raw")
for against in againsts:
    bands = raw.fold(against, values, band=band, shard=s.shard_slices)
    correlation.write_stage(path, against.name, "raw", bands)
status = Path("/proc/self/status").read_text()
print(json.dumps({"peak": int(status.split("VmHWM:")[1].split()[0]) * 1024}))
"""


@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_many_times_as_many_slices_take_no_more_memory(times: int, tmp_path: Path) -> None:
    big_corpus(tmp_path / "generated", 100, 64, 10, 2, set_name="generated")
    peaks = []
    for n in (1_000, 1_000 * times):
        big_corpus(tmp_path / str(n), n, 64, 40, 1)
        peaks.append(measured(SEARCH, tmp_path, n, allocator=ONE_ARENA)["peak"])
    # one process that plans, works and folds
    assert peaks[1] <= 1.05 * peaks[0]
