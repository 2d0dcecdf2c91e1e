"""Used or not used, by how densely images lie around a slice (METHOD.md, section 3.19).

A generator that has learnt its training slices by heart makes more images near them than near other
slices of the same kind. What matters is the density of generated images *relative* to that of real
slices: where slices are common anyway, images are too.

References
----------
DOMIAS: van Breugel et al. 2023. MC: Hilprecht et al. 2019. GAN-Leaks: Chen et al. 2020. LOGAN:
Hayes et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fingerprint.membership import Dev, Floats, Images, Scores
from fingerprint.membership.shadow import small

LEAST = 2  # images that a density can be made of
ROWS = 512  # compared at a time


@dataclass(frozen=True)
class Density:
    """The method: DOMIAS, MC, GAN-Leaks, LOGAN; it learns nothing from development data.

    Attributes
    ----------
    px : int
        Largest side at which images are compared.
    components : int
        Most principal components.
    """

    px: int = 64
    components: int = 20

    def fit(self, dev: Dev) -> Density:
        """Return the scorer: the method itself."""
        del dev
        return self

    def __call__(self, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
        """Score real slices: arms ``domias, mc, gan-leaks, gan-leaks-calibrated, logan``.

        MC looks at all asked slices at once. See `membership.Scorer`.

        Raises
        ------
        ValueError
            Fewer than two generated images or reference slices.
        """
        for name, images in (("generated", generated), ("control", control)):
            if len(images) < LEAST:
                raise ValueError(f"density: {name} must hold {LEAST} images, got {len(images)}")
        px = min(self.px, asked.shape[-1])
        rows = [_rows(images, px) for images in (asked, generated, control)]
        d_gen, d_ref = nearest(rows[0], rows[1]), nearest(rows[0], rows[2])
        x, g, c = projected(*rows, components=self.components, seed=seed)
        return {
            "domias": domias(x, g, c),
            "gan-leaks-calibrated": d_ref - d_gen,
            "gan-leaks": -d_gen,
            "mc": monte_carlo(rows[0], rows[1]),
            "logan": logan(x, g, c),
        }


def _rows(images: Images, px: int) -> Floats:
    return small(images, px).reshape(len(images), -1).astype(np.float64)


def nearest(x: Floats, others: Floats) -> Floats:
    """Return the Euclidean distance of each row of `x` to the nearest of `others`, float64 (n,)."""
    return np.concatenate([cdist(x[i : i + ROWS], others).min(1) for i in range(0, len(x), ROWS)])


def projected(
    asked: Floats, generated: Floats, reference: Floats, *, components: int, seed: int
) -> tuple[Floats, Floats, Floats]:
    """Return all three in the principal components of the last two, each direction of variance 1.

    Fitted on both, so that neither density is favoured: in components of one set alone the other
    looks thin. Never on asked slices. At most a third as many components as there are images in the
    smaller set, or a density in them is noise.
    """
    both = np.concatenate([generated, reference])
    k = max(1, min(components, min(len(generated), len(reference)) // 3, both.shape[1]))
    basis = PCA(k, whiten=True, svd_solver="full" if k > 500 else "auto", random_state=seed)
    basis.fit(both)
    x, g, c = (basis.transform(rows) for rows in (asked, generated, reference))
    return x, g, c


def log_density(x: Floats, sample: Floats) -> Floats:
    """Return the log of a Gaussian kernel density estimate at rows of `x`, float64 (n,).

    One bandwidth along all axes, by Scott's rule, n^(-1/(d+4)) times the mean standard deviation of
    the sample; computed by log-sum-exp, so that it stays finite far from the sample.

    Parameters
    ----------
    x, sample : float64, shape (n, d), (m, d), m at least 2
    """
    m, d = sample.shape
    spread = float(np.sqrt(sample.var(0, ddof=1).mean())) or 1e-9
    h = spread * m ** (-1 / (d + 4))
    parts = []
    for i in range(0, len(x), ROWS):
        square = cdist(x[i : i + ROWS], sample, "sqeuclidean")
        parts.append(logsumexp(-square / (2 * h * h), axis=1))
    return np.concatenate(parts) - np.log(m) - d * np.log(h * np.sqrt(2 * np.pi))


def domias(x: Floats, generated: Floats, reference: Floats) -> Floats:
    """Return ``ln p_gen(x) - ln p_ref(x)``, float64 (n,)."""
    return log_density(x, generated) - log_density(x, reference)


def monte_carlo(x: Floats, generated: Floats) -> Floats:
    """Return the share of generated rows within eps of each row, float64 (n,).

    eps is the median, over rows of `x`, of the distance to the nearest generated row.
    """
    eps = float(np.median(nearest(x, generated)))
    parts = [(cdist(x[i : i + ROWS], generated) <= eps).mean(1) for i in range(0, len(x), ROWS)]
    return np.concatenate(parts)


def logan(x: Floats, generated: Floats, reference: Floats) -> Floats:
    """Return the logit of a classifier that tells generated from reference rows, float64 (n,).

    Logistic regression on the rows and their squares, so that it can tell a set that is narrower.
    """
    both = np.concatenate([generated, reference])
    labels = np.repeat([1, 0], [len(generated), len(reference)])
    fitted = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    )
    fitted.fit(_squared(both), labels)
    return np.asarray(fitted.decision_function(_squared(x)), np.float64)


def _squared(rows: Floats) -> Floats:
    return np.concatenate([rows, rows**2], axis=1)
