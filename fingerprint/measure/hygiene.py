"""Are the controls strangers? What is found before any statistic, and why it is a leak.

A control that shows a patient of the real corpus makes copies look ordinary: the null would be made
of them (METHOD.md, section 3.0). The same patient, scan or slice is certain. A near-duplicate is a
slice so alike that no two patients of any corpus here are: the threshold lies far above strangers,
so that leaving such controls out does not trim the null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from fingerprint.corpus.store import Corpus
from fingerprint.measure import rows

NEAR_RAW = 0.995  # r of the pixels as stored
NEAR_POSE = (0.98, 0.9)  # r at best pose: raw, and high-pass
SHOWN = 5
COLUMNS = "control_patient real_patient query why".split()


@dataclass(frozen=True, order=True)
class Leak:
    """A control patient who is in the real corpus, or seems to be."""

    control_patient: str
    real_patient: str
    query: str
    why: str

    def as_row(self) -> list[str]:
        """Return the row of ``leaks.tsv``."""
        return [self.control_patient, self.real_patient, self.query, self.why]


def certain(real: Corpus, controls: Corpus) -> list[Leak]:
    """Return what both corpora hold: patients, scans, slices."""
    found: list[Leak] = []
    names = {"participant": "same patient", "scan": "same scan", "digest": "same slice"}
    us, them = real.label("participant"), controls.label("participant")
    for label, why in names.items():
        mine, theirs = real.label(label), controls.label(label)
        both = np.setdiff1d(np.intersect1d(mine, theirs), [""])
        first = dict(zip(mine[::-1].tolist(), range(len(mine) - 1, -1, -1), strict=True))
        for k in np.flatnonzero(np.isin(theirs, both)):
            found.append(Leak(str(them[k]), str(us[first[theirs[k]]]), "", why))
    once = {(leak.control_patient, leak.real_patient): leak for leak in reversed(found)}
    return sorted(once.values())


def near(matrix: xr.Dataset, owner: NDArray[Any]) -> Iterator[Leak]:
    """Yield each control and "other" patient with a slice that is nearly the same.

    Parameters
    ----------
    matrix : Dataset
        Of the real corpus; a control's own patient is not compared.
    owner : shape (q,)
        Whose slice each row is.
    """
    patients, posed, first = matrix["patient"].values, rows.has_stage(matrix, "pose"), 0
    for band in rows.bands(matrix):
        close = rows.cells(band) >= NEAR_RAW
        if posed:
            moved = [rows.cells(band, image=image) for image in ("raw", "highpass")]
            with np.errstate(invalid="ignore"):
                close |= (moved[0] >= NEAR_POSE[0]) & (moved[1] >= NEAR_POSE[1])
        close &= rows.of_set(band, "control")[:, None]
        for row, column in np.argwhere(close):
            yield Leak(
                str(owner[first + row]),
                str(patients[column]),
                str(band["query"].values[row]),
                "near-duplicate slice",
            )
        first += band.sizes["query"]


def in_words(leaks: Sequence[Leak]) -> str:
    """Return the first of them for one line: who is whom, and why."""
    named = [f"{one.control_patient} is {one.real_patient} ({one.why})" for one in leaks[:SHOWN]]
    more = len(leaks) - SHOWN
    return ", ".join(named) + (f", and {more} more" if more > 0 else "")
