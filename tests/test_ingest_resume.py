"""An ingest that was stopped, with a world that changed meanwhile, ends as if it had not been."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import dicoms
import numpy as np
import pytest
from test_ingest import SMALL, images, run

from fingerprint import ledger
from fingerprint.corpus import ingest, seal, store
from fingerprint.corpus.identity import Key
from fingerprint.ledger import Damaged
from fingerprint.run import run_ingest


class Killed(BaseException):
    """Stands for SIGKILL."""


def dies_after(phase: str) -> ledger.Execute:
    def execute(folder: Path, shards: list[ledger.Shard]) -> Iterator[ledger.Receipt]:
        yield from ledger.in_this_process(folder, shards)
        if shards and shards[0].phase == phase:
            raise Killed

    return execute


def killed(key: Key, source: Path, out: Path, phase: str, **options: bool) -> None:
    with pytest.raises(Killed):
        run(key, source, out, execute=dies_after(phase), **options)


def listed(source: Path, rows: list[str]) -> None:
    (source / "slices.tsv").write_text("file\tparticipant\n" + "".join(f"{r}\n" for r in rows))


def named(key: Key, source: Path, out: Path) -> store.Corpus:
    listed(source, [f"{p.name}\tp{i // 2}" for i, p in enumerate(sorted(source.glob("*.png")))])
    return run(key, source, out)


def test_chunks_staged_by_a_killed_ingest_of_other_files_are_not_published(
    tmp_path: Path, key: Key
) -> None:
    source, out = images(tmp_path / "png", 6), tmp_path / "real"
    rows = [f"{i:03d}.png\tp{i // 2}" for i in range(9)]
    listed(source, rows)
    run(key, source, out)
    images(source, 3, seed=5, first=6)
    killed(key, source, out, "write")
    for i in range(6, 9):
        (source / f"{i:03d}.png").unlink()
    (source / "junk.bin").write_bytes(b"junk")
    listed(source, [*rows, "junk.bin\tp9"])
    corpus = run(key, source, out)
    assert corpus.n == 6
    assert list(store.verify(out)) == []


def test_a_replacement_given_up_does_not_leak_into_a_growth(tmp_path: Path, key: Key) -> None:
    source, out = images(tmp_path / "png", 6), tmp_path / "real"
    listed(source, [f"{i:03d}.png\tp{i // 2}" for i in range(8)])
    old = run(key, source, out).read(0, 6)
    shutil.copytree(source, tmp_path / "kept")
    images(source, 6, seed=9)
    killed(key, source, out, "write", replace=True)
    shutil.rmtree(source)
    shutil.copytree(tmp_path / "kept", source)
    images(source, 2, seed=5, first=6)
    corpus = run(key, source, out)
    np.testing.assert_array_equal(corpus.read(0, 6), old)
    assert corpus.n == 8
    assert list(store.verify(out)) == []


def test_a_table_corrected_after_the_survey_counts(tmp_path: Path, key: Key) -> None:
    source, out = images(tmp_path / "png", 4), tmp_path / "real"
    listed(source, [f"{i:03d}.png\tone" for i in range(4)])
    killed(key, source, out, "survey")
    listed(source, [f"{i:03d}.png\tp{i}" for i in range(4)])
    assert run(key, source, out).summary["participants"] == 4


def test_a_table_changed_after_the_seal_is_an_integrity_error(tmp_path: Path, key: Key) -> None:
    source, out = images(tmp_path / "png", 4), tmp_path / "real"
    named(key, source, out)
    listed(source, [f"{i:03d}.png\tother{i}" for i in range(4)])
    with pytest.raises(Damaged, match="tables say something else of 4"):
        run(key, source, out)


def test_a_file_listed_later_is_taken_then(tmp_path: Path, key: Key) -> None:
    source, out = images(tmp_path / "png", 4), tmp_path / "real"
    listed(source, [f"{i:03d}.png\tp{i}" for i in range(3)])
    assert run(key, source, out).summary["rejected"] == {"not_listed": 1}
    listed(source, [f"{i:03d}.png\tp{i}" for i in range(4)])
    corpus = run(key, source, out)
    s = corpus.summary
    assert (corpus.n, s["rejected"], s["seen"]) == (4, {}, 5)
    assert s["accepted"] + sum(s["excluded"].values()) == s["seen"]


def test_people_changed_after_the_seal_are_an_integrity_error(tmp_path: Path, key: Key) -> None:
    source, out = tmp_path / "ct", tmp_path / "real"
    dicoms.series(source, 3, PatientID="anna", PatientSex="", PatientAge="")
    table = source / "participants.tsv"
    table.write_text("participant_id\tsex\tage\nanna\tF\t50\n")
    assert set(run(key, source, out).slices["age"]) == {50}
    table.write_text("participant_id\tsex\tage\nanna\tF\t51\n")
    with pytest.raises(Damaged, match="source_changed"):
        run(key, source, out)


def test_one_range_of_values_holds_for_every_part(tmp_path: Path, key: Key) -> None:
    source, out = tmp_path / "npy", tmp_path / "gen"
    source.mkdir()
    np.save(source / "a.npy", np.linspace(0, 1, 4096).reshape(64, 64))
    run(key, source, out, set_name="generated")
    np.save(source / "b.npy", np.linspace(0, 0.5, 4096).reshape(64, 64))
    corpus = run(key, source, out, set_name="generated")
    assert corpus.head["value_range"] == [0.0, 1.0]
    assert corpus.read(1, 2).max() == 128


def test_values_outside_the_range_of_the_earlier_parts_are_rejected_not_clipped(
    tmp_path: Path, key: Key
) -> None:
    source, out = tmp_path / "npy", tmp_path / "gen"
    source.mkdir()
    np.save(source / "a.npy", np.linspace(0, 1, 4096).reshape(64, 64))
    run(key, source, out, set_name="generated")
    np.save(source / "b.npy", np.linspace(-1, 1, 4096).reshape(64, 64))
    corpus = run(key, source, out, set_name="generated")
    assert corpus.n == 1
    assert corpus.summary["rejected"] == {"no_range": 1}


def test_a_letter_beside_a_series_does_not_excuse_a_missing_slice(tmp_path: Path, key: Key) -> None:
    source = tmp_path / "ct"
    dicoms.series(source, 9)[4].unlink()
    (source / "letter").write_text("dear colleague, nothing to see here")
    with pytest.raises(ValueError, match="8 uneven_spacing"):
        run(key, source, tmp_path / "real")


@pytest.mark.parametrize("where", ["written", "staged"])
def test_a_chunk_lost_after_it_was_written_is_written_again(
    tmp_path: Path, key: Key, where: str
) -> None:
    source, out = images(tmp_path / "png", 6), tmp_path / "real"
    listed(source, [f"{i:03d}.png\tp{i // 2}" for i in range(8)])
    if where == "staged":
        run(key, source, out)
        images(source, 2, seed=5, first=6)
    killed(key, source, out, "write")
    base = out / seal.STAGED if where == "staged" else out
    chunk = next(iter(sorted(base.glob("pixels/c/*/0/0"))))
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    run(key, source, out)
    assert list(store.verify(out)) == []


def test_what_a_killed_writer_left_is_gone_after_the_next_ingest(tmp_path: Path, key: Key) -> None:
    source, out = images(tmp_path / "png", 4), tmp_path / "real"
    killed(key, source, out, "write")
    (out / "pixels/c/0/0/0.123.wip").write_bytes(b"half")
    run(key, source, out)
    assert list(store.verify(out)) == []


@pytest.mark.parametrize("after", [0, 5, 20])
def test_a_recovery_that_is_killed_is_recovered(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    source, out = images(tmp_path / "png", 6), tmp_path / "real"
    listed(source, [f"{i:03d}.png\tp{i // 2}" for i in range(8)])
    old = run(key, source, out).digest
    images(source, 2, seed=5, first=6)
    replace = Path.replace

    def dying(stop: int) -> None:
        calls = iter(range(10_000))

        def limited(self: Path, target: Path) -> Path:
            if self.suffix == ".wip" and Path(target).name == "zarr.json" and stop < 0:
                if Path(target).parent == out:
                    raise Killed
            elif stop >= 0 and next(calls) == stop:
                raise Killed
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", limited)

    dying(-1)  # the seal dies at its last rename
    with pytest.raises(Killed):
        run(key, source, out)
    dying(after)
    with pytest.raises(Killed):
        seal.recover(out)
    monkeypatch.setattr(Path, "replace", replace)
    assert seal.recover(out)
    assert store.open_corpus(out).digest == old
    assert list(store.verify(out)) == []
    assert run(key, source, out).n == 8


def test_a_working_folder_left_after_the_seal_goes(tmp_path: Path, key: Key) -> None:
    source, out = images(tmp_path / "png", 4), tmp_path / "real"
    run(key, source, out)
    (out / ".ingest" / "ledger").mkdir(parents=True)
    run(key, source, out)
    assert not (out / ".ingest").exists()


def test_clusters_do_not_grow(tmp_path: Path, key: Key) -> None:
    source, out = images(tmp_path / "png", 4), tmp_path / "real"
    run(key, source, out)
    images(source, 1, seed=5, first=4)
    with pytest.raises(ValueError, match="cannot grow"):
        run(key, source, out)


def test_a_folder_called_like_a_subject_above_the_source_is_nobody(
    tmp_path: Path, key: Key
) -> None:
    import nibabel as nib  # noqa: PLC0415

    source = tmp_path / "sub-archive" / "scans"
    source.mkdir(parents=True)
    hu = np.stack([dicoms.picture(k) for k in range(4)]).transpose(2, 1, 0)
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(hu + (name == "b"), np.eye(4)), source / f"{name}.nii.gz")
    corpus = run(key, source, tmp_path / "real")
    assert corpus.summary["participants"] == 2
    assert corpus.summary["participants_known"] == "file names"


def test_a_file_that_cannot_be_opened_is_rejected(
    tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = images(tmp_path / "png", 4)
    listed(source, [f"{i:03d}.png\tp{i}" for i in range(4)])
    job = ingest.ingest_job([source], tmp_path / "real", set_name="real", settings=SMALL, key=key)
    (source / "002.png").unlink()
    run_ingest(job)
    s = store.open_corpus(tmp_path / "real").summary
    assert sum(s["rejected"].values()) == 1
    assert s["slices"] == 3
