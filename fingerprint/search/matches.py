"""The list of matches: for each query its best patients, best first, and every score of the pair.

The columns are stable (people script against them); those whose step was not run are null, never
absent. Rank 1 is the best patient by raw r; a tie goes to the lower slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from fingerprint.corpus.store import Corpus
from fingerprint.ledger import replacing

STEPS = ("raw", "affine", "elastic")
TEXT = (
    "query",
    "query_set",
    "query_digest",
    "list",
    "slice_digest",
    "participant",
    "scan",
)
WITHHELD = ("query", "query_digest", "reason")
COLUMNS = (
    "query",
    "query_set",
    "query_digest",
    "rank",
    "list",
    "slice",
    "slice_digest",
    "participant",
    "scan",
    "r_raw",
    "r_pose",
    "s_gap",
    "s_r",
    "s_diff",
    "angle_deg",
    "scale",
    "shift_y_px",
    "shift_x_px",
    "mirrored",
    "r_affine",
    "r_elastic",
    *(f"{name}_{step}" for step in STEPS for name in ("mi_bits", "nmi", "ssim")),
    "deformation_energy",
    "bending_energy",
    "min_jacobian",
    "p_patient",
    "p_pooled",
    "p_tail",
    "p_value",
    "q_value",
)


def matches(
    correlation: xr.Dataset, query_digests: list[str], real: Corpus, keep: int
) -> pd.DataFrame:
    """List the best `keep` patients of every query.

    Parameters
    ----------
    correlation : Dataset
        As `correlation.save` wrote it.
    query_digests : list of str
        SHA-256 of the pixels of each query, in the order of the matrix.
    real : Corpus
        What was searched.
    keep : int

    Returns
    -------
    DataFrame, columns `COLUMNS`; sorted by query, then rank.
    """
    cell = correlation.sel(stage="raw", slices="all")
    r, at = cell["r"].to_numpy(), cell["slice"].to_numpy()
    # best r first; lexsort is stable and the second key breaks ties to the lower slice
    order = np.lexsort((np.where(at < 0, np.iinfo(np.int64).max, at), -np.nan_to_num(r, nan=-2.0)))
    order = order[:, :keep]
    q, rank = np.divmod(np.arange(order.size), max(order.shape[1], 1))
    p = order.ravel()
    there = at[q, p] >= 0
    q, rank, p = q[there], rank[there], p[there]
    slices = at[q, p]
    rows = pd.DataFrame(
        {
            "query": correlation["query"].to_numpy()[q],
            "query_set": correlation["query_set"].to_numpy()[q],
            "query_digest": np.asarray(query_digests, object)[q],
            "rank": rank + 1,
            "list": pd.Series(["identical" if v == 1.0 else None for v in r[q, p]], dtype=object),
            "slice": slices,
            "slice_digest": real.label("digest")[slices],
            "participant": correlation["patient"].to_numpy()[p],
            "scan": real.label("scan")[slices],
            "r_raw": r[q, p],
        }
    )
    return _typed(rows)


def to_withhold(rows: pd.DataFrame) -> Iterator[list[str]]:
    """Yield a row of ``drop.tsv`` for each generated image that must not be passed on, and why."""
    found = rows[(rows["query_set"] == "generated") & rows["list"].notna()]
    found = found.sort_values("rank", kind="stable").drop_duplicates("query").sort_index()
    for _, row in found.iterrows():
        where = f"slice {row['slice']} of {row['participant']}"
        yield [row["query"], row["query_digest"], f"{row['list']} to {where}"]


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Give every column its type, so that a column without a value is null and not text."""
    kinds = {name: "string" if name in TEXT else "Float64" for name in COLUMNS}
    kinds |= {"rank": "Int64", "slice": "Int64", "mirrored": "boolean"}
    return rows.reindex(columns=list(COLUMNS)).astype(kinds)


def save(rows: pd.DataFrame, path: Path) -> None:
    """Write ``matches.parquet``."""
    data = BytesIO()
    rows.to_parquet(data, index=False)
    with replacing(path) as out:
        out.write(data.getvalue())


def load(path: Path) -> pd.DataFrame:
    """Read ``matches.parquet`` with the types it was written with."""
    return _typed(pd.read_parquet(path))
