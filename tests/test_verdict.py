"""The verdict end to end: copies found and told, strangers left alone, bad controls refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from corpora import make_corpus
from verdict_world import make_world, slices_of

from fingerprint.corpus import seal, store
from fingerprint.job import BEFORE, audit_job
from fingerprint.ledger import digest_of_file
from fingerprint.models.encoders import ENCODERS
from fingerprint.run import Run, open_run, run_audit
from fingerprint.settings import Settings
from fingerprint.verify import verify
from flows import chain
from flows.cli import run as command

KNOBS = {
    "register_patients": 1,
    "elastic_patients": 0,
    "controls": 200,
    "angle_deg": 6,
    "scale": 0.05,
    "shift_px": 16,
}
COPIES = 4
QUICK = {"pose": False, "register_patients": 0, "controls": 240}


def audited(folder: Path, out: Path, *, given: bool = True, **knobs: object) -> Run:
    controls = str(folder / "controls") if given else None
    how = chain.How("serial")
    sets = (str(folder / "real"), str(folder / "generated"), str(out))
    return chain.audit_sets(*sets, controls=controls, knobs=KNOBS | knobs, how=how).run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return make_world(folder, trained=20, held=20, novel=12, copies=COPIES)


@pytest.fixture(scope="module")
def run(world: Path) -> Run:
    return audited(world, world / "out", canaries=1)


def test_every_copy_and_no_stranger_is_on_the_tail_list(run: Run) -> None:
    told = pd.read_parquet(run.out / "queries.parquet")
    generated = told[told["query_set"] == "generated"]
    assert generated["tail"].tolist() == [True] * COPIES + [False] * 12
    assert run.exit_code == 10
    f = run.findings
    assert (f["images.tested"], f["images.tail"], f["images.found"]) == (16, COPIES, COPIES)
    assert (f["images.controls"], f["images.control_patients"]) == (200, 20)
    assert f["images.guaranteed"] == 0  # twenty patients cannot speak alone: 16 at once needed
    assert f["images.findings_needed"] == 16


def test_the_patient_who_is_copied_is_named_everywhere(run: Run) -> None:
    sources = np.random.default_rng(7).permutation(20)[:COPIES]
    who = {f"P{k:012x}" for k in sources}
    f = run.findings
    assert {line["participant"] for line in f["risk.list"]} == who
    assert f["risk.patients"] == COPIES
    table = run.matches.query("query_set == 'generated' and rank == 1")
    assert set(table.loc[table["list"].notna(), "participant"]) == who
    withheld = pd.read_csv(run.out / "drop.tsv", sep="\t")
    assert len(withheld) == COPIES
    assert withheld["reason"].str.contains("tail model, q").all()


def test_p_of_matches_are_those_of_queries_and_of_generated_images_only(run: Run) -> None:
    told = pd.read_parquet(run.out / "queries.parquet").set_index("query")
    table = run.matches
    best = table[table["rank"] == 1].set_index("query")
    names = ["p_patient", "p_pooled", "p_tail", "p_value", "q_value"]
    mine = best["query_set"] == "generated"
    np.testing.assert_array_equal(
        best.loc[mine, names].to_numpy(float), told.loc[best.index[mine], names].to_numpy(float)
    )
    assert best.loc[~mine, names].isna().all().all()
    assert table.loc[table["rank"] > 1, names].isna().all().all()
    assert best["s_excess"].notna().all()
    listed = table.loc[(table["query_set"] == "canary") & table["list"].notna()]
    assert set(listed["list"]) == {"identical"}  # a fact of its pixels, and no finding


def test_canaries_go_through_every_step_and_count_in_no_test(run: Run) -> None:
    named = pd.read_csv(run.out / "canaries.tsv", sep="\t")
    told = pd.read_parquet(run.out / "queries.parquet")
    planted = told[told["query_set"] == "canary"]
    assert planted["query"].tolist() == named["query"].tolist()
    exact = named["kind"] == "exact"
    assert planted["identical"].to_numpy()[exact].all()
    pairs = run.matches.query("query_set == 'canary' and rank == 1")
    assert pairs["r_affine"].notna().all()
    f = run.findings
    cells = {(k, c["level"]): c for k in f["limit.kinds"] for c in f[f"limit.{k}.cells"]}
    assert len(cells) == len(named)
    assert cells["exact", 0.0]["found"] == 1
    assert f["limit.weakest"] is None
    assert "too few canaries" in f["limit.weakest.reason"]


def test_all_levels_have_a_number_or_a_reason(run: Run) -> None:
    f = run.findings
    for key in ("images.found", "patients.found", "set.p_value", "fid.value", "limit.weakest"):
        assert f[key] is not None or len(f[f"{key}.reason"]) > 20
    assert f["set.found"] == (f["set.p_value"] <= 0.05)
    assert f["patients.tested"] == 20
    assert f["distance.pixels.generated"] > 0


def test_what_is_left_is_judged_again_without_one_shard(run: Run, world: Path) -> None:
    ledger = {p: p.stat().st_mtime_ns for p in run.out.rglob("ledger/*/*.shard")}
    drop = world / "drop.tsv"
    drop.write_bytes((run.out / "drop.tsv").read_bytes())
    before = run.findings
    withhold = tuple(pd.read_csv(drop, sep="\t")["query"])
    how = chain.How("serial")
    sets = (str(world / "real"), str(world / "generated"), str(run.out))
    with pytest.raises(ValueError, match="withhold; choose another, or give --update"):
        chain.audit_sets(
            *sets, controls=str(world / "controls"),
            knobs=KNOBS | {"canaries": 1, "withhold": withhold}, how=how,
        )  # fmt: skip
    left = chain.audit_sets(
        *sets, controls=str(world / "controls"), update=True,
        knobs=KNOBS | {"canaries": 1, "withhold": withhold}, how=how,
    ).run  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in run.out.rglob("ledger/*/*.shard")} == ledger
    f = left.findings
    assert (f["images.tested"], f["images.found"], f["risk.list"]) == (12, 0, [])
    kept = run.out / BEFORE / before["run.digest"][:12]
    assert json.loads((kept / "findings.json").read_bytes()) == before
    assert (kept / "report.html").exists()


def test_a_drop_file_of_other_images_is_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop = tmp_path / "drop.tsv"
    drop.write_text("query\tquery_digest\treason\ng_000000000000\t\t\n")
    args = ["audit", str(world / "real"), str(world / "generated"), str(tmp_path / "out")]
    assert command([*args, "--plain", "--cluster", "serial", "--drop", str(drop)]) == 2
    assert "no generated image of this run" in capsys.readouterr().err
    drop.write_text("name\ng_000000000000\n")
    assert command([*args, "--plain", "--drop", str(drop)]) == 2
    assert "no column query" in capsys.readouterr().err


# -- without copies, and with controls that cannot be used


def test_strangers_alone_are_no_finding(world: Path, tmp_path: Path) -> None:
    """Controls drawn from the real corpus: what needs held-out patients says so."""
    images, _ = slices_of(range(3000, 3008), 4)
    make_corpus(tmp_path / "generated", images[::2], [""] * 16, set_name="generated", chunk=64)
    (tmp_path / "real").symlink_to(world / "real")
    done = audited(tmp_path, tmp_path / "out", given=False, canaries=0)
    f = done.findings
    assert (f["images.found"], done.exit_code) == (0, 0)
    assert f["images.controls"] == 200
    for key in ("patients.found", "set.p_value"):
        assert "give CONTROLS" in f[f"{key}.reason"]
    assert f["limit.weakest.reason"].startswith("canaries = 0")
    assert (tmp_path / "out" / "drop.tsv").read_text().count("\n") == 1


def noise(n: int, seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def named(prefix: str, n: int, each: int) -> list[str]:
    first = 0 if prefix == "P" else 256  # scans are named by the number of their patient
    return [f"{prefix}{first + k // each:012x}" for k in range(n)]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    make_corpus(tmp_path / "real", noise(36, 1), named("P", 36, 3), chunk=8)
    make_corpus(tmp_path / "generated", noise(6, 2), [""] * 6, set_name="generated", chunk=8)
    return tmp_path


def finished(folder: Path, controls: bool = False, **knobs: object) -> Run:
    s = Settings(**(QUICK | knobs))
    given = folder / "controls" if controls else None
    return run_audit(audit_job(folder / "real", folder / "generated", given, folder / "out", s))


def test_controls_that_leak_are_refused_with_the_list_or_left_out(small: Path) -> None:
    images = noise(30, 3)
    images[4] = small_real(small)[7]  # the same slice under another name
    images[11] = almost(small_real(small)[20])  # nearly the same
    make_corpus(small / "controls", images, named("Q", 30, 3), set_name="control", chunk=8)
    with pytest.raises(ValueError, match="Q0{9}101 is P0{11}2 .same slice.*--drop-leaking"):
        finished(small, controls=True)
    listed = pd.read_csv(small / "out" / "leaks.tsv", sep="\t")
    assert listed["why"].tolist() == ["same slice"]
    run = run_audit(
        audit_job(
            small / "real", small / "generated", small / "controls", small / "out2",
            Settings(**QUICK, drop_leaking=True),
        )
    )  # fmt: skip
    listed = pd.read_csv(run.out / "leaks.tsv", sep="\t")
    assert set(listed["control_patient"]) == {"Q000000000101", "Q000000000103"}
    assert set(listed["why"]) == {"same slice", "near-duplicate slice"}
    f = run.findings
    assert (f["images.control_patients"], f["images.left_out_patients"]) == (8, 2)
    assert f["set.held_out"] == 8
    assert any("leak" in note for note in f["notes"])


def small_real(folder: Path) -> np.ndarray:
    return store.open_corpus(folder / "real").read(0, 36)


def almost(image: np.ndarray) -> np.ndarray:
    changed = image.copy()
    changed[0, :4] = 255 - changed[0, :4]
    return changed


def test_near_duplicates_alone_are_refused_after_the_search(small: Path) -> None:
    images = noise(30, 3)
    images[11] = almost(small_real(small)[20])
    make_corpus(small / "controls", images, named("Q", 30, 3), set_name="control", chunk=8)
    with pytest.raises(ValueError, match="or seem to be: Q0{9}103 is P0{11}6 .near-duplicate"):
        finished(small, controls=True)
    assert open_run(small / "out").exit_code == 4


def test_one_person_under_two_pseudonyms_is_said_and_kept(small: Path) -> None:
    images = small_real(small)
    images[35] = almost(images[0])
    make_corpus(small / "twice" / "real", images, named("P", 36, 3), chunk=8)
    (small / "twice" / "generated").symlink_to(small / "generated")
    f = finished(small / "twice").findings
    assert any("two pseudonyms" in note for note in f["notes"])
    assert f["images.left_out_patients"] == 0


def test_ten_controls_say_what_is_missing(small: Path) -> None:
    make_corpus(small / "controls", noise(10, 3), named("Q", 10, 1), set_name="control", chunk=8)
    f = finished(small, controls=True).findings
    assert f["images.tail"] is None
    assert "200 control slices" in f["images.tail.reason"]
    assert f["images.found"] is None  # ten ranks cannot reject one image, nor six
    assert f["images.controls_needed"] == 119
    assert f["set.p_value"] > 0.05


def test_one_real_patient_leaves_scores_and_no_gap(small: Path) -> None:
    make_corpus(small / "one" / "real", noise(8, 9), ["P0"] * 8, chunk=8)
    (small / "one" / "generated").symlink_to(small / "generated")
    f = finished(small / "one").findings
    assert f["images.found"] is None
    assert "give CONTROLS" in f["images.found.reason"]
    make_corpus(small / "one" / "controls", noise(30, 3), named("Q", 30, 3), set_name="control")
    s = Settings(**QUICK)
    sets = (small / "one" / "real", small / "generated", small / "one" / "controls")
    f = run_audit(audit_job(*sets, small / "one" / "out2", s)).findings
    assert f["images.score"] == "s_r"
    assert f["set.held_out"] == 10


def test_generated_that_are_the_real_slices_are_all_found(small: Path) -> None:
    make_corpus(
        small / "same" / "generated", small_real(small), [""] * 36, set_name="generated", chunk=8
    )
    (small / "same" / "real").symlink_to(small / "real")
    run = finished(small / "same")
    f = run.findings
    assert (f["images.identical"], f["risk.patients"], run.exit_code) == (36, 12, 10)
    assert len(pd.read_csv(run.out / "drop.tsv", sep="\t")) == 36


def test_images_that_are_all_the_same_are_one_image(small: Path) -> None:
    images = np.repeat(noise(1, 5), 40, axis=0)
    images[np.arange(40), 0, np.arange(40)] ^= 1  # files differ, pictures do not
    make_corpus(small / "all" / "generated", images, [""] * 40, set_name="generated", chunk=8)
    (small / "all" / "real").symlink_to(small / "real")
    f = finished(small / "all").findings
    assert f["images.effective"] == 1
    assert f["images.method"] == "Benjamini-Yekutieli"


def test_a_constant_image_has_no_p_and_is_not_counted(small: Path) -> None:
    images = noise(6, 2)
    images[3] = 7
    make_corpus(small / "flat" / "generated", images, [""] * 6, set_name="generated", chunk=8)
    (small / "flat" / "real").symlink_to(small / "real")
    f = finished(small / "flat", canaries=1).findings
    assert f["images.tested"] == 5
    assert f["limit.level"] == pytest.approx(0.05 / 5)


def test_weights_that_are_given_are_named_and_too_few_images_have_no_fid(small: Path) -> None:
    network = ENCODERS["mobilenet_v3_small"].build()
    torch.save(network.state_dict(), small / "mine.pth")
    digest = digest_of_file(small / "mine.pth")
    knobs = {"encoder": "mobilenet_v3_small", "weights": small / "mine.pth"}
    with pytest.raises(ValueError, match=digest):
        finished(small, **knobs)  # neither published nor pinned
    (small / "out").rename(small / "refused")
    run = finished(small, **knobs, weights_sha256=digest)
    f = run.findings
    assert f["fid.value"] is None
    assert "1,025" in f["fid.value.reason"] or "1025" in f["fid.value.reason"]
    assert f["fid.with.sha256"] == digest
    assert str(small) not in (run.out / "findings.json").read_text()


def test_killed_while_canaries_are_sealed_it_plants_the_same_ones(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished(small, canaries=1)
    kept = {name: (whole.out / name).read_bytes() for name in ("canaries.tsv", "queries.parquet")}
    whole.out.rename(small / "whole")

    def killed(corpus: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(seal, "_sync_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            finished(small, canaries=1)
    again = finished(small, canaries=1)
    assert {name: (again.out / name).read_bytes() for name in kept} == kept
    assert list(verify(again.out)) == []
