"""Exact, in any block size, shard split and merge order; ties to the lower slice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from corpora import big_corpus, make_corpus
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from naive import best_of_rows, best_per_patient, correlations, counted, pearson

from fingerprint import ledger
from fingerprint.corpus.store import Corpus, open_corpus
from fingerprint.corpus.window import fit
from fingerprint.ledger import Values
from fingerprint.search import correlation, device, matrix, raw, tiling
from fingerprint.search.best import BINS, Best, best_of, histogram
from fingerprint.search.blocks import five_blocks, names_of
from fingerprint.search.correlate import (
    PIECE,
    Pixels,
    correlate,
    queries_from,
    slices_from,
)
from fingerprint.search.product import in_float64, in_int8
from fingerprint.search.sets import Against, QuerySet, as_smooth_as, images_of, mids_of
from fingerprint.settings import Settings


def pixels(images: np.ndarray, *, queries: bool) -> Pixels:
    flat = images.reshape(len(images), -1).astype(np.int64)
    make = queries_from if queries else slices_from
    return make(images, flat.sum(1), (flat * flat).sum(1))


def r_of(queries: np.ndarray, slices: np.ndarray) -> np.ndarray:
    return correlate(pixels(queries, queries=True), pixels(slices, queries=False)).numpy()


def with_twins(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Few grey levels and exact repeats: where a wrong tie rule or rounding shows."""
    images = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    images[rng.integers(0, n, n // 2)] = images[rng.integers(0, n, n // 2)]
    return images


def test_equals_python_integers_to_the_last_bit(rng: np.random.Generator) -> None:
    queries, slices = with_twins(rng, 9, 16), with_twins(rng, 12, 16)
    slices[3] = queries[2]
    slices[4] = 77
    got = r_of(queries, slices)
    want = np.array([[pearson(q, s) for s in slices] for q in queries])
    np.testing.assert_array_equal(got, want)


def test_identical_and_affinely_related_images_give_exactly_one(rng: np.random.Generator) -> None:
    images = rng.integers(0, 120, (40, 24, 24), dtype=np.uint8)
    assert (np.diag(r_of(images, images)) == 1.0).all()
    assert (np.diag(r_of(images, images * 2 + 5)) == 1.0).all()
    assert (np.diag(r_of(images, 255 - images)) == -1.0).all()


def test_never_exceeds_one(rng: np.random.Generator) -> None:
    base = rng.integers(0, 256, (1, 32, 32), dtype=np.uint8)
    images = np.repeat(base, 60, 0)
    images[np.arange(60), 0, rng.integers(0, 32, 60)] ^= 1
    assert np.abs(r_of(images, images)).max() <= 1.0


def test_constant_images_are_nan_and_nothing_else_is(rng: np.random.Generator) -> None:
    queries = rng.integers(0, 256, (4, 8, 8), dtype=np.uint8)
    slices = rng.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    queries[1], slices[2] = 0, 255
    nan = np.isnan(r_of(queries, slices))
    assert nan[1].all()
    assert nan[:, 2].all()
    assert nan.sum() == 5 + 4 - 1


def test_full_size_extremes_do_not_overflow() -> None:
    images = np.zeros((3, 512, 512), np.uint8)
    images[0, :256] = 255
    images[1, 256:] = 255
    images[2, :, ::2] = 255
    got = r_of(images, images)
    np.testing.assert_array_equal(got, [[1, -1, 0], [-1, 1, 0], [0, 0, 1]])


def test_both_products_agree_on_the_hardest_bytes() -> None:
    left = torch.full((17, PIECE), 255, dtype=torch.uint8)
    right = torch.full((9, PIECE), -128, dtype=torch.int8)
    assert torch.equal(in_int8(left, right).long(), in_float64(left, right))


def test_sizes_that_differ_are_an_error(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="one size"):
        r_of(np.zeros((1, 4, 4), np.uint8), np.zeros((1, 5, 5), np.uint8))


def search(
    queries: np.ndarray, slices: np.ndarray, patients: np.ndarray, block: int
) -> tuple[Best, np.ndarray]:
    n = int(patients.max()) + 1
    best, counts = Best.empty(len(queries), n), np.zeros(BINS, np.int64)
    for first in range(0, len(slices), block):
        part = slice(first, first + block)
        r = torch.from_numpy(r_of(queries, slices[part]))
        best += best_of(r, torch.from_numpy(patients[part]), n, first)
        counts += histogram(r)
    return best, counts


@examples(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), block=st.integers(1, 20))
def test_one_matrix_for_any_block_size(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    queries, slices = with_twins(rng, 4, 6), with_twins(rng, 17, 6)
    patients = np.sort(rng.integers(0, 4, 17))
    best, counts = search(queries, slices, patients, block)
    r, at = best_per_patient(queries, slices, patients.tolist(), int(patients.max()) + 1)
    np.testing.assert_array_equal(best.found()[0], r)
    np.testing.assert_array_equal(best.found()[1], at)
    assert counts.sum() == 4 * 17
    assert (counts == search(queries, slices, patients, 17)[1]).all()


@examples(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), parts=st.integers(2, 6))
def test_merging_is_associative_and_order_free(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    pieces = [
        Best(rng.integers(0, 3, (3, 4)) / 2.0, rng.integers(0, 9, (3, 4))) for _ in range(parts)
    ]
    forward = sum(pieces, Best.empty(3, 4))
    order = rng.permutation(parts)
    shuffled = Best.empty(3, 4)
    for i in order:
        shuffled = pieces[i] + shuffled
    right = pieces[-1]
    for piece in reversed(pieces[:-1]):
        right = piece + right
    for other in (shuffled, right):
        np.testing.assert_array_equal(forward.r, other.r)
        np.testing.assert_array_equal(forward.slice, other.slice)


def test_histogram_counts_every_pair_once_and_one_in_the_last_bin() -> None:
    r = torch.tensor([[-1.0, 0.0, 1.0, torch.nan]], dtype=torch.float64)
    counts = histogram(r)
    assert counts.sum() == 3
    assert counts[0] == counts[BINS // 2] == counts[-1] == 1


# -- the whole search, on corpora: five blocks


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """Twins within and across patients, constant images, patients of unequal size, in two parts."""
    rng = np.random.default_rng(5)
    folder = tmp_path_factory.mktemp("corpora")
    real, generated, controls = (
        rng.integers(0, 256, (n, 32, 32), dtype=np.uint8) for n in (72, 11, 9)
    )
    real[40], real[60], real[33] = real[3], real[3], 77
    generated[4], generated[5], generated[6] = real[3], generated[2], 0
    controls[2], controls[7] = controls[1], controls[1]
    who = [f"P{i // 14:012x}" for i in range(72)]
    return {
        "real": make_corpus(folder / "real", real, who, chunk=8),
        "generated": make_corpus(
            folder / "generated", generated, [""] * 11, set_name="generated", chunk=8
        ),
        "controls": make_corpus(
            folder / "controls", controls, [f"Q{i // 3:012x}" for i in range(9)],
            set_name="control", chunk=8,
        ),
    }  # fmt: skip


def planned(corpora: dict[str, Corpus], given: bool = True, **knobs: object) -> list[Against]:
    controls = corpora["controls"] if given else None
    return five_blocks(
        corpora["real"],
        corpora["generated"],
        controls,
        None,
        Settings(controls=9 if given else 5, **knobs),
    )


def searched(
    folder: Path,
    againsts: list[Against],
    *,
    band: int = 4096,
    shard: int = 4096,
    block: int = 256,
    mix: int | None = None,
) -> Path:
    """Search, the shards in any order, and write the matrix."""
    shards = raw.plan(againsts, band=band, shard=shard, block=block)
    order = list(shards) if mix is None else random.Random(mix).sample(shards, len(shards))
    for one in order:
        ledger.work(folder / "ledger", one)
    return folded(folder, againsts, ledger.finish(folder / "ledger", shards), band, shard)


def folded(
    folder: Path, againsts: list[Against], values: Iterator[Values], band: int, shard: int
) -> Path:
    path = folder / "correlation.zarr"
    correlation.create(path, againsts, stages=["raw"], image="raw")
    for against in againsts:
        bands = raw.fold(against, values, band=band, shard=shard)
        correlation.write_stage(path, against.name, "raw", bands)
    return path


def digest_of(path: Path) -> str:
    return str(correlation.load(path).attrs["digest"])


@pytest.fixture(scope="module")
def whole(corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the five blocks searched in one piece each."""
    return digest_of(searched(tmp_path_factory.mktemp("whole"), planned(corpora)))


@pytest.mark.parametrize("given", [True, False])
def test_all_five_blocks_equal_python_integers(
    corpora: dict[str, Corpus], tmp_path: Path, given: bool
) -> None:
    againsts = planned(corpora, given)
    path = searched(tmp_path, againsts, band=5, shard=16, block=17)
    assert [a.name for a in againsts] == (["real", "control"] * given or ["real"]) + ["generated"]
    for against in againsts:
        ds, reference = correlation.load(path, against.name), against.reference
        slices = open_corpus(reference.corpus)
        images = slices.read(0, slices.n)
        start = 0
        for queries in against.sets:
            asked = images_of(queries)
            r = correlations(asked, images, reference.patients.tolist(), queries.own.tolist())
            rows = ds.isel(stage=0, query=slice(start, start + len(queries)))
            for kind, chosen in (("all", np.ones(slices.n, bool)), ("capped", reference.capped)):
                want = best_of_rows(
                    np.where(chosen, r, np.nan), reference.patients.tolist(), len(against.patients)
                )
                np.testing.assert_array_equal(rows["r"].sel(slices=kind), want[0])
                np.testing.assert_array_equal(rows["slice"].sel(slices=kind), want[1])
            counts = ds["histogram"].sel(histogram_of=queries.name)
            np.testing.assert_array_equal(counts, counted(r))
            start += len(queries)


def test_each_block_leaves_out_what_it_must(corpora: dict[str, Corpus], tmp_path: Path) -> None:
    path = searched(tmp_path, planned(corpora))
    itself = correlation.load(path, "generated")["r"].to_numpy()[0, 0]
    assert np.isnan(np.diag(itself)).all()  # D: each image itself, and nothing else
    assert itself[2, 5] == itself[5, 2] == 1.0
    np.testing.assert_array_equal(np.isnan(itself).sum(1), [2] * 6 + [11] + [2] * 4)
    strangers = correlation.load(path, "control")
    assert not np.isnan(strangers["r"].to_numpy()[0, 0, :6]).any()  # C: nobody
    own = strangers["r"].to_numpy()[0, 0, 11:]  # E: the own patient
    once = (0, 1, 3, 4, 5, 6, 8)  # controls 2 and 7 show what 1 shows
    assert [np.flatnonzero(np.isnan(row)).tolist() for row in own] == [[i // 3] for i in once]
    assert not np.isnan(correlation.load(path)["r"].to_numpy()[0, 0, 11:]).any()  # B: strangers
    drawn = correlation.load(searched(tmp_path / "drawn", planned(corpora, given=False)))
    assert (np.isnan(drawn["r"].to_numpy()[0, 0, 11:]).sum(1) == 1).all()  # B: the own patient
    assert drawn.attrs["excluded_queries"] == 1
    assert drawn.attrs["excluded_slices"] == 1


def test_real_and_control_patients_are_capped_at_one_number(corpora: dict[str, Corpus]) -> None:
    by_name = {against.name: against.reference for against in planned(corpora)}
    for name in ("real", "control"):
        reference = by_name[name]
        assert set(np.bincount(reference.patients[reference.capped])) == {2}


def test_a_sample_is_compared_with_itself_only(corpora: dict[str, Corpus], tmp_path: Path) -> None:
    againsts = planned(corpora, sample=4, seed=3)
    ds = correlation.load(searched(tmp_path, againsts, block=3), "generated")
    assert ds["r"].shape[2:] == (4, 4)
    assert ds["patient"].to_numpy().tolist() == ds["query"].to_numpy().tolist()
    held = set(ds["slice"].to_numpy().ravel().tolist()) - {-1}
    assert held <= set(againsts[-1].sets[0].indices.tolist())


@pytest.mark.parametrize("block", [1, 17, 64, 256])
@pytest.mark.parametrize(
    ("band", "shard", "mix"), [(1, 64, None), (3, 16, 1), (8, 40, 2), (4096, 4096, None)]
)
def test_one_digest_for_every_cut_and_order(
    corpora: dict[str, Corpus],
    whole: str,
    tmp_path: Path,
    band: int,
    shard: int,
    block: int,
    mix: int | None,
) -> None:
    cut = searched(tmp_path, planned(corpora), band=band, shard=shard, block=block, mix=mix)
    assert digest_of(cut) == whole


def test_one_digest_after_shards_were_lost_damaged_and_done_twice(
    corpora: dict[str, Corpus], whole: str, tmp_path: Path
) -> None:
    againsts = planned(corpora)
    assert digest_of(searched(tmp_path, againsts, band=4, shard=24, block=17)) == whole
    files = sorted((tmp_path / "ledger").rglob("*.shard"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1] + b"!")
    files[2].with_suffix(".shard.77.wip").write_bytes(b"what a killed writer left")
    shards = raw.plan(againsts, band=4, shard=24, block=17)
    with pytest.raises(ledger.Incomplete, match="1 of"):
        ledger.finish(tmp_path / "ledger", shards)
    assert digest_of(searched(tmp_path, againsts, band=4, shard=24, block=17)) == whole


def test_two_thousand_queries_under_a_limit_for_five_hundred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "BASE_BYTES", 0)  # the interpreter, which such a limit cannot hold
    big_corpus(tmp_path / "real", 96, 32, 6, 1)
    big_corpus(tmp_path / "generated", 2000, 32, 100, 2, set_name="generated")
    real, generated = open_corpus(tmp_path / "real"), open_corpus(tmp_path / "generated")
    digests = []
    for memory_gib in (0.003, 4.0):
        s = Settings(memory_gib=memory_gib, block_slices=16, shard_slices=64, controls=4)
        againsts = five_blocks(real, generated, None, None, s)[:1]
        band = raw.band_for(againsts, s)
        assert (band <= 500) == (memory_gib < 1)
        path = searched(tmp_path / f"{memory_gib}", againsts, band=band, shard=64, block=16)
        digests.append(digest_of(path))
    assert digests[0] == digests[1]


def test_the_kept_matrix_equals_python_integers(
    corpora: dict[str, Corpus], whole: str, tmp_path: Path
) -> None:
    againsts = planned(corpora)
    shards = raw.plan(againsts, band=4, shard=24, block=17, keep=True)
    for one in shards:
        ledger.work(tmp_path / "ledger", one)
    values = ledger.finish(tmp_path / "ledger", shards)
    watched = matrix.keep(tmp_path / "matrix.zarr", againsts, values, band=4, shard=24)
    path = folded(tmp_path, againsts, watched, 4, 24)
    assert digest_of(path) == whole
    for against in againsts:
        kept = xr.open_zarr(
            tmp_path / "matrix.zarr", group=None if against.name == "real" else against.name,
            chunks=None,
        )  # fmt: skip
        corpus = open_corpus(against.reference.corpus)
        images, who = corpus.read(0, corpus.n), against.reference.patients.tolist()
        want = [correlations(images_of(q), images, who, q.own.tolist()) for q in against.sets]
        np.testing.assert_array_equal(kept["r"], np.concatenate(want))
        assert kept["query"].to_numpy().tolist() == names_of(against.sets)


def test_a_matrix_above_its_cap_is_refused(corpora: dict[str, Corpus]) -> None:
    againsts = planned(corpora)
    size = 8 * (18 * 72 + 18 * 9 + 11 * 11)
    matrix.check(againsts, size / 2**30)
    with pytest.raises(ValueError, match="raise keep_matrix_gib"):
        matrix.check(againsts, (size - 1) / 2**30)


def test_queries_that_are_asked_again_are_not_decoded_again(
    corpora: dict[str, Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = planned(corpora)[0].sets[0]
    raw.forget()
    first = raw._asked(queries, "cpu")
    monkeypatch.setattr(raw, "_load", None)
    assert raw._asked(queries[:], "cpu") is first
    raw.forget()


def test_mids_of_queries_are_those_stored_and_smoothed_like_their_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (9, 256, 256), dtype=np.uint8)
    corpus = make_corpus(tmp_path / "real", images, ["Pa"] * 9)
    queries = QuerySet("control", corpus.path, corpus.digest, np.array([8, 1, 1]), np.zeros(3))
    np.testing.assert_array_equal(mids_of(queries), corpus.at([8, 1, 1], "mid"))
    np.testing.assert_array_equal(images_of(queries), images[[8, 1, 1]])
    smooth = replace(queries, native_px=64)
    np.testing.assert_array_equal(images_of(smooth), as_smooth_as(64, images[[8, 1, 1]]))
    np.testing.assert_array_equal(mids_of(smooth), fit(images_of(smooth), 128, 0)[0])


@pytest.mark.gpu
@pytest.mark.parametrize(("q", "s", "side"), [(3, 5, 16), (17, 33, 64), (64, 256, 512)])
def test_a_gpu_gives_the_same_bits(rng: np.random.Generator, q: int, s: int, side: int) -> None:
    images = rng.integers(0, 256, (q + s, side, side), dtype=np.uint8)
    images[1], images[q] = images[0], images[0]
    queries, slices = pixels(images[:q], queries=True), pixels(images[q:], queries=False)
    patients = torch.from_numpy(np.sort(rng.integers(0, 3, s)))
    on_cpu = correlate(queries, slices)
    on_gpu = correlate(queries.to("cuda"), slices.to("cuda"))
    assert torch.equal(on_cpu, on_gpu.cpu())
    one, other = best_of(on_cpu, patients, 3, 0), best_of(on_gpu, patients.to("cuda"), 3, 0)
    np.testing.assert_array_equal(one.r, other.r)
    np.testing.assert_array_equal(one.slice, other.slice)
    np.testing.assert_array_equal(histogram(on_cpu), histogram(on_gpu))


@pytest.mark.gpu
@pytest.mark.parametrize("keep", [False, True])
def test_a_tile_on_a_gpu_leaves_what_it_leaves_on_a_cpu(
    corpora: dict[str, Corpus], monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    shards = raw.plan(planned(corpora), band=6, shard=40, block=17, keep=keep)
    on_gpu = [one.work(*one.args) for one in shards]
    monkeypatch.setattr(device, "chosen", lambda: "cpu")
    for one, (values, counts) in zip(shards, on_gpu, strict=True):
        want, pairs = one.work(*one.args)
        assert counts == pairs
        assert set(values) == set(want)
        for name in want:
            np.testing.assert_array_equal(values[name], want[name])
