"""A judged run without a search: scores of World Z, canaries, held-out patients; and its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from test_report import MadeRun, make_run, matrices
from worlds import world_z

from fingerprint.measure import findings as measure
from fingerprint.measure import judged, null, verdict
from fingerprint.measure.verdict import Held, Told
from fingerprint.search import matches

Q, SEED = 0.05, 7
GRADES = {
    "exact": (0.0,), "noise": (8.0, 16.0, 32.0), "blur": (1.0, 2.0, 4.0),
    "pose": (0.25, 0.5, 1.0), "tile": (0.5, 0.25, 0.1),
}  # fmt: skip
EASE = {0: 12.0, 1: 5.0, 2: 1.5}  # score of a planted copy by the place of its grade


def told_and_held(
    *, generated: int = 60, copies: int = 6, identical: int = 2, controls: int = 40,
    slices: int = 10, planted: int = 10, repeats: int = 1, shown: int = 0,
) -> tuple[Told, Held]:  # fmt: skip
    """Return what the judgement of a made-up run leaves; the first `copies` images are copies.

    `repeats`: images of a cluster; `shown`: images that lean a little to a patient, as a set does.
    """
    rng = np.random.default_rng(SEED)
    world = world_z(rng, trained=30, held=controls, generated=generated, slices=slices,
                    copies=copies, distinct=True)  # fmt: skip
    z = world.generated.copy()
    z[copies : copies + shown, :30] += 0.25
    trained = world.trained
    names = [f"g_{i:012x}" for i in range(generated)]
    k = null.spacings_of(30)
    rows = [_rows(names, "generated", z[:, :30], k, "")]
    owners = np.array([f"Q{o:03d}" for o in world.owner], object)
    strangers = [f"c_{i:012x}" for i in range(len(owners))]
    rows.append(_rows(strangers, "control", world.control[:, :30], k, owners))
    rows.append(_planted(rng, planted, k))
    table = pd.concat(rows, ignore_index=True)
    table.loc[: identical - 1, "identical"] = True
    table.loc[: generated - 1, "s_diff"] = verdict.labels.differences(z, trained)
    at = len(table) - len(rows[-1])
    table.loc[generated : at - 1, "s_diff"] = verdict.labels.differences(world.control, trained)
    patient = np.array([f"P{p:03d}" for p in range(30)] + [f"Q{p:03d}" for p in range(controls)])
    held = Held(z, np.array(names), trained, patient.astype(object), np.full(len(patient), ""))
    table = _judged(table, np.arange(generated) // repeats)
    canaries = rows[-1][["query", "kind", "level", "source"]]
    listed = canaries.merge(table.drop(columns=["kind", "level", "source"]), on="query")
    return Told(table, listed if planted else None, "s_excess", k, (), True, Q, SEED), held


def _rows(names: list[str], query_set: str, z: np.ndarray, k: int, owner: Any) -> pd.DataFrame:
    best = np.nan_to_num(z, nan=-9).argmax(1)
    return pd.DataFrame({
        "query": names, "query_set": query_set, "owner": owner, "region": "",
        "participant": [f"P{p:03d}" for p in best], "slice": best * 3, "identical": False,
        "r": np.tanh(null.s_r(z)), "s_excess": null.s_excess(z, k),
        "s_gap": null.s_gap(z, k), "s_r": null.s_r(z), "s_diff": np.nan,
    })  # fmt: skip


def _planted(rng: np.random.Generator, n: int, k: int) -> pd.DataFrame:
    cells = [(kind, g, place) for kind, gs in GRADES.items() for place, g in enumerate(gs)]
    cells = [cell for cell in cells for _ in range(max(n, 1))]
    names = [f"p_{i:012x}" for i in range(len(cells))]
    out = _rows(names, "canary", rng.normal(1, 0.1, (len(cells), 30)), k, "")
    out["kind"], out["level"], place = (list(x) for x in zip(*cells, strict=True))
    out["s_excess"] = [EASE[at] * rng.uniform(0.8, 1.2) for at in place]
    right = np.array([rng.random() < (1 if at < 2 else 0.4) for at in place])
    out["source"] = np.where(right, out["participant"], "P999")
    out["identical"] = out["kind"] == "exact"
    return out


def _judged(table: pd.DataFrame, cluster: np.ndarray) -> pd.DataFrame:
    score = table["score"] = table["s_excess"]
    sets = table["query_set"].to_numpy(object)
    asked = judged.Asked(table["owner"].to_numpy(object), table["region"].to_numpy(object))
    controls = judged.controls_of(score.to_numpy(), sets, asked, np.array([], object))
    tested = np.where(sets == "control", np.nan, score)
    p = null.p_values(tested, asked.region, controls, SEED)
    generated = sets == "generated"
    repeats = judged.repeats.Repeats(
        cluster, judged.repeats.effective(np.bincount(cluster)), cluster[:0]
    )
    out = judged._lists(p, generated, repeats, Q) | {"own_region": p.own, "own_tail": p.own_tail}
    out["identical"] = table["identical"].to_numpy(bool)
    table = table.assign(**out, list=judged._first_list(out, generated), cluster=-1)
    table.loc[generated, "cluster"] = cluster
    return table


SEARCHED: dict[Path, MadeRun] = {}


def searched_run(folder: Path, copies: int) -> MadeRun:
    """Return a run that waits for its judgement, made once: worlds differ in what is judged."""
    path = folder / f"searched-{copies}"
    if path not in SEARCHED:
        SEARCHED[path] = make_run(path, queries=60, patients=6, slices=2, size=32, copies=copies,
                                  pose=True, held_out=True)  # fmt: skip
    return SEARCHED[path]


def judged_run(path: Path, **world: Any) -> MadeRun:
    """Leave in `path` a finished run that was judged."""
    searched = searched_run(path.parent, world.get("identical", 2))
    shutil.copytree(searched.path, path, dirs_exist_ok=True)
    made = MadeRun(path, searched.corpora)
    told, held = told_and_held(**world)
    rejudge(made, told, held)
    return made


def rejudge(made: MadeRun, told: Told | None, held: Held | None) -> None:
    """Write the findings of a run again, as they are with another judgement."""
    run = json.loads((made.path / "run.json").read_bytes())
    found = measure.collect(
        matrices(made.path / "correlation.zarr", []),
        matches.load(made.path / "matches.parquet"),
        run,
        {role: corpus.summary for role, corpus in made.corpora.items()},
        told=told,
        held=held,
    )
    found["images.energy_overlap"] = 0.9  # of its distances, which these worlds have no pixels for
    (made.path / "findings.json").write_text(json.dumps(found, allow_nan=False))
    if told is not None:
        told.table.to_parquet(made.path / "queries.parquet", index=False)
