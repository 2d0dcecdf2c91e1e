"""A corpus against itself: every pair of different patients once, the best patients exact."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from corpora import make_corpus
from naive import pearson

from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.search import correlation, device, itself, pairs, triangle
from fingerprint.search.best import BINS
from fingerprint.search.blocks import reference_of
from fingerprint.search.correlate import Pixels, shifted
from fingerprint.search.sets import Reference
from fingerprint.settings import Settings

KEEP = 3
SMALL = Settings(block_slices=8, shard_pairs=150, band_queries=8, keep_itself=KEEP)
CONSTANT = (4, 31)


def world(path: Path, side: int = 32) -> store.Corpus:
    """Seal slices of six patients, four of them in two parts; twins, ties, constants."""
    rng = np.random.default_rng(11)
    images = rng.integers(0, 4, (50, side, side), dtype=np.uint8) * 60
    images[[9, 21, 38]] = images[2]  # one image, four patients
    images[17] = images[16]  # one patient
    images[33] = 255 - images[7]  # r = -1
    images[45:48] = images[22:25]
    images[list(CONSTANT)] = [[[7]], [[200]]]
    who = [f"P{i // 5:012x}" for i in range(30)] + [f"P{2 + i // 5:012x}" for i in range(20)]
    make_corpus(path, images[:30], who[:30], chunk=4)
    return make_corpus(path, images[30:], who[30:], chunk=4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> store.Corpus:
    return world(tmp_path_factory.mktemp("itself") / "corpus")


@pytest.fixture(scope="module")
def searched(corpus: store.Corpus) -> Reference:
    return reference_of(corpus, 0)[0]


def slow(corpus: store.Corpus, who: np.ndarray, keep: int) -> tuple[np.ndarray, ...]:
    """Every pair in Python integers, then a full sort for every slice."""
    images = corpus.read(0, corpus.n)
    r = np.full((corpus.n, corpus.n), np.nan)
    for i, j in itertools.combinations(range(corpus.n), 2):
        if who[i] != who[j] and min(who[i], who[j]) >= 0:
            r[i, j] = r[j, i] = pearson(images[i], images[j])
    best, at = np.full((corpus.n, keep), np.nan), np.full((corpus.n, keep), -1)
    for i in range(corpus.n):
        met: dict[int, int] = {}
        for j in sorted(np.flatnonzero(~np.isnan(r[i])), key=lambda j: (-r[i, j], j)):
            met.setdefault(int(who[j]), j)
        chosen = list(met.values())[:keep]
        best[i, : len(chosen)], at[i, : len(chosen)] = r[i, chosen], chosen
    upper = r[np.triu_indices(corpus.n, 1)]
    bins = np.clip((upper[~np.isnan(upper)] + 1) * (BINS / 2), 0, BINS - 1).astype(int)
    return best, at, np.bincount(bins, minlength=BINS)


@pytest.fixture(scope="module")
def truth(corpus: store.Corpus, searched: Reference) -> tuple[np.ndarray, ...]:
    return slow(corpus, searched.patients, KEEP)


def folded(shards: Iterable[ledger.Shard], searched: Reference, keep: int = KEEP) -> tuple:
    return itself.fold(searched, (shard.work(*shard.args)[0] for shard in shards), keep)


def assert_same(got: tuple[np.ndarray, ...], want: tuple[np.ndarray, ...]) -> None:
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("block", [1, 17, 64])
@pytest.mark.parametrize(("shard", "band"), [(1, 4), (150, 8), (400, 20), (10**6, 0)])
def test_lists_and_histogram_equal_python_integers_for_any_cut(
    searched: Reference, truth: tuple[np.ndarray, ...], block: int, shard: int, band: int
) -> None:
    cut = Settings(
        block_slices=block, shard_pairs=shard, band_queries=band, keep_itself=KEEP, memory_gib=8
    )
    assert_same(folded(itself.plan(searched, cut), searched), truth)


def test_every_pair_of_different_patients_is_counted_once(
    searched: Reference, truth: tuple[np.ndarray, ...]
) -> None:
    usable = np.setdiff1d(np.arange(50), CONSTANT)
    who = searched.patients[usable]
    different = sum(a != b for a, b in itertools.combinations(who.tolist(), 2))
    shards = itself.plan(searched, SMALL)
    assert len(shards) > 5
    assert sum(shard.work(*shard.args)[1]["pairs"] for shard in shards) == different
    assert truth[2].sum() == different


def test_blocks_that_come_shifted_as_from_a_gpu_give_the_same(
    searched: Reference, truth: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def blocks(*args: object) -> Iterator[tuple[int, Pixels]]:
        with contextlib.closing(device.blocks(*args)) as stream:
            for first, slices in stream:
                yield first, shifted(slices)

    monkeypatch.setattr(pairs, "device", SimpleNamespace(blocks=blocks, chosen=device.chosen))
    assert_same(folded(itself.plan(searched, SMALL), searched), truth)


def test_shards_are_added_in_any_order(
    searched: Reference, truth: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = itself.plan(searched, SMALL)
    monkeypatch.setattr(itself, "STEP", 3)  # lists merged a few at a time
    for seed in range(4):
        random.Random(seed).shuffle(shards)
        assert_same(folded(shards, searched), truth)


def test_planted_twins_are_found_at_exactly_one_and_a_tie_goes_to_the_lower_slice(
    searched: Reference,
) -> None:
    r, at, _ = folded(itself.plan(searched, SMALL), searched)
    assert at[2].tolist() == [9, 21, 38]
    assert at[38].tolist() == [2, 9, 21]
    assert (r[[2, 9, 21, 38]] == 1.0).all()
    assert at[45, 0] == 22
    assert r[45, 0] == 1.0
    assert not np.isin(at, CONSTANT).any()
    assert np.isnan(r[list(CONSTANT)]).all()
    assert (at[list(CONSTANT)] == -1).all()


@pytest.mark.parametrize("keep", [1, 40])
def test_lists_longer_than_there_are_patients_end_in_nothing(
    corpus: store.Corpus, searched: Reference, keep: int
) -> None:
    cut = SMALL.model_copy(update={"keep_itself": keep})
    want = slow(corpus, searched.patients, keep)
    assert_same(folded(itself.plan(searched, cut), searched, keep), want)


def test_slices_that_stand_for_themselves_or_for_nobody(
    corpus: store.Corpus, searched: Reference
) -> None:
    alone = Reference(
        searched.corpus, searched.digest, 4, np.arange(50, dtype=np.int64), searched.capped
    )
    some = np.where(np.arange(50) % 7 == 3, -1, searched.patients)
    nobody = Reference(searched.corpus, searched.digest, 4, some, searched.capped)
    for reference in (alone, nobody):
        want = slow(corpus, reference.patients, KEEP)
        assert_same(folded(itself.plan(reference, SMALL), reference), want)


def run(folder: Path, searched: Reference, settings: Settings) -> correlation.xr.Dataset:
    shards = itself.plan(searched, settings)
    for shard in shards:
        ledger.work(folder / "ledger", shard)
    values = ledger.finish(folder / "ledger", shards)
    itself.save(folder / "correlation.zarr", searched, values, settings)
    return correlation.load(folder / "correlation.zarr")


def test_the_store_holds_the_lists_and_opens_as_the_matrix_does(
    corpus: store.Corpus, searched: Reference, truth: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    found = run(tmp_path, searched, SMALL)
    cell = found.sel(stage="raw", slices="all")
    best, at, counts = truth
    np.testing.assert_array_equal(cell["r"], best)
    np.testing.assert_array_equal(cell["slice"], at)
    np.testing.assert_array_equal(found["histogram"].sel(histogram_of="generated"), counts)
    names = found["patient"].to_numpy()
    who = cell["who"].to_numpy()
    assert ((who >= 0) == (at >= 0)).all()
    assert (names[who[at >= 0]] == corpus.label("participant")[at[at >= 0]]).all()
    assert found["query"].to_numpy()[3] == "g_" + corpus.label("token")[3]
    assert found["rank"].to_numpy().tolist() == [1, 2, 3]
    assert found.attrs["excluded_slices"] == found.attrs["excluded_queries"] == 2
    top = correlation.ranked(found, stage="raw", keep=2)
    np.testing.assert_array_equal(top.slice, at[:, :2])
    np.testing.assert_array_equal(top.patient, who[:, :2])


def test_one_digest_for_any_cut(searched: Reference, tmp_path: Path) -> None:
    one = run(tmp_path / "one", searched, SMALL)
    cut = Settings(block_slices=5, shard_pairs=77, band_queries=4, keep_itself=KEEP)
    other = run(tmp_path / "other", searched, cut)
    assert one.attrs["digest"] == other.attrs["digest"]
    assert one.identical(other)


def test_a_lost_chunk_of_the_store_is_named_not_read_as_nothing(
    searched: Reference, tmp_path: Path
) -> None:
    run(tmp_path, searched, SMALL)
    (tmp_path / "correlation.zarr/r/c/0/0/0/0").unlink()
    with pytest.raises(ledger.Damaged, match="r lacks"):
        correlation.load(tmp_path / "correlation.zarr")


def test_keys_depend_on_patients_and_length_and_not_on_the_block(searched: Reference) -> None:
    keys = [shard.key for shard in itself.plan(searched, SMALL)]
    assert len(set(keys)) == len(keys)
    block = SMALL.model_copy(update={"block_slices": 3})
    assert [shard.key for shard in itself.plan(searched, block)] == keys
    longer = SMALL.model_copy(update={"keep_itself": 9})
    assert not set(keys) & {shard.key for shard in itself.plan(searched, longer)}


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_itself import SMALL
from fingerprint import ledger
from fingerprint.corpus import store
from fingerprint.search import itself
from fingerprint.search.blocks import reference_of
shards = itself.plan(reference_of(store.open_corpus({corpus!r}), 0)[0], SMALL)
for shard in shards[:3]:
    ledger.work(Path({folder!r}), shard)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on_where_it_was(
    searched: Reference, truth: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    told = {
        "tests": os.path.dirname(__file__),
        "corpus": str(searched.corpus),
        "folder": str(tmp_path / "ledger"),
    }
    done = subprocess.run([sys.executable, "-c", KILLED.format(**told)], check=False)
    assert done.returncode == -signal.SIGKILL
    shards = itself.plan(searched, SMALL)
    assert [ledger.is_done(tmp_path / "ledger", shard) for shard in shards[:5]] == [
        True,
        True,
        True,
        False,
        False,
    ]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "ledger").rglob("*.shard")}
    found = run(tmp_path, searched, SMALL)
    np.testing.assert_array_equal(found["slice"][0, 0], truth[1])
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


MEASURED = """
from pathlib import Path
from fingerprint.corpus import store
from fingerprint.search import itself
from fingerprint.search.blocks import reference_of
from fingerprint.settings import Settings
def of_status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
cut = Settings(**{settings!r})
shards = itself.plan(reference_of(store.open_corpus({corpus!r}), 0)[0], cut)
shards[0].work(*shards[-1].args)  # libraries that are loaded at the first product, its self-test
def peak():
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = of_status("VmRSS")
    for shard in shards[:3]:
        shard.work(*shard.args)
    return of_status("VmHWM") - before
print(min(peak(), peak()))  # what is loaded on the way counts once
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux")
def test_memory_is_what_was_projected_whatever_the_number_of_slices(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    cut = {"block_slices": 64, "band_queries": 160, "shard_pairs": 26_000}
    sizes = {"chunk": 16, "side": 256}
    peaks = []
    for n in (330, 660):
        images = rng.integers(0, 256, (n, 256, 256), dtype=np.uint8)
        path = tmp_path / str(n)
        make_corpus(path, images, [f"P{i // 20:012x}" for i in range(n)], chunk=16)
        code = MEASURED.format(corpus=str(path), settings=cut)
        # what is freed goes back at once, so that nothing hides in memory held from the first try
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=env)
        peaks.append(int(out.stdout))
    shape = triangle.shape_of(660, Settings(**cut), **sizes)
    told = triangle.bytes_needed(band=shape.band, block=64, shard_pairs=26_000, keep=8, **sizes)
    told -= triangle.BASE_BYTES
    assert told / 2 < max(peaks) <= told
    assert max(peaks) - min(peaks) <= 2**21


def test_a_patient_of_no_other_is_compared_with_nobody(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32), dtype=np.uint8)
    alone = make_corpus(tmp_path / "one", images, ["P" + "a" * 12] * 6)
    searched = reference_of(alone, 0)[0]
    found = run(tmp_path, searched, SMALL)
    assert np.isnan(found["r"]).all()
    assert int(found["histogram"].sum()) == 0
