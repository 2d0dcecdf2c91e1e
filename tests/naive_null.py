"""Slow and obvious: what the null, the labels, the patients and the clusters are compared with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def gap(z: Sequence[float], k: int) -> float:
    """s_gap of one query: weighted spacings of the k + 1 best patients, one after the other."""
    best = sorted((v for v in z if not math.isnan(v)), reverse=True)
    if len(best) < k + 1:
        return math.nan
    spacing = [i * (best[i - 1] - best[i]) for i in range(1, k + 1)]
    return (k - 1) * math.log(1 + spacing[0] / (sum(spacing[1:]) / (k - 1)) / (k - 1))


def p_of_patients(score: float, controls: Sequence[float], patient: Sequence[int]) -> float:
    """One plus the share of each patient that scores as high, over one plus their number."""
    if math.isnan(score):
        return math.nan
    total = 1.0
    for who in set(patient):
        mine = [s for s, p in zip(controls, patient, strict=True) if p == who]
        total += sum(s >= score for s in mine) / len(mine)
    return total / (len(set(patient)) + 1)


def p_of_slices(score: float, controls: Sequence[float]) -> float:
    """One plus those that score as high, over one plus all."""
    if math.isnan(score):
        return math.nan
    return (1 + sum(s >= score for s in controls)) / (len(controls) + 1)


def half_mean_of_minima(y: Sequence[float]) -> float:
    """E[Y (1 - F)] is half the mean smaller of two draws: over all pairs, without any order."""
    return float(np.mean([min(a, b) for a, b in combinations(y, 2)])) / 2


def yekutieli(p: Sequence[float], q: float) -> list[bool]:
    """Benjamini-Yekutieli: the largest k with p_(k) <= k q / (n (1 + 1/2 + .. + 1/n))."""
    tested = sorted(v for v in p if not math.isnan(v))
    n = len(tested)
    total = sum(1 / i for i in range(1, n + 1))
    cut = max(
        (v for k, v in enumerate(tested, 1) if v * n * total <= k * q * (1 + 1e-9)), default=-1
    )
    return [v <= cut for v in p]


def difference(z: Sequence[float], trained: Sequence[bool]) -> float:
    """Best z over patients of T less the best over the others; NaN is no patient."""
    there = [(v, t) for v, t in zip(z, trained, strict=True) if not math.isnan(v)]
    return max(v for v, t in there if t) - max(v for v, t in there if not t)


def w_of(z: Floats, trained: Sequence[bool]) -> float:
    """Mean over queries of sign(D) D^2."""
    d = [difference(row, trained) for row in z]
    return math.fsum(math.copysign(v * v, v) for v in d) / len(d)


def labellings(trained: Sequence[bool], stratum: Sequence[int]) -> Iterator[list[bool]]:
    """Every way to give as many labels T as there are within each stratum."""
    groups = [[i for i, s in enumerate(stratum) if s == name] for name in sorted(set(stratum))]
    ways = [list(combinations(g, sum(bool(trained[i]) for i in g))) for g in groups]
    for chosen in product(*ways):
        mine = {i for group in chosen for i in group}
        yield [i in mine for i in range(len(trained))]


def other_statistics(
    z: Floats, trained: NDArray[np.bool_], rng: np.random.Generator, permutations: int
) -> tuple[float, float]:
    """Permutation p of two statistics that were not chosen: mean D, and the share U."""
    drawn = [rng.permutation(trained) for _ in range(permutations)]
    labels = np.stack([trained, *drawn])[:, None]
    d = np.where(labels, z, -np.inf).max(2) - np.where(labels, -np.inf, z).max(2)
    mean, share = d.mean(1), labels[:, 0][:, z.argmax(1)].mean(1)
    p = [(1 + (s[1:] >= s[0] - 1e-12).sum()) / (permutations + 1) for s in (mean, share)]
    return float(p[0]), float(p[1])


def excess_of_patients(z: Floats) -> tuple[list[float], list[int]]:
    """S_p of every patient and the query that has it: over the mean of ranks 2 to 11 of its z."""
    best, at = [math.nan] * z.shape[1], [-1] * z.shape[1]
    for g, row in enumerate(z):
        ranked = sorted((float(v) for v in row if not math.isnan(v)), reverse=True)[1:11]
        for p, value in enumerate(row):
            if math.isnan(value):
                continue
            over = float(value) - (sum(ranked) / len(ranked) if ranked else 0.0)
            if at[p] < 0 or over > best[p]:
                best[p], at[p] = over, g
    return best, at


def components(n: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Cluster of each of n images by union-find, numbered by their lowest image."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    roots = [root(i) for i in range(n)]
    names = {r: c for c, r in enumerate(sorted(set(roots)))}
    return [names[r] for r in roots]
