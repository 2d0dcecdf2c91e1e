"""Used or not used, against how alike real slices are: the family of VCMI, best of 2023.

The SSIM of a slice with its most similar generated image is held against what real slices have
among themselves (METHOD.md, sections 3.19 and 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.cluster import KMeans

from fingerprint.measure.structural import similarity_map, windows
from fingerprint.membership import Dev, Floats, Images, Scores
from fingerprint.membership.shadow import Grey, small
from fingerprint.membership.tops import Tops
from fingerprint.search import device

TOGETHER = 64
RETRIEVED = 3  # real slices that each generated image calls up
CUTS = ("max", "mean2sd", "mean3sd")


@dataclass(frozen=True)
class Vcmi:
    """The method; it learns nothing from development data.

    Attributes
    ----------
    px : int
        Largest side at which images are compared.
    top : int
        Generated images in the mean of the most similar.
    """

    px: int = 64
    top: int = 10

    def fit(self, dev: Dev) -> Vcmi:
        """Return the scorer: the method itself."""
        del dev
        return self

    def __call__(self, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
        """Score real slices; zero is the method's own cut of every arm but ``retrieval``.

        ``threshold-max``, ``-mean2sd``, ``-mean3sd`` : largest SSIM with a generated image, less
            the cut; they order slices alike
        ``retrieval`` : share of the generated images that have it among their most similar real
            slices, asked and reference together
        ``ranking``, ``clustering`` : half of the asked slices that rank higher, or of two clusters
            the nearer one; both look at all asked slices at once
        ``vote`` : share of these that call it used, less one half

        See `membership.Scorer`.
        """
        px = min(self.px, asked.shape[-1])
        real, made, others = (small(images, px) for images in (asked, generated, control))
        similar = all_pairs(real, made)
        best = similar.max(1)
        told = {f"threshold-{k}": best - cut for k, cut in cuts(all_pairs(others, others)).items()}
        top = Tops.empty((len(real),), self.top).plus(similar).reduced()["top"]
        told["retrieval"] = retrieved(similar, all_pairs(others, made))
        told["ranking"] = ranked(best)
        told["clustering"] = clustered(np.stack([best, top], axis=1), seed)
        votes = [told[name] >= 0 for name in told if name != "retrieval"]
        return told | {"vote": np.mean(votes, axis=0) - 0.5}


def all_pairs(images: Grey, others: Grey) -> Floats:
    """Return the SSIM of all pairs, float64 (n, m)."""
    where = device.chosen()
    x, y = (
        windows(torch.from_numpy(np.ascontiguousarray(part)).to(where)[:, None].float())
        for part in (images, others)
    )
    out = np.empty((len(images), len(others)))
    for i in range(len(images)):
        for first in range(0, len(others), TOGETHER):
            some = slice(first, first + TOGETHER)
            found = similarity_map(x[i : i + 1], y[some]).flatten(1).double().mean(1)
            out[i, some] = found.cpu().numpy()
    return out


def cuts(real: Floats) -> dict[str, float]:
    """Return the natural cuts: of the best SSIM that each real slice has with another one.

    Parameters
    ----------
    real : float64, shape (m, m)
        Of reference slices among themselves; the diagonal does not count.

    Returns
    -------
    mapping
        ``max``, ``mean2sd``, ``mean3sd``: the largest, the mean plus two and plus three SD. With
        one slice there is no other, and the cut is 1: nothing is more alike than equal.
    """
    if len(real) < 2:
        return dict.fromkeys(CUTS, 1.0)
    best = np.where(np.eye(len(real), dtype=bool), -np.inf, real).max(1)
    mean, sd = float(best.mean()), float(best.std())
    return dict(zip(CUTS, (float(best.max()), mean + 2 * sd, mean + 3 * sd), strict=True))


def retrieved(asked: Floats, control: Floats, k: int = RETRIEVED) -> Floats:
    """Return how often generated images call a slice up, float64 (n asked,).

    Parameters
    ----------
    asked, control : float64, shape (n, g), (m, g)
        Similarity of real slices with generated images.
    k : int
        Most similar real slices of each image; ties to the earlier slice.
    """
    both = np.concatenate([asked, control])
    order = np.argsort(-both, axis=0, kind="stable")[: min(k, len(both))]
    counts = np.bincount(order.ravel(), minlength=len(both))
    return counts[: len(asked)] / asked.shape[1]


def ranked(best: Floats) -> Floats:
    """Return how far above the middle each score ranks, float64 (n,) from -1/2 to 1/2.

    Ties have their mean rank. A rank is the argsort of the argsort: one alone, as published, is
    the order of the slices and no rank. A cut at the middle supposes that half were used.
    """
    n = len(best)
    return (rankdata(best) - 0.5) / n - 0.5 if n > 1 else np.zeros(n)


def clustered(features: Floats, seed: int) -> Floats:
    """Return 1/2 for slices in the cluster of larger similarity, -1/2 for the others."""
    if len(np.unique(features, axis=0)) < 2:
        return np.full(len(features), -0.5)
    fitted = KMeans(2, n_init=10, random_state=seed).fit(features)
    nearer = int(np.argmax(fitted.cluster_centers_.sum(1)))
    return np.where(fitted.labels_ == nearer, 0.5, -0.5)
