"""From folders of ImageCLEF to answers: copies found, nothing found where there is nothing."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import clef
import numpy as np
import pandas as pd
import pytest

from fingerprint.measure import chosen, classify
from fingerprint.membership import Dev, Membership, Real, methods
from fingerprint.membership.calibrated import Calibrated
from fingerprint.membership.density import Density
from fingerprint.membership.embedding import Embedding
from fingerprint.membership.shadow import Shadow
from fingerprint.membership.similarity import Noise, Similarity
from fingerprint.membership.split import folds_of
from fingerprint.membership.texture import Texture
from fingerprint.membership.vcmi import Vcmi
from fingerprint.membership_job import TEST, MembershipJob, Sets
from fingerprint.models.recipe import Recipe
from fingerprint.phases import shadow
from fingerprint.settings import METHODS, Settings
from fingerprint.verify import verify
from flows.cli import run as command

TINY = """
pose = false
noise = false
compare_px = 32
table_slices = 20
mae_px = 32
mae_width = 32
mae_steps = 4
shadow_steps = 2
shadow_width = 8
shadow_images = 6
same_kind_width = 8
same_kind = "dcgan"
"""
FEW = 'methods = ["similarity", "density"]\n' + TINY


def asked(root: Path, out: Path, settings: str = TINY, *more: str) -> int:
    file = root / "settings.toml"
    file.write_text(settings)
    where = [str(root / "dev"), str(root / "test"), str(out)]
    return command(
        ["membership", *where, "--plain", "--cluster", "serial", "--settings", str(file), *more]
    )


def read(out: Path, name: str = "metrics.json") -> dict[str, Any]:
    return json.loads((out / name).read_bytes())


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run where the generator knows its slices by heart, with every method."""
    root = tmp_path_factory.mktemp("copies")
    clef.task(root)
    assert asked(root, root / "out") == 0
    return root / "out"


def test_slices_that_were_learnt_by_heart_are_told(copies: Path) -> None:
    found = read(copies)
    assert found["judged_on"] == "test"
    assert found["calibrated"]["auc"]["value"] >= 0.95
    assert found["calibrated"]["kappa"]["value"] >= 0.8
    for name in ("similarity", "density", "vcmi"):
        assert found[name]["auc"]["value"] >= 0.95, name
    low, high = found["calibrated"]["auc"]["interval"]
    assert low <= found["calibrated"]["auc"]["value"] <= high


def test_every_arm_has_every_metric_and_the_constants_stand_beside(copies: Path) -> None:
    found = read(copies)
    rows = {key: row for key, row in found.items() if "/" in key or key in METHODS}
    assert {key.split("/")[0] for key in rows} == set(METHODS)
    for key in (*rows, "always", "never", "coin"):
        assert set(classify.METRICS) <= set(found[key]), key
    for name in METHODS:
        arm = found[name]["arm"]
        assert arm.startswith(f"{name}/")
        assert found[arm]["auc"] == found[name]["auc"]
    assert found["always"]["f1"]["value"] == pytest.approx(2 / 3)
    assert found["always"]["kappa"]["value"] == 0
    assert found["never"]["recall"]["value"] == 0
    patients = found["by_patient"]["task"]["test"]["calibrated"]
    assert patients["auc"]["value"] >= 0.95


def test_a_submission_has_every_slice_once_in_the_order_of_names(copies: Path) -> None:
    rows = [
        line.split(",") for line in (copies / "submission_calibrated.csv").read_text().splitlines()
    ]
    used = {p.stem for p in (copies.parent / "test" / "real_used").iterdir()}
    others = {p.stem for p in (copies.parent / "test" / "real_not_used").iterdir()}
    assert len(rows) == len(used) + len(others)
    assert [name for name, _ in rows] == sorted([*used, *others])
    assert {label for _, label in rows} == {"0", "1"}
    assert {p.name for p in copies.glob("submission_*")} == {
        f"submission_{name}.csv" for name in METHODS
    }


def test_scores_are_one_row_a_slice_and_no_name_of_a_file(copies: Path) -> None:
    table = pd.read_parquet(copies / "scores.parquet")
    assert len(table) == 64 + 56
    assert set(table["side"]) == {"dev", "test"}
    assert table.loc[table["side"] == "dev", "fold"].isin([0, 1]).all()
    for file in ("scores.parquet", "called.parquet", "findings.json", "report.html"):
        assert b"slice_0" not in (copies / file).read_bytes(), file
    dev = table[table["side"] == "dev"]
    assert dev.groupby("patient")["fold"].nunique().max() == 1


def test_a_finished_run_is_sealed_resumes_and_builds_its_page_again(copies: Path) -> None:
    assert list(verify(copies)) == []
    before = {p: p.stat().st_mtime_ns for p in (copies / "ledger").rglob("*.shard")}
    assert asked(copies.parent, copies) == 0
    assert {p: p.stat().st_mtime_ns for p in (copies / "ledger").rglob("*.shard")} == before
    assert command(["report", str(copies)]) == 0
    page = (copies / "report.html").read_text()
    assert "Membership report" in page
    assert (copies / "roc.svg").read_text().startswith("<svg")


def test_another_question_in_the_same_folder_is_refused(copies: Path, capsys) -> None:
    assert asked(copies.parent, copies, TINY.replace("shadow_images = 6", "seed = 3")) == 2
    assert "other seed, shadow_images" in capsys.readouterr().err
    asked(copies.parent, copies)  # as it was


def test_a_changed_score_is_named(copies: Path, tmp_path: Path) -> None:
    shutil.copytree(copies, tmp_path / "out")
    path = tmp_path / "out" / "metrics.json"
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    assert [line for line in verify(tmp_path / "out") if "metrics.json" in line]


def test_two_tasks_side_by_side_without_labels(tmp_path: Path) -> None:
    for k, name in enumerate(("GAN 1", "GAN 2")):
        clef.side(tmp_path / "dev" / name, range(0, 16), k, copies=True)
        people = range(16, 30)
        folder = tmp_path / "test" / name.lower().replace(" ", "_")
        clef.side(folder, people, k, copies=True, labelled=False)
    assert asked(tmp_path, tmp_path / "out", FEW, "--header", "--extension") == 0
    found = read(tmp_path / "out")
    assert found["tasks"] == ["GAN 1", "GAN 2"]
    assert found["judged_on"] == "dev"
    each = [found["by_task"][t]["dev"]["similarity"]["kappa"]["value"] for t in found["tasks"]]
    assert found["similarity"]["kappa"]["value"] == pytest.approx(np.mean(each))
    assert found["vcmi"] == {"reason": "not asked for: see methods in the settings"}
    lines = (tmp_path / "out" / "GAN 1" / "submission_density.csv").read_text().splitlines()
    assert lines[0] == "name,label"
    assert lines[1].startswith("slice_000.png,")
    each_trains_its_own(tmp_path / "out", found["tasks"])


def each_trains_its_own(out: Path, tasks: list[str]) -> None:
    """Tasks may share their real slices: one shard for two models would leave one without."""
    sets = [
        Sets(name, *({r.name: r for r in side.iterdir()} for side in sides))
        for name in tasks
        for sides in [[out / "corpora" / name / side for side in ("dev", "test")]]
    ]
    job = MembershipJob(out, tuple(sets), Settings(**tomllib.loads(TINY)), {})
    keys = [one.key for one in shadow.plan(job)]
    assert len(set(keys)) == len(keys) == 2 * (2 * 3 + 1)


def test_labels_beside_the_slices_count_as_labels(tmp_path: Path) -> None:
    clef.side(tmp_path / "dev", range(0, 16), 1, copies=True)
    clef.side(tmp_path / "test", range(16, 30), 2, copies=True)
    unknown = tmp_path / "test" / "real_unknown"
    unknown.mkdir()
    labels = []
    for role, label in (("real_used", 1), ("real_not_used", 0)):
        for path in sorted((tmp_path / "test" / role).iterdir()):
            path.rename(unknown / f"{role[5]}{path.name}")
            labels.append(f"{role[5]}{path.stem},{label}")
        (tmp_path / "test" / role).rmdir()
    (tmp_path / "test" / "labels.csv").write_text("\n".join(labels))
    assert asked(tmp_path, tmp_path / "out", FEW) == 0
    assert read(tmp_path / "out")["similarity"]["auc"]["value"] >= 0.95


def test_one_candidate_a_broken_picture_and_an_empty_class(tmp_path: Path, capsys) -> None:
    clef.side(tmp_path / "dev", range(0, 16), 1, copies=True)
    clef.save(tmp_path / "test" / "generated", clef.slices_of(range(4)))
    clef.save(tmp_path / "test" / "real_used", clef.slices_of(range(1))[:1])
    (tmp_path / "test" / "real_used" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    (tmp_path / "test" / "real_not_used").mkdir()
    assert asked(tmp_path, tmp_path / "out", FEW) == 3
    said = capsys.readouterr().err
    assert "rejected" in said
    assert "broken.png" in said
    found = read(tmp_path / "out")
    assert found["similarity"]["auc"] == {
        "value": None,
        "interval": None,
        "reason": classify.ONE_CLASS,
    }
    assert found["similarity"]["recall"]["value"] in (0.0, 1.0)
    assert (tmp_path / "out" / "submission_similarity.csv").read_text() in (
        "slice_000,1\n",
        "slice_000,0\n",
    )
    assert read(tmp_path / "out", "findings.json")["rejected"]["task"]["test"]["used"] == 1


def test_development_data_without_a_class_or_with_one_patient_is_one_line(
    tmp_path: Path, capsys
) -> None:
    clef.task(tmp_path)
    shutil.rmtree(tmp_path / "dev" / "real_used")
    assert asked(tmp_path, tmp_path / "out", FEW) == 2
    assert "DEV" in (said := capsys.readouterr().err)
    assert "real_used" in said
    clef.save(tmp_path / "dev" / "real_used", clef.slices_of(range(1))[:1])
    assert asked(tmp_path, tmp_path / "again", FEW) == 2
    assert "2 folds need as many patients of each class" in capsys.readouterr().err


def test_a_killed_run_leaves_a_page_and_goes_on(tmp_path: Path, monkeypatch) -> None:
    clef.task(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr("fingerprint.membership.density.Density.fit", broken)
        assert asked(tmp_path, tmp_path / "out", FEW) not in (0, 2)
    assert "INCOMPLETE" in (tmp_path / "out" / "report.html").read_text()
    assert asked(tmp_path, tmp_path / "out", FEW) == 0


# -- chance


def untrained(images: np.ndarray) -> np.ndarray:
    """Return features of a network of one layer that nobody has trained."""
    weights = np.random.default_rng(1).normal(size=(images[0].size, 32))
    return np.maximum(images.reshape(len(images), -1) / 255.0 @ weights, 0).astype(np.float32)


CHEAP: dict[str, Membership] = {
    "similarity": Similarity(noise=(Noise(),)),
    "embedding": Embedding({"untrained": untrained}),
    "density": Density(),
    "vcmi": Vcmi(),
    "calibrated": Calibrated(Settings(pose=False)),
}


def texture_in(folder: Path) -> Texture:
    how = {"generator": "dcgan", "px": 32, "steps": 40, "batch": 2, "learning_rate": 2e-4}
    recipe = Recipe(**how, width=8, ema=0.0, seed=1)
    return Texture(*(Shadow(recipe, folder / name, 40) for name in ("shadow", "same")))


def unrelated(seed: int, makers: Mapping[str, Callable[[str], Membership]]) -> dict[str, float]:
    """Return kappa of some methods on TEST where nobody who is asked about was used."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(clef.PEOPLE)
    slices = [clef.slices_of([int(p)]) for p in people]
    generated = clef.noised(np.concatenate(slices[30:]), seed)
    dev, test = np.arange(16), np.arange(16, 30)
    used = {16: np.arange(16) % 2 == 0, 14: np.arange(14) % 2 == 0}
    images = np.concatenate([slices[p] for p in dev])
    who, mine = np.repeat(dev, 4), np.repeat(used[16], 4)
    fold, theirs = folds_of(who, mine, 2, seed), np.repeat(used[14], 4)
    asked_of = np.concatenate([slices[p] for p in test])
    out = {}
    for name, made in makers.items():

        def scored(part, made=made, teach=None, asked=None):
            known = Dev(
                generated, Real(images[mine & teach], who), Real(images[~mine & teach], who)
            )
            scorer = made(f"{seed}-{part}").fit(known)
            return scorer(asked, generated, images[~mine & teach], seed=seed)

        parts = [scored(k, teach=fold != k, asked=images[fold == k]) for k in (0, 1)]
        table = {arm: np.empty(len(images)) for arm in parts[0]}
        for arm, row in table.items():
            for k in (0, 1):
                row[fold == k] = parts[k][arm]
        side = chosen.Side({f"{name}/{a}": row for a, row in table.items()}, mine, who, fold)
        arm, row = chosen.of_method(side, list(side.scores))
        told = scored(TEST, teach=np.ones(len(mine), bool), asked=asked_of)[arm.split("/", 1)[1]]
        c = classify.confusion(told >= row.threshold, theirs, np.ones((1, len(theirs))))
        out[name] = float(classify.kappa(c)[0])
    return out


def nothing_is_told(makers: Mapping[str, Callable[[str], Membership]]) -> None:
    found = [unrelated(seed, makers) for seed in range(20)]
    for name in makers:
        kappa = np.nan_to_num([one[name] for one in found])
        assert abs(kappa.mean()) <= 3 * kappa.std(ddof=1) / np.sqrt(len(kappa)) + 1e-9, name


def test_an_unrelated_generator_tells_nothing_in_the_mean_of_twenty_seeds() -> None:
    nothing_is_told({name: lambda _, method=method: method for name, method in CHEAP.items()})


@pytest.mark.slow  # six trainings for each seed
def test_nor_does_it_tell_a_trained_shadow_anything(tmp_path: Path) -> None:
    nothing_is_told({"texture": lambda part: texture_in(tmp_path / part)})


def test_which_features_are_made_is_a_setting(tmp_path: Path) -> None:
    asked = Settings(enhanced="clahe", networks=["vgg16=/w/a.pth"])
    assert asked.enhanced == ("clahe",)
    ours, default = (
        methods.Method("embedding", s, 64, tmp_path).depends for s in (asked, Settings())
    )
    assert ours["enhanced"] != default["enhanced"]
    with pytest.raises(ValueError, match="enhanced"):
        Settings(enhanced=("sharp",))


def test_shuffled_labels_tell_nothing(rng: np.random.Generator) -> None:
    """Labels of DEV and TEST without meaning: kappa on TEST is nothing, whatever is chosen."""
    kappa = []
    for _ in range(40):
        n = 80
        arms = {f"m/{k}": rng.normal(size=n) for k in range(30)}
        side = chosen.Side(arms, rng.permutation(n) % 2 == 0, np.arange(n), np.arange(n) % 2)
        arm, row = chosen.of_method(side, list(arms))
        assert arm in arms
        test = chosen.Side(
            {k: rng.normal(size=n) for k in arms}, np.arange(n) % 2 == 0, np.arange(n), np.zeros(n)
        )
        called = chosen.on_test(test, arm, row.threshold).called
        used = np.asarray(test.used)
        kappa.append(classify.kappa(classify.confusion(called, used, np.ones((1, n))))[0])
    assert abs(np.mean(kappa)) <= 3 * np.std(kappa) / np.sqrt(len(kappa))


def test_on_dev_choosing_among_many_useless_arms_gains_nothing(rng: np.random.Generator) -> None:
    kappa = []
    for _ in range(60):
        n = 80
        arms = {f"m/{k}": rng.normal(size=n) for k in range(30)}
        side = chosen.Side(arms, rng.permutation(n) % 2 == 0, np.arange(n), np.arange(n) % 2)
        _, row = chosen.of_method(side, list(arms))
        used = np.asarray(side.used)
        kappa.append(classify.kappa(classify.confusion(row.called, used, np.ones((1, n))))[0])
    assert abs(np.mean(kappa)) <= 3 * np.std(kappa) / np.sqrt(len(kappa))


def test_networks_are_named_with_their_file() -> None:
    assert methods.network("vgg16=/w/a.pth=ab")[2] == "ab"
    with pytest.raises(ValueError, match="networks: name=file"):
        methods.network("vgg99=/w/a.pth")
