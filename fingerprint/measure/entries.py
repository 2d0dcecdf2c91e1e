"""How a number stands in ``findings.json``: a key, a value, and a reason beside each that is None.

A key is ``metric.set.detail``. Nothing is left out silently: the reason says why a number was not
computed and what to supply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

UNFINISHED = "the search did not finish: run the same command again"
NO_CONTROLS = (
    "no control images in this run: give CONTROLS, scans of patients who were never used for "
    "training"
)
NO_HELD_OUT = (
    "no held-out patients: controls drawn from the real corpus stay in it; give CONTROLS, scans of "
    "patients who were never used for training"
)
UNKNOWN_PATIENTS = (
    "patients unknown: groups of near-duplicate slices stand in for them; give slices.tsv with a "
    "participant column, or --participant-from"
)
ITSELF = "a corpus compared with itself is searched at the stored position only; nothing to supply"
NO_POSE = (
    "pose = false in the settings: only the stored position was compared; run again with "
    "pose = true and another OUT"
)
TOO_FEW = "too few images for this number"

Findings = dict[str, Any]


def entry(key: str, value: Any, reason: str = TOO_FEW) -> Findings:
    """Return one entry; NaN and None become None beside their reason."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    return {key: value} if value is not None else {key: None, f"{key}.reason": reason}


def entries(keys: Mapping[str, Any], reason: str) -> Findings:
    """Return several entries that lack a value for the same reason."""
    return {k: v for key, value in keys.items() for k, v in entry(key, value, reason).items()}


def flat(prefix: str, value: Any) -> Findings:
    """Return a nested mapping as flat keys."""
    if isinstance(value, Mapping):
        parts = (flat(f"{prefix}.{key}", inner) for key, inner in value.items())
        return {key: found for part in parts for key, found in part.items()}
    return entry(prefix, list(value) if isinstance(value, tuple) else value, "not set")
