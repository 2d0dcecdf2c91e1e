"""Generators that memorise, audited: a study on phantoms, from six slices to ninety-six."""

from __future__ import annotations

import numpy as np
import pytest
from study_world import corpus_of

from fingerprint.corpus import store
from fingerprint.corpus.made import write_subset
from fingerprint.job import audit_job
from fingerprint.run import run_audit
from fingerprint.settings import Settings
from fingerprint.study_job import StudyJob, study_job
from fingerprint.study_run import Study, run_study

SETTINGS = Settings(
    sizes=(6, 24, 96),
    held_out=0.5,
    sets=0,
    train_px=32,
    train_steps=600,
    train_batch=8,
    learning_rate=3e-3,
    predicts="velocity",
    width=16,
    ema=0.97,
    snapshots=1,
    sample_steps=12,
    pool=48,
    sample=32,
    controls=240,
    pose=False,
    register_patients=0,
)


pytestmark = pytest.mark.slow  # six minutes of training on one core


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> StudyJob:
    folder = tmp_path_factory.mktemp("copies")
    return study_job(corpus_of(folder / "corpus", 60).path, folder / "out", SETTINGS)


@pytest.fixture(scope="module")
def study(job: StudyJob) -> Study:
    return run_study(job)


@pytest.mark.timeout(900)
def test_copying_falls_with_the_size_of_the_training_set(study: Study) -> None:
    f = study.findings
    excess = [f[f"n{n}.excess"] for n in SETTINGS.sizes]
    assert excess[0] > 0.2
    assert f["n6.excess.low"] > 0
    assert excess[0] > excess[1] > excess[2]
    assert excess[2] < 0  # no closer to its training set than strangers are
    assert study.exit_code == 10


def test_the_smallest_set_is_flagged_patient_by_patient(study: Study) -> None:
    """Six patients, thirty strangers: ranks of patients speak where those of images cannot."""
    f = study.findings
    assert f["n6.patients.found"] >= 4
    assert f["n6.set.p_value"] <= 0.001
    for n in SETTINGS.sizes[1:]:
        assert f[f"n{n}.patients.found"] == 0
        assert not f[f"n{n}.images.found"]


def test_a_generator_of_other_patients_is_not_flagged(study: Study, job: StudyJob) -> None:
    """The images that copy six patients, audited against six others."""
    held = store.open_corpus(job.cohort("held-out"))
    who = held.label("participant")
    others = set(sorted(set(who))[:6])
    parts = {
        name: write_subset(
            held,
            np.flatnonzero([(one in others) == mine for one in who]),
            job.out.parent / name,
            kind,
            "a part of the held-out slices",
        ).path
        for name, kind, mine in (("six", "real", True), ("rest", "control", False))
    }
    out = job.out.parent / "audit"
    pool = job.pool(job.sizes[0].name)
    run = run_audit(audit_job(parts["six"], pool, parts["rest"], out, job.audited_with()))
    assert run.exit_code == 0
    assert run.findings["patients.found"] == 0
    assert run.findings["set.p_value"] > 0.05
    assert study.complete


def test_copying_begins_during_the_training(study: Study) -> None:
    f = study.findings
    assert f["n6.curve.excess"][-1] > f["n6.curve.excess"][0]
    assert f["n6.curve.nearest"][-1] > 0
    assert f["n96.curve.nearest"][-1] == 0
