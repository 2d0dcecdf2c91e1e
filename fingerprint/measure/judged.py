"""Every query of a run with its score, its p-values and the lists it is on: ``queries.parquet``.

The score is s_excess of the primary image at best pose where that was measured; s_gap and s_r stand
beside it (METHOD.md, 3.0 and 3.5; docs/calibration.md says why it is not s_gap). Controls give the
null; generated images are tested; canaries, planted copies, are compared with the same null and
count in no test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fingerprint.measure import fdr, fisher, null, repeats, rows
from fingerprint.measure.null import Controls, PValues
from fingerprint.measure.repeats import Repeats
from fingerprint.settings import Score

Floats = NDArray[np.float64]
Labels = NDArray[Any]

LISTS = ("identical", "guaranteed", "tail")  # of findings; an image stands under its first
COLUMNS = (
    *("query", "query_set", "owner", "region", "participant", "slice", "r", "identical"),
    *("s_excess", "s_gap", "s_r", "s_diff", "score", "own_region", "own_tail"),
    *("p_patient", "p_pooled", "p_tail", "p_value", "q_patient", "q_value"),
    *("guaranteed", "tail", "list", "cluster"),
)
SCORES: dict[str, Callable[[Floats, int], Floats]] = {
    "s_excess": null.s_excess,
    "s_gap": null.s_gap,
    "s_r": lambda z, k: null.s_r(z),
}
REPEATED = 0.5  # of the images: if fewer are effective, lists hold under any dependence (BY)
CELLS = 10_000_000  # z in memory where all patients of all queries are needed


@dataclass(frozen=True)
class Asked:
    """What is known of the rows of the matrix, in order: whose slice each is, and its region."""

    owner: Labels
    region: Labels


@dataclass(frozen=True)
class Scored:
    """Scores of all rows of a matrix.

    Attributes
    ----------
    of : mapping
        ``s_excess, s_gap, s_r``: float64, shape (q,); NaN where there are too few patients.
    best : int64, shape (q,)
        Column of the best patient; -1: none.
    name : str
        Which score is tested: the one that is asked for, s_r where there are too few patients.
    ranks : int
        Patients below the best that s_excess compares with.
    """

    of: Mapping[str, Floats]
    best: NDArray[np.int64]
    name: str
    ranks: int

    @property
    def score(self) -> Floats:
        """The score that is tested."""
        return self.of[self.name]


def image_of(matrix: xr.Dataset, image: str) -> str | None:
    """Return the image that is scored at best pose; None: poses were not searched, raw r is."""
    return image if rows.has_stage(matrix, "pose") else None


def scored(matrix: xr.Dataset, image: str | None, asked: Score) -> Scored:
    """Score every query by all its patients, all of one stage."""
    fewest = [
        int(counts[counts > 0].min(initial=1 << 62))
        for counts in (rows.compared(matrix, name, image=image) for name in rows.sets_of(matrix))
    ]
    patients = min(fewest, default=0) % (1 << 62)
    ks = {"s_excess": null.ranks_of(patients), "s_gap": null.spacings_of(patients), "s_r": 1}
    parts: dict[str, list[Floats]] = {name: [np.empty(0)] for name in ks}
    best = [np.empty(0, np.int64)]
    for band in rows.bands(matrix):
        z = fisher.z_of(rows.cells(band, image=image))
        for name, k in ks.items():
            parts[name].append(SCORES[name](z, k) if k else np.full(len(z), np.nan))
        place = np.where(np.isnan(z), -np.inf, z)
        at = place.argmax(axis=1) if z.shape[1] else np.zeros(len(z), np.int64)
        best.append(np.where(np.isfinite(parts["s_r"][-1]), at, -1))
    of = {name: np.concatenate(found) for name, found in parts.items()}
    name = f"s_{asked}" if ks[f"s_{asked}"] else "s_r"
    return Scored(of, np.concatenate(best), name, ks["s_excess"])


def differences(real: xr.Dataset, control: xr.Dataset | None, left_out: Labels) -> Floats:
    """Return D of every query, best z over T less best over H, equal slices per patient; float64.

    NaN for canaries and where there are no held-out patients. A control leaves its own out, and
    held-out patients that leak (`left_out`) count for nobody.
    """
    out = np.full(real.sizes["query"], np.nan)
    stage = stage_of_all(real)
    if control is None:
        return out
    names = {str(name): row for row, name in enumerate(real["query"].values)}
    at = np.array([names[str(name)] for name in control["query"].values])
    kept = ~np.isin(control["patient"].values.astype(object), left_out)
    out[at] = _best_capped(control, stage, kept)
    with np.errstate(invalid="ignore"):
        return _best_capped(real, stage, np.ones(real.sizes["patient"], bool)) - out


def stage_of_all(matrix: xr.Dataset) -> str:
    """Return the stage that has every patient: the screen where poses were searched, else raw."""
    return "screen" if rows.has_stage(matrix, "screen") else "raw"


def _best_capped(matrix: xr.Dataset, stage: str, kept: NDArray[np.bool_]) -> Floats:
    parts = [null.s_r(z_of_all(band, stage)[:, kept]) for band in rows.bands(matrix)]
    return np.concatenate([np.empty(0), *parts])


def z_of_all(band: xr.Dataset, stage: str) -> Floats:
    """Return z of some queries with every patient, over as many slices of each: (q, p)."""
    return fisher.z_of(rows.cells(band, stage=stage, slices="capped"))


# -- who repeats whom


def repeated(
    real: xr.Dataset, control: xr.Dataset | None, generated: xr.Dataset | None, image: str
) -> Repeats | None:
    """Cluster the generated images that are judged; None where they were not compared.

    The threshold is that of controls with other control patients; where controls were drawn from
    the real corpus, of controls with the other real patients: higher, so it links fewer.
    """
    if generated is None:
        return None
    which = image_of(real, image)
    strangers = real if control is None else control
    least = repeats.threshold(fisher.z_of(rows.best_r(strangers, "control", image=which)))
    judged_here = rows.of_set(generated, "generated")
    number = np.cumsum(judged_here) - 1
    links = [np.zeros((0, 2), np.int64)]
    first = 0
    for band in rows.bands(generated):
        z = fisher.z_of(rows.cells(band, image=which))
        with np.errstate(invalid="ignore"):
            here, there = np.nonzero(z > least)
        here = here + first
        kept = judged_here[here] & judged_here[there]
        links.append(np.stack([number[here[kept]], number[there[kept]]], axis=1))
        first += len(z)
    return repeats.clusters(int(judged_here.sum()), np.concatenate(links))


# -- the table


def controls_of(score: Floats, query_set: Labels, asked: Asked, left_out: Labels) -> Controls:
    """Return the control queries that make the null.

    Parameters
    ----------
    left_out : sequence
        Control patients that leak: none of their slices counts.
    """
    mine = (query_set == "control") & np.isfinite(score) & ~np.isin(asked.owner, left_out)
    return Controls(score[mine], asked.owner[mine], asked.region[mine])


def table(
    matrix: xr.Dataset,
    scores: Scored,
    asked: Asked,
    difference: Floats,
    clusters: Repeats | None,
    *,
    left_out: Labels,
    q: float,
    seed: int,
) -> pd.DataFrame:
    """Return one row for each query, columns `COLUMNS`.

    p of controls are NaN: they are the null. p of canaries are theirs; they are on no list.
    """
    query_set = matrix["query_set"].values.astype(object)
    controls = controls_of(scores.score, query_set, asked, left_out)
    tested = np.where(query_set == "control", np.nan, scores.score)
    p = null.p_values(tested, asked.region, controls, seed)
    generated = query_set == "generated"
    at, r = _best(matrix, scores.best)
    out: dict[str, Any] = {
        "query": matrix["query"].values.astype(object),
        "query_set": query_set,
        "owner": asked.owner,
        "region": asked.region,
        "participant": np.array([*matrix["patient"].values, None], object)[scores.best],
        "slice": at,
        "r": r,
        "identical": _identical(matrix),
        **scores.of,
        "s_diff": difference,
        "score": scores.score,
        "own_region": p.own,
        "own_tail": p.own_tail,
    }
    out |= _lists(p, generated, clusters, q)
    out["list"] = _first_list(out, generated)
    out["cluster"] = np.full(len(generated), -1)
    if clusters is not None:
        out["cluster"][generated] = clusters.cluster
    return pd.DataFrame(out)[list(COLUMNS)]


def _lists(
    p: PValues, generated: NDArray[np.bool_], clusters: Repeats | None, q: float
) -> dict[str, Any]:
    reject = fdr.benjamini_yekutieli if any_dependence(clusters) else fdr.benjamini_hochberg
    out: dict[str, Any] = {
        "p_patient": p.patient,
        "p_pooled": p.pooled,
        "p_tail": p.tail,
        "p_value": p.image,
    }
    for name, values, column in (
        ("guaranteed", p.patient, "q_patient"),
        ("tail", p.image, "q_value"),
    ):
        mine = values[generated]
        out[name] = np.zeros(len(generated), bool)
        out[name][generated] = reject(mine, q)
        out[column] = np.full(len(generated), np.nan)
        factor = fdr.harmonic(int(np.isfinite(mine).sum())) if any_dependence(clusters) else 1.0
        out[column][generated] = np.minimum(1, factor * fdr.adjusted(mine))
    return out


def any_dependence(clusters: Repeats | None) -> bool:
    """Whether lists must hold whatever the dependence of the images: BY, not BH.

    Decided by how many of them repeat each other, before any p is looked at.
    """
    return clusters is not None and clusters.effective < REPEATED * len(clusters.cluster)


def _first_list(out: dict[str, Any], generated: NDArray[np.bool_]) -> Labels:
    first = np.full(len(generated), None, object)
    for name in reversed(LISTS):
        first[out[name] & generated] = name
    return first


def _identical(matrix: xr.Dataset) -> NDArray[np.bool_]:
    parts = [(rows.cells(band) == 1).any(axis=1) for band in rows.bands(matrix)]
    return np.concatenate([np.zeros(0, bool), *parts])


def _best(matrix: xr.Dataset, best: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Return slice and r of the best patient of each query: of the stage that is scored."""
    stage = "pose" if rows.has_stage(matrix, "pose") else "raw"
    cell = matrix.sel(stage=stage, slices="all")
    at, r = np.full(len(best), -1), np.full(len(best), np.nan)
    first = 0
    for band in rows.bands(cell):
        n = band.sizes["query"]
        there = np.flatnonzero(best[first : first + n] >= 0)
        columns = best[first + there]
        at[first + there] = band["slice"].to_numpy()[there, columns]
        r[first + there] = band["r"].to_numpy()[there, columns]
        first += n
    return at, r
