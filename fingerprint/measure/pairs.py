"""The most similar pairs: the best patient of each generated image, most similar first.

Similar is by the primary score image at best pose where poses were searched, else by raw r. It is
an order to look at, not a finding: how similar strangers are has to be compared first. Identical
images come before all others.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fingerprint.measure import fisher
from fingerprint.measure.entries import UNFINISHED, Findings, entry

PAIRS_SHOWN = 50
SCORE = {"raw": "r_pose", "body": "r_body", "highpass": "r_highpass"}  # score image -> column
PAIR_NAMES = ("query", "participant", "scan", "query_digest", "slice_digest")
PAIR_SCORES = (
    "r_raw r_pose r_body r_highpass s_excess s_gap s_r s_diff angle_deg scale "
    "shift_y_px shift_x_px "
    "r_affine r_elastic r_highpass_affine r_highpass_elastic mi_bits_raw mi_bits_affine "
    "mi_bits_elastic nmi_raw nmi_affine nmi_elastic ssim_raw ssim_affine ssim_elastic "
    "deformation_energy bending_energy min_jacobian p_value q_value"
).split()


def most_similar(rows: pd.DataFrame, image: str, keep: int = PAIRS_SHOWN) -> pd.DataFrame:
    """Return the best pair of each generated image, at most `keep`: findings, then by likeness.

    Parameters
    ----------
    rows : DataFrame
        Rows of ``matches.parquet``, all or some.
    image : str
        The primary score image: a key of `SCORE`. Pairs whose pose was not refined come last, by
        raw r.
    """
    best = rows[(rows["query_set"] == "generated") & (rows["rank"] == 1)]
    keys = pd.DataFrame(
        {
            "identical": best["r_raw"].to_numpy(np.float64) == 1,
            "found": best["list"].notna().to_numpy() if "list" in best else False,
            "score": _numbers(best, SCORE[image]),
            "r_raw": best["r_raw"].to_numpy(np.float64),
            "query": best["query"].to_numpy(object),
        }
    )
    order = keys.sort_values(
        ["identical", "found", "score", "r_raw", "query"],
        ascending=[False, False, False, False, True],
    )
    return best.iloc[order.index[:keep]]


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    if name not in rows:
        return np.full(len(rows), np.nan)
    return rows[name].to_numpy(np.float64, na_value=np.nan)


def found(rows: pd.DataFrame | None, image: str) -> Findings:
    """Return every number of the most similar pairs."""
    if rows is None:
        return entry("pairs.shown", None, UNFINISHED)
    best = most_similar(rows, image)
    out: Findings = {"pairs.shown": len(best)}
    for place, row in enumerate(best.to_dict("records"), start=1):
        key = f"pair.{place}"
        out |= {f"{key}.{name}": str(row[name]) for name in PAIR_NAMES}
        out[f"{key}.slice"] = int(row["slice"])
        if "slice_raw" in row and pd.notna(row["slice_raw"]):
            out[f"{key}.slice_raw"] = int(row["slice_raw"])
        out[f"{key}.same_pixels"] = out[f"{key}.query_digest"] == out[f"{key}.slice_digest"]
        same = bool(fisher.is_identical(row["r_raw"]))
        z = None if same else float(fisher.z_of(row["r_raw"]))
        out |= entry(f"{key}.z", z, "r = 1 has no finite z")
        for name in PAIR_SCORES:
            if name in row and pd.notna(row[name]):
                out[f"{key}.{name}"] = float(row[name])
        if "mirrored" in row and pd.notna(row["mirrored"]):
            out[f"{key}.mirrored"] = bool(row["mirrored"])
    return out
