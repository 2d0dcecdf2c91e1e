"""Fisher z of a correlation and back, the table of paper 000, and what the size of a set does.

``z = artanh r`` makes correlations near 1 comparable: it is an effect size. ``1/sqrt(n - 3)`` would
turn it into a test only for independent pixels, and pixels are not, so nothing here is a
significance. Two images that are the same (``|r| = 1``) have no finite z: they are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, log_ndtr

Z_IDENTICAL = 12.0  # above any z of two 8-bit 512 x 512 images that differ: at most 11.8


def z_of(r: ArrayLike) -> NDArray[np.float64]:
    """Fisher z of correlations; `|r| = 1` gives +-12 and NaN stays NaN.

    Parameters
    ----------
    r : array_like, any shape
        Pearson correlations in [-1, 1].

    Returns
    -------
    float64, the shape of `r`
        ``(log1p(r) - log1p(-r)) / 2``, which keeps the digits of a small r and of a small 1 - r.

    Raises
    ------
    ValueError
        If a value lies outside [-1, 1].

    References
    ----------
    Fisher 1915; METHOD.md, section 3.2.
    """
    r = np.asarray(r, np.float64)
    if np.any(np.abs(r) > 1):
        raise ValueError(f"z_of: r must lie in [-1, 1], got {r[np.abs(r) > 1].flat[0]!r}")
    with np.errstate(divide="ignore"):
        z = (np.log1p(r) - np.log1p(-r)) / 2
    return np.clip(z, -Z_IDENTICAL, Z_IDENTICAL)


def r_of(z: ArrayLike) -> NDArray[np.float64]:
    """Return the correlation that has Fisher z `z`: ``tanh z``."""
    return np.tanh(np.asarray(z, np.float64))


def is_identical(r: ArrayLike) -> NDArray[np.bool_]:
    """Whether each r is exactly 1 or -1: the same image, up to brightness and contrast."""
    return np.abs(np.asarray(r, np.float64)) == 1


@dataclass(frozen=True)
class FisherTable:
    """One row of Table 1 of paper 000, as printed there and as it should be. NaN: too few images.

    Attributes
    ----------
    n : int
        Images with a correlation.
    identical : int
        Those of them with ``|r| = 1``; they are in the columns of r, not in those of z.
    mean_z, min_z, max_z, sd_z : float
        Of the z of the others; SD with n - 1.
    tanh_mean_z : float
        What the paper prints as "mean r": a location, not the mean of r (E04).
    mean_r, min_r, max_r, sd_r : float
        Of the r themselves, all of them.
    as_printed : float
        tanh(SD z), what the paper prints as "STD r": the SD of nothing (E02).
    """

    n: int
    identical: int
    mean_z: float
    tanh_mean_z: float
    mean_r: float
    min_z: float
    min_r: float
    max_z: float
    max_r: float
    sd_z: float
    sd_r: float
    as_printed: float


def fisher_table(r: ArrayLike) -> FisherTable:
    """Return mean, minimum, maximum and SD of correlations, on both scales; NaN are left out.

    Parameters
    ----------
    r : array_like, shape (images,)
        The best correlation of each image.
    """
    r = np.asarray(r, np.float64).ravel()
    r = r[~np.isnan(r)]
    same = is_identical(r)
    z = z_of(r[~same])
    mean_z, sd_z = _mean(z), _sd(z)
    return FisherTable(
        n=len(r),
        identical=int(same.sum()),
        mean_z=mean_z,
        tanh_mean_z=float(np.tanh(mean_z)),
        mean_r=_mean(r),
        min_z=_extreme(z, np.min),
        min_r=_extreme(r, np.min),
        max_z=_extreme(z, np.max),
        max_r=_extreme(r, np.max),
        sd_z=sd_z,
        sd_r=_sd(r),
        as_printed=float(np.tanh(sd_z)),
    )


def _mean(x: NDArray[np.float64]) -> float:
    return float(x.mean()) if len(x) else np.nan


def _sd(x: NDArray[np.float64]) -> float:
    return float(x.std(ddof=1)) if len(x) > 1 else np.nan


def _extreme(x: NDArray[np.float64], of: Callable[[NDArray[np.float64]], Any]) -> float:
    return float(of(x)) if len(x) else np.nan


# -- the maximum rises with the size of the set


def rarefied_maximum(values: ArrayLike, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Return the expected maximum of N' of N values drawn without replacement: exact, no drawing.

    ``E max of N' out of N = sum_i v_(i) C(N - i, N' - 1) / C(N, N')``, v_(1) >= v_(2) >= ..; the
    weights are taken from logarithms of factorials, so that N may be a million.

    Parameters
    ----------
    values : array_like, shape (..., N)
        For instance the best r of each query over each patient. NaN is a value that is not there:
        N is counted row by row.
    sizes : sequence of int
        Every N' asked for, at least 1.

    Returns
    -------
    float64, shape (..., len(sizes))
        NaN where a row has fewer than N' values.

    References
    ----------
    METHOD.md, section 3.4.
    """
    if any(size < 1 for size in sizes):
        raise ValueError(f"rarefied_maximum: sizes must be at least 1, got {list(sizes)}")
    values = np.asarray(values, np.float64)
    rows = -np.sort(-values.reshape(-1, values.shape[-1]), axis=1)  # falling; NaN go to the end
    counts = np.sum(~np.isnan(rows), axis=1)
    out = np.full((len(rows), len(sizes)), np.nan)
    for n in np.unique(counts):
        for k, size in enumerate(sizes):
            if size <= n:
                out[counts == n, k] = rows[counts == n, :n] @ _weights(int(n), int(size))
    return out.reshape(*values.shape[:-1], len(sizes))


def _weights(n: int, size: int) -> NDArray[np.float64]:
    """Return the probability that the i-th largest of n is the largest of `size` drawn: (n,)."""
    below = n - np.arange(1, n + 1)
    possible = below >= size - 1
    log_weight = np.full(n, -np.inf)
    log_weight[possible] = _log_choose(below[possible], size - 1) - _log_choose(n, size)
    return np.exp(log_weight)


def _log_choose(n: ArrayLike, k: int) -> NDArray[np.float64]:
    n = np.asarray(n, np.float64)
    out: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return out


def expected_maximum(n: int) -> float:
    """Return e_N, the expected largest of `n` independent standard normal values.

    Under no copying the best z over N independent slices is about ``mu + sigma e_N``: it rises with
    N by itself, so a curve that falls with N is memorisation at small N. METHOD.md, section 3.4.
    """
    if n < 1:
        raise ValueError(f"expected_maximum: n must be at least 1, got {n}")
    x = np.linspace(-10.0, 10.0, 20_001)
    log_density = np.log(n) - x**2 / 2 - np.log(2 * np.pi) / 2 + (n - 1) * log_ndtr(x)
    return float(np.trapezoid(x * np.exp(log_density), x))


# -- Table 1 of paper 000


@dataclass(frozen=True)
class PrintedRow:
    """One row of Table 1 of paper 000, as printed; each r stands beside the z it was made from."""

    n: int
    mean_z: float
    mean_r: float
    min_z: float
    min_r: float
    max_z: float
    max_r: float
    sd_z: float
    std_r: float


PRINTED_IMAGES = 240  # generated slices behind each row
PRINTED = (
    PrintedRow(6, 5.091, 0.9999, 4.720, 0.9998, 5.358, 0.9999, 0.1344, 0.1336),
    PrintedRow(60, 3.316, 0.9977, 2.135, 0.9724, 4.482, 0.9997, 0.5186, 0.4766),
    PrintedRow(600, 2.211, 0.9763, 1.172, 0.8248, 3.810, 0.9990, 0.5762, 0.5199),
    PrintedRow(6000, 1.968, 0.9617, 0.967, 0.7473, 2.937, 0.9944, 0.4231, 0.3995),
    PrintedRow(60000, 1.196, 0.8323, 0.825, 0.6776, 1.674, 0.9321, 0.1830, 0.1810),
)


def largest_sd(low: float, high: float) -> float:
    """Return the largest SD that values in [low, high] can have: half the range (E02)."""
    return (high - low) / 2


def sd_r_delta(mean_z: float, sd_z: float) -> float:
    """Estimate the SD of r from that of z, to first order: ``SD_z (1 - tanh(mean z)^2)`` (E03)."""
    return float(sd_z * (1 - np.tanh(mean_z) ** 2))


def r_of_truncated_normal(
    mean_z: float, sd_z: float, min_z: float, max_z: float
) -> tuple[float, float]:
    """Estimate mean and SD of r as if z were normal, cut at its minimum and maximum (E03, E04)."""
    node, weight = np.polynomial.legendre.leggauss(200)
    z = (max_z - min_z) / 2 * node + (max_z + min_z) / 2
    p = weight * np.exp(-(((z - mean_z) / sd_z) ** 2) / 2)
    p /= p.sum()
    mean = float(p @ np.tanh(z))
    return mean, float(np.sqrt(p @ (np.tanh(z) - mean) ** 2))
