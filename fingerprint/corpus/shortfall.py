"""What a corpus lacks for the sets that were asked for, and the largest sets that it allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from fingerprint.corpus import deal
from fingerprint.corpus.deal import Ints
from fingerprint.corpus.pool import Band, Pool, aged

Rows = Mapping[Band, Ints]  # of each band of ages
Asked = tuple[tuple[int, Band], ...]  # each size with its ages


def impossible(people: Pool, train: Rows, held: Rows) -> list[str]:
    """List the cells that allow no set however small, and what to change."""
    out = []
    for band in train:
        rows = np.concatenate([train[band], held[band]])
        has, kept = people.counts(train[band]), people.counts(held[band])
        for k, cell in enumerate(people.cells):
            whom = f"{cell}{aged(band)}"
            if not has[k] + kept[k]:
                out.append(f"{whom}: none there: ask for other ages or classes")
            elif not has[k] or not kept[k]:
                who = len(np.unique(people.patient[rows[people.cell[rows] == k]]))
                side = "trained on" if has[k] else "held out"
                out.append(
                    f"{whom}: all {has[k] + kept[k]:,} slices are of {_patients(who)} who would be "
                    f"{side}, but one to train on and one to hold out are needed: ask for other "
                    "ages or classes" + ", another held_out or another seed" * (who > 1)
                )
    return out


def too_few(people: Pool, train: Rows, held: Rows, asked: Asked) -> list[str]:
    """List the cells that hold too few slices for a size."""
    out = []
    for size, band in asked:
        need = size // len(people.cells)
        has, kept = people.counts(train[band]), people.counts(held[band])
        out += [
            f"{size:,} slices: {cell}{aged(band)}: {has[k]:,} there, {need:,} needed"
            + f" ({kept[k]:,} more are of held-out patients)" * bool(kept[k])
            for k, cell in enumerate(people.cells)
            if has[k] < need
        ]
    return out


def too_few_for_sets(people: Pool, fewest: Ints, n: int, size: int, band: Band) -> list[str]:
    """List the cells that hold too few slices in the smallest of `n` dealt sets."""
    need = size // len(people.cells)
    return [
        f"{n:,} sets of {size:,} slices: {cell}{aged(band)}: {fewest[k]:,} in the smallest set, "
        f"{need:,} needed"
        for k, cell in enumerate(people.cells)
        if fewest[k] < need
    ]


def scaled(people: Pool, train: Rows, asked: Asked) -> tuple[dict[int, int], list[str]]:
    """Return the number of slices that each size comes to, and what was changed.

    A size that comes to as many slices as a smaller one of the same ages is left out.
    """
    out: dict[int, int] = {}
    notes: list[str] = []
    made: dict[tuple[Band, int], int] = {}
    for size, band in asked:
        has = people.counts(train[band])
        n = min(size, int(has.min()) * len(people.cells))
        least = f"{people.cells[int(has.argmin())]}{aged(band)}"
        why = f"{least}: {has.min():,} there, held-out patients apart"
        if (band, n) in made:
            notes.append(f"{size:,} slices: left out, as large as {made[band, n]:,}; {why}")
            continue
        if n < size:
            notes.append(f"{size:,} slices: scaled down to {n:,}; {why}")
        out[size], made[band, n] = n, size
    return out, notes


def dealt(people: Pool, rows: Ints, n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Deal patients to `n` sets.

    Returns
    -------
    part : int64, shape (rows,)
        Set of each of `rows`.
    fewest : int64, shape (cells,)
        Slices of each cell in the set that has fewest.
    """
    names, owned = people.owned(rows)
    part = deal.parts(people.sex[names], owned, n, rng)
    total = np.zeros((n, len(people.cells)), np.int64)
    np.add.at(total, part, owned)
    return part[np.searchsorted(names, people.patient[rows])], total.min(axis=0)


def most_sets(people: Pool, rows: Ints) -> int:
    """Return how many sets there can be: each needs a patient in every cell."""
    return int((people.owned(rows)[1] > 0).sum(axis=0).min())


def refuse(lines: Iterable[str], advice: str) -> None:
    """Raise what is lacking, one shortfall in a line."""
    lines = list(lines)
    if lines:
        head = "cohorts: the corpus is too small for what is asked for:"
        raise ValueError("\n  ".join([head, *lines]) + f"\n{advice}" * bool(advice))


def _patients(n: int) -> str:
    return f"{n:,} patient" + "s" * (n != 1)
