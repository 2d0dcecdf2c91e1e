"""Labels of a corpus as integers: which slices can be chosen, and what is not there to choose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fingerprint.corpus.deal import Bools, Ints

Band = tuple[int, int] | None  # complete years, both ends included; None: any age, unknown too
SEXES = ("F", "M")
PEOPLE = ("women", "men")
UNKNOWN = (
    "have no participant: whose they are must be known, so that no patient is both trained on and "
    "held out; give slices.tsv with a participant column, or --participant-from"
)


@dataclass(frozen=True)
class Pool:
    """The slices of a corpus, in its order.

    Attributes
    ----------
    patient : int64, shape (s,)
    sex : int64, shape (p,)
        Of each patient: 0 woman, 1 man, 2 not known.
    age : int64, shape (s,)
        -1: not known.
    cell : int64, shape (s,)
        Which of `cells` a slice is of; -1: of none, it is not asked for.
    cells : tuple of str
        Every sex that is told apart with every class: ``c1 women``, .., ``c3 men``.
    classes : int
        Cells of one sex, or of all where the sexes are not told apart.
    notes : tuple of str
    """

    patient: Ints
    sex: Ints
    age: Ints
    cell: Ints
    cells: tuple[str, ...]
    classes: int
    notes: tuple[str, ...]

    def within(self, band: Band) -> Bools:
        """Tell which slices are of a cell and of a band of ages."""
        if band is None:
            return self.cell >= 0
        return (self.cell >= 0) & (self.age >= band[0]) & (self.age <= band[1])

    def counts(self, which: Ints | Bools) -> Ints:
        """Count slices of each cell, int64 (cells,)."""
        return np.bincount(self.cell[which], minlength=len(self.cells))

    def owned(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return patients, (p,), and how many of `rows`, all of some cell, they have (p, cells)."""
        n = len(self.cells)
        names, who = np.unique(self.patient[rows], return_inverse=True)
        flat = np.bincount(who * n + self.cell[rows], minlength=len(names) * n)
        return names, flat.reshape(len(names), n)


def pool(
    labels: pd.DataFrame, balance_sex: bool, classes: tuple[str, ...], bands: Iterable[Band]
) -> Pool:
    """Read labels.

    Parameters
    ----------
    labels
        Columns ``participant``, ``sex`` (``M``, ``F`` or ``""``), ``age`` (years, -1: not known)
        and ``region``, one row per slice.
    balance_sex : bool
        Only slices of known sex are of a cell. Who has slices of both sexes has none known.
    classes : tuple of str
        Only slices of these regions are of a cell; empty: all.
    bands
        Age bands that will be asked for.

    Raises
    ------
    ValueError
        A column is missing, a slice has no participant, or no slice at all has an age, a sex or a
        class that is asked for: all of them, and what to change.
    """
    bands = tuple(bands)
    for name in ("participant", "sex", "age", "region"):
        if name not in labels:
            raise ValueError(f"cohorts: labels must have a column {name}")
    patient = _codes(labels["participant"])
    if (patient < 0).any():
        raise ValueError(f"cohorts: {(patient < 0).sum():,} of {len(patient):,} slices {UNKNOWN}")
    age = labels["age"].to_numpy(np.int64)
    sex, has = _sexes(labels["sex"], patient)
    region = _codes(labels["region"], classes) if classes else np.zeros_like(age)
    missing = _missing(age, sex, region, balance_sex, classes, bands)
    if missing:
        raise ValueError("\n  ".join(["cohorts: the corpus lacks what is asked for:", *missing]))
    n, both = max(len(classes), 1), np.asarray(has.all(axis=1))
    row = np.where(both[patient], -1, sex) if balance_sex else np.zeros_like(age)
    notes = [f"{both.sum():,} patients have slices of both sexes: theirs counts as unknown"]
    return Pool(
        patient=patient,
        sex=np.where(has.sum(axis=1) == 1, has.argmax(axis=1), len(SEXES)),
        age=age,
        cell=np.where((row >= 0) & (region >= 0), row * n + region, -1),
        cells=cells(balance_sex, classes),
        classes=n,
        notes=tuple(notes) if both.any() and balance_sex else (),
    )


def cells(balance_sex: bool, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Name the parts that a set consists of in equal shares."""
    people = PEOPLE if balance_sex else ("",)
    regions = classes or ("",)
    return tuple(" ".join(filter(None, (r, p))) or "any slice" for p in people for r in regions)


def aged(band: Band) -> str:
    """Say a band of ages: `` aged 26``, `` aged 24 to 39`` or nothing."""
    if band is None:
        return ""
    return f" aged {band[0]}" if band[0] == band[1] else f" aged {band[0]} to {band[1]}"


def _codes(values: pd.Series[Any], names: tuple[str, ...] = ()) -> Ints:
    """Return integers for names, of `names` or as they come; -1: none of them, or ``""``."""
    codes, found = pd.factorize(values)
    place = {name: k for k, name in enumerate(names or (f for f in found if f != ""))}
    known = np.array([*(place.get(name, -1) for name in found), -1], np.int64)
    out: Ints = known[codes]  # what is missing has the code -1
    return out


def _sexes(values: pd.Series[Any], patient: Ints) -> tuple[Ints, Bools]:
    """Return the sex of each slice, and which patients have slices of which: bool (p, 2)."""
    sex = _codes(values, SEXES)
    has = np.zeros((patient.max(initial=-1) + 1, len(SEXES)), bool)
    has[patient[sex >= 0], sex[sex >= 0]] = True
    return sex, has


def _missing(
    age: Ints,
    sex: Ints,
    region: Ints,
    balance_sex: bool,
    classes: tuple[str, ...],
    bands: tuple[Band, ...],
) -> list[str]:
    """List what no slice of the corpus has."""
    out = []
    if any(bands) and not (age >= 0).any():
        out.append(
            "no slice has an age: give ages when the files are ingested (--participants), or ask "
            "for any age (ages and ages_largest left out)"
        )
    out += [
        f"no slice is known to be of {who}: give sexes when the files are ingested "
        "(--participants), or ask for any sex (balance_sex = false)"
        for k, who in enumerate(PEOPLE)
        if balance_sex and not (sex == k).any()
    ]
    out += [
        f"no slice is of class {name}: leave it out of classes"
        for k, name in enumerate(classes)
        if not (region == k).any()
    ]
    return out
