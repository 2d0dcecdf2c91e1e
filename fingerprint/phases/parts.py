"""Which parts of the most similar pairs were copied: their tiles beside those of the controls.

The level is q R / M inside each of the R findings among M generated images (METHOD.md, section
3.18). A pair that is shown and is no finding is tested at q, to be looked at: it was chosen for its
likeness, so no rate holds for it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from fingerprint.corpus import anatomy
from fingerprint.corpus.store import Corpus
from fingerprint.job import AuditJob
from fingerprint.measure.entries import Findings
from fingerprint.measure.verdict import Told
from fingerprint.register import kept, regions, tiles
from fingerprint.register.regions import Null
from fingerprint.search.blocks import patients_of
from fingerprint.search.sets import opened


def regions_of(job: AuditJob, alike: pd.DataFrame, told: Told | None) -> dict[int, Findings]:
    """Return the regions of each of the most similar pairs: place -> ``list``, ``null``, ``level``.

    Parameters
    ----------
    alike : DataFrame
        `matches.most_similar`, most similar first.
    told : Told or None
        What was judged; None: a corpus was compared with itself.
    """
    if not job.registers or told is None:
        return {}
    store = kept.load(job.out / "registration.zarr")
    null, rows, out = _null(job, store), kept.places(store), {}
    tested = told.generated
    share = int(tested["list"].notna().sum()) / max(len(tested), 1)
    for place, (_, pair) in enumerate(alike.iterrows(), start=1):
        row = rows.get((str(pair["query"]), int(pair["slice"])))
        if row is None or null is None:
            continue
        level = job.settings.q * (1.0 if pd.isna(pair["list"]) else share)
        z = store["tiles"].isel(query=row).to_numpy()
        if np.isfinite(z).any():
            out[place] = _tested(z, job.corpora["real"], int(pair["slice"]), null, level)
    return out


def _tested(z: NDArray[np.float64], real: Corpus, at: int, null: Null, level: float) -> Findings:
    organs = _organs(real, np.array([at]))
    tissue = np.zeros(z.shape, np.int64) if organs is None else tiles.tissue(organs[0], len(z))
    patients = regions.enough(int(np.isfinite(z).sum()), level)
    result = regions.compared(z, tissue, null, patients)
    told = regions.found(
        result,
        level,
        tile_px=tiles.tile_px(real.size_px),
        organs=None if organs is None else organs[0],
        named=lambda code: anatomy.ORGANS[code],
    )
    return {
        "list": [one.as_json() for one in told],
        "null": result.null,
        "level": level,
        "resolved": result.resolves(level),
    }


def _null(job: AuditJob, store: xr.Dataset) -> Null | None:
    """Return the tiles of the controls' best pairs; None where there are none."""
    mine = np.flatnonzero(store["query_set"].values.astype(object) == "control")
    z = store["tiles"].isel(query=mine).to_numpy()
    there = np.isfinite(z).any(axis=(1, 2))
    if not there.any():
        return None
    slices = store["slice"].isel(query=mine).to_numpy()[there]
    organs = _organs(job.corpora["real"], slices)
    z = z[there]
    tissue = np.zeros(z.shape, np.int64)
    if organs is not None:
        tissue = np.stack([tiles.tissue(one, z.shape[1]) for one in organs])
    (asked,) = (queries for queries in job.against[0].sets if queries.name == "control")
    who = patients_of(opened(asked.corpus, asked.digest))[asked.indices].astype(str)
    return Null(z, tissue, who[there])


def _organs(real: Corpus, slices: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Read which organ lies where; None for a corpus that an earlier version ingested."""
    return real.at(slices, "organs") if real.has("organs") else None
