"""A corpus of 100,000 slices: what reads it holds a block of it, never the whole."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpora import big_corpus

from fingerprint.corpus import orientation, store
from fingerprint.corpus.books import Book, outcomes_of
from fingerprint.corpus.identity import Key
from fingerprint.corpus.listing import Files, SourceFile
from fingerprint.corpus.screen import screen_of

MIB = 2**20
N = 100_000


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> store.Corpus:
    return big_corpus(tmp_path_factory.mktemp("scale") / "real", N, 32, 1_000, seed=1, chunk=1024)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> store.Corpus:
    folder = tmp_path_factory.mktemp("scale") / "real"
    return big_corpus(folder, N // 10, 32, 100, seed=1, chunk=1024)


def peak_of(work: Callable[[], object]) -> float:
    """MiB that were held at most, numpy's included, beyond what was held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def test_sums_and_pictures_of_a_big_corpus_agree(big: store.Corpus) -> None:
    at = np.random.default_rng(2).choice(N, 50, replace=False)
    pixels, thumbs = big.at(at), big.at(at, "thumb")
    flat = pixels.reshape(50, -1).astype(np.int64)
    np.testing.assert_array_equal(big.label("sum")[at], flat.sum(1))
    np.testing.assert_array_equal(big.label("sum_of_squares")[at], (flat**2).sum(1))
    np.testing.assert_array_equal(thumbs, pixels)
    np.testing.assert_array_equal(big.at(at, "screen"), screen_of(thumbs))


def test_what_is_sealed_does_not_depend_on_the_chunk(tmp_path: Path) -> None:
    made = [
        big_corpus(tmp_path / str(c), 200, 64, 7, seed=3, chunk=c, set_name="generated")
        for c in (64, 96, 256)
    ]
    # numbers are drawn slice by slice, in order
    assert len({corpus.digest for corpus in made}) == 1
    assert made[0].label("participant")[-1] == f"P{6:012x}"


def test_screens_are_read_in_blocks(big: store.Corpus) -> None:
    def work() -> None:
        total = 0
        for first in range(0, N, 4096):
            block = big.read(first, min(first + 4096, N), "screen")
            total += int(np.abs(block.astype(np.int16)).sum())
        assert total > 0

    # a block, what it is decoded from, and its sums; all screens are 98 MiB
    assert peak_of(work) < 32


def test_labels_are_read_one_at_a_time(big: store.Corpus) -> None:
    def work() -> None:
        for name in ("sum", "sum_of_squares", *store.SUMS):
            assert len(big.label(name)) == N

    assert peak_of(work) < 8


def test_the_orientation_check_holds_as_much_for_any_number_of_slices(
    small: store.Corpus, big: store.Corpus
) -> None:
    few = small.at(np.arange(20), "thumb")

    def check(corpus: store.Corpus) -> float:
        def work() -> None:
            assert orientation.best_orientation(few, corpus).copies["as-is"] >= 0
            assert orientation.same_window(few, corpus).same

        return peak_of(work)

    check(small)  # what is imported or cached at the first call
    assert check(big) < 1.05 * check(small) < 48


def test_the_account_of_an_ingest_takes_little_for_each_file(key: Key) -> None:
    n = 20_000
    files = Files(
        SourceFile("/ct", f"{i:06d}.dcm", f"{i:012x}", i, i, i, participant=f"p{i // 118}")
        for i in range(n)
    )

    def said(first: int) -> list[dict[str, object]]:
        return [
            {"token": f.token, "sha256": f.token * 5, "kind": "dicom", "frames": 1, "z_mm": 1.5}
            for f in files[first : first + 512]
        ]

    def work() -> None:
        nonlocal book
        book = Book.of_files(files, key)
        book = book.with_outcomes(outcomes_of(said(i)) for i in range(0, n, 512))

    book = Book.empty()
    arrow = pa.total_allocated_bytes()
    peak = peak_of(work)
    assert book.files["sha256"].iloc[12_345] == f"{12_345:012x}" * 5
    assert book.files["frames"].sum() == n
    # numpy's share while it is written, pyarrow's when it is
    assert peak * MIB / n < 500
    assert (pa.total_allocated_bytes() - arrow) / n < 250
