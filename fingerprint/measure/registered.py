"""What registration says of a run: how many pairs, how alike after each step, how much warp.

Elastic registration makes strangers alike too: a score after it, and the deformation that it took,
mean something beside those of the controls' best pairs only (METHOD.md, section 3.17).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fingerprint.measure.entries import ITSELF, UNFINISHED, Findings, entry

OFF = "register_patients = 0 in the settings; raise it, and choose another OUT"
SETS = ("generated", "control")
OF_SETS = (
    *("r_affine", "r_elastic", "r_highpass_elastic", "mi_bits_raw", "mi_bits_affine"),
    *("mi_bits_elastic", "deformation_energy", "min_jacobian"),
)
COLUMNS = ("query_set", "rank", *OF_SETS)


def best_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the best pair of each query that was registered: columns `COLUMNS`.

    Parameters
    ----------
    rows : DataFrame
        Rows of ``matches.parquet``, all or some.
    """
    here = (rows["rank"] == 1) & rows["r_affine"].notna()
    return rows.loc[here, list(COLUMNS)]


def of_set(pairs: pd.DataFrame, query_set: str, name: str) -> NDArray[np.float64]:
    """Return a score of the best pairs of a set: float64, NaN where its step was not run."""
    column = pairs.loc[pairs["query_set"] == query_set, name]
    return np.asarray(column.to_numpy(np.float64, na_value=np.nan))


def found(pairs: pd.DataFrame | None, run: Mapping[str, Any], itself: bool) -> Findings:
    """Return every number of the registration, or why there is none."""
    done = run.get("registration")
    if itself or done is None or pairs is None:
        most = (run.get("settings") or {}).get("register_patients")
        return entry("register.pairs", None, ITSELF if itself else UNFINISHED if most else OFF)
    out: Findings = {f"register.{name}": int(n) for name, n in done.items()}
    for query_set in SETS:
        for name in OF_SETS:
            values = of_set(pairs, query_set, name)
            values = values[np.isfinite(values)]
            if len(values):
                out |= entry(f"register.{name}.{query_set}.median", float(np.median(values)))
    return out
