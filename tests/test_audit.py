"""An audit end to end: every copy found, the matrix exact, whatever the cut, kill or order."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from corpora import make_corpus
from naive import best_per_patient
from PIL import Image

from fingerprint import audit, ledger, open_run
from fingerprint.corpus import store
from fingerprint.job import AuditJob, audit_job
from fingerprint.ledger import Incomplete
from fingerprint.run import Run, rebuild_report, run_audit
from fingerprint.search.sets import as_smooth_as
from fingerprint.settings import Settings
from fingerprint.verify import verify

PATIENTS = [f"P{i // 4:012x}" for i in range(24)]
SMALL = Settings(shard_slices=8, block_slices=8, band_queries=5, controls=4)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("forty characters of a key for the tests.")
    path.chmod(0o600)
    return path


def textures(rng: np.random.Generator, n: int, side: int = 32) -> np.ndarray:
    """Smooth images with a bright body, no two alike and none that looks like another turned."""
    y, x = np.mgrid[:side, :side] / side
    images = np.empty((n, side, side), np.uint8)
    for i in range(n):
        waves = sum(
            rng.normal() * np.sin(2 * np.pi * (a * x + b * y) + rng.uniform(0, 6))
            for a in range(4)
            for b in range(4)
        )
        images[i] = np.clip(90 + 60 * y + 15 * waves, 1, 254)
    return images


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real slices of six patients; ten generated images, three of them copies; two controls."""
    rng = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("world")
    real = textures(rng, 24)
    real[13] = real[5]  # exact twins of two patients: the tie rule shows
    real[20] = 128  # correlates with nothing
    generated = textures(rng, 10)
    generated[[1, 4, 7]] = real[[5, 9, 22]]
    generated[8] = 0
    make_corpus(folder / "real", real, PATIENTS)
    make_corpus(folder / "generated", generated, [""] * 10, set_name="generated")
    make_corpus(folder / "control", textures(rng, 2), ["P" + "c" * 12] * 2, set_name="control")
    return folder


def job_of(world: Path, out: Path, settings: Settings = SMALL, controls: bool = True) -> AuditJob:
    other = world / "control" if controls else None
    return audit_job(world / "real", world / "generated", other, out, settings)


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One audit of `world`, to compare others with."""
    return run_audit(job_of(world, tmp_path_factory.mktemp("whole") / "out"))


def test_copies_are_the_top_match_at_exactly_one(world: Path, tmp_path: Path) -> None:
    run = run_audit(job_of(world, tmp_path / "out"))
    top = run.matches.query("rank == 1 and query_set == 'generated'")
    ones = top[top["r_raw"] == 1.0]
    assert sorted(ones["slice"]) == [5, 9, 22]
    assert (ones["slice_digest"] == ones["query_digest"]).all()
    assert run.findings["identical.images"] == 3
    assert run.exit_code == 10
    assert list(verify(tmp_path / "out")) == []


def test_the_matrix_equals_python_integers_ties_included(world: Path, tmp_path: Path) -> None:
    matrix = run_audit(job_of(world, tmp_path / "out")).correlation
    real, generated = store.open_corpus(world / "real"), store.open_corpus(world / "generated")
    names = matrix["patient"].to_numpy().tolist()
    who = [names.index(p) for p in PATIENTS]
    r, at = best_per_patient(generated.read(0, 10), real.read(0, 24), who, len(names))
    cell = matrix.sel(stage="raw", slices="all").isel(query=slice(0, 10))
    np.testing.assert_array_equal(cell["r"], r)
    np.testing.assert_array_equal(cell["slice"], at)
    twins = cell.isel(query=1)
    assert twins["slice"].to_numpy()[[1, 3]].tolist() == [5, 13]
    first = open_run(tmp_path / "out").matches.iloc[int(np.flatnonzero(at[1] == 5)[0])]
    assert first["rank"] <= 2
    assert matrix.attrs["excluded_queries"] == 1
    assert matrix.attrs["excluded_slices"] == 1
    histogram = matrix["histogram"].sel(histogram_of="generated").to_numpy()
    assert histogram.sum() == 9 * 23


EVERY_CUT = list(itertools.product([1, 17, 64], [(4, 3), (8, 100), (400, 1)]))
EACH_ONCE = EVERY_CUT[::4]  # a Latin square: each block, shard and band in one of them


@pytest.mark.parametrize(
    ("block", "cut"),
    [pytest.param(*c, marks=() if c in EACH_ONCE else pytest.mark.slow) for c in EVERY_CUT],
)
def test_one_digest_for_every_cut(
    world: Path, whole: Run, tmp_path: Path, block: int, cut: tuple[int, int]
) -> None:
    shard, band = cut
    settings = Settings(block_slices=block, shard_slices=shard, band_queries=band, controls=4)
    run = run_audit(job_of(world, tmp_path / "cut", settings))
    assert run.correlation.attrs["digest"] == whole.correlation.attrs["digest"]
    assert run.matches.equals(whole.matches)


def test_one_digest_for_any_order_of_shards(world: Path, whole: Run, tmp_path: Path) -> None:
    def shuffled(folder: Path, shards: Sequence[ledger.Shard]) -> Iterator[ledger.Receipt]:
        mixed = list(shards)
        random.Random(3).shuffle(mixed)
        return ledger.in_this_process(folder, mixed)

    mixed = run_audit(job_of(world, tmp_path / "mixed"), shuffled)
    assert mixed.correlation.attrs["digest"] == whole.correlation.attrs["digest"]
    assert mixed.matches.equals(whole.matches)


def test_capped_compares_an_equal_number_of_slices_per_patient(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    who = ["P" + "a" * 12] * 7 + ["P" + "b" * 12] * 2
    make_corpus(tmp_path / "real", textures(rng, 9), who)
    make_corpus(tmp_path / "gen", textures(rng, 3), [""] * 3, set_name="generated")
    run = run_audit(audit_job(tmp_path / "real", tmp_path / "gen", None, tmp_path / "out", SMALL))
    matrix = run.correlation.isel(query=slice(0, 3))
    raw = matrix["r"].sel(stage="raw")
    assert (raw.sel(slices="capped") <= raw.sel(slices="all")).all()
    used = matrix["slice"].sel(slices="capped", stage="raw").isel(patient=0)
    assert set(used.to_numpy().tolist()) <= {1, 5}
    assert (used >= 0).all()


def test_controls_drawn_from_the_corpus_leave_their_own_patient_out(
    world: Path, tmp_path: Path
) -> None:
    matrix = run_audit(job_of(world, tmp_path / "out", controls=False)).correlation
    controls = matrix.isel(query=(matrix["query_set"] == "control").to_numpy())
    assert controls.sizes["query"] == 4
    real = store.open_corpus(world / "real")
    tokens = ["c_" + t for t in real.label("token")]
    drawn = [tokens.index(q) for q in controls["query"].to_numpy()]
    names = matrix["patient"].to_numpy().tolist()
    who = [names.index(p) for p in PATIENTS]
    assert len({who[i] for i in drawn}) == 4
    own = [who[i] for i in drawn]
    pixels = real.read(0, 24)
    r, at = best_per_patient(pixels[drawn], pixels, who, len(names), own)
    cell = controls.sel(stage="raw", slices="all")
    np.testing.assert_array_equal(cell["r"], r)
    np.testing.assert_array_equal(cell["slice"], at)


def test_a_corpus_against_itself_compares_other_patients_only(world: Path, tmp_path: Path) -> None:
    real = world / "real"
    matrix = run_audit(audit_job(real, real, None, tmp_path / "out", SMALL)).correlation
    best = matrix.sel(stage="raw", slices="all")
    names = matrix["patient"].to_numpy()[best["who"].to_numpy()]
    assert (names != np.array(PATIENTS)[:, None])[best["slice"].to_numpy() >= 0].all()
    for mine, twin in ((5, 13), (13, 5)):
        assert best["r"].to_numpy()[mine, 0] == 1.0
        assert best["slice"].to_numpy()[mine, 0] == twin


def test_nothing_found_is_exit_zero(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    make_corpus(tmp_path / "real", textures(rng, 8), PATIENTS[:8])
    make_corpus(tmp_path / "gen", textures(rng, 3), [""] * 3, set_name="generated")
    run = run_audit(audit_job(tmp_path / "real", tmp_path / "gen", None, tmp_path / "out", SMALL))
    assert run.findings["identical.images"] == 0
    assert run.exit_code == 0
    assert (tmp_path / "out" / "drop.tsv").read_text().count("\n") == 1


@pytest.mark.parametrize("turn", ["upside down", "quarter turn"])
def test_images_stored_another_way_round_are_never_none_found(tmp_path: Path, turn: str) -> None:
    rng = np.random.default_rng(4)
    real = textures(rng, 40)
    turned = real[::4, ::-1] if turn == "upside down" else np.rot90(real[::4], axes=(1, 2))
    make_corpus(tmp_path / "real", real, [f"P{i:012x}" for i in range(40)])
    make_corpus(tmp_path / "gen", np.ascontiguousarray(turned), [""] * 10, set_name="generated")
    job = audit_job(tmp_path / "real", tmp_path / "gen", None, tmp_path / "out", SMALL)
    with pytest.raises(ValueError, match="--orient"):
        run_audit(job)
    assert "INCOMPLETE" in (tmp_path / "out" / "report.html").read_text()


def test_controls_that_are_real_slices_stop_the_run(world: Path, tmp_path: Path) -> None:
    job = audit_job(world / "real", world / "generated", world / "real", tmp_path / "out", SMALL)
    with pytest.raises(ValueError, match="are in the real corpus: .*same patient.*--drop-leaking"):
        run_audit(job)


def test_two_keys_in_one_run_are_an_error(world: Path, tmp_path: Path) -> None:
    images = textures(np.random.default_rng(5), 3)
    make_corpus(tmp_path / "gen", images, [""] * 3, set_name="generated", key_id="f" * 12)
    with pytest.raises(ValueError, match="key_id"):
        audit_job(world / "real", tmp_path / "gen", None, tmp_path / "out", SMALL)


def test_a_folder_that_holds_another_run_is_an_error_naming_what_differs(
    world: Path, tmp_path: Path
) -> None:
    run_audit(job_of(world, tmp_path / "out"))
    with pytest.raises(ValueError, match="a run with other keep_patients"):
        job_of(world, tmp_path / "out", Settings(keep_patients=3, controls=4))
    with pytest.raises(ValueError, match="a run with other generated corpus"):
        audit_job(world / "real", world / "control", world / "control", tmp_path / "out", SMALL)


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("after", [0, 2, 5])
def test_killed_after_any_shard_it_redoes_only_what_is_missing(
    world: Path, whole: Run, tmp_path: Path, after: int
) -> None:
    def dying(folder: Path, shards: Sequence[ledger.Shard]) -> Iterator[ledger.Receipt]:
        for n, receipt in enumerate(ledger.in_this_process(folder, shards)):
            if n == after:
                raise Killed
            yield receipt

    out = tmp_path / "out"
    with pytest.raises(Killed):
        run_audit(job_of(world, out), dying)
    kept = {p: p.stat().st_mtime_ns for p in out.glob("ledger/search/*.shard")}
    assert len(kept) == after + 1
    run = run_audit(job_of(world, out))
    assert run.correlation.attrs["digest"] == whole.correlation.attrs["digest"]
    assert run.matches.equals(whole.matches)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert run.complete


def test_a_lost_shard_is_never_a_verdict(world: Path, tmp_path: Path) -> None:
    def lossy(folder: Path, shards: Sequence[ledger.Shard]) -> Iterator[ledger.Receipt]:
        return ledger.in_this_process(folder, shards[1:])

    with pytest.raises(Incomplete, match="1 of"):
        run_audit(job_of(world, tmp_path / "out"), lossy)
    run = open_run(tmp_path / "out")
    assert run.exit_code == 4
    assert not (tmp_path / "out" / "findings.json").exists()
    assert "INCOMPLETE" in run.report.read_text()


def test_a_damaged_shard_is_redone(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    digest = run_audit(job_of(world, out)).correlation.attrs["digest"]
    shard = next(out.glob("ledger/search/*.shard"))
    data = bytearray(shard.read_bytes())
    data[-50] ^= 4
    shard.write_bytes(bytes(data))
    assert any("ledger" in line for line in verify(out))
    assert run_audit(job_of(world, out)).correlation.attrs["digest"] == digest
    assert list(verify(out)) == []


def test_a_changed_output_is_named(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_audit(job_of(world, out))
    shutil.copytree(out, tmp_path / "copy")
    for name in ("findings.json", "matches.parquet", "report.html", "drop.tsv", "run.json"):
        file = tmp_path / "copy" / name
        sound = file.read_bytes()
        file.write_bytes(sound[:-3] + bytes([sound[-3] ^ 1]) + sound[-2:])
        assert [line for line in verify(tmp_path / "copy")], name
        file.write_bytes(sound)
    assert list(verify(tmp_path / "copy")) == []


def test_what_a_run_leaves_is_for_its_owner_alone(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_audit(job_of(world, out))
    assert out.stat().st_mode & 0o777 == 0o700
    for name in ("report.html", "findings.json", "matches.parquet", "run.json", "drop.tsv"):
        assert (out / name).stat().st_mode & 0o777 == 0o600, name
    left = {p.name for p in out.iterdir()}
    assert left >= {"rejections.tsv", "drop.tsv", "correlation.zarr", "ledger", "manifest.json"}
    assert json.loads((out / "run.json").read_text())["status"] == "complete"


def test_controls_of_enlarged_images_are_made_as_smooth(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    real = textures(rng, 12, 64)
    make_corpus(tmp_path / "real", real, PATIENTS[:12])
    low = textures(rng, 3, 64)
    make_corpus(tmp_path / "low", low, [""] * 3, set_name="generated", native_px=16)
    job = audit_job(tmp_path / "real", tmp_path / "low", None, tmp_path / "b", SMALL)
    matrix = run_audit(job).correlation
    controls = matrix.isel(query=slice(3, None)).sel(stage="raw", slices="all")
    corpus = store.open_corpus(tmp_path / "real")
    tokens = ["c_" + t for t in corpus.label("token")]
    drawn = [tokens.index(q) for q in controls["query"].to_numpy()]
    names = matrix["patient"].to_numpy().tolist()
    who = [names.index(p) for p in PATIENTS[:12]]
    smooth = as_smooth_as(16, real[drawn])
    r, _ = best_per_patient(smooth, real, who, len(names), [who[i] for i in drawn])
    np.testing.assert_array_equal(controls["r"], r)


def test_a_corpus_that_is_rebuilt_during_the_search_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    make_corpus(tmp_path / "real", textures(rng, 8), PATIENTS[:8])
    make_corpus(tmp_path / "gen", textures(rng, 3), [""] * 3, set_name="generated")
    job = audit_job(tmp_path / "real", tmp_path / "gen", None, tmp_path / "out", SMALL)

    def rebuilding(folder: Path, shards: Sequence[ledger.Shard]) -> Iterator[ledger.Receipt]:
        if shards:
            shutil.rmtree(tmp_path / "real")
            make_corpus(tmp_path / "real", textures(rng, 8), PATIENTS[:8])
        return ledger.in_this_process(folder, shards)

    with pytest.raises(ledger.Damaged, match="changed while it was searched"):
        run_audit(job, rebuilding)


def test_a_patient_on_both_sides_stops_the_run(world: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    make_corpus(tmp_path / "control", textures(rng, 2), PATIENTS[:2], set_name="control")
    job = audit_job(
        world / "real", world / "generated", tmp_path / "control", tmp_path / "out", SMALL
    )
    with pytest.raises(ValueError, match="1 of their patients are in the real corpus: "):
        run_audit(job)


def test_a_search_that_does_not_fit_is_refused_before_it_starts(
    world: Path, tmp_path: Path
) -> None:
    job = job_of(world, tmp_path / "out", Settings(memory_gib=0.0001, controls=4))
    with pytest.raises(ValueError, match="memory_gib: one tile needs"):
        run_audit(job)


def test_a_run_stopped_before_its_seal_is_not_complete(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_audit(job_of(world, out))
    (out / "manifest.json").unlink()
    assert open_run(out).exit_code == 4
    assert any("stopped at its end" in line for line in verify(out))
    assert run_audit(job_of(world, out)).exit_code == 10
    assert list(verify(out)) == []


def test_a_rebuilt_report_belongs_to_the_run(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_audit(job_of(world, out))
    rebuild_report(out)
    rebuild_report(out, without_real_images=True)
    assert list(verify(out)) == []


def test_a_deleted_shard_or_corpus_is_named(tmp_path: Path, key_file: Path) -> None:
    rng = np.random.default_rng(12)
    for name, n in (("real", 5), ("gen", 3)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(textures(rng, n, 64)):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    out = tmp_path / "out"
    settings = Settings(size_px=64, controls=2)
    audit(tmp_path / "real", tmp_path / "gen", out=out, settings=settings, key_file=key_file)
    assert list(verify(out)) == []
    shard = next(out.glob("ledger/search/*.shard"))
    kept = shard.read_bytes()
    shard.unlink()
    assert any("1 shards of ledger/search are missing" in line for line in verify(out))
    shard.write_bytes(kept)
    shutil.rmtree(out / "corpora" / "real")
    assert any("the real corpus" in line for line in verify(out))


@pytest.mark.parametrize("flat", ["real", "generated"])
def test_nothing_to_compare_is_never_none_found(tmp_path: Path, flat: str) -> None:
    rng = np.random.default_rng(13)
    for name in ("real", "generated"):
        pixels = textures(rng, 4) if name != flat else np.full((4, 32, 32), 9, np.uint8)
        make_corpus(tmp_path / name, pixels, PATIENTS[:4], set_name=name)
    job = audit_job(tmp_path / "real", tmp_path / "generated", None, tmp_path / "out", SMALL)
    with pytest.raises(ValueError, match="one grey level; nothing can be compared"):
        run_audit(job)


def test_a_folder_with_something_else_is_not_made_a_run(tmp_path: Path, world: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    (tmp_path / "shared" / "file").write_text("mine")
    with pytest.raises(ValueError, match="something else than a run"):
        audit(world / "real", world / "generated", out=tmp_path / "shared")
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755


def test_an_orientation_that_was_chosen_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    real = textures(rng, 40)
    turned = np.ascontiguousarray(real[::4, ::-1])
    make_corpus(tmp_path / "real", real, [f"P{i:012x}" for i in range(40)])
    make_corpus(tmp_path / "gen", turned, [""] * 10, set_name="generated")
    kept = Settings(**(SMALL.model_dump() | {"orient": "as-is"}))
    job = audit_job(tmp_path / "real", tmp_path / "gen", None, tmp_path / "out", kept)
    assert run_audit(job).complete
    wanted = Settings(**(SMALL.model_dump() | {"orient": "flip-y"}))
    job = audit_job(tmp_path / "real", tmp_path / "gen", None, tmp_path / "out2", wanted)
    with pytest.raises(ValueError, match="ingest its files again"):
        run_audit(job)


def test_the_advice_on_orientation_can_be_followed(tmp_path: Path, key_file: Path) -> None:
    rng = np.random.default_rng(15)
    real = textures(rng, 30, 64)
    for name, pixels in (("real", real), ("gen", real[::3, ::-1])):
        (tmp_path / name).mkdir()
        for i, image in enumerate(pixels):
            Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / name / f"{i:02d}.png")

    def run(out: str, orient: str | None) -> int:
        settings = Settings(size_px=64, controls=2, orient=orient)
        return audit(
            tmp_path / "real",
            tmp_path / "gen",
            out=tmp_path / out,
            settings=settings,
            key_file=key_file,
        ).exit_code

    with pytest.raises(ValueError, match="--orient flip-y and another OUT, or --orient as-is"):
        run("a", None)
    assert run("a", "as-is") == 0
    assert run("b", "flip-y") == 10


def test_a_run_inside_its_source_does_not_eat_itself(tmp_path: Path, key_file: Path) -> None:
    rng = np.random.default_rng(14)
    for name, n in (("real", 4), ("gen", 3)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(textures(rng, n, 64)):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    out = tmp_path / "real" / "audit"
    settings = Settings(size_px=64, controls=2)
    for _ in range(2):
        run = audit(
            tmp_path / "real", tmp_path / "gen", out=out, settings=settings, key_file=key_file
        )
        assert run.complete
    assert store.open_corpus(out / "corpora" / "real").summary["seen"] == 4
