"""All methods together: weights learnt on development data, and nowhere else.

Logistic regression on one score of every method. Every score means "larger is more likely used", so
a weight below zero could only come from noise: weights are held at zero or above. With hundreds of
slices and a handful of scores that is what keeps the combination from being worse than its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from fingerprint.membership import Floats

PENALTY = 1.0  # of the squared weights, against the sum of losses: a prior of SD 1 / sqrt(2)
MOST = 5.0  # robust standard deviations: one extreme slice must not set a weight


@dataclass(frozen=True)
class Combination:
    """Weights of scores.

    Attributes
    ----------
    middle, spread : float64, shape (k,)
        Median and interquartile range of each score on development data.
    weight : float64, shape (k,)
        Zero or above.
    """

    middle: Floats
    spread: Floats
    weight: Floats
    constant: float

    def scores(self, features: Floats) -> Floats:
        """Return the log-odds of "used" of rows (n, k), float64 (n,).

        Clipped scores are equal for everything beyond: a little of the unclipped ones keeps order.
        """
        plain = (features - self.middle) / self.spread
        return np.asarray(
            _clipped(plain) @ self.weight + 1e-3 * np.tanh(plain / 100) @ self.weight
            + self.constant
        )  # fmt: skip


def fit_combination(features: Floats, used: NDArray[np.bool_]) -> Combination:
    """Fit the combination; both classes weigh the same.

    Parameters
    ----------
    features : float64, shape (n, k)
        Scores; a constant one gets no weight.
    used : bool, shape (n,)

    Raises
    ------
    ValueError
        One class only, scores that are not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError("fit_combination: features must be finite")
    if used.all() or not used.any():
        raise ValueError(
            f"fit_combination: used must hold both classes, got {int(used.sum())} of {len(used)}"
        )
    low, middle, high = np.quantile(features, (0.25, 0.5, 0.75), axis=0)
    wide = np.where(high > low, high - low, features.std(0)) / 1.349
    spread = np.where(wide > 0, wide, np.inf)
    x = _clipped((features - middle) / spread)
    sign, each = np.where(used, 1.0, -1.0), len(used) / 2
    share = np.where(used, each / used.sum(), each / (~used).sum())

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = sign * (x @ w[:-1] + w[-1])
        pull = -share * sign * expit(-margin)
        slope = np.append(x.T @ pull + 2 * PENALTY * w[:-1], pull.sum())
        return float(
            (share * np.logaddexp(0, -margin)).sum() + PENALTY * (w[:-1] ** 2).sum()
        ), slope

    k = features.shape[1]
    bounds = [(0.0, None)] * k + [(None, None)]
    w = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Combination(middle, spread, w[:-1], float(w[-1]))


def _clipped(features: Floats) -> Floats:
    return np.clip(features, -MOST, MOST)
