"""Near-duplicate clusters: what stands in for patients when nobody says whose an image is.

Two images are linked if their Pearson r exceeds 0.95 at 128 x 128 pixels; a cluster is a connected
component. Slices of one scan chain together; a patient with two unlike scans becomes two clusters,
and two patients who look alike may become one. So clusters prevent the worst (neighbouring slices
counted as independent), and everything that rests on them is labelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THRESHOLD = 0.95
MOST_PIXELS = 131_071  # beyond, the int32 sums of the product can overflow


@dataclass(frozen=True)
class _Flat:
    """Images as rows of ``value - 128`` (int8) with what Pearson needs, exact in float64."""

    values: torch.Tensor
    total: NDArray[np.float64]
    variance: NDArray[np.float64]


def clusters(
    mid: NDArray[np.uint8], threshold: float = THRESHOLD, block: int = 2048
) -> NDArray[np.int64]:
    """Label near-duplicates.

    Parameters
    ----------
    mid : uint8, shape (n, h, w)
        Area means of the images, 128 x 128 in a corpus.
    threshold : float
        Images with r above it are linked. A constant image is linked to none.
    block : int
        Images compared with as many others at a time. It bounds the memory (some 40 block² bytes,
        and 10 for each pixel of a block) and changes nothing else: all sums are of whole numbers.

    Returns
    -------
    NDArray, shape (n,), int64
        The smallest index in the cluster of each image.

    Raises
    ------
    ValueError : if `mid` is no uint8 array of three axes or too large an image, or `block` < 1.

    Warnings
    --------
    Measured on real CT: a whole chest scan (133 slices) is one cluster; 236 slices of 30 patients
    are 71 clusters, none of two patients; 299 images in a narrow bone-like window, whose noise
    lowers every r, are 236 clusters although others count 29 groups in them.
    """
    if mid.ndim != 3 or mid.dtype != np.uint8 or mid[:1].size > MOST_PIXELS:
        raise ValueError(
            f"clusters: mid must be uint8 (n, h, w) of at most {MOST_PIXELS} pixels, "
            f"got {mid.dtype} {mid.shape}"
        )
    if block < 1:
        raise ValueError(f"clusters: block must be 1 or more, got {block}")
    labels = np.arange(len(mid), dtype=np.int64)
    for i in range(0, len(mid), block):
        rows = _flat(mid[i : i + block])
        for j in range(i, len(mid), block):
            columns = rows if j == i else _flat(mid[j : j + block])
            a, b = np.nonzero(_linked(rows, columns, threshold))
            labels = _joined(labels, labels[a + i], labels[b + j])
    return labels


def _flat(images: NDArray[np.uint8]) -> _Flat:
    shifted = (images.reshape(len(images), -1) ^ 128).view(np.int8)
    wide = shifted.astype(np.int32)
    total = wide.sum(1, dtype=np.int64)
    squares = np.einsum("ij,ij->i", wide, wide, dtype=np.int64)
    variance = shifted.shape[1] * squares - total**2
    return _Flat(torch.from_numpy(shifted), total.astype(np.float64), variance.astype(np.float64))


def _linked(a: _Flat, b: _Flat, threshold: float) -> NDArray[np.bool_]:
    """Tell where r > threshold: exact integers, then one float64 formula for each pair."""
    product = torch._int_mm(a.values, b.values.T).numpy().astype(np.float64)
    covariance = a.values.shape[1] * product - np.outer(a.total, b.total)
    scale = np.sqrt(np.outer(a.variance, b.variance))
    return (covariance > threshold * scale) & (scale > 0)


def _joined(
    labels: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Merge the clusters labelled `a` with those labelled `b`, pair by pair."""
    n = len(labels)
    pairs = np.unique((a * n + b)[a != b])  # one link for each pair: a sum of links could overflow
    if not len(pairs):
        return labels
    links = coo_array((np.ones(len(pairs), np.int8), np.divmod(pairs, n)), shape=(n, n))
    _, component = connected_components(links, directed=False)
    least = np.full(component.max() + 1, n, np.int64)
    np.minimum.at(least, component, np.arange(n))
    return least[component[labels]]
