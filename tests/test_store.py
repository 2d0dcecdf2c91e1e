"""A corpus opens with its labels, and no stored byte can change unseen."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from corpora import make_corpus

from fingerprint.corpus import seal, store
from fingerprint.corpus.screen import screen_of
from fingerprint.corpus.window import fit
from fingerprint.ledger import Damaged

FROZEN = Path(__file__).parent / "frozen"
WHO = [f"P{i // 3:012x}" for i in range(10)]


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (10, 32, 32), dtype=np.uint8)


@pytest.fixture
def corpus(tmp_path: Path, images: np.ndarray) -> store.Corpus:
    return make_corpus(tmp_path / "real", images, WHO)


def test_slices_come_back_as_they_went_in(corpus: store.Corpus, images: np.ndarray) -> None:
    np.testing.assert_array_equal(corpus.read(0, 10), images)
    np.testing.assert_array_equal(corpus.read(3, 9), images[3:9])
    np.testing.assert_array_equal(corpus.at([9, 0, 5, 5]), images[[9, 0, 5, 5]])


def test_zarr_reads_the_same_pixels(corpus: store.Corpus, images: np.ndarray) -> None:
    np.testing.assert_array_equal(zarr.open_group(corpus.path, mode="r")["pixels"][:], images)


def test_xarray_opens_it_as_hu_with_labels(corpus: store.Corpus, images: np.ndarray) -> None:
    opened = xr.open_zarr(corpus.path, chunks=None)
    women = opened.isel(slice=(opened.sex == "F").to_numpy())
    assert women.pixels.shape == (5, 32, 32)
    assert opened.pixels.attrs["units"] == "HU"
    assert set(store.LABELS) <= set(opened.coords)
    hu = opened.pixels[0].to_numpy()
    np.testing.assert_allclose(hu, images[0] * (2000 / 255) - 1000, atol=1e-4)
    assert not np.isnan(opened.pixels.to_numpy()).any()


def test_labels_come_back(corpus: store.Corpus, images: np.ndarray) -> None:
    assert list(corpus.slices["participant"]) == WHO
    assert list(corpus.slices.columns) == list(store.LABELS)
    assert (corpus.slices["sum"] == images.reshape(10, -1).sum(1)).all()
    assert len(corpus.scans) == 4
    np.testing.assert_array_equal(corpus.label("z_mm"), np.arange(10.0))


def test_a_part_of_a_label_reads_its_own_chunks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROWS", 16)
    images = np.random.default_rng(1).integers(0, 256, (50, 32, 32), dtype=np.uint8)
    corpus = make_corpus(tmp_path / "corpus", images, ["P"] * 50)
    whole, asked = corpus.label("sum"), []
    real = store.Corpus.stored
    monkeypatch.setattr(
        store.Corpus, "stored", lambda c, name: (asked.append(name), real(c, name))[1]
    )
    np.testing.assert_array_equal(corpus.label("sum", slice(17, 33)), whole[17:33])
    assert sorted(asked) == ["sum/c/1", "sum/c/2", "sum/zarr.json"]


@pytest.mark.parametrize("side", [32, 64, 160])
def test_small_pictures_are_stored_beside_the_pixels(
    tmp_path: Path, rng: np.random.Generator, side: int
) -> None:
    images = rng.integers(0, 256, (10, side, side), dtype=np.uint8)
    corpus = make_corpus(tmp_path / "real", images, WHO)
    mid, thumb = (fit(images, min(side, at), 0)[0] for at in (128, 32))
    np.testing.assert_array_equal(corpus.read(0, 10, "mid"), mid)
    np.testing.assert_array_equal(corpus.read(0, 10, "thumb"), thumb)
    np.testing.assert_array_equal(corpus.read(0, 10, "screen"), screen_of(thumb))
    np.testing.assert_array_equal(corpus.at([7, 2], "screen"), screen_of(thumb[[7, 2]]))
    assert corpus.read(3, 4, "screen").dtype == np.int8


def test_sums_of_the_small_pictures_are_labels(tmp_path: Path, images: np.ndarray) -> None:
    path = tmp_path / "real"
    make_corpus(path, images[:6], WHO[:6])
    corpus = make_corpus(path, images[6:], WHO[6:])  # the chunk that both parts share
    for array in ("mid", "thumb", "screen"):
        for i, image in enumerate(corpus.read(0, 10, array)):
            values = [int(v) for v in image.ravel()]
            total = sum(values)
            assert total == (0 if array == "screen" else corpus.label(f"sum_{array}")[i])
            assert sum(v * v for v in values) == corpus.label(f"sum_of_squares_{array}")[i]


def test_a_screen_opens_as_the_small_integers_that_it_is(corpus: store.Corpus) -> None:
    opened = xr.open_zarr(corpus.path, chunks=None)
    assert opened.screen.dtype == np.int8
    assert not set(opened.screen.attrs) & {"units", "scale_factor", "add_offset"}
    assert not {"scale_factor", "add_offset"} & set(opened.screen.encoding)
    np.testing.assert_array_equal(opened.screen.to_numpy(), corpus.read(0, 10, "screen"))
    assert "participant" in opened.screen.coords
    assert opened.thumb.attrs["units"] == "HU"


def test_the_digest_says_nothing_of_what_is_derived(
    corpus: store.Corpus, tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "screen_of", lambda thumbs: -screen_of(thumbs) // 2)
    other = make_corpus(tmp_path / "other", images, WHO)
    assert (other.read(0, 10, "screen") != corpus.read(0, 10, "screen")).any()
    assert other.digest == corpus.digest


def test_screens_of_another_version_are_not_used(
    corpus: store.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store.DERIVED, "screen", 99)
    with pytest.raises(ValueError, match="the screen that this version needs.*--replace"):
        corpus.read(0, 1, "screen")
    assert corpus.read(0, 1, "thumb").shape == (1, 32, 32)


def test_a_corpus_of_format_1_0_opens_and_says_what_it_lacks(tmp_path: Path) -> None:
    with zipfile.ZipFile(FROZEN / "corpus_1.0.zip") as file:
        file.extractall(tmp_path / "old")
    old = store.open_corpus(tmp_path / "old")
    assert list(store.verify(old.path)) == []
    y = np.arange(32)
    want = (np.arange(6)[:, None, None] * 40 + y[:, None] + y).astype(np.uint8)
    np.testing.assert_array_equal(old.read(0, 6), want)
    np.testing.assert_array_equal(old.read(0, 6, "thumb"), want)
    assert set(old.slices) == set(store.LABELS) - set(store.SUMS) - {"region_confidence"}
    assert (old.label("sum") == want.sum((1, 2))).all()
    assert [name for name in (*store.PIXELS, *store.SUMS) if not old.has(name)] == [
        "screen",
        "organs",
        *store.SUMS,
    ]
    for lacking in (
        lambda: old.read(0, 1, "screen"),
        lambda: old.label("sum_mid"),
        lambda: old.require("pixels", "sum_of_squares_screen"),
    ):
        with pytest.raises(ValueError, match="format 1.0 without .* again with --replace"):
            lacking()


def test_a_corpus_of_format_1_1_opens_without_organs(tmp_path: Path) -> None:
    with zipfile.ZipFile(FROZEN / "corpus_1.1.zip") as file:
        file.extractall(tmp_path / "old")
    old = store.open_corpus(tmp_path / "old")
    assert old.head["fingerprint_format"] == [1, 1]
    assert list(store.verify(old.path)) == []
    assert set(store.LABELS) - set(old.slices) == {"region_confidence"}
    assert old.has("screen")
    assert not old.has("organs")
    assert "classes" not in old.summary
    with pytest.raises(ValueError, match="format 1.1 without the organs .* with --replace"):
        old.at([0], "organs")


def test_a_sound_corpus_verifies(corpus: store.Corpus) -> None:
    assert list(store.verify(corpus.path)) == []


def files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


def test_a_flipped_byte_in_any_file_is_named(corpus: store.Corpus) -> None:
    for file in files_of(corpus.path):
        sound = file.read_bytes()
        for at in {0, len(sound) // 2, len(sound) - 1}:
            file.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
            assert list(store.verify(corpus.path)), f"{file.name} at {at}"
        file.write_bytes(sound)
    assert list(store.verify(corpus.path)) == []


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_byte_of_the_pointer_counts(every: int, corpus: store.Corpus) -> None:
    file = corpus.path / "zarr.json"
    sound = file.read_bytes()
    for at in range(0, len(sound), every):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(Damaged):
            store.open_corpus(corpus.path)


def test_a_damaged_chunk_is_named_and_not_used(corpus: store.Corpus) -> None:
    chunk = corpus.path / "pixels/c/1/0/0"
    sound = chunk.read_bytes()
    for bad in (sound[:-1], sound[:5], b"", sound[:-5] + bytes([sound[-5] ^ 1]) + sound[-4:]):
        chunk.write_bytes(bad)
        with pytest.raises(Damaged, match="pixels/c/1/0/0"):
            corpus.read(0, 10)
    chunk.unlink()
    with pytest.raises(Damaged, match="missing"):
        corpus.read(4, 5)


def test_two_swapped_chunks_are_both_named(corpus: store.Corpus) -> None:
    first, second = corpus.path / "pixels/c/0/0/0", corpus.path / "pixels/c/1/0/0"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    named = " ".join(store.verify(corpus.path))
    assert "pixels/c/0" in named
    assert "pixels/c/1" in named


def test_a_file_that_does_not_belong_is_named(corpus: store.Corpus) -> None:
    (corpus.path / "pixels/c/9").mkdir()
    (corpus.path / "pixels/c/9/extra").write_bytes(b"x")
    assert list(store.verify(corpus.path)) == [
        "real: pixels/c/9/extra does not belong to the corpus"
    ]


def test_a_newer_major_version_is_refused_with_the_version_to_install(corpus: store.Corpus) -> None:
    document = store.pointer(corpus.path)
    document["attributes"]["fingerprint_format"] = [7, 0]
    document["attributes"]["seal"] = store.seal_of(document)
    (corpus.path / "zarr.json").write_bytes(store.canonical(document))
    with pytest.raises(ValueError, match="install fingerprint >= 7"):
        store.open_corpus(corpus.path)


def test_a_folder_that_is_no_corpus_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a corpus"):
        store.open_corpus(tmp_path)
    zarr.create_group(tmp_path / "other")
    with pytest.raises(ValueError, match="not a corpus"):
        store.open_corpus(tmp_path / "other")


@pytest.mark.parametrize("first", [1, 4, 6, 8])
def test_a_corpus_grows_by_a_part(tmp_path: Path, images: np.ndarray, first: int) -> None:
    path = tmp_path / "real"
    before = make_corpus(path, images[:first], WHO[:first])
    kept = {name: (path / name).read_bytes() for name in before.manifest if "pixels/c" in name}
    after = make_corpus(path, images[first:], WHO[first:])
    np.testing.assert_array_equal(after.read(0, 10), images)
    assert list(after.slices["participant"]) == WHO
    assert len(after.head["parts"]) == 2
    assert list(store.verify(path)) == []
    assert after.digest != before.digest
    full = [name for name in kept if (int(name.split("/")[2]) + 1) * 4 <= first]
    assert all((path / name).read_bytes() == kept[name] for name in full)


def test_an_open_reader_sees_the_old_slices_while_the_corpus_grows(
    tmp_path: Path, images: np.ndarray
) -> None:
    path = tmp_path / "real"
    make_corpus(path, images[:6], WHO[:6])
    opened = xr.open_zarr(path, chunks=None, mask_and_scale=False)
    make_corpus(path, images[6:], WHO[6:])
    np.testing.assert_array_equal(opened.pixels.to_numpy(), images[:6])


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(n, marks=() if n % 16 == 0 else pytest.mark.slow, id=f"rename-{n}")
        for n in range(177)  # 176 renames, and none
    ],
)
def test_a_seal_killed_at_any_rename_leaves_the_old_corpus_or_the_new(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    path = tmp_path / "real"
    old = make_corpus(path, images[:6], WHO[:6]).digest
    calls = iter(range(10_000))
    replace = Path.replace

    def dying(self: Path, target: Path) -> Path:
        if next(calls) == after:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        try:
            make_corpus(path, images[6:], WHO[6:])
        except Killed:
            pass
    seal.recover(path)
    seen = store.open_corpus(path)
    want = images if seen.digest != old else images[:6]
    np.testing.assert_array_equal(seen.read(0, seen.n), want)
    assert [x for x in store.verify(path) if "not belong" not in x] == []
    if seen.digest == old:
        make_corpus(path, images[6:], WHO[6:])
    shutil.rmtree(path / ".ingest", ignore_errors=True)
    assert list(store.verify(path)) == []
    np.testing.assert_array_equal(store.open_corpus(path).read(0, 10), images)


def test_digest_is_of_content_not_of_chunks(tmp_path: Path, images: np.ndarray) -> None:
    digests = {make_corpus(tmp_path / str(c), images, WHO, chunk=c).digest for c in (1, 3, 64)}
    assert len(digests) == 1
    other = images.copy()
    other[0, 0, 0] ^= 1
    assert make_corpus(tmp_path / "other", other, WHO).digest not in digests


def test_all_air_chunks_are_written(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "air", np.zeros((5, 32, 32), np.uint8), WHO[:5])
    assert os.path.getsize(corpus.path / "pixels/c/0/0/0") > 0
    assert corpus.read(0, 5).max() == 0
