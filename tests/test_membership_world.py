"""The study of membership in small: a generator is trained, and it is known on what."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from test_membership import TINY

from fingerprint.settings import METHODS

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))

import membership_study as study  # noqa: E402

pytest.importorskip("diffusers", reason="the study extra is not installed")
QUICK = tomllib.loads(TINY)


@pytest.fixture(scope="module")
def phantoms() -> tuple[np.ndarray, np.ndarray]:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("FINGERPRINT_DATA", raising=False)
        _, images, group = study.slices(24)
    return study.fit(images, 32, 0)[0], group


def test_patients_are_dealt_to_four_sets_and_none_to_two(phantoms) -> None:
    _, group = phantoms
    parts = study.dealt(group, 3)
    people = [set(group[part]) for part in parts]
    assert sum(map(len, people)) == len(np.unique(group)) == len(set.union(*people))
    assert max(map(len, parts)) - min(map(len, parts)) <= np.bincount(group).max()


def test_a_world_is_trained_asked_about_and_drawn(phantoms, tmp_path: Path) -> None:
    how = study.How(6, 8, QUICK)
    found = study.world_of(6, *phantoms, tmp_path / "world", how)
    assert found["slices"] == 6
    assert found["judged_on"] == "test"
    study.written(tmp_path / "page.md", "phantoms", {6: found})
    page = (tmp_path / "page.md").read_text()
    for name in METHODS:
        assert name in page
        assert found[name]["auc"]["value"] is not None
    for metric in study.METRICS:
        assert (tmp_path / f"membership-{metric}.svg").read_text().startswith("<svg")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_generator_that_memorises_gives_its_slices_away(phantoms, tmp_path: Path) -> None:
    """Trained for long on few slices: what METHOD.md, section 3.19, asks of ours."""
    found = study.world_of(6, *phantoms, tmp_path, study.How(1500, 60, QUICK | {"pose": True}))
    assert min(found["copied"]) >= 0.5  # nearest-source r > 0.95: it has learnt them by heart
    assert found["calibrated"]["auc"]["value"] >= 0.95
    assert found["calibrated"]["kappa"]["value"] >= 0.8
