"""The list of matches: for each query its best patients, best first, and every score of the pair.

The columns are stable (people script against them); those whose step was not run are null, never
absent. Identical images (r = 1) come first and are all listed, however many: they are findings
whatever a pose search says. Then the patients whose pose was refined, by r of the primary image at
best pose; then the others, by raw r. A tie goes to the higher raw r, then to the lower slice.

`r_raw` is the best over the slices of the patient, as stored, and `slice_raw` says of which one;
`slice` fits best once the image is moved, and all scores at best pose are of that one.

Queries are read, listed and written a band at a time: each band is one row group of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from numpy.typing import NDArray

from fingerprint.corpus.store import Corpus
from fingerprint.ledger import replacing
from fingerprint.measure import pairs, registered, rows
from fingerprint.settings import IMAGES
from fingerprint.warp import POSE

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
WHY = {
    "identical": "identical to {0}",
    "guaranteed": "shows {0} (ranks among controls{1})",
    "tail": "shows {0} (tail model{1})",
}
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
    "slice_raw",
    "r_pose",
    "r_body",
    "r_highpass",
    "s_excess",
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
    "r_highpass_affine",
    "r_highpass_elastic",
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


AT_ONCE = 2**16  # rows of a row group

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def matches(
    correlation: xr.Dataset, query_digests: Sequence[str], real: Corpus, keep: int
) -> pd.DataFrame:
    """List the best `keep` patients of every query in one table: all `bands` together."""
    empty = _typed(pd.DataFrame(columns=list(COLUMNS)))
    found = list(bands(correlation, query_digests, real, keep))
    return pd.concat(found, ignore_index=True) if found else empty


def bands(
    correlation: xr.Dataset, query_digests: Sequence[str], real: Corpus, keep: int
) -> Iterator[pd.DataFrame]:
    """List the best `keep` patients of every query, a band of queries at a time.

    Parameters
    ----------
    correlation : Dataset
        From `correlation.load`: query x patient, or the best ranks of a corpus against itself.
    query_digests : sequence of str
        SHA-256 of the pixels of each query, in the order of the matrix.
    real : Corpus
        What was searched.
    keep : int

    Yields
    ------
    DataFrame, columns `COLUMNS`; sorted by query, then rank. The index is the row of the matrix.
    """
    if keep < 1:
        raise ValueError(f"bands: keep must be positive, got {keep}")
    first = 0
    of = {name: real.label(name) for name in ("digest", "scan")}
    for band in rows.bands(correlation, max(1, AT_ONCE // keep)):
        n = band.sizes["query"]
        listed = _listed(band, query_digests[first : first + n], of, keep)
        yield listed.set_index(listed.index + first)
        first += n


def _listed(
    band: xr.Dataset, digests: Sequence[str], of: Mapping[str, NDArray[Any]], keep: int
) -> pd.DataFrame:
    """List the matches of one band."""
    cell = band.sel(stage="raw", slices="all")
    r, at = cell["r"].to_numpy(), cell["slice"].to_numpy()
    refined = rows.has_stage(band, "pose")
    primary, aligned = np.full(r.shape, np.nan), np.full(at.shape, -1)
    if refined:
        posed = band.sel(stage="pose", slices="all")
        primary, aligned = posed["r"].to_numpy(), posed["slice"].to_numpy()
    same = r == 1
    shown = np.where((aligned >= 0) & ~same, aligned, at)
    q, rank, p = _ranked(same, primary, r, shown, keep)
    slices = shown[q, p]
    patient = rows.patients_at(band, q, p)
    out: dict[str, Any] = {
        "query": band["query"].to_numpy()[q],
        "query_set": band["query_set"].to_numpy()[q],
        "query_digest": np.asarray(digests, object)[q],
        "rank": rank + 1,
        "list": np.array([None, "identical"], object)[same[q, p].astype(int)],
        "slice": slices,
        "slice_digest": of["digest"][slices],
        "participant": band["patient"].to_numpy()[patient],
        "scan": of["scan"][slices],
        "r_raw": r[q, p],
        "slice_raw": at[q, p],
    }
    if refined:
        out |= _at_best_pose(band, q, p, aligned[q, p] == slices)
    return _typed(pd.DataFrame(out, index=q))


def _ranked(
    same: NDArray[np.bool_], primary: Floats, raw: Floats, at: Ints, keep: int
) -> tuple[Ints, Ints, Ints]:
    """Return row, place and column of every listed cell: `keep` of each row, and all identical."""
    # r lies in [-1, 1]: one number that keeps the order, though near ties may become ties
    coarse = np.where(np.isnan(primary), raw, 4 + primary)
    coarse = np.where(same, 8.0, np.where(at < 0, -np.inf, coarse))
    keep = min(keep, raw.shape[1])
    if keep == 0:
        return (np.empty(0, np.int64),) * 3
    cut = -np.partition(-coarse, keep - 1, axis=1)[:, keep - 1 : keep]
    wide = max(1, int((((coarse >= cut) & (at >= 0)) | same).sum(axis=1).max(initial=0)))
    few = np.argpartition(-coarse, min(wide, raw.shape[1]) - 1, axis=1)[:, :wide]

    def of(array: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(array, few, axis=1)

    # the last key decides first; NaN goes to the end of its key
    order = np.lexsort((of(at), -of(raw), -of(primary), ~of(same)), axis=1)
    columns = np.take_along_axis(few, order, axis=1)
    listed = (np.arange(wide) < keep) | np.take_along_axis(same, columns, axis=1)
    listed &= np.take_along_axis(at, columns, axis=1) >= 0
    q, place = np.nonzero(listed)
    return q, place, columns[q, place]


def _at_best_pose(band: xr.Dataset, q: Ints, p: Ints, there: NDArray[np.bool_]) -> dict[str, Any]:
    """Return r on every image and the pose, where the listed slice is the one that was aligned."""
    out: dict[str, Any] = {
        pairs.SCORE[image]: np.where(there, rows.cells(band, image=image)[q, p], np.nan)
        for image in IMAGES
    }
    for name in POSE:
        values = band[name].to_numpy()[q, p].astype(np.float64)
        out[name] = np.where(there & (values >= 0 if name == "mirrored" else True), values, np.nan)
    return out


# -- the file


def to_withhold(listed: pd.DataFrame) -> Iterator[list[str]]:
    """Yield a row of ``drop.tsv`` for each generated image that must not be passed on, and why.

    Parameters
    ----------
    listed : DataFrame
        All rows of the queries in it, such as one band.
    """
    found = listed[(listed["query_set"] == "generated") & listed["list"].notna()]
    found = found.sort_values("rank", kind="stable").drop_duplicates("query").sort_index()
    for _, row in found.iterrows():
        where = f"slice {row['slice']} of {row['participant']}"
        q = "" if pd.isna(row["q_value"]) else f", q {row['q_value']:.2g}"
        yield [row["query"], row["query_digest"], WHY[row["list"]].format(where, q)]


def withheld_by(path: Path) -> list[str]:
    """Return the names of the images in a ``drop.tsv``.

    Raises
    ------
    ValueError
        It cannot be read, or has no column ``query``.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str)
    except (OSError, ValueError) as error:
        raise ValueError(f"--drop: {path} cannot be read: {error}") from error
    if "query" not in table:
        raise ValueError(f"--drop: {path} has no column query; give the drop.tsv of an audit")
    return sorted(set(table["query"].dropna()))


def with_verdict(listed: pd.DataFrame, told: pd.DataFrame) -> pd.DataFrame:
    """Write scores, p-values and lists of queries into the rows of their best patients.

    Parameters
    ----------
    listed : DataFrame
        Columns `COLUMNS`; its index is the place of the query.
    told : DataFrame
        `measure.judged.table` of the same queries, in order. A p speaks of the best patient only,
        and of generated images only.
    """
    best = (listed["rank"] == 1).to_numpy()
    mine = told.loc[listed.index[best]]
    for name in ("s_excess", "s_gap", "s_r", "s_diff"):
        listed.loc[best, name] = mine[name].to_numpy()
    judged_here = (mine["query_set"] == "generated").to_numpy()
    for name in ("p_patient", "p_pooled", "p_tail", "p_value", "q_value"):
        listed.loc[best, name] = np.where(judged_here, mine[name].to_numpy(), np.nan)
    named = np.where(listed.loc[best, "list"].isna(), mine["list"], listed.loc[best, "list"])
    listed.loc[best, "list"] = named
    return _typed(listed)


def _typed(listed: pd.DataFrame) -> pd.DataFrame:
    """Give every column its type, so that a column without a value is null and not text."""
    kinds = {name: "string" if name in TEXT else "Float64" for name in COLUMNS}
    kinds |= {"rank": "Int64", "slice": "Int64", "slice_raw": "Int64", "mirrored": "boolean"}
    return listed.reindex(columns=list(COLUMNS)).astype(kinds)


def save(listed: pd.DataFrame, path: Path) -> None:
    """Write ``matches.parquet`` from one table."""
    save_bands([listed], path)


def save_bands(listed: Iterable[pd.DataFrame], path: Path) -> None:
    """Write ``matches.parquet``, one row group for each band, one of them in memory at a time."""
    empty = _typed(pd.DataFrame(columns=list(COLUMNS)))
    schema = pa.Schema.from_pandas(empty, preserve_index=False)
    with replacing(path) as out, pq.ParquetWriter(out, schema) as writer:
        for band in listed:
            table = pa.Table.from_pandas(_typed(band), schema=schema, preserve_index=False)
            writer.write_table(table, row_group_size=max(1, len(table)))


def load(path: Path) -> pd.DataFrame:
    """Read ``matches.parquet`` with the types it was written with."""
    return _typed(pd.read_parquet(path))


def stored(path: Path) -> Iterator[pd.DataFrame]:
    """Read ``matches.parquet`` band by band, as it was written."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield _typed(file.read_row_group(group).to_pandas())


def most_similar(path: Path, image: str) -> pd.DataFrame:
    """Read the most similar pairs of ``matches.parquet`` only: `pairs.most_similar`, in bands."""
    best = [pairs.most_similar(listed, image) for listed in stored(path)]
    if not best:
        return load(path)
    return pairs.most_similar(pd.concat(best, ignore_index=True), image).reset_index(drop=True)


def best_pairs(path: Path) -> pd.DataFrame:
    """Read the best registered pair of each query of ``matches.parquet``, in bands."""
    best = [registered.best_pairs(listed) for listed in stored(path)]
    return pd.concat(best, ignore_index=True) if best else registered.best_pairs(load(path))
