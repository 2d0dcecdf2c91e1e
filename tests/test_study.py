"""A study from corpus to page: its sets, its resume, what it refuses; its trainings are short."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from study_world import HEAD, corpus_of, world

from fingerprint import ledger, phases
from fingerprint.corpus import made, store
from fingerprint.corpus.identity import load_key
from fingerprint.corpus.images import bilinear
from fingerprint.corpus.made import write_images, write_subset
from fingerprint.ledger import Damaged
from fingerprint.measure import attribution, null
from fingerprint.phases import cross, curve, sample, train
from fingerprint.run import silent
from fingerprint.search import blocks
from fingerprint.settings import Settings
from fingerprint.study_job import StudyJob, snapshots, study_job
from fingerprint.study_run import Study, audited, brought_for, run_study
from fingerprint.verify import verify
from flows import chain, planned
from flows.cli import run as command

PATIENTS = 24
QUICK: dict[str, Any] = {
    "sizes": (6, 18),
    "held_out": 0.4,
    "sets": 2,
    "set_size": 6,
    "train_px": 32,
    "train_steps": 4,
    "train_batch": 4,
    "width": 8,
    "ema": 0.5,
    "snapshots": 1,
    "sample_steps": 2,
    "pool": 20,
    "sample": 16,
    "controls": 30,
    "pose": False,
    "register_patients": 0,
}
TIMES = ("seconds", "started", "ended", "hours")


def studied(corpus: Path, out: Path, **other: Any) -> Study:
    return run_study(study_job(corpus, out, Settings(**QUICK | other)))


def numbers(study: Study) -> dict[str, Any]:
    """Return the findings without what a clock said."""
    return {k: v for k, v in study.findings.items() if not any(word in k for word in TIMES)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus_of(tmp_path_factory.mktemp("study") / "corpus", PATIENTS).path


@pytest.fixture(scope="module")
def study(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return studied(corpus, tmp_path_factory.mktemp("out") / "study")


def test_sets_are_balanced_nested_and_apart_from_who_is_held_out(study: Study) -> None:
    small, large, held = (
        store.open_corpus(study.out / "cohorts" / name) for name in ("n6", "n18", "held-out")
    )
    for one in (small, large, held):
        counts = one.slices.groupby(["sex", "region"]).size()
        assert counts.nunique() == 1
        assert len(counts) == 6
    assert set(small.label("token")) < set(large.label("token"))
    trained = set(large.label("participant"))
    for name in ("set1", "set2"):
        trained |= set(store.open_corpus(study.out / "cohorts" / name).label("participant"))
    assert not trained & set(held.label("participant"))  # E27


def test_a_set_holds_the_slices_of_the_corpus(study: Study, corpus: Path) -> None:
    whole, part = store.open_corpus(corpus), store.open_corpus(study.out / "cohorts" / "n6")
    place = {token: k for k, token in enumerate(whole.label("token"))}
    rows = [place[token] for token in part.label("token")]
    assert (part.read(0, part.n) == whole.at(rows)).all()
    for name in store.LABELS:
        if name != "part":
            assert (part.label(name) == whole.label(name)[rows]).all(), name
    assert part.summary["slices"] == 6
    assert part.set_name == "real"


def test_a_pool_names_the_weights_and_the_seed_that_made_it(study: Study) -> None:
    pool = store.open_corpus(study.out / "pools" / "n6")
    weights = ledger.digest_of_file(study.out / "models" / "n6" / train.WEIGHTS)
    assert pool.head["made_with"]["weights"] == weights
    assert isinstance(pool.head["made_with"]["seed"], int)
    assert set(pool.label("native_px")) == {QUICK["train_px"]}
    assert pool.n == QUICK["pool"]
    assert pool.size_px == HEAD["size_px"]
    assert not pool.label("participant").any()


def test_the_page_and_the_audits_are_there(study: Study) -> None:
    assert study.complete
    assert study.report.read_text().count("<section") > 8
    assert study.findings["points"] == ["n6", "n18"]
    for name in ("n6", "n18"):
        assert (study.out / "audits" / name / "report.html").exists()
        assert study.findings[f"{name}.table1.generated.n"] == QUICK["sample"]
        assert len(study.findings[f"{name}.curve.step"]) == 2
    assert len(study.findings["figure4.pixels.matrix"]) == 2
    assert list(verify(study.out)) == []


def test_the_same_study_again_does_nothing(study: Study, corpus: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in study.out.rglob("*.shard")}
    told = study.findings
    again = studied(corpus, study.out)
    assert {p: p.stat().st_mtime_ns for p in study.out.rglob("*.shard")} == before
    assert numbers(again) == {k: v for k, v in told.items() if k in numbers(again)}


class Killed(BaseException):
    """What a killed process does not catch."""


def dying(at: str) -> Any:
    def step(phase: Any, job: Any, execute: Any, watch: Any) -> None:
        if phase.name == at:
            shards = phase.plan(job)
            for shard in shards[: max(1, len(shards) // 2)]:
                ledger.work(job.ledger, shard)
            raise Killed
        phases.run_phase(phase, job, execute, watch)

    return step


def test_killed_anywhere_it_ends_with_the_same_numbers(
    study: Study, corpus: Path, tmp_path: Path
) -> None:
    job = study_job(corpus, tmp_path / "again", Settings(**QUICK))
    for at in ("cohorts", "train", "sample", "curve", "cross", "search", "stats"):
        with pytest.raises(Killed):
            run_study(job, step=dying(at))
        assert "INCOMPLETE" in (tmp_path / "again" / "report.html").read_text(), at
    again = run_study(study_job(corpus, tmp_path / "again", Settings(**QUICK)))
    assert numbers(again) == numbers(study)
    for name in ("n6", "n18", "set1"):
        one, other = (store.open_corpus(s.out / "pools" / name).digest for s in (study, again))
        assert one == other


def test_images_are_drawn_without_the_training_slices(study: Study, tmp_path: Path) -> None:
    weights = tmp_path / train.WEIGHTS
    shutil.copy(study.out / "models" / "n6" / train.WEIGHTS, weights)
    pool = store.open_corpus(study.out / "pools" / "n6")
    told = pool.head["made_with"]
    values, _ = sample.draw(weights, told["weights"], 0, 20, told["seed"])
    large = np.stack([bilinear(image, (pool.size_px,) * 2) for image in values["images"]])
    digests = {made.hashlib.sha256(image.tobytes()).hexdigest() for image in large}
    assert digests == set(pool.label("digest"))


def test_what_was_removed_is_made_again(study: Study, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    shutil.copytree(study.out, out)
    for place in ("cohorts/n6", "models/n18", "pools/set1"):
        shutil.rmtree(out / place)
    again = studied(corpus, out)
    assert numbers(again) == numbers(study)
    assert list(verify(out)) == []


@pytest.mark.parametrize("place", ["models/n6/weights.safetensors", "pools/n18", "findings.json"])
def test_a_changed_byte_is_named(study: Study, tmp_path: Path, place: str) -> None:
    out = tmp_path / "study"
    shutil.copytree(study.out, out)
    path = out / place
    if path.is_dir():
        path = next(path.glob("pixels/c/*/0/0"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any(path.name in line for line in verify(out))
    if path.suffix == ".safetensors":
        with pytest.raises((Damaged, ValueError)):
            sample.draw(path, ledger.digest_of_file(study.out / place), 0, 1, 1)


def test_another_study_in_the_same_folder_is_refused(study: Study, corpus: Path) -> None:
    with pytest.raises(ValueError, match="train_steps"):
        study_job(corpus, study.out, Settings(**QUICK | {"train_steps": 5}))


# -- images of the user's own generators


@pytest.fixture(scope="module")
def brought(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brought")
    for size in (6, 18):
        slices = store.open_corpus(study.out / "cohorts" / f"n{size}")
        (folder / str(size)).mkdir()
        for k, image in enumerate(slices.at(np.arange(16) % slices.n)):
            Image.fromarray(image).save(folder / str(size) / f"{k}.png")
    return folder


def test_own_images_are_audited_and_nothing_is_trained(
    corpus: Path, brought: Path, tmp_path: Path
) -> None:
    keyed = tmp_path / "key"
    keyed.write_bytes(b"a key for the tests, 32 bytes long".hex().encode())
    keyed.chmod(0o600)
    out = tmp_path / "study"
    mine = _with_key(corpus, tmp_path / "corpus", keyed)
    done = chain.study_corpus(
        str(mine),
        str(out),
        generated=str(brought),
        key_file=str(keyed),
        knobs=QUICK,
        how=chain.How("serial"),
    )
    assert not (out / "models").exists()
    assert done.study.exit_code == 10
    assert done.study.findings["n6.identical.images"] == 16
    assert done.study.findings["n6.training.steps"] is None


def _with_key(corpus: Path, path: Path, key_file: Path) -> Path:
    key = load_key(key_file, create=False)
    source = store.open_corpus(corpus)
    head = source.head | {"key_id": key.key_id}
    labels = source.slices.drop(columns=["sum", "sum_of_squares", "digest", "part", *store.SUMS])
    chunks = iter([source.read(i, min(i + 64, source.n)) for i in range(0, source.n, 64)])
    return made.write(path, "real", chunks, labels, head, {"keyed": 1}, series=source.scans).path


def test_a_size_without_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n6").mkdir()
    assert brought_for(tmp_path, [6]) == {6: tmp_path / "n6"}
    with pytest.raises(ValueError, match="folder 18"):
        brought_for(tmp_path, [6, 18])


# -- what a stranger types


def test_the_command_stops_after_the_cohorts_if_asked(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sizes", "6,18", "--shrink", "--only-cohorts", "--plain", "--cluster", "serial"]
    assert command(["study", str(corpus), str(tmp_path / "out"), *flags]) == 0
    assert "cohorts/n18" in capsys.readouterr().out
    assert not (tmp_path / "out" / "models").exists()


def test_a_corpus_that_is_too_small_is_refused_with_the_list(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sizes", "6,6000", "--plain", "--cluster", "serial"]
    assert command(["study", str(corpus), str(tmp_path / "out"), *flags]) == 2
    told = capsys.readouterr().err
    assert "6,000" in told
    assert "shrink" in told
    assert not (tmp_path / "out" / "study.json").exists()


@pytest.mark.parametrize(
    ("labels", "knobs", "words"),
    [
        ({"age": np.int16(-1)}, {"ages": (20, 30)}, "age"),
        ({"sex": "M"}, {}, "women"),
        ({"participant": ""}, {}, "participant"),
        ({"region": "c2"}, {}, "c1"),
    ],
)
def test_a_corpus_without_what_is_needed_is_refused(
    tmp_path: Path, labels: dict[str, Any], knobs: dict[str, Any], words: str
) -> None:
    lacking = corpus_of(tmp_path / "corpus", PATIENTS, **labels)
    with pytest.raises(ValueError, match=words):
        study_job(lacking.path, tmp_path / "out", Settings(**QUICK | knobs))


def test_a_plan_counts_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    told = planned.of_study(str(corpus), Settings(**QUICK), False, "local")
    assert told["trainings"].startswith("4 of ddpm, 4 steps of 4 images of 32 px")
    assert told["images.drawn"] == 2 * 20 + 2 * 16
    assert told["hours.audits"] > 0
    assert "6 slices of 6 patients" in told["real.n6"]
    with pytest.raises(ValueError, match="no corpus"):
        planned.of_study(str(tmp_path), Settings(**QUICK), False, "local")


# -- the parts


def test_snapshots_halve_and_end_with_the_last_step() -> None:
    assert snapshots(20_000, 3) == (2500, 5000, 10_000, 20_000)
    assert snapshots(5, 10) == (1, 2, 5)
    assert snapshots(7, 0) == (7,)


def test_the_nearest_slice_is_that_of_a_slow_search() -> None:
    rng = np.random.default_rng(3)
    images, slices = (rng.integers(0, 256, (n, 8, 8)).astype(np.uint8) for n in (5, 40))
    images[2], images[3] = slices[17], 9
    r, at = sample.nearest(images, slices)
    flat = slices.reshape(40, -1)
    for k in (0, 1, 2, 4):
        slow = [np.corrcoef(images[k].ravel(), other)[0, 1] for other in flat]
        assert at[k] == np.argmax(slow)
        assert r[k] == pytest.approx(max(slow), abs=1e-12)
    assert r[2] == 1
    assert r[3] == -1  # one grey level: like nothing


def test_best_z_is_the_maximum_over_the_slices_of_a_patient() -> None:
    rng = np.random.default_rng(4)
    images, slices = (rng.integers(0, 256, (n, 8, 8)).astype(np.uint8) for n in (3, 12))
    patient = np.repeat(np.arange(4), 3)
    z = curve.best_z(images, slices, patient)
    r = np.corrcoef(images.reshape(3, -1), slices.reshape(12, -1))[:3, 3:]
    assert z == pytest.approx(np.arctanh(r.reshape(3, 4, 3).max(2)), abs=1e-9)


@pytest.mark.parametrize("closer", [0.0, 1.0])
def test_the_curve_tells_copies_from_strangers(closer: float) -> None:
    rng = np.random.default_rng(5)
    control = rng.normal(1, 0.1, (400, 20))
    generated = rng.normal(1, 0.1, (64, 20))
    generated[:, 3] += closer
    told = curve.summary(generated, control, np.repeat(np.arange(40), 10), 0.05, 1)
    assert told["low"] < told["excess"] < told["high"]
    gap = float(null.s_r(generated).mean() - null.s_r(control).mean())
    assert told["excess"] == pytest.approx(gap)
    assert (told["low"] > 0) == bool(closer)
    assert (told["found"] == 64) if closer else (told["found"] <= 3)


def test_sets_are_told_apart_by_the_matrix_and_shuffled_ones_are_not() -> None:
    rng = np.random.default_rng(6)
    centres = rng.normal(size=(4, 30))
    real = [rng.normal(c, 0.5, (60, 30)) for c in centres]
    generated = [rng.normal(c, 0.5, (60, 30)) for c in centres]
    own = attribution.attribution(cross.matrix(real, generated, reduce=True))
    assert own.row_hits == own.column_hits == 4
    assert own.p == 1 / 24
    other = attribution.attribution(cross.matrix(real, generated[::-1], reduce=True))
    assert other.p > 0.5
    assert other.row_hits == 0


def test_a_set_of_fewer_images_than_a_covariance_needs_has_a_reason(study: Study) -> None:
    told = json.loads((study.out / "figure4.json").read_bytes())
    assert np.shape(told["pixels"]) == (2, 2)
    assert "weights" in told["fid.reason"]


def test_only_copies_of_slices_of_a_corpus_are_planted(
    study: Study, corpus: Path, tmp_path: Path
) -> None:
    job = StudyJob(tmp_path, corpus, Settings(**QUICK))
    job.out.joinpath("study.json").write_text(json.dumps({"format": [1, 0]}))
    shutil.copytree(study.out / "cohorts", tmp_path / "cohorts")
    cohort = store.open_corpus(job.cohort("n6"))
    small = train.images_of(cohort, 32)
    noise = np.random.default_rng(1).integers(0, 256, small.shape).astype(np.uint8)
    sample.seal_copies(
        job, job.sizes[0], np.concatenate([noise, small]), {"weights": "w", "seed": 1}
    )
    copies = store.open_corpus(job.positives)
    assert copies.n == 6
    assert sorted(copies.label("participant")) == sorted(cohort.label("participant"))
    large, other = (store.open_corpus(job.cohort(name)) for name in ("n18", "held-out"))
    assert len(blocks.copies_in(copies, large)) == 6
    assert len(blocks.copies_in(copies, other)) == 0


def test_a_study_that_copies_plants_its_copies_in_larger_audits(
    study: Study, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    shutil.copytree(study.out, out)
    job = study_job(corpus, out, Settings(**QUICK))
    small = train.images_of(store.open_corpus(job.cohort("n6")), 32)
    sample.seal_copies(job, job.sizes[0], small, {"weights": "w", "seed": 1})
    shutil.rmtree(out / "audits" / "n18")
    again = run_study_end(job)
    cells = again.findings["n18.limit.generator.cells"]
    assert cells[0]["n"] == 6
    assert cells[0]["first"] == 6  # each is most like the patient it shows


def run_study_end(job: StudyJob) -> Study:
    """Run what follows the pools: audits, numbers, page."""
    for point in job.sizes:
        audited(job, point, ledger.in_this_process, silent, phases.run_phase)
    for phase in phases.STUDY_END:
        phases.run_phase(phase, job, ledger.in_this_process, silent)
    return Study(job.out)


def test_a_subset_is_written_once(corpus: Path, tmp_path: Path) -> None:
    whole = store.open_corpus(corpus)
    first = write_subset(whole, np.array([1, 5, 70]), tmp_path / "part", "control", "three slices")
    stamp = (tmp_path / "part" / "zarr.json").stat().st_mtime_ns
    again = write_subset(whole, np.array([1, 5, 70]), tmp_path / "part", "control", "three slices")
    assert (tmp_path / "part" / "zarr.json").stat().st_mtime_ns == stamp
    assert first.digest == again.digest
    other = write_subset(whole, np.array([1, 5]), tmp_path / "part", "control", "two slices")
    assert other.n == 2
    assert list(verify(tmp_path / "part")) == []


def test_images_of_nobody_are_enlarged_as_an_ingest_does(corpus: Path, tmp_path: Path) -> None:
    images = world(PATIENTS)[0][:3, ::2, ::2]
    pool = write_images(
        tmp_path / "pool",
        "generated",
        images,
        ["a", "b", "c"],
        store.open_corpus(corpus).head,
        {"weights": "w"},
        note="three",
    )
    assert (pool.at([1])[0] == bilinear(images[1], (64, 64))).all()
    assert pool.summary["notes"] == ["three"]
    assert pool.summary["participants_known"] == "not needed"
