"""The listed pairs of a run, registered: end to end, whatever the cut, and where it cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from corpora import make_corpus

from fingerprint import ledger, phantom, warp
from fingerprint.corpus.window import to_uint8
from fingerprint.job import audit_job
from fingerprint.register import kept, listed, scores
from fingerprint.register.listed import How, Listed
from fingerprint.run import Run, run_audit
from fingerprint.search.sets import QuerySet
from fingerprint.settings import Settings
from fingerprint.verify import verify

SIDE = 128
SETTINGS = Settings(
    shard_slices=16, controls=6, register_patients=3, elastic_patients=2, keep_patients=4
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slices of each of six patients; copies that were bent, moved, exact, and nobody."""
    folder = tmp_path_factory.mktemp("world")
    hu = [phantom.patient(k, seed=21, n_slices=3, size_px=SIDE).hu for k in range(7)]
    real = to_uint8(np.concatenate(hu[:6]), (-1000.0, 1000.0))
    nobody = to_uint8(hu[6], (-1000.0, 1000.0))
    generated = [
        phantom.plant(real[1], "elastic", 3.0, seed=1),
        phantom.plant(real[7], "pose", 0.4, seed=2),
        real[13],
        nobody[1],
    ]
    make_corpus(folder / "real", real, [f"P{i // 3:012x}" for i in range(18)])
    make_corpus(folder / "generated", np.stack(generated), [""] * 4, set_name="generated")
    return folder


def audited(world: Path, out: Path, settings: Settings = SETTINGS) -> Run:
    return run_audit(audit_job(world / "real", world / "generated", None, out, settings))


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return audited(world, tmp_path_factory.mktemp("run") / "out")


def test_a_bent_copy_becomes_alike_and_a_stranger_takes_more_warp(run: Run) -> None:
    top = run.matches.query("query_set == 'generated' and rank == 1").set_index("slice")
    bent, moved, exact = (top.loc[k] for k in (1, 7, 13))
    assert bent["r_highpass_elastic"] > bent["r_highpass_affine"] + 0.1
    assert bent["mi_bits_raw"] < bent["mi_bits_affine"] < bent["mi_bits_elastic"]
    assert bent["ssim_elastic"] > 0.9
    assert moved["r_affine"] > 0.97
    assert moved["mi_bits_affine"] > moved["mi_bits_raw"]
    assert (exact["r_affine"], exact["r_elastic"], exact["ssim_elastic"]) == (1, 1, 1)
    assert exact["deformation_energy"] == 0
    strangers = run.matches.query("query_set == 'control' and rank == 1")
    assert bent["deformation_energy"] < strangers["deformation_energy"].min()
    assert (run.matches["min_jacobian"].dropna() > 0).all()


def test_every_listed_pair_has_the_scores_of_the_steps_that_were_run(run: Run) -> None:
    table = run.matches
    most = np.where(table["query_set"] == "generated", 3, 1)  # of a control the best only
    registered = table["rank"] <= most
    assert table.loc[registered, ["r_affine", "mi_bits_raw", "nmi_affine"]].notna().all().all()
    assert table.loc[~registered, list(scores.COLUMNS)].isna().all().all()
    per_query = table.groupby("query")["r_elastic"].count()
    images = per_query.index.str.startswith("g_")
    assert per_query[images].between(2, 3).all()  # the two most alike, and the first
    assert (per_query[~images] == 1).all()
    assert table.loc[table["rank"] == 1, "r_elastic"].notna().all()
    counts = run.findings
    assert counts["register.pairs"] == registered.sum()
    assert counts["register.elastic"] == table["r_elastic"].notna().sum()
    assert table["nmi_elastic"].dropna().between(1, 2).all()


def test_what_is_kept_of_the_best_pairs_opens_with_its_labels(run: Run) -> None:
    store = kept.load(run.out / "registration.zarr")
    first = run.matches.query("rank == 1")
    assert store["query"].values.astype(object).tolist() == first["query"].tolist()
    assert store["slice"].values.tolist() == first["slice"].tolist()
    assert store["field"].shape == (len(first), 2, 64, 64)
    exact = store.isel(query=2)
    np.testing.assert_array_equal(exact["matrix"], np.eye(2, 3))
    assert not exact["field"].values.any()
    z = exact["tiles"].values
    assert (z[np.isfinite(z)] == 12).all()
    assert list(verify(run.out)) == []


def test_copied_regions_of_an_identical_image_are_on_record(run: Run) -> None:
    f = run.findings
    assert f["pair.1.r_raw"] == 1
    assert {region["kind"] for region in f["pair.1.regions.list"]} == {"copied"}
    assert f["pair.1.regions.level"] == pytest.approx(f["settings.q"] / 4)


def test_nothing_changes_with_the_cut_or_the_order(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "QUERIES", 3)
    monkeypatch.setitem(listed.AT_ONCE, "cpu", 5)

    def backwards(folder: Path, shards: list[ledger.Shard]):
        return ledger.in_this_process(folder, list(shards)[::-1])

    job = audit_job(world / "real", world / "generated", None, tmp_path / "out", SETTINGS)
    cut = run_audit(job, backwards)
    pd.testing.assert_frame_equal(cut.matches, run.matches)
    for name in kept.DIMS:
        np.testing.assert_array_equal(
            kept.load(cut.out / "registration.zarr")[name],
            kept.load(run.out / "registration.zarr")[name],
        )


def test_without_registration_the_columns_are_null_and_the_page_says_why(
    world: Path, tmp_path: Path
) -> None:
    off = audited(world, tmp_path / "out", SETTINGS.model_copy(update={"register_patients": 0}))
    assert off.matches[list(scores.COLUMNS)].isna().all().all()
    assert not (off.out / "registration.zarr").exists()
    assert "register_patients = 0" in off.findings["register.pairs.reason"]
    same = audited(world, tmp_path / "affine", SETTINGS.model_copy(update={"elastic_patients": 0}))
    assert same.matches["r_elastic"].isna().all()
    assert same.matches.query("rank == 1")["r_affine"].notna().all()


def test_a_corpus_against_itself_is_listed_only(world: Path, tmp_path: Path) -> None:
    job = audit_job(world / "real", world / "real", None, tmp_path / "out", SETTINGS)
    itself = run_audit(job)
    assert itself.matches["r_affine"].isna().all()
    assert itself.findings["register.pairs"] is None


def test_simpleitk_registers_the_same_pairs(world: Path, tmp_path: Path) -> None:
    few = SETTINGS.model_copy(
        update={"engine": "simpleitk", "register_patients": 1, "elastic_patients": 0}
    )
    itk = audited(world, tmp_path / "out", few).matches.query("rank == 1 and slice == 7")
    assert itk["r_affine"].iloc[0] > 0.97


def test_the_most_alike_and_the_first_are_registered_elastically() -> None:
    pairs = Listed(np.array([3, 0, 2]), np.arange(5), np.full((5, 5), np.nan))
    alike = np.array([0.1, 0.9, 0.5, np.nan, 0.2])
    assert listed.most_alike(pairs, alike, 1).tolist() == [0, 1, 3, 4]
    assert listed.most_alike(pairs, alike, 3).tolist() == [0, 1, 2, 3, 4]
    assert listed.most_alike(pairs, alike, 0).tolist() == []
    assert pairs.first.tolist() == [True, False, False, True, False]
    assert pairs.part(1, 3).slices.tolist() == [3, 4]


def test_a_shard_is_named_by_what_decides_its_result(world: Path) -> None:
    queries = QuerySet("generated", world / "generated", "d" * 64, np.arange(2), np.full(2, -1))
    pairs = Listed(np.array([1, 1]), np.array([3, 4]), np.array([warp.IDENTITY, warp.IDENTITY]))

    ours = How("torch", 1)

    def key(pairs: Listed = pairs, how: How = ours, digest: str = "r" * 64) -> str:
        (shard,) = listed.plan(queries, world / "real", digest, pairs, how)
        return shard.key

    moved = pairs.poses + [[1, 0, 0, 0, 0]]
    others = [
        key(how=How("simpleitk", 1)),
        key(how=How("torch", 2)),
        key(digest="s" * 64),
        key(Listed(pairs.counts, np.array([3, 5]), pairs.poses)),
        key(Listed(pairs.counts, pairs.slices, moved)),
    ]
    assert key() == key()
    assert len({key(), *others}) == 6
