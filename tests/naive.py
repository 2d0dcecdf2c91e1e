"""Slow and obvious: what every fast path is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pearson(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    """Pearson r in Python integers and one square root; NaN if an image is constant."""
    a, b = [int(v) for v in x.ravel()], [int(v) for v in y.ravel()]
    n = len(a)
    num = n * sum(p * q for p, q in zip(a, b, strict=True)) - sum(a) * sum(b)
    var_a = n * sum(p * p for p in a) - sum(a) ** 2
    var_b = n * sum(q * q for q in b) - sum(b) ** 2
    if var_a == 0 or var_b == 0:
        return math.nan
    return num / math.sqrt(float(var_a) * float(var_b))


def best_per_patient(
    queries: NDArray[np.uint8],
    slices: NDArray[np.uint8],
    patients: Sequence[int],
    n_patients: int,
    own: Sequence[int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Best r of each query over each patient's slices, and which slice: ties to the lower slice.

    `own` is the patient left out for each query (-1: none). NaN and -1 where there is no slice.
    """
    r = np.full((len(queries), n_patients), np.nan)
    at = np.full((len(queries), n_patients), -1, np.int64)
    for q, query in enumerate(queries):
        for s, image in enumerate(slices):
            p = patients[s]
            if own is not None and own[q] == p:
                continue
            value = pearson(query, image)
            if not math.isnan(value) and (at[q, p] < 0 or value > r[q, p]):
                r[q, p], at[q, p] = value, s
    return r, at


def correlations(
    queries: NDArray[np.uint8],
    slices: NDArray[np.uint8],
    patients: Sequence[int],
    own: Sequence[int],
) -> NDArray[np.float64]:
    """R of every query and slice; NaN for a constant image, and for the patient left out."""
    r = np.array([[pearson(q, s) for s in slices] for q in queries])
    for q, left_out in enumerate(own):
        for s, patient in enumerate(patients):
            if patient < 0 or patient == left_out:
                r[q, s] = math.nan
    return r


def best_of_rows(
    r: NDArray[np.float64], patients: Sequence[int], n_patients: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Best r of each row of a query x slice matrix per patient; the first of equals."""
    best, at = np.full((len(r), n_patients), np.nan), np.full((len(r), n_patients), -1, np.int64)
    for q, row in enumerate(r):
        for s, value in enumerate(row):
            p = patients[s]
            if not math.isnan(value) and (at[q, p] < 0 or value > best[q, p]):
                best[q, p], at[q, p] = value, s
    return best, at


def counted(r: NDArray[np.float64], bins: int = 4096) -> list[int]:
    """Count the values that are not NaN in equal bins over [-1, 1], one after the other."""
    counts = [0] * bins
    for value in r.ravel():
        if not math.isnan(value):
            counts[min(int((float(value) + 1.0) * (bins / 2)), bins - 1)] += 1
    return counts


def ranking(r: Sequence[float], at: Sequence[int], keep: int) -> list[tuple[float, int, int]]:
    """List (r, slice, patient) of the best patients, best first, ties to the lower slice."""
    there = [(-v, s, p) for p, (v, s) in enumerate(zip(r, at, strict=True)) if s >= 0]
    return [(-v, s, p) for v, s, p in sorted(there)][:keep]


def entropy_bits(values: Sequence[int]) -> float:
    """Entropy of what was counted, in bits: sum of p log2(1 / p)."""
    n = len(values)
    return sum(values.count(v) / n * math.log2(n / values.count(v)) for v in set(values))


def mutual_bits(x: Sequence[int], y: Sequence[int]) -> float:
    """Mutual information of two lists of bins: H(x) + H(y) - H(x, y)."""
    pairs = [a * 1000 + b for a, b in zip(x, y, strict=True)]
    return entropy_bits(list(x)) + entropy_bits(list(y)) - entropy_bits(pairs)


def three_ssim(
    other: NDArray[np.float64], reference: NDArray[np.float64], ssim_map: NDArray[np.float64]
) -> float:
    """3-SSIM (METHOD 3.16) from a map of the size of the images, pixel by pixel."""

    def sobel(image: NDArray[np.float64], i: int, j: int) -> float:
        rows, cols = image.shape
        p = [
            [image[min(max(i + a, 0), rows - 1), min(max(j + b, 0), cols - 1)] for b in (-1, 0, 1)]
            for a in (-1, 0, 1)
        ]
        gx = (p[0][2] + 2 * p[1][2] + p[2][2]) - (p[0][0] + 2 * p[1][0] + p[2][0])
        gy = (p[2][0] + 2 * p[2][1] + p[2][2]) - (p[0][0] + 2 * p[0][1] + p[0][2])
        return float(abs(gx) + abs(gy))

    inside = [(i, j) for i in range(5, other.shape[0] - 5) for j in range(5, other.shape[1] - 5)]
    o = {at: sobel(reference, *at) for at in inside}
    d = {at: sobel(other, *at) for at in inside}
    g = max(o.values())
    parts: dict[str, list[float]] = {"edge": [], "texture": [], "smooth": []}
    for at in inside:
        if o[at] > 0.12 * g or d[at] > 0.12 * g:
            kind = "edge"
        elif o[at] < 0.06 * g and d[at] <= 0.12 * g:
            kind = "smooth"
        else:
            kind = "texture"
        parts[kind].append(float(ssim_map[at]))
    weights = {"edge": 0.5, "texture": 0.25, "smooth": 0.25}
    there = [kind for kind in parts if parts[kind]]
    total = sum(weights[kind] for kind in there)
    return sum(weights[kind] * sum(parts[kind]) / len(parts[kind]) for kind in there) / total


def stepped_up(p: Sequence[float], q: float) -> list[bool]:
    """Benjamini-Hochberg: reject the k smallest, k the largest with p_(k) <= k q / n.

    Equal but for rounding is equal: 1/4800 is not above 0.05/240.
    """
    tested = sorted(v for v in p if not math.isnan(v))
    bounds = [k * q / len(tested) for k in range(1, len(tested) + 1)]
    cut = max((v for v, b in zip(tested, bounds, strict=True) if v <= b * (1 + 1e-9)), default=-1.0)
    return [v <= cut for v in p]


def overlap_pearson(
    moving: NDArray[np.float32], fixed: NDArray[np.float32], matrix: NDArray[np.float64]
) -> tuple[float, float]:
    """Pearson r of fixed pixels and the moving image at M(p), pixel by pixel, where M(p) is inside.

    Also the share of the fixed pixels that these are.
    """
    height, width = moving.shape
    pairs = []
    for i in range(fixed.shape[0]):
        for j in range(fixed.shape[1]):
            y, x = (float(row[0] * i + row[1] * j + row[2]) for row in matrix)
            if not (0 <= y <= height - 1 and 0 <= x <= width - 1):
                continue
            top, left = min(int(y), height - 2), min(int(x), width - 2)
            v, u = y - top, x - left
            upper = (1 - u) * float(moving[top, left]) + u * float(moving[top, left + 1])
            lower = (1 - u) * float(moving[top + 1, left]) + u * float(moving[top + 1, left + 1])
            pairs.append(((1 - v) * upper + v * lower, float(fixed[i, j])))
    a, b = np.array(pairs).T
    return float(np.corrcoef(a, b)[0, 1]), len(pairs) / fixed.size


def taken_in_proportion(weights: Sequence[float], there: Sequence[int]) -> list[int]:
    """Groups in the order in which they are served (Sainte-Lague), one at a time.

    The next is of the group with the largest weight / (served + 1/2) that has any left.
    """
    served, order = [0] * len(weights), []
    while sum(served) < sum(there):
        left = [g for g in range(len(weights)) if served[g] < there[g]]
        g = max(left, key=lambda g: (weights[g] / (served[g] + 0.5), -g))
        served[g] += 1
        order.append(g)
    return order


def cell_counts(
    rows: Sequence[int],
    sex: Sequence[str],
    region: Sequence[str],
    balance_sex: bool,
    classes: Sequence[str],
) -> dict[tuple[str, str], int]:
    """Count slices of each sex and class that are told apart, by looking at every one of `rows`."""
    sexes = ("F", "M") if balance_sex else ("any",)
    out = {(s, c): 0 for s in sexes for c in (classes or ("any",))}
    for row in rows:
        key = (sex[row] if balance_sex else "any", region[row] if classes else "any")
        out[key] = out.get(key, 0) + 1
    return out


def taken_unfairly(
    rows: Sequence[int], there: Sequence[int], patient: Sequence[str]
) -> list[tuple[str, str]]:
    """Pairs of patients: one gave two slices more than another who had some left.

    `there` are all slices that could have been taken.
    """
    gave = {patient[r]: 0 for r in there}
    had = dict(gave)
    for r in there:
        had[patient[r]] += 1
    for r in rows:
        gave[patient[r]] += 1
    return [(a, b) for a in gave for b in gave if gave[a] > gave[b] + 1 and had[b] > gave[b]]
