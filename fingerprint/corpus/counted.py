"""What a cohort consists of, in numbers and in one line: slices and patients, sex, age, class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from fingerprint.corpus.anatomy import CLASSES
from fingerprint.corpus.cohort import Cohorts
from fingerprint.corpus.deal import Ints

Numbers = dict[str, int | float]
SEXES = {"women": "F", "men": "M"}
# in the order in which a table has them; classes follow, as slices_c1 .. and slices_elsewhere
TITLES = {
    "slices": "slices",
    "patients": "patients",
    "slices_women": "slices of women",
    "slices_men": "slices of men",
    "patients_women": "women",
    "patients_men": "men",
    "age_min": "youngest",
    "age_max": "oldest",
    "age_mean": "mean age",
    **{f"slices_{name}": name for name in CLASSES},
    "slices_elsewhere": "elsewhere",
}


def counted(labels: pd.DataFrame, rows: Ints) -> Numbers:
    """Count what is in a cohort.

    Parameters
    ----------
    labels
        As `cohort.chosen`.
    rows : int64, shape (n,)

    Returns
    -------
    dict
        The keys of `TITLES`. Ages are in years, over the slices whose age is known; NaN if none
        is. A slice is elsewhere that is of no class of paper 000.
    """
    some = labels.iloc[rows]
    age = some["age"].to_numpy(np.float64)
    age = age[age >= 0] if (age >= 0).any() else np.array([np.nan])
    of = {who: some[some["sex"] == sex] for who, sex in SEXES.items()}
    region = {f"slices_{name}": int((some["region"] == name).sum()) for name in CLASSES}
    return {
        "slices": len(some),
        "patients": some["participant"].nunique(),
        **{f"slices_{who}": len(theirs) for who, theirs in of.items()},
        **{f"patients_{who}": theirs["participant"].nunique() for who, theirs in of.items()},
        "age_min": float(age.min()),
        "age_max": float(age.max()),
        "age_mean": float(age.mean()),
        **region,
        "slices_elsewhere": len(some) - sum(region.values()),
    }


def each_counted(labels: pd.DataFrame, cohorts: Cohorts) -> Iterator[tuple[str, Numbers]]:
    """Yield a name and the numbers of every cohort: ``training.600``, ``held_out.600``, ``set.1``.

    As keys before a dot they make the flat numbers of a report: ``training.600.patients``.
    """
    for kind, by_size in (("training", cohorts.training), ("held_out", cohorts.held_out)):
        yield from ((f"{kind}.{size}", counted(labels, by_size[size])) for size in by_size)
    for k, rows in enumerate(cohorts.sets, 1):
        yield f"set.{k}", counted(labels, rows)


def line(numbers: Mapping[str, int | float]) -> str:
    """Say the numbers of a cohort in one line."""
    n = {key: f"{value:,}" for key, value in numbers.items() if isinstance(value, int)}
    ages = "of unknown age"
    if numbers["age_mean"] == numbers["age_mean"]:
        youngest, oldest, mean = (numbers[f"age_{what}"] for what in ("min", "max", "mean"))
        ages = f"aged {youngest:.0f} to {oldest:.0f} (mean {mean:.1f})"
    regions = ", ".join(f"{n[f'slices_{name}']} {name}" for name in (*CLASSES, "elsewhere"))
    return (
        f"{n['slices']} slices of {n['patients']} patients {ages}; "
        f"{n['slices_women']} slices of {n['patients_women']} women, "
        f"{n['slices_men']} of {n['patients_men']} men; {regions}"
    )
