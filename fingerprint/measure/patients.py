"""Which patients the generated set shows: one p for each patient (METHOD.md, section 3.10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.measure import null
from fingerprint.measure.null import Controls

RANKS = (1, 11)  # places, from 0, of the patients that a query's own level is taken from

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PatientLevel:
    """One line for each patient of T.

    Attributes
    ----------
    score : float64, shape (t,)
        S_p, the largest excess of a query for that patient over the query's own level.
    query : int64, shape (t,)
        Which query has it; -1: none.
    p : float64, shape (t,)
        Rank of S_p among the held-out patients.
    tail : float64, shape (t,)
        By extrapolating their tail: a model; NaN where that could not be fitted.
    no_tail : str
        Why it could not.
    """

    score: Floats
    query: NDArray[np.int64]
    p: Floats
    tail: Floats
    no_tail: str


def excess(z: Floats) -> Floats:
    """Return z of each query and patient over the mean of that query's ranks 2 to 11.

    Parameters
    ----------
    z : float64, shape (g, t + h)
        As `labels.differences`: T and H together.

    Returns
    -------
    float64, shape (g, t + h)
        NaN where z is.
    """
    ranked = -np.sort(-z, axis=1)[:, RANKS[0] : RANKS[1]]  # NaN go to the end
    if not ranked.shape[1]:
        raise ValueError("excess: at least two patients are needed, got one")
    there = np.isfinite(ranked)
    level = np.where(there, ranked, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return np.asarray(z - level[:, None], np.float64)


def patient_level(z: Floats, trained: NDArray[np.bool_], *, seed: int) -> PatientLevel:
    """Return p of each patient of T by its rank among those of H.

    Parameters
    ----------
    z : float64, shape (g, t + h)
        Best z over as many slices for every patient.
    trained : bool, shape (t + h,)

    References
    ----------
    METHOD.md, section 3.10.
    """
    over = np.where(np.isnan(z), -np.inf, excess(z))
    query = over.argmax(axis=0)
    best = over[query, np.arange(over.shape[1])]
    query = np.where(np.isfinite(best), query, -1)
    score = np.where(np.isfinite(best), best, np.nan)
    held = score[~trained & np.isfinite(score)]
    controls = Controls(held, np.arange(len(held)), np.zeros(len(held)))
    told = null.p_values(score[trained], np.zeros(int(trained.sum())), controls, seed)
    why = null.no_tail(controls) if len(held) else "no held-out patient was compared"
    return PatientLevel(score[trained], query[trained], told.patient, told.image, why)
