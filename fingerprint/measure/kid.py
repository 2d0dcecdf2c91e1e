"""Kernel distance of two sets of features, KID (METHOD.md, section 3.14), with interval and p.

The unbiased squared maximum mean discrepancy with the kernel ``(x.y / d + 1)^3``. The kernel is
summed once per pair of groups (patients; clusters of duplicates); bootstrap and permutation then
only weigh these sums. It is called KID only where the features are those of the Inception network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fingerprint.measure.frechet import checked

ROWS = 1024  # of the kernel at a time: ROWS x n numbers are held
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BlockSums:
    """The kernel summed per pair of groups; a row is never paired with itself.

    Attributes
    ----------
    xx : float64, shape (G, G)
        Over ordered pairs of different rows of x, one in group g, the other in group h.
    yy : float64, shape (H, H)
    xy : float64, shape (G, H)
    rows_x, rows_y : float64, shapes (G,) and (H,)
        Rows of each group, in the order of the sorted labels; whole numbers.
    """

    xx: Array
    yy: Array
    xy: Array
    rows_x: Array
    rows_y: Array


def block_sums(x: ArrayLike, y: ArrayLike, groups_x: ArrayLike, groups_y: ArrayLike) -> BlockSums:
    """Sum the kernel of two sets per pair of groups.

    Parameters
    ----------
    x, y : array_like, shapes (n, d) and (m, d)
        Features, a row per image; at least 2 rows each.
    groups_x, groups_y : array_like, shapes (n,) and (m,)
        Whose each row is: integers or strings. Labels of x and labels of y are never compared.

    Raises
    ------
    ValueError
        Shapes that do not fit, features that are not finite, fewer than 2 rows.
    """
    x, y = _pair("block_sums", x, y)
    of_x, rows_x = _numbered("groups_x", groups_x, len(x))
    of_y, rows_y = _numbered("groups_y", groups_y, len(y))
    xx, yy = _summed(x, x, of_x, of_x), _summed(y, y, of_y, of_y)
    xx -= np.diag(np.bincount(of_x, _kernel((x * x).sum(1) / x.shape[1])))
    yy -= np.diag(np.bincount(of_y, _kernel((y * y).sum(1) / y.shape[1])))
    # a group of one row has no pair: what its two roundings leave is not one
    for sums, rows in ((xx, rows_x), (yy, rows_y)):
        np.fill_diagonal(sums, np.where(rows > 1, np.diag(sums), 0.0))
    return BlockSums(xx, yy, _summed(x, y, of_x, of_y), rows_x, rows_y)


def _pair(name: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = checked(name, "x", x), checked(name, "y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{name}: d must be equal, got {x.shape[1]} and {y.shape[1]}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{name}: x and y must have at least 2 rows, got {len(x)} and {len(y)}")
    return x, y


def _numbered(argument: str, groups: ArrayLike, n: int) -> tuple[NDArray[np.intp], Array]:
    """Return the number of each row's group, and the rows of each group."""
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"block_sums: {argument} must have shape ({n},), got {groups.shape}")
    _, of, rows = np.unique(groups, return_inverse=True, return_counts=True)
    return of, rows.astype(np.float64)


def _kernel(inner: Array) -> Array:
    """Return the kernel of inner products over d: two products, not a power."""
    base = inner + 1
    return base * base * base


def _summed(x: Array, y: Array, of_x: NDArray[np.intp], of_y: NDArray[np.intp]) -> Array:
    """Sum the kernel over all pairs of rows, per pair of groups."""
    out = np.zeros((of_x.max() + 1, of_y.max() + 1))
    order = np.argsort(of_y, kind="stable")
    y = y[order] / y.shape[1]
    starts = np.searchsorted(of_y[order], np.arange(out.shape[1]))
    for at in range(0, len(x), ROWS):
        rows = _kernel(x[at : at + ROWS] @ y.T)
        np.add.at(out, of_x[at : at + ROWS], np.add.reduceat(rows, starts, axis=1))
    return out


def kid(x: ArrayLike, y: ArrayLike) -> float:
    """Return the unbiased squared MMD of two sets of independent rows; may be negative.

    ``sum_{i!=j} k(x_i, x_j) / n(n-1) + sum_{i!=j} k(y_i, y_j) / m(m-1) - 2 mean k(x_i, y_j)``

    Parameters
    ----------
    x, y : array_like, shapes (n, d) and (m, d)
        At least 2 rows each.

    Raises
    ------
    ValueError
        Shapes that do not fit, features that are not finite, fewer than 2 rows.

    Warnings
    --------
    Several slices of one patient resemble one another, which raises the value: `kid_interval` with
    ``within`` false leaves those pairs out.

    References
    ----------
    Gretton et al. 2012, eq. 3; Binkowski et al. 2018; METHOD.md, section 3.14.
    """
    x, y = _pair("kid", x, y)
    sums = block_sums(x, y, np.zeros(len(x), int), np.zeros(len(y), int))
    one = np.ones((1, 1))
    return float(_weighed(sums, one, one, (True, True))[0])


def _weighed(sums: BlockSums, c_x: Array, c_y: Array, within: tuple[bool, bool]) -> Array:
    """Return the statistic of resamples that hold group g c_g times: (B,); NaN without a pair."""
    cross = ((c_x @ sums.xy) * c_y).sum(1) / ((c_x @ sums.rows_x) * (c_y @ sums.rows_y))
    one = _mean_within_set(sums.xx, sums.rows_x, c_x, within[0])
    other = _mean_within_set(sums.yy, sums.rows_y, c_y, within[1])
    return one + other - 2 * cross


def _mean_within_set(sums: Array, rows: Array, c: Array, within: bool) -> Array:
    """Return the mean kernel over pairs of one set in which group g is there c_g times: (B,).

    Pairs of rows of different groups count ``c_g c_h`` times, pairs inside a group ``c_g`` times:
    a group is never paired with another copy of itself, which would bring back k(x_i, x_i) and
    give the pairs inside groups twice their share.
    """
    inside = np.diag(sums)
    total = ((c @ (sums - np.diag(inside))) * c).sum(1)
    pairs = (c @ rows) ** 2 - (c * c) @ (rows * rows)
    if within:
        total, pairs = total + c @ inside, pairs + c @ (rows * (rows - 1))
    out = np.full(len(c), np.nan)
    return np.divide(total, pairs, out=out, where=pairs > 0)


@dataclass(frozen=True)
class KidInterval:
    """The statistic and its 95 % interval over groups.

    Attributes
    ----------
    value : float
        That of `kid`, if pairs inside groups count in both sets.
    low, high : float
        Percentiles 2.5 and 97.5 of the resamples.
    resamples : int
        That had a pair in each set; others have no value.
    groups_x, groups_y : int
        In each set.
    """

    value: float
    low: float
    high: float
    resamples: int
    groups_x: int
    groups_y: int


def kid_interval(
    x: ArrayLike,
    y: ArrayLike,
    groups_x: ArrayLike,
    groups_y: ArrayLike,
    *,
    within: tuple[bool, bool] = (True, True),
    resamples: int = 2000,
    seed: int,
) -> KidInterval:
    """Return KID with a percentile bootstrap over the groups of both sets.

    Groups are drawn with replacement, as many as there are, in each set by itself. Pairs of a group
    with another copy of itself are left out, and so is every row with itself.

    Parameters
    ----------
    x, y, groups_x, groups_y
        As in `block_sums`; at least 2 groups each.
    within : (bool, bool)
        Whether pairs of rows of one group count, in x and in y. False for patients, the units that
        were sampled: the value is then unbiased however alike the slices of a patient are. True for
        clusters of duplicates, which were found by what the images show: without their pairs a
        generator that repeats itself would look better than it is.
    resamples, seed : int

    Raises
    ------
    ValueError
        As `block_sums`; fewer than 2 groups in a set, or no resample.

    Warnings
    --------
    Covers 90 to 93 % with 50 groups, 95 % with 200 (simulated). Too wide where both laws are one,
    as the statistic is degenerate there: whether the sets differ is asked of `kid_p`.

    References
    ----------
    METHOD.md, sections 3.11 and 3.14.
    """
    _positive("kid_interval", "resamples", resamples)
    sums = block_sums(x, y, groups_x, groups_y)
    groups = _groups("kid_interval", sums)
    rng = np.random.default_rng(seed)
    c_x, c_y = (rng.multinomial(g, np.full(g, 1 / g), resamples).astype(float) for g in groups)
    drawn = _weighed(sums, c_x, c_y, within)
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    value = _weighed(sums, np.ones((1, groups[0])), np.ones((1, groups[1])), within)[0]
    return KidInterval(float(value), float(low), float(high), len(drawn), *groups)


def _groups(name: str, sums: BlockSums) -> tuple[int, int]:
    groups = len(sums.rows_x), len(sums.rows_y)
    if min(groups) < 2:
        raise ValueError(f"{name}: groups must be at least 2 in each set, got {groups}")
    return groups


def _positive(name: str, argument: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: {argument} must be at least 1, got {value}")


def kid_p(
    x: ArrayLike,
    y: ArrayLike,
    groups_x: ArrayLike,
    groups_y: ArrayLike,
    *,
    within: bool = True,
    permutations: int = 9999,
    seed: int,
) -> float:
    """Return the permutation p of "both sets are of one law": groups change sides as a whole.

    ``(1 + #{T* >= T}) / (permutations + 1)``, T the statistic of `kid_interval`; ties count against
    us. As many groups as there were stay on each side.

    Parameters
    ----------
    x, y, groups_x, groups_y
        As in `block_sums`; at least 2 groups each.
    within : bool
        Whether pairs of rows of one group count.
    permutations, seed : int

    Raises
    ------
    ValueError
        As `block_sums`; fewer than 2 groups in a set, or no permutation.

    Warnings
    --------
    Valid if groups of x and of y are exchangeable, sizes included: patients against patients.

    References
    ----------
    METHOD.md, section 3.14; Phipson and Smyth 2010 for the identity among the permutations.
    """
    _positive("kid_p", "permutations", permutations)
    sums = block_sums(x, y, groups_x, groups_y)
    own = np.repeat([1.0, 0.0], _groups("kid_p", sums))
    both = np.block([[sums.xx, sums.xy], [sums.xy.T, sums.yy]])
    rows = np.append(sums.rows_x, sums.rows_y)
    pooled = BlockSums(both, both, both, rows, rows)
    # equal sums are added in another order: what rounding tells apart is still a tie
    observed = _sides(pooled, own[None], within)[0] - 1e-12 * np.abs(both).sum() / rows.sum() ** 2
    rng = np.random.default_rng(seed)
    as_far = 0
    for at in range(0, permutations, ROWS):
        sides = rng.permuted(np.tile(own, (min(ROWS, permutations - at), 1)), axis=1)
        as_far += int(np.sum(_sides(pooled, sides, within) >= observed))
    return (1 + as_far) / (permutations + 1)


def _sides(pooled: BlockSums, sides: Array, within: bool) -> Array:
    return _weighed(pooled, sides, 1 - sides, (within, within))
