"""A finished study without any training: audits of made-up runs, a curve, sets told apart."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from test_report import FakeCorpus, MadeRun, make_run, matrices
from test_report_registered import REGIONS, register
from verdicts import told_and_held

from fingerprint.measure import attribution, distances, study
from fingerprint.measure import findings as audit
from fingerprint.report.study.build import build
from fingerprint.search import matches

IMAGES = 40
# name -> patients, slices of each, exact copies, copies that statistics find
WORLDS: dict[str, tuple[int, int, int, int]] = {
    "n6": (3, 2, 3, 28), "n60": (10, 6, 2, 12), "n60-s2": (10, 6, 1, 10), "n600": (60, 10, 0, 0),
}  # fmt: skip
STEPS = (250, 500, 1000, 2000, 4000)


@dataclass
class MadeStudy:
    """A study folder and the corpora in it."""

    path: Path
    corpora: dict[str, FakeCorpus] = field(default_factory=dict)

    def open(self, path: Path) -> FakeCorpus:
        key = "/".join(path.parts[-2:])
        if key not in self.corpora:
            raise ValueError(f"{path} is not a corpus")
        return self.corpora[key]

    def build(self, **options: Any) -> str:
        return build(self.path, open_corpus=self.open, **options).read_text(encoding="utf-8")

    @property
    def findings(self) -> dict[str, Any]:
        return json.loads((self.path / "findings.json").read_bytes())


def make_study(path: Path, names: tuple[str, ...] = tuple(WORLDS)) -> MadeStudy:
    """Leave in `path` what a study leaves; every size has its audit, its curve and its cost."""
    made = MadeStudy(path)
    for name in names:
        _audit(made, name)
    (path / "study.json").write_text(json.dumps(document(names)))
    (path / "training.json").write_text(json.dumps({name: training(name) for name in names}))
    (path / "sampling.json").write_text(json.dumps({name: sampling() for name in names}))
    (path / "curve.json").write_text(json.dumps({name: curve(name) for name in names}))
    (path / "figure4.json").write_text(json.dumps(crossed()))
    recollect(made, [point(made, name) for name in names])
    return made


def recollect(
    made: MadeStudy, points: list[study.Point], sets: study.Crossed | None = None
) -> MadeStudy:
    """Write the findings of a study again, from other points."""
    told = json.loads((made.path / "study.json").read_bytes())
    found = study.collect(told, points, sets or matrices_of(crossed()))
    (made.path / "findings.json").write_text(json.dumps(found, allow_nan=False))
    return made


def copied(made: MadeStudy, path: Path, **edits: Any) -> MadeStudy:
    """Copy a study, with entries of its JSON files replaced: ``study={...}, findings={...}``."""
    shutil.copytree(made.path, path, dirs_exist_ok=True)
    copy = MadeStudy(path, deepcopy(made.corpora))
    for name, changes in edits.items():
        file = copy.path / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_bytes()) | changes))
    return copy


def size_of(name: str) -> int:
    return int(name[1:].split("-")[0])


def point(made: MadeStudy, name: str, **changes: Any) -> study.Point:
    """Return all that was measured of one size and run."""
    found = made.path / "audits" / name / "findings.json"
    values: dict[str, Any] = {
        "name": name, "asked": size_of(name), "seed": int("-s2" in name),
        "cohort": cohort(name), "training": training(name), "sampling": sampling(),
        "curve": curve(name), "audit_seconds": 754.0,
        "findings": json.loads(found.read_bytes()) if found.exists() else None,
    }  # fmt: skip
    return study.Point(**values | changes)


def cohort(name: str) -> dict[str, Any]:
    patients, slices, _, _ = WORLDS[name]
    n = patients * slices
    of = {"slices": n, "patients": patients, "women": patients // 2, "slices_f": n // 2,
          "age_min": 26, "age_mean": 26.0, "age_max": 26,
          "c1": n // 3, "c2": n // 3, "c3": n // 3}  # fmt: skip
    held = of | {"slices": 400, "patients": 40, "women": 20, "c1": 134, "c2": 133, "c3": 133}
    return of | {f"held_out.{key}": value for key, value in held.items()}


def training(name: str) -> dict[str, Any]:
    steps = [[step, 0.4 / (1 + k)] for k, step in enumerate(STEPS)]
    return {"generator": "ddpm", "px": 64, "steps": STEPS[-1], "weights": f"{size_of(name):064x}",
            "snapshots": {str(step): "a" * 64 for step in STEPS}, "loss": steps,
            "seconds": 5400.0, "parameters": 1_234_567, "device": "cpu"}  # fmt: skip


def sampling() -> dict[str, Any]:
    return {"pool": 1000, "weights": "b" * 64, "seed": 11}


def curve(name: str) -> list[dict[str, Any]]:
    """Return states whose copying begins earlier where the set is small."""
    late = {6: 250, 60: 1000, 600: 10**9}[size_of(name)]
    share = [min(1.0, max(0.0, np.log2(2 * step / late) / 4)) for step in STEPS]
    return [
        {"step": step, "images": 64, "excess": 2 * s - 0.1, "low": 2 * s - 0.3,
         "high": 2 * s + 0.1, "nearest": s, "found": round(64 * s)}
        for step, s in zip(STEPS, share, strict=True)
    ]  # fmt: skip


def crossed() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    F = rng.uniform(6, 9, (7, 7)) - np.diag(np.full(7, 4.0))
    return {
        "sets": 7, "images": 600, "pixels": F.tolist(), "texture": (F.T + 1).tolist(),
        "fid.reason": distances.NO_WEIGHTS,
    }  # fmt: skip


def matrices_of(told: dict[str, Any]) -> study.Crossed:
    names = ("pixels", "texture", "fid")
    return study.Crossed({n: told.get(n, told.get(f"{n}.reason")) for n in names}, told["images"])


def document(names: tuple[str, ...]) -> dict[str, Any]:
    sizes = sorted({size_of(name) for name in names})
    return {
        "format": [1, 0], "study": "cd34" * 16, "status": "complete", "brought": False,
        "settings": {"sizes": sizes, "ages": [26, 26], "ages_largest": None, "nested": True,
                     "balance_sex": True, "classes": ["c1", "c2", "c3"], "held_out": 0.3,
                     "runs": 2 if any("-s" in n for n in names) else 1, "generator": "ddpm",
                     "train_px": 64, "train_steps": STEPS[-1], "pool": 1000, "sample": IMAGES,
                     "sets": 7, "set_size": 600, "q": 0.05, "seed": 7, "snapshots": 5},
        "inputs": {"corpus": {"digest": "e" * 64, "key_id": "0" * 12, "path": "../corpus",
                              "n": 9000, "patients": 120}},
        "versions": {"fingerprint": "0.1.0", "python": "3.11.7"},
        "hardware": {"machine": "x86_64", "cores": 2}, "seeds": {"seed": 7},
        "started": "2026-11-20T10:00:00+00:00", "ended": "2026-11-20T19:00:00+00:00",
        "notes": ["One set was made smaller."], "copies": {"images": 1000, "copies": 900},
        "phases": {name: {"planned": 4, "done": 4} for name in ("cohorts", "train", "sample")},
    }  # fmt: skip


# -- one audit


def _audit(made: MadeStudy, name: str) -> None:
    path, first = made.path / "audits" / name, name.split("-")[0]
    _, _, same, copies = WORLDS[name]
    places = {
        "real": f"cohorts/{first}", "generated": f"pools/{name}", "controls": "cohorts/held-out",
    }  # fmt: skip
    if name == first:
        run = _searched(path, name)
        for role, place in places.items():
            (made.path / place).mkdir(parents=True, exist_ok=True)
            made.corpora[place] = _with_regions(run.corpora[role])
    else:  # trained again on the same set: the same images here, judged in another way
        shutil.copytree(made.path / "audits" / first, path)
        made.corpora[f"pools/{name}"] = made.corpora[f"pools/{first}"]
        (made.path / f"pools/{name}").mkdir()
        run = MadeRun(path, {})
    run.corpora = {role: made.corpora[place] for role, place in places.items()}
    document = json.loads((path / "run.json").read_bytes())
    for role, place in places.items():
        document["inputs"][role]["path"] = f"../../{place}"
    (path / "run.json").write_text(json.dumps(document))
    (path / "report.html").write_text("the page of the audit")
    judge(run, size_of(name), copies, min(same, copies))


def _searched(path: Path, name: str) -> MadeRun:
    patients, slices, same, _ = WORLDS[name]
    run = make_run(
        path, queries=IMAGES, patients=patients, slices=slices, size=32, copies=same,
        moved=min(6, patients), pose=patients < 60, held_out=True,
    )  # fmt: skip
    return register(run, elastic=1)


def _with_regions(corpus: FakeCorpus) -> FakeCorpus:
    region = np.resize(["c1", "c2", "c3"], corpus.n).astype(object)
    corpus.labels["region"] = region
    corpus.summary |= {"classes": {c: int((region == c).sum()) for c in ("c1", "c2", "c3")}}
    return corpus


def judge(made: MadeRun, size: int, copies: int, identical: int) -> None:
    """Write the findings of an audit: judged, registered, with distances and planted copies."""
    told, held = told_and_held(generated=IMAGES, copies=copies, identical=identical)
    run = json.loads((made.path / "run.json").read_bytes())
    image = audit.primary_image(run)
    found = audit.collect(
        matrices(made.path / "correlation.zarr", []),
        matches.most_similar(made.path / "matches.parquet", image),
        run,
        {role: corpus.summary for role, corpus in made.corpora.items()},
        best=matches.best_pairs(made.path / "matches.parquet"),
        parts={1: {"list": REGIONS, "null": "tile"}},
        told=told,
        held=held,
        apart=_apart(size),
    )
    if size > 6:
        found |= {
            "limit.kinds": [*found["limit.kinds"], "generator"],
            "limit.generator": "made by a generator", "limit.generator.bound": 0.9,
            "limit.generator.cells": [{"level": 0.0, "n": 29, "found": 29, "first": 29,
                                       "words": "made by a generator"}],
        }  # fmt: skip
    (made.path / "findings.json").write_text(json.dumps(found, allow_nan=False))
    told.table.to_parquet(made.path / "queries.parquet", index=False)


def _apart(size: int) -> dict[str, Any]:
    n, out = min(size, IMAGES), {}
    for k, name in enumerate(("pixels", "texture")):
        if n < 10:
            out |= {f"distance.{name}.generated": None,
                    f"distance.{name}.generated.reason": "components: too few rows"}  # fmt: skip
            continue
        for who, far in {"generated": 3.0, "control": 2.0}.items():
            key = f"distance.{name}.{who}"
            out |= {key: far + k, f"{key}.infinite": far - 1, f"{key}.kid": 0.2 * k,
                    f"{key}.kid.low": -0.1, f"{key}.kid.high": 0.5}  # fmt: skip
        out[f"distance.{name}.components"] = 8
    overlap = {"images.energy_overlap": 0.9, "distance.n": n}
    return out | overlap | distances.fid(None, {}) | distances.paper_000()


def assert_pinned(found: dict[str, Any]) -> None:
    """Fig. 4 as printed is told apart (E11)."""
    told = attribution.attribution(found["paper000.figure4"])
    assert (told.p, round(told.next_best_sum, 1)) == (1 / 5040, 149.2)
