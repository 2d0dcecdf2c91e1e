"""Study sets of a sealed corpus, chosen from its labels: the cohorts of paper 000 (METHOD.md, 1.1).

    patients ──┬─ held out       a share of each sex and band of ages, never trained on
               └─ trained on ──┬─ training sets, one of each size
                               └─ dealt to further sets (Fig. 4), each patient to one

A set consists of equal parts, its cells: every class of every sex. In a cell slices are taken in
turns, nobody's second before everybody's first. A smaller set is the beginning of the next larger
one, unless that has other ages or the sets are drawn independently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fingerprint.corpus import deal, shortfall
from fingerprint.corpus.deal import Bools, Floats, Ints
from fingerprint.corpus.design import Design
from fingerprint.corpus.pool import Band, Pool, aged, pool

CONTROLS = 1000  # slices that are held out for any size, and more for a size that is larger
AGE_GROUPS = 5  # of as many slices of the training set each
SPLIT, TRAINING, HELD_OUT, SETS = range(1, 5)  # streams of the seed
SHRINK = "shrink = true scales sizes and sets down to what there is; more slices, other ages or a "
SHRINK += "smaller held_out share allow more"


@dataclass(frozen=True)
class Cohorts:
    """What was chosen: rows of the corpus, int64, rising.

    Attributes
    ----------
    training : size that was asked for -> rows
    held_out : the same sizes -> rows
        Of held-out patients, in the same cells and ages; the same array for sizes of the same ages.
    sets : tuple of rows
        No patient is of two of them; one may be of the training sets too.
    notes : tuple of str
        What was scaled down, and why; what cannot be told apart.
    """

    training: Mapping[int, Ints]
    held_out: Mapping[int, Ints]
    sets: tuple[Ints, ...]
    notes: tuple[str, ...]


def chosen(labels: pd.DataFrame, design: Design) -> Cohorts:
    """Choose training sets, held-out slices and further sets.

    Parameters
    ----------
    labels
        One row per slice; columns ``participant``, ``sex`` (``M``, ``F`` or ``""``), ``age`` (in
        years, -1: not known) and ``region``.
    design

    Returns
    -------
    Cohorts
        The same for the same labels in the same order, design and seed. Who is held out does not
        depend on sizes, but for the bands of ages that they ask for.

    Raises
    ------
    ValueError
        A slice has no participant; or what the corpus lacks, every shortfall in a line.

    Notes
    -----
    Held-out slices of a band of ages come in the cells of the training sets, as many as the
    smallest cell allows, at most 1,000 or as many as the largest training set of that band has.
    They are taken in turns as well: as many patients as can be (METHOD.md, 3.8). Ages within the
    band are alike because every stratum is split evenly over its ages; where a turn is not taken
    in full, what is taken of it has the age groups of that training set.

    References
    ----------
    METHOD.md, 1.1 (cohorts), 3.0; paper 000, "The study image datasets".
    """
    people = pool(labels, design.balance_sex, design.classes, design.used)
    held = _held_out(people, design)
    train = {band: np.flatnonzero(people.within(band) & ~held) for band in design.used}
    rest = {band: np.flatnonzero(people.within(band) & held) for band in design.used}
    none = shortfall.impossible(people, train, rest)
    if not design.shrink:
        few = shortfall.too_few(people, train, rest, design.asked)
        few += _too_few_for_sets(people, train, design)
        shortfall.refuse([*none, *few], "" if none else SHRINK)
    shortfall.refuse(none, "")
    sizes, scaled = shortfall.scaled(people, train, design.asked)
    training = _training(people, train, sizes, design)
    sets, dealt = _sets(people, train, design)
    return Cohorts(
        training=training,
        held_out=_controls(people, rest, training, design),
        sets=sets,
        notes=(*people.notes, *scaled, *dealt, *_confounded(design)),
    )


def _held_out(people: Pool, design: Design) -> Bools:
    """Tell which slices are of held-out patients: bool (s,). One split for all bands of ages.

    Strata are sex, the bands that a patient has slices in, and whether there are slices of every
    class: so that held-out patients can be matched with the others, whatever is asked for.
    """
    may = np.array([people.within(band) for band in design.used])
    rows = np.flatnonzero(may.any(axis=0))
    rows = rows[np.argsort(people.age[rows], kind="stable")]
    names, first, who = np.unique(people.patient[rows], return_index=True, return_inverse=True)
    stratum = people.sex[names]
    for band in may:
        in_band = rows[band[rows]]
        has = np.zeros((len(names), len(people.cells)), bool)
        has[who[band[rows]], people.cell[in_band]] = True
        n = has.sum(axis=1)
        stratum = 3 * stratum + np.where(n == people.classes, 2, n > 0)
    rng = np.random.default_rng([design.seed, SPLIT])
    out = np.zeros(people.patient.max(initial=-1) + 1, bool)
    out[names] = deal.held_out(stratum, people.age[rows][first], design.held_out, rng)
    return np.asarray(out[people.patient])


def _training(
    people: Pool, train: Mapping[Band, Ints], sizes: Mapping[int, int], design: Design
) -> dict[int, Ints]:
    """Return the rows of each training set."""
    out = {}
    orders: dict[Band, Ints] = {}
    for size, band in design.asked:
        if size not in sizes:
            continue
        rows = train[band]
        if band not in orders or not design.nested:
            stream = [design.seed, TRAINING, design.used.index(band), size * (not design.nested)]
            orders[band] = _in_turns(people, rows, np.random.default_rng(stream))
        each = sizes[size] // len(people.cells)
        out[size] = deal.beginnings(orders[band], people.cell, each)
    return out


def _in_turns(people: Pool, rows: Ints, rng: np.random.Generator) -> Ints:
    """Return `rows` in the order in which they are taken."""
    cell = people.cell[rows]
    order, _ = deal.in_turns(
        cell, people.patient[rows], cell // people.classes, people.classes, rng
    )
    return rows[order]


def _controls(
    people: Pool, held: Mapping[Band, Ints], training: Mapping[int, Ints], design: Design
) -> dict[int, Ints]:
    """Return held-out rows of each size, matched with the largest training set of the same ages."""
    last = {band: training[size] for size, band in design.asked if size in training}
    made = {
        band: _matched(people, held[band], rows, [design.seed, HELD_OUT, design.used.index(band)])
        for band, rows in last.items()
    }
    return {size: made[band] for size, band in design.asked if size in training}


def _matched(people: Pool, held: Ints, like: Ints, stream: list[int]) -> Ints:
    """Return rows of `held` in equal cells, of many patients, aged as those of `like`."""
    n = len(people.cells)
    each = min(int(people.counts(held).min()), max(CONTROLS, len(like)) // n)
    known = people.age[like][people.age[like] >= 0]
    shares = np.arange(1, AGE_GROUPS) / AGE_GROUPS
    ends = np.unique(np.quantile(known, shares)) if len(known) else np.zeros(0)
    group = _groups(people, held, ends)
    weight = np.bincount(_groups(people, like, ends), minlength=group.max() + 1)
    rng, cell = np.random.default_rng(stream), people.cell[held]
    order, turn = deal.in_turns(cell, people.patient[held], group, people.classes, rng)
    order = deal.in_proportion(order, cell, turn, group, weight.astype(np.float64))
    return held[deal.beginnings(order, cell, each)]


def _groups(people: Pool, rows: Ints, ends: Floats) -> Ints:
    """Return sex and age group, at the youngest slice, of the patient of each of `rows`."""
    by_age = np.argsort(people.age[rows], kind="stable")
    patient = people.patient[rows]
    _, first, who = np.unique(patient[by_age], return_index=True, return_inverse=True)
    age = np.empty(len(rows), np.int64)
    age[by_age] = people.age[rows][by_age][first][who]
    of_age = np.where(age < 0, 0, 1 + np.searchsorted(ends, age))
    return people.sex[patient] * (AGE_GROUPS + 1) + of_age


def _too_few_for_sets(people: Pool, train: Mapping[Band, Ints], design: Design) -> list[str]:
    if not design.sets:
        return []
    rng = np.random.default_rng([design.seed, SETS, design.sets])
    _, fewest = shortfall.dealt(people, train[design.ages], design.sets, rng)
    return shortfall.too_few_for_sets(people, fewest, design.sets, design.set_size, design.ages)


def _sets(
    people: Pool, train: Mapping[Band, Ints], design: Design
) -> tuple[tuple[Ints, ...], list[str]]:
    """Return the rows of each further set; first fewer slices, then fewer sets, if need be."""
    if not design.sets:
        return (), []
    rows, n = train[design.ages], len(people.cells)
    for k in range(min(design.sets, shortfall.most_sets(people, rows)), 0, -1):
        rng = np.random.default_rng([design.seed, SETS, k])
        part, fewest = shortfall.dealt(people, rows, k, rng)
        if fewest.min():
            break
    each = min(design.set_size // n, int(fewest.min()))
    cell = part * n + people.cell[rows]  # a set after the other, each with cells of its own
    order, _ = deal.in_turns(
        cell, people.patient[rows], cell // people.classes, people.classes, rng
    )
    taken = deal.beginnings(order, cell, each)
    sets = tuple(rows[taken[part[taken] == j]] for j in range(k))
    if (k, each * n) == (design.sets, design.set_size):
        return sets, []
    least = f"{people.cells[int(fewest.argmin())]}{aged(design.ages)}"
    return sets, [
        f"{design.sets:,} sets of {design.set_size:,} slices: scaled down to {k:,} of "
        f"{each * n:,}; {least}: {fewest.min():,} in the smallest set; no patient is of two sets"
    ]


def _confounded(design: Design) -> list[str]:
    if len(set(design.bands)) == 1:
        return []
    return [
        f"size and age are confounded: {design.sizes[-1]:,} slices are of patients"
        f"{aged(design.bands[-1])}, the others of patients{aged(design.ages) or ' of any age'}; "
        "what differs between them may be due to either"
    ]
