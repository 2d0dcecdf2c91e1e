"""Used or not used, by where a generator puts its mass (METHOD.md, section 3.19).

The classical attacks that see only generated images: DOMIAS (van Breugel et al. 2023) compares two
densities, MC (Hilprecht et al. 2019) counts generated images nearby, GAN-Leaks (Chen et al. 2020)
takes the nearest one, LOGAN (Hayes et al. 2019) asks a classifier. Each is a function of rows of
numbers; the scorer makes rows of pixels. No development data is learnt from.

Distances are Euclidean, between pixels; densities and the classifier are on principal components,
since neither can be estimated in thousands of dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.extmath import randomized_svd

from fingerprint.corpus.window import fit
from fingerprint.membership import BLOCK, Dev, Floats, Images, Scorer, Scores, blocks

Rows = NDArray[Any]  # (n, d), real numbers of any type; computed with in float64

FLAT = 1e-6  # a component with less of the largest one's SD is rounding, not a direction


@dataclass(frozen=True)
class Density:
    """The method; `fit` learns nothing.

    Attributes
    ----------
    px : int
        Largest side at which images are compared: larger ones are reduced by area mean.
    components : int
        Most principal components for densities and the classifier.
    fitted : int
        Most images of either set that components are fitted on, evenly spaced.
    """

    px: int = 64
    components: int = 20
    fitted: int = 2000

    def __post_init__(self) -> None:
        """Raise ValueError with the field, its rule and its value."""
        for name, least in (("px", 1), ("components", 1), ("fitted", 2)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"Density: {name} must be >= {least}, got {value}")

    def fit(self, dev: Dev) -> Scorer:
        """Return the scores; development data is not looked at."""
        del dev
        return partial(scores, self)


def scores(how: Density, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
    """Score real slices; see `membership.Scorer`.

    Each slice by itself, but for the arm ``mc``: its radius is a median over all asked slices.

    Returns
    -------
    mapping of ``gan-leaks``, ``mc``, ``gan-leaks-calibrated``, ``domias``, ``logan`` to float64
    (n,)

    Raises
    ------
    ValueError
        No asked slice; fewer than 2 generated or control slices, or all of them one image.
    """
    if not len(asked):
        raise ValueError("scores: asked must have at least one slice, got none")
    for name, images in (("generated", generated), ("control", control)):
        if len(images) < 2:
            raise ValueError(f"scores: {name} must have at least 2 slices, got {len(images)}")
    x, made, real = (_rows(images, how.px) for images in (asked, generated, control))
    few = [rows[:: -(-len(rows) // how.fitted)] for rows in (made, real)]
    axes = components(few[0], few[1], most=how.components, seed=seed)
    on_axes = [axes.of(rows) for rows in (x, made, real)]
    # what estimates least first: of arms that are equally good on DEV the first is chosen, and a
    # density or a classifier fitted to few slices carries over worst
    return {
        "gan-leaks": gan_leaks(x, made),
        "mc": mc(x, made),
        "gan-leaks-calibrated": gan_leaks_calibrated(x, made, real),
        "domias": domias(*on_axes),
        "logan": logan(*on_axes),
    }


@dataclass(frozen=True)
class Components:
    """Directions in which images differ most.

    Attributes
    ----------
    mean : float64, shape (d,)
    axes : float64, shape (d, k)
        A row's product with them, less the mean's, has SD 1 over both sets.
    """

    mean: Floats
    axes: Floats

    def of(self, rows: Rows) -> Floats:
        """Return rows (n, d) on these components, float64 (n, k)."""
        parts = [(part.astype(np.float64) - self.mean) @ self.axes for part in _parts(rows)]
        return np.concatenate(parts)


def components(generated: Rows, reference: Rows, *, most: int = 20, seed: int) -> Components:
    """Fit principal components on both sets together, each with half of the weight.

    On one set alone, directions in which only the other one varies would be lost, and with them
    what tells the two densities apart; and the larger set shall not decide for both. Never on asked
    slices: the score of a slice must not depend on which others are asked about.

    Parameters
    ----------
    generated, reference : shape (n, d), (m, d)
        At least 2 of each. There are at most min(n, m) - 1 components: with more, a set would be
        flat in some.
    most : int
    seed : int
        Of the randomised singular value decomposition.

    Raises
    ------
    ValueError
        Shapes that do not fit, too few rows, or rows that are all the same.
    """
    _checked("components", 2, generated=generated, reference=reference)
    sets = [rows.astype(np.float64) for rows in (generated, reference)]
    mean = (sets[0].mean(0) + sets[1].mean(0)) / 2
    both = np.concatenate([(rows - mean) / np.sqrt(2 * len(rows)) for rows in sets])
    if not both.any():
        raise ValueError("components: rows must differ, all generated and reference ones are alike")
    k = min(most, both.shape[1], *(len(rows) - 1 for rows in sets))
    _, sd, axes = randomized_svd(both, k, random_state=seed % 2**32)
    kept = sd > FLAT * sd[0]
    return Components(mean, axes[kept].T / sd[kept])


def bandwidth(n: int, d: int) -> float:
    """Return Scott's rule for n rows of d numbers of unit scale: n^(-1 / (d + 4))."""
    return float(n ** (-1 / (d + 4)))


def log_density(asked: Rows, rows: Rows) -> Floats:
    """Return the log of a Gaussian kernel density at each asked row, float64 (n,).

    One kernel for all directions, of SD `bandwidth`, so rows should be of unit scale. The kernel
    does not take the shape of the set: a generator that makes one image only has a density too.
    Sums are of logarithms: finite however far from all rows.
    """
    _checked("log_density", 1, asked=asked, rows=rows)
    kernel = KernelDensity(kernel="gaussian", bandwidth=bandwidth(*rows.shape))
    return np.asarray(kernel.fit(rows).score_samples(asked), np.float64)


def domias(asked: Rows, generated: Rows, reference: Rows) -> Floats:
    """Return ln p_gen(x) - ln p_ref(x) of each asked row, float64 (n,); see `log_density`.

    Parameters
    ----------
    asked, generated, reference : shape (n, k), (g, k), (m, k)
        Of unit scale: as `Components.of` gives them.
    """
    return log_density(asked, generated) - log_density(asked, reference)


def nearest(asked: Rows, rows: Rows) -> Floats:
    """Return the Euclidean distance of each asked row to the nearest of `rows`, float64 (n,)."""
    _checked("nearest", 1, asked=asked, rows=rows)
    found = np.full(len(asked), np.inf)
    for part in _parts(rows):
        found = np.minimum(found, _distances(asked, part).min(1))
    return found


def mc(asked: Rows, generated: Rows) -> Floats:
    """Return the share of generated rows within eps of each asked row, float64 (n,).

    eps is the median over *all* asked rows of the nearest distance: the arm looks at all of them at
    once, and half of them have a share above 0, however many were used.
    """
    eps = np.median(nearest(asked, generated))
    near = np.zeros(len(asked), np.int64)
    for part in _parts(generated):
        near += np.count_nonzero(_distances(asked, part) <= eps, axis=1)
    return near / len(generated)


def gan_leaks(asked: Rows, generated: Rows) -> Floats:
    """Return minus the distance to the nearest generated row, float64 (n,)."""
    return -nearest(asked, generated)


def gan_leaks_calibrated(asked: Rows, generated: Rows, reference: Rows) -> Floats:
    """Return `gan_leaks` less the same against the reference, float64 (n,).

    A slice that is near to everything (plain anatomy) is near to strangers too.
    """
    return nearest(asked, reference) - nearest(asked, generated)


def logan(asked: Rows, generated: Rows, reference: Rows) -> Floats:
    """Return log-odds of a logistic regression, generated against reference, float64 (n,).

    Both classes weigh the same, whatever their numbers; rows are standardised; asked rows are not
    learnt from.
    """
    _checked("logan", 1, asked=asked, generated=generated, reference=reference)
    x = np.concatenate([generated, reference])
    is_generated = np.arange(len(x)) < len(generated)
    found = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    ).fit(x, is_generated)
    return np.asarray(found.decision_function(asked), np.float64)


def _rows(images: Images, px: int) -> NDArray[np.uint8]:
    """Return images as rows of pixels at `px`: only these stay in memory, a byte for a pixel."""
    side = min(px, images.shape[-1])
    return np.concatenate(
        [fit(block, side, 0)[0].reshape(len(block), -1) for block in blocks(images)]
    )


def _parts(rows: Rows) -> Iterator[Rows]:
    return (rows[first : first + BLOCK] for first in range(0, len(rows), BLOCK))


def _distances(asked: Rows, rows: Rows) -> Floats:
    """Return distances (n, m): with whole numbers exact up to the root, in whatever order."""
    to = rows.astype(np.float64)
    return np.concatenate(
        [euclidean_distances(part.astype(np.float64), to) for part in _parts(asked)]
    )


def _checked(name: str, least: int, **sets: Rows) -> None:
    """Raise ValueError unless sets are rows of one length, at least `least` and all finite."""
    length = next(iter(sets.values())).shape[-1]
    for which, rows in sets.items():
        need = 1 if which == "asked" else least
        if rows.ndim != 2 or rows.shape[1] != length or len(rows) < need:
            raise ValueError(f"{name}: {which} must be (>= {need}, {length}), got {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError(f"{name}: {which} must be finite, got NaN or infinity")
