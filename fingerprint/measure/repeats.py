"""Generated images that repeat each other: clusters, and the effective number of images.

A generator that makes one image 240 times makes one independent test, not 240 (METHOD.md, 3.13).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

QUANTILE = 0.99  # of the best z between controls of different patients

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Repeats:
    """Clusters of images.

    Attributes
    ----------
    cluster : int64, shape (g,)
        Number of the cluster of each image, by its lowest image.
    effective : float
        ``(sum n_c)^2 / sum n_c^2``.
    medoid : int64, shape (clusters,)
        The image of each cluster with most links to its others: chosen without looking at real.
    """

    cluster: Ints
    effective: float
    medoid: Ints


def threshold(control_z: Floats) -> float:
    """Return the z above which two images are linked; NaN without controls of other patients.

    Parameters
    ----------
    control_z : float64, shape (m,)
        Best z of each control over the controls of other patients (block E).
    """
    there = control_z[np.isfinite(control_z)]
    return float(np.quantile(there, QUANTILE)) if len(there) else float("nan")


def clusters(n: int, links: Ints) -> Repeats:
    """Put linked images together: clusters are the components.

    Parameters
    ----------
    n : int
        Images.
    links : int64, shape (l, 2)
        Pairs of images whose z exceeds the `threshold`; each pair once or twice.

    References
    ----------
    METHOD.md, section 3.13.
    """
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    _, found = connected_components(graph, directed=False)
    _, first, cluster = np.unique(found, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # numbered in the order of their lowest image
    cluster = rank[cluster].astype(np.int64)
    linked = np.bincount(links.ravel(), minlength=n)
    return Repeats(cluster, effective(np.bincount(cluster)), _medoids(cluster, linked))


def effective(sizes: Ints) -> float:
    """Return ``(sum n_c)^2 / sum n_c^2``: all distinct M, all the same 1, two equal halves 2."""
    return float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum()) if len(sizes) else 0.0


def _medoids(cluster: Ints, linked: Ints) -> Ints:
    """Return the image with most links of each cluster; the lowest of equals."""
    order = np.lexsort((-linked, cluster))
    _, first = np.unique(cluster[order], return_index=True)
    return order[first].astype(np.int64)
