"""Real CT, end to end: what a stranger would do first. Slow; needs FINGERPRINT_DATA."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from naive import pearson
from PIL import Image

from fingerprint import audit
from fingerprint.corpus import ingest, store
from fingerprint.corpus.export import export_nifti, export_png
from fingerprint.corpus.identity import Key
from fingerprint.run import run_ingest
from fingerprint.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("a key of forty characters for the tests..")
    path.chmod(0o600)
    return path


def corpus_of(
    sources: list[Path], out: Path, set_name: str = "real", settings: Settings | None = None
) -> store.Corpus:
    key = Key(b"a key of forty characters for the tests..")
    job = ingest.ingest_job(
        sources, out, set_name=set_name, settings=settings or Settings(), key=key
    )
    run_ingest(job)
    return store.open_corpus(out)


def test_two_reconstructions_of_one_scan_find_each_other_slice_by_slice(
    data: Path, tmp_path: Path, key_file: Path
) -> None:
    series = data / "dicom_series"
    real = tmp_path / "real"
    for name in ("lidc-idri-0001", "lung_dx-a0002_b40f", "lidc-idri-0003_neck"):
        shutil.copytree(series / name, real / name)
    run = audit(real, series / "lung_dx-a0002_b70f", out=tmp_path / "out", key_file=key_file)
    labels = store.open_corpus(tmp_path / "out/corpora/real").slices
    queries = store.open_corpus(tmp_path / "out/corpora/generated").slices
    top = run.matches.query("rank == 1 and query_set == 'generated'").set_index("query")
    assert len(top) == 30
    z = queries.set_index("g_" + queries["token"])["z_mm"]
    found = labels["z_mm"].to_numpy()[top["slice"].to_numpy(int)]
    np.testing.assert_array_equal(found, z.loc[top.index].to_numpy())
    assert top["r_raw"].min() > 0.99
    assert run.findings["identical.images"] == 0
    assert run.exit_code == 0


def test_exact_copies_among_real_8_bit_slices_are_found_and_the_matrix_is_exact(
    data: Path, tmp_path: Path, key_file: Path
) -> None:
    files = sorted((data / "slices_8bit/iq_oth_nccd").glob("*.jpg"))
    rng = np.random.default_rng(11)
    planted = rng.choice(files, 12, replace=False)
    (tmp_path / "gen").mkdir()
    real = corpus_of([data / "slices_8bit"], tmp_path / "real")
    for i, file in enumerate(planted):
        with Image.open(file) as image:
            if image.size == (512, 512):
                image.convert("L").save(tmp_path / "gen" / f"{i}.png")
    n = len(list((tmp_path / "gen").iterdir()))
    few = Settings(controls=8)  # each is registered
    run = audit(
        tmp_path / "real", tmp_path / "gen", out=tmp_path / "out", key_file=key_file, settings=few
    )
    assert run.findings["identical.images"] == n
    generated = store.open_corpus(tmp_path / "out/corpora/generated")
    top = run.matches.query("rank == 1 and query_set == 'generated'")
    assert (top["query_digest"] == top["slice_digest"]).all()
    pairs = run.matches.query("query_set == 'generated'").sample(5, random_state=1)
    digests = generated.slices["digest"].tolist()
    for _, row in pairs.iterrows():
        query = generated.at([digests.index(row["query_digest"])])[0]
        assert row["r_raw"] == pearson(query, real.at([row["slice"]])[0])


def test_exactly_repeated_slices_are_the_known_pairs(data: Path, tmp_path: Path) -> None:
    corpus = corpus_of([data / "slices_8bit"], tmp_path / "real")
    pairs = pd.read_csv(data / "known_pairs.csv")
    known = pairs[(pairs["kind"] == "exact_same_pixels") & pairs["a"].str.startswith("slices_8bit")]
    repeated = corpus.slices.groupby("digest").size()
    assert int((repeated > 1).sum()) == len(known)
    assert corpus.slices.groupby("digest")["participant"].nunique().max() == 1
    s = corpus.summary
    assert s["accepted"] + sum(s["excluded"].values()) + sum(s["rejected"].values()) == s["seen"]


@pytest.mark.parametrize("window", ["full", "lung"])
def test_export_and_ingest_again_keep_every_pixel(data: Path, tmp_path: Path, window: str) -> None:
    settings = Settings(window_hu=window)
    first = corpus_of([data / "dicom_series/lung_dx-a0002_b40f"], tmp_path / "a", settings=settings)
    for name, export in (("nifti", export_nifti), ("png", export_png)):
        export(first, tmp_path / name, lambda done, planned: None)
        again = corpus_of([tmp_path / name], tmp_path / f"again-{name}", settings=settings)
        assert sorted(again.slices["digest"]) == sorted(first.slices["digest"])
        assert again.slices["digest"].tolist() == first.slices["digest"].tolist()
        assert again.summary["rejected"] == {}
        assert set(again.slices["sex"]) == {"F"}
        np.testing.assert_allclose(again.slices["z_mm"], first.slices["z_mm"], atol=1e-4)


def test_exported_geometry_agrees_with_an_independent_conversion(
    data: Path, tmp_path: Path
) -> None:
    import nibabel as nib  # noqa: PLC0415

    corpus = corpus_of([data / "dicom_series/lung_dx-a0002_b40f"], tmp_path / "a")
    export_nifti(corpus, tmp_path / "nifti", lambda done, planned: None)
    ours = nib.as_closest_canonical(nib.load(next((tmp_path / "nifti").rglob("*.nii.gz"))))
    theirs = nib.as_closest_canonical(nib.load(data / "nifti/lung_dx-a0002_b40f.nii.gz"))
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-3)
    hu = np.clip(np.asanyarray(theirs.dataobj), -1000, 1000)
    assert np.abs(np.asanyarray(ours.dataobj) - hu).max() <= 2000 / 255 / 2 + 1
    assert ours.header["descrip"].tobytes().strip(b"\0") == b""


def test_the_whole_data_folder_is_accounted_for(data: Path, tmp_path: Path) -> None:
    corpus = corpus_of([data], tmp_path / "real")
    s = corpus.summary
    assert s["accepted"] + sum(s["excluded"].values()) + sum(s["rejected"].values()) == s["seen"]
    assert s["seen"] == sum(1 for p in data.rglob("*") if p.is_file())
    assert s["rejected"]["gantry_tilt"] == 6
    assert list(store.verify(corpus.path)) == []
