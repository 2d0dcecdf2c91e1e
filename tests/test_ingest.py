"""From files to a sealed corpus: nothing lost, nothing silent, nothing written twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dicoms
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fingerprint import lease, ledger, phases
from fingerprint.corpus import ingest, steps, store
from fingerprint.corpus.books import read_book
from fingerprint.corpus.export import export_nifti
from fingerprint.corpus.identity import Key
from fingerprint.corpus.locate import locate
from fingerprint.ledger import Damaged, Incomplete
from fingerprint.run import run_ingest
from fingerprint.settings import Settings

SMALL = Settings(size_px=64, chunk_slices=4)


def run(
    key: Key,
    source: Path,
    out: Path,
    *,
    set_name: str = "real",
    settings: Settings = SMALL,
    execute: ledger.Execute = ledger.in_this_process,
    **options: bool,
) -> store.Corpus:
    job = ingest.ingest_job([source], out, set_name=set_name, settings=settings, key=key, **options)
    run_ingest(job, execute)
    return store.open_corpus(out)


def images(folder: Path, n: int, seed: int = 1, first: int = 0) -> Path:
    """Write n smooth random 64 px images, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(first, first + n):
        small = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Two patients as DICOM, one of them scanned twice, and what lies about in such folders."""
    source = tmp_path / "hospital"
    for who, series in (("anna", "1.2.1"), ("anna", "1.2.2"), ("boris", "1.2.3")):
        dicoms.series(
            source / f"{who}{series[-1]}",
            4 if who == "anna" else 3,
            PatientID=who,
            SeriesInstanceUID=series,
            StudyInstanceUID=f"9.{series}",
            FrameOfReferenceUID=f"8.{series}",
            PatientSex="F" if who == "anna" else "M",
            PatientAge="061Y" if who == "anna" else "",
        )
    (source / "empty.dcm").write_bytes(b"")
    (source / "letter.txt").write_text("dear colleague")
    (source / "README").write_text("scans")
    os.symlink("/etc/hostname", source / "link.dcm")
    whole = next((source / "boris3").iterdir()).read_bytes()
    (source / "x<script>.dcm").write_bytes(whole[: len(whole) - 300])
    return source


def test_every_file_is_accepted_excluded_or_rejected(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    corpus = run(key, hospital, tmp_path / "real")
    s = corpus.summary
    assert s["seen"] == sum(1 for p in hospital.rglob("*") if not p.is_dir())
    assert s["accepted"] + sum(s["excluded"].values()) + sum(s["rejected"].values()) == s["seen"]
    assert s["rejected"] == {"empty_file": 1, "hostile_name": 1, "truncated": 1, "unreadable": 1}
    assert s["excluded"] == {"not_data": 1}
    assert (s["participants"], s["men"], s["women"]) == (2, 1, 1)
    assert (s["scans"], s["slices"], s["slices_f"], s["no_age"]) == (3, 11, 8, 1)
    rejected = pd.read_csv(corpus.path / "rejections.tsv", sep="\t", dtype=str)
    assert sorted(rejected["code"]) == sorted(s["rejected"])
    assert list(store.verify(corpus.path)) == []


def test_files_are_accounted_for_when_shards_say_different_things(
    tmp_path: Path, hospital: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SURVEY_FILES", 2)
    monkeypatch.setattr(steps, "READ_SLICES", 2)
    s = run(key, hospital, tmp_path / "real").summary
    assert s["rejected"] == {"empty_file": 1, "hostile_name": 1, "truncated": 1, "unreadable": 1}
    assert s["accepted"] + sum(s["excluded"].values()) + 4 == s["seen"]


def test_slices_are_ordered_by_participant_scan_and_position(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    rows = run(key, hospital, tmp_path / "real").slices
    columns = ["participant", "scan", "series", "z_mm"]
    assert rows[columns].equals(rows[columns].sort_values(columns).reset_index(drop=True))
    assert rows.groupby("series")["z_mm"].apply(lambda z: z.is_monotonic_increasing).all()


def test_names_and_order_of_files_do_not_change_what_is_stored(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    first = run(key, hospital, tmp_path / "a")
    for i, file in enumerate(sorted(hospital.rglob("*"), reverse=True)):
        if file.is_file() and not file.is_symlink() and file.name != "README":
            file.rename(file.parent / f"f{i}")
    second = run(key, hospital, tmp_path / "b")
    columns = ["participant", "scan", "z_mm", "digest"]
    assert first.slices[columns].equals(second.slices[columns])


def test_another_copy_of_the_source_gives_the_same_digest(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    first = run(key, hospital, tmp_path / "a")
    shutil.copytree(hospital, tmp_path / "elsewhere" / "copy", symlinks=True)
    assert run(key, tmp_path / "elsewhere" / "copy", tmp_path / "b").digest == first.digest


def test_a_series_whose_acquisition_changes_stays_one_stack(tmp_path: Path, key: Key) -> None:
    folder = tmp_path / "ct"
    for i, file in enumerate(dicoms.series(folder, 5)):
        file.unlink()
        dicoms.write(file, hu=dicoms.picture(i), z=2.5 * i, AcquisitionNumber=i + 1)
    corpus = run(key, folder, tmp_path / "real")
    assert corpus.summary["series"] == 1
    assert corpus.summary["scans"] == 1


def test_a_file_lost_from_a_series_costs_that_file(tmp_path: Path, key: Key) -> None:
    files = dicoms.series(tmp_path / "ct", 9)
    files[4].write_bytes(files[4].read_bytes()[:200])
    corpus = run(key, tmp_path / "ct", tmp_path / "real")
    assert corpus.n == 8
    assert sum(corpus.summary["rejected"].values()) == 1


def test_a_series_with_a_missing_slice_is_rejected_whole(tmp_path: Path, key: Key) -> None:
    dicoms.series(tmp_path / "ct" / "whole", 4, PatientID="a", SeriesInstanceUID="1.1")
    dicoms.series(tmp_path / "ct" / "gap", 9, PatientID="b", SeriesInstanceUID="1.2")[4].unlink()
    corpus = run(key, tmp_path / "ct", tmp_path / "real")
    assert corpus.n == 4
    assert corpus.summary["rejected"] == {"uneven_spacing": 8}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()
    }


def test_ingesting_again_writes_nothing(tmp_path: Path, hospital: Path, key: Key) -> None:
    run(key, hospital, tmp_path / "real")
    before = snapshot(tmp_path / "real")
    run(key, hospital, tmp_path / "real")
    assert snapshot(tmp_path / "real") == before


def test_a_touched_but_unchanged_file_is_known_by_its_digest(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    run(key, hospital, tmp_path / "real")
    before = snapshot(tmp_path / "real")
    os.utime(next((hospital / "boris3").iterdir()))
    run(key, hospital, tmp_path / "real")
    assert snapshot(tmp_path / "real") == before


def test_a_grown_source_adds_a_part_and_moves_no_slice(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    old = run(key, hospital, tmp_path / "real")
    digests, pixels = old.slices["digest"].tolist(), old.read(0, 11)
    dicoms.series(hospital / "clara", 3, PatientID="clara", SeriesInstanceUID="1.2.9")
    new = run(key, hospital, tmp_path / "real")
    assert len(new.head["parts"]) == 2
    assert new.slices["digest"].tolist()[:11] == digests
    assert new.n == 14
    assert new.summary["participants"] == 3
    np.testing.assert_array_equal(new.read(0, 11), pixels)
    s = new.summary
    assert s["accepted"] + sum(s["excluded"].values()) + sum(s["rejected"].values()) == s["seen"]


def test_sums_are_those_of_the_stored_pictures_in_every_part(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    run(key, hospital, tmp_path / "real")
    dicoms.series(hospital / "clara", 3, PatientID="clara", SeriesInstanceUID="1.2.9")
    corpus = run(key, hospital, tmp_path / "real")
    assert corpus.n % SMALL.chunk_slices == 2  # one chunk holds slices of both parts
    for array, suffix in (("pixels", ""), ("mid", "_mid"), ("thumb", "_thumb"), ("screen", None)):
        flat = corpus.read(0, corpus.n, array).reshape(corpus.n, -1).astype(np.int64)
        total = 0 if suffix is None else corpus.label(f"sum{suffix}")
        squares = corpus.label(f"sum_of_squares{'_screen' if suffix is None else suffix}")
        np.testing.assert_array_equal(flat.sum(1), total)
        np.testing.assert_array_equal((flat**2).sum(1), squares)
        assert squares.min() > 0


def test_a_corpus_of_an_earlier_version_is_read_and_replaced_but_does_not_grow(
    tmp_path: Path, hospital: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setitem(store.DERIVED, "screen", 0)
        old = run(key, hospital, tmp_path / "real")
    before = snapshot(tmp_path / "real")
    run(key, hospital, tmp_path / "real")  # nothing is new, so nothing is asked for
    assert snapshot(tmp_path / "real") == before
    dicoms.series(hospital / "clara", 3, PatientID="clara", SeriesInstanceUID="1.2.9")
    with pytest.raises(ValueError, match="cannot grow; rebuild it with --replace"):
        run(key, hospital, tmp_path / "real")
    np.testing.assert_array_equal(old.read(0, old.n), store.open_corpus(old.path).read(0, old.n))
    new = run(key, hospital, tmp_path / "real", replace=True)
    assert new.n == old.n + 3
    assert new.has("screen")
    assert list(store.verify(new.path)) == []


def test_a_changed_file_is_an_integrity_error_and_replace_rebuilds(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    old = run(key, hospital, tmp_path / "real").digest
    file = sorted((hospital / "boris3").iterdir())[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    stat = file.stat()
    file.write_bytes(bytes(data))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(Damaged, match="source_changed: 1 files"):
        run(key, hospital, tmp_path / "real")
    new = run(key, hospital, tmp_path / "real", replace=True)
    assert new.digest != old
    assert len(new.head["parts"]) == 1
    assert list(store.verify(new.path)) == []


def test_a_replacement_that_fails_leaves_the_old_corpus(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    old = run(key, hospital, tmp_path / "real").digest

    def lossy(folder: Path, shards: list[ledger.Shard]) -> Iterator[ledger.Receipt]:
        return ledger.in_this_process(folder, [s for s in shards if s.phase != "write"])

    with pytest.raises(Incomplete):
        run(key, hospital, tmp_path / "real", replace=True, execute=lossy)
    assert store.open_corpus(tmp_path / "real").digest == old
    shutil.rmtree(hospital / "boris3")
    smaller = run(key, hospital, tmp_path / "real", replace=True)
    assert smaller.n == 8
    assert list(store.verify(smaller.path)) == []


def test_a_writer_that_was_taken_over_does_not_seal(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    with lease.lease(tmp_path / "real" / lease.NAME) as token:
        job = ingest.ingest_job(
            [hospital], tmp_path / "real", set_name="real", settings=SMALL, key=key, lease=token
        )
        (tmp_path / "real" / lease.NAME).write_text('{"token": "another"}')
        with pytest.raises(Incomplete, match="another process"):
            run_ingest(job)
    assert not store.is_corpus(tmp_path / "real")


def test_another_key_is_another_corpus(tmp_path: Path, hospital: Path, key: Key) -> None:
    run(key, hospital, tmp_path / "real")
    with pytest.raises(ValueError, match="--key-file"):
        run(Key(b"another key, also long enough"), hospital, tmp_path / "real")


def test_other_settings_are_named(tmp_path: Path, hospital: Path, key: Key) -> None:
    run(key, hospital, tmp_path / "real")
    lung = Settings(size_px=64, chunk_slices=4, window_hu="lung")
    with pytest.raises(ValueError, match="other window_hu"):
        run(key, hospital, tmp_path / "real", settings=lung)


def test_required_labels_exclude_and_are_counted(tmp_path: Path, hospital: Path, key: Key) -> None:
    settings = Settings(size_px=64, chunk_slices=4, require=("age", "sex"))
    s = run(key, hospital, tmp_path / "real", settings=settings).summary
    # the truncated file is excluded by its header, before its pixels are read
    assert s["excluded"] == {"no_age": 4, "not_data": 1}
    assert (s["participants"], s["slices"]) == (1, 8)


def test_a_folder_without_a_readable_file_is_an_error(tmp_path: Path, key: Key) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no file in"):
        run(key, tmp_path / "none", tmp_path / "a")
    (tmp_path / "none" / "x.dcm").write_bytes(b"junk")
    with pytest.raises(ValueError, match="no readable slice.*1 unreadable"):
        run(key, tmp_path / "none", tmp_path / "b")
    assert not store.is_corpus(tmp_path / "b")


def test_too_many_rejected_is_an_outcome_of_its_own(
    tmp_path: Path, hospital: Path, key: Key
) -> None:
    run(key, hospital, tmp_path / "real")
    job = ingest.ingest_job([hospital], tmp_path / "real", set_name="real", settings=SMALL, key=key)
    with pytest.raises(ingest.TooManyRejected, match="4 of 16"):
        ingest.check_rejected(job)


def test_no_identifier_name_or_path_is_written(tmp_path: Path, hospital: Path, key: Key) -> None:
    out = tmp_path / "real"
    seen: list[bytes] = []

    def spy(folder: Path, shards: list[ledger.Shard]) -> Iterator[ledger.Receipt]:
        yield from ledger.in_this_process(folder, shards)
        seen.extend(p.read_bytes() for p in out.rglob("*") if p.is_file())

    run(key, hospital, out, execute=spy)
    seen += [p.read_bytes() for p in out.rglob("*") if p.is_file()]
    for secret in (b"anna", b"boris", b"letter", b"<script>", b"1.2.1", b"hospital"):
        assert not [1 for data in seen if secret in data], secret


def test_locate_finds_file_and_patient(tmp_path: Path, hospital: Path, key: Key) -> None:
    corpus = run(key, hospital, tmp_path / "real")
    row = corpus.slices.iloc[0]
    found = dict(locate([hospital], [f"g_{row['token']}", row["participant"]], key))
    assert Path(found[f"g_{row['token']}"].removeprefix("file ")).exists()
    assert found[row["participant"]].startswith(("patient anna (", "patient boris ("))
    scan = dict(locate([hospital], [row["scan"], row["series"]], key))
    assert scan[row["scan"]].startswith("scan of patient ")
    assert scan[row["series"]].startswith("series of patient ")
    other = Key(b"another key, also long enough")
    assert list(locate([hospital], [row["participant"]], other)) == []


def test_unknown_participants_are_clusters_of_near_duplicates(tmp_path: Path, key: Key) -> None:
    source = images(tmp_path / "png", 5)
    shutil.copy(source / "000.png", source / "same.png")
    corpus = run(key, source, tmp_path / "real")
    rows = corpus.slices
    assert corpus.summary["participants_known"] == "clusters"
    assert rows["participant"].nunique() == 5
    assert rows.groupby("digest")["participant"].nunique().max() == 1
    assert rows["participant"].str.fullmatch(r"C[0-9a-f]{12}").all()


def test_generated_images_belong_to_nobody(tmp_path: Path, key: Key) -> None:
    corpus = run(key, images(tmp_path / "png", 5), tmp_path / "gen", set_name="generated")
    assert set(corpus.slices["participant"]) == {""}
    assert corpus.summary["participants_known"] == "not needed"


def test_slices_tsv_says_who_is_who(tmp_path: Path, key: Key) -> None:
    source = images(tmp_path / "png", 4)
    (source / "slices.tsv").write_text(
        "file\tparticipant\tscan\tz_mm\tsex\tage\n"
        "000.png\tjo\ts1\t30\tF\t44\n001.png\tjo\ts1\t10\tF\t44\n002.png\tmo\ts2\tn/a\tM\tn/a\n"
    )
    corpus = run(key, source, tmp_path / "real")
    assert corpus.summary["rejected"] == {"not_listed": 1}
    assert (corpus.summary["participants"], corpus.summary["scans"]) == (2, 2)
    jo = corpus.slices[corpus.slices["sex"] == "F"]
    assert jo["z_mm"].tolist() == [10.0, 30.0]
    assert set(jo["age"]) == {44}


def test_participants_from_a_pattern(tmp_path: Path, key: Key) -> None:
    images(tmp_path / "png" / "p1", 2)
    images(tmp_path / "png" / "p2", 2, seed=2)
    settings = Settings(size_px=64, chunk_slices=4, participant_from=r"^(p\d)/")
    corpus = run(key, tmp_path / "png", tmp_path / "real", settings=settings)
    assert corpus.summary["participants_known"] == "known"
    assert corpus.slices.groupby("participant").size().tolist() == [2, 2]


def test_float_images_share_one_mapping_and_the_corpus_says_so(tmp_path: Path, key: Key) -> None:
    (tmp_path / "npy").mkdir()
    dark = np.linspace(-1, 0, 64 * 64).reshape(64, 64)
    np.save(tmp_path / "npy" / "a.npy", dark)
    np.save(tmp_path / "npy" / "b.npy", -dark)
    corpus = run(key, tmp_path / "npy", tmp_path / "gen", set_name="generated")
    means = sorted(corpus.read(0, 2).mean((1, 2)))
    assert means[0] == pytest.approx(63.75, abs=1)
    assert means[1] == pytest.approx(191.25, abs=1)
    assert any("-1" in note for note in corpus.summary["notes"])


def test_a_stack_of_images_gives_one_token_per_image(tmp_path: Path, key: Key) -> None:
    (tmp_path / "npy").mkdir()
    stack = np.random.default_rng(3).integers(0, 256, (6, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "npy" / "stack.npy", stack)
    corpus = run(key, tmp_path / "npy", tmp_path / "gen", set_name="generated")
    assert corpus.slices["token"].nunique() == 6
    last = corpus.slices["token"].iloc[-1]
    assert "image " in dict(locate([tmp_path / "npy"], [last], key))[last]


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("after", range(4))
def test_killed_after_any_shard_it_resumes_to_the_same_corpus(
    tmp_path: Path, hospital: Path, key: Key, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "READ_SLICES", 4)
    whole = run(key, hospital, tmp_path / "whole").digest
    done = iter(range(100))

    def dying(folder: Path, shards: list[ledger.Shard]) -> Iterator[ledger.Receipt]:
        for receipt in ledger.in_this_process(folder, shards):
            if next(done) == after:
                raise Killed
            yield receipt

    with pytest.raises(Killed):
        run(key, hospital, tmp_path / "real", execute=dying)
    assert not store.is_corpus(tmp_path / "real")
    assert run(key, hospital, tmp_path / "real").digest == whole


def test_a_lost_shard_is_never_a_smaller_corpus(tmp_path: Path, hospital: Path, key: Key) -> None:
    def lossy(folder: Path, shards: list[ledger.Shard]) -> Iterator[ledger.Receipt]:
        return ledger.in_this_process(folder, shards[:-1])

    with pytest.raises(Incomplete, match="missing"):
        run(key, hospital, tmp_path / "real", execute=lossy)


def test_the_account_is_sealed_with_the_corpus(tmp_path: Path, hospital: Path, key: Key) -> None:
    corpus = run(key, hospital, tmp_path / "real")
    book = read_book(corpus)
    assert (book.files["sha256"] != "").sum() >= len(book.files) - 2
    file = corpus.path / "sources.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Damaged, match=r"sources\.parquet"):
        read_book(corpus)


def test_phases_of_an_ingest_are_in_the_order_of_the_method() -> None:
    assert [p.name for p in phases.INGEST] == ["survey", "read", "write", "seal"]


def test_scans_of_one_file_name_in_two_folders_are_two_patients(tmp_path: Path, key: Key) -> None:
    hu = np.stack([dicoms.picture(k) for k in range(4)]).transpose(2, 1, 0)
    for who in ("p1", "p2", "sub-3"):
        (tmp_path / "ct" / who).mkdir(parents=True)
        nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "ct" / who / "ct.nii.gz")
    assert run(key, tmp_path / "ct", tmp_path / "real").summary["participants"] == 3


def test_a_corpus_or_a_nested_folder_is_no_source(tmp_path: Path, hospital: Path, key: Key) -> None:
    run(key, hospital, tmp_path / "real")
    with pytest.raises(ValueError, match="is a corpus already"):
        run(key, tmp_path / "real", tmp_path / "other")
    with pytest.raises(ValueError, match="lies in"):
        ingest.ingest_job(
            [hospital, hospital / "anna1"],
            tmp_path / "x",
            set_name="real",
            settings=SMALL,
            key=key,
        )


def test_tables_of_several_sites_are_read(tmp_path: Path, key: Key) -> None:
    for site, sex in (("a", "F"), ("b", "M")):
        dicoms.series(tmp_path / "ct" / site, 3, PatientID=site, PatientSex="", PatientAge="")
        table = f"participant_id\tsex\tage\n{site}\t{sex}\t50\n"
        (tmp_path / "ct" / site / "participants.tsv").write_text(table)
    s = run(key, tmp_path / "ct", tmp_path / "real").summary
    assert (s["men"], s["women"], s["no_age"]) == (1, 1, 0)


def test_a_series_that_grew_is_exported_once_and_in_order(tmp_path: Path, key: Key) -> None:
    files = dicoms.series(tmp_path / "ct", 9)
    for file in files[1::2]:
        file.rename(tmp_path / file.name)
    run(key, tmp_path / "ct", tmp_path / "real")
    for file in files[1::2]:
        (tmp_path / file.name).rename(file)
    corpus = run(key, tmp_path / "ct", tmp_path / "real")
    assert export_nifti(corpus, tmp_path / "out", lambda done, planned: None) == 1
    again = run(key, tmp_path / "out", tmp_path / "again")
    want = corpus.slices.sort_values("z_mm")
    assert again.slices["digest"].tolist() == want["digest"].tolist()
    np.testing.assert_allclose(again.slices["z_mm"], want["z_mm"], atol=1e-4)


def test_a_stack_with_a_gap_is_not_exported_as_if_it_had_none(tmp_path: Path, key: Key) -> None:
    files = dicoms.series(tmp_path / "ct", 9)
    files[4].write_bytes(files[4].read_bytes()[:200])
    corpus = run(key, tmp_path / "ct", tmp_path / "real")
    with pytest.raises(ValueError, match="use --format png"):
        export_nifti(corpus, tmp_path / "out", lambda done, planned: None)
