"""Used or not used, by SSIM: the family of the winner of ImageCLEF 2023 (METHOD.md, section 3.19).

s(x) is the largest SSIM of a real slice x over the generated images. From it, and from SSIM between
real slices that were not used, come cuts, retrieval, ranks, clusters and a vote of all of them.

The three thresholds differ in nothing but the cut, which is subtracted: they order slices alike, so
their ROC is one, and zero is the cut of each. `natural_cuts` has the cuts of all arms; a threshold
that is chosen on development data uses none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.cluster import KMeans

from fingerprint.corpus.window import fit
from fingerprint.measure.structural import REACH, Windows, similarity_map, windows
from fingerprint.membership import BLOCK, Dev, Floats, Images, Scorer, Scores, blocks
from fingerprint.membership.tops import Tops
from fingerprint.search import device

DIGITS = 6  # of SSIM, which is computed in float32: more of them are not clusters
TOGETHER = 64  # images that one is compared with at a time


@dataclass(frozen=True)
class Vcmi:
    """The method; `fit` learns nothing.

    Attributes
    ----------
    px : int
        Largest side at which images are compared, at least 11: larger ones are reduced by area
        mean.
    retrieved : int
        Real slices that each generated image retrieves.
    top : int
        Generated images in the mean of the most similar, for clusters.
    """

    px: int = 64
    retrieved: int = 10
    top: int = 10

    def __post_init__(self) -> None:
        """Raise ValueError with the field, its rule and its value."""
        for name, least in (("px", 2 * REACH + 1), ("retrieved", 1), ("top", 1)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"Vcmi: {name} must be >= {least}, got {value}")

    def fit(self, dev: Dev) -> Scorer:
        """Return the scores; development data is not looked at."""
        del dev
        return partial(scores, self)


def scores(how: Vcmi, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
    """Score real slices; see `membership.Scorer`.

    Thresholds are of each slice by itself; all other arms look at all asked slices at once. The
    vote takes every other arm at its natural cut: ranks halve the asked slices, which is to know
    that the prevalence is 1/2.

    Returns
    -------
    mapping of ``nearest`` (s(x) itself), ``threshold-max``, ``threshold-mean2sd``,
    ``threshold-mean3sd``, ``retrieval``, ``ranking``, ``clustering``, ``vote`` to float64 (n,)

    Raises
    ------
    ValueError
        No asked or no generated slice, fewer than 2 control slices, slices under 11 px.

    Warnings
    --------
    Control slices of one patient are alike, and make the cuts high: take few of each.
    """
    for name, images, least in (
        ("asked", asked, 1),
        ("generated", generated, 1),
        ("control", control, 2),
    ):
        if len(images) < least:
            raise ValueError(f"scores: {name} must have >= {least} slices, got {len(images)}")
    tops, hits = Tops.empty((len(asked),), how.top), np.zeros(len(asked))
    for made in _prepared(generated, how.px):
        similar, beside = (_against(images, made, how.px) for images in (asked, control))
        tops, hits = tops.plus(similar), hits + retrievals(similar, beside, how.retrieved)
    best, top = (tops.reduced()[name] for name in ("max", "top"))
    # s(x) first, so that of equals it is chosen: the cuts depend on how many control slices there
    # are, and what DEV adds to them does not carry over to another number
    out = (
        {"nearest": best}
        | {
            f"threshold-{name}": best - cut
            for name, cut in cuts(nearest_others(control, how.px)).items()
        }
        | {
            "retrieval": hits / len(generated),
            "ranking": ranking(best),
            "clustering": clustering(np.stack([best, top], axis=1), seed=seed),
        }
    )
    natural = natural_cuts(len(asked), len(control), how.retrieved)
    return out | {
        "vote": np.mean([out[arm] > natural[arm] for arm in out if arm in natural], axis=0)
    }


def natural_cuts(asked: int, control: int, retrieved: int) -> dict[str, float]:
    """Return the cut of each arm: used is what is *above*.

    Of ``retrieval``: the share of generated images that would retrieve a slice if all `asked` and
    `control` slices were retrieved equally often.
    """
    thresholds = {f"threshold-{name}": 0.0 for name in ("max", "mean2sd", "mean3sd")}
    chance = min(1.0, retrieved / (asked + control))
    return thresholds | {"retrieval": chance, "ranking": 0.5, "clustering": 0.5, "vote": 0.5}


def cuts(real_real: Floats) -> dict[str, float]:
    """Return cuts of s(x) from the similarity of each control slice to the nearest other one.

    Parameters
    ----------
    real_real : float64, shape (m,), m >= 2

    Returns
    -------
    mapping of ``max``, ``mean2sd``, ``mean3sd`` to float
        The largest; the mean and 2 or 3 SD (of m - 1).
    """
    if len(real_real) < 2:
        raise ValueError(f"cuts: real_real must have at least 2 values, got {len(real_real)}")
    mean, sd = float(real_real.mean()), float(real_real.std(ddof=1))
    return {"max": float(real_real.max()), "mean2sd": mean + 2 * sd, "mean3sd": mean + 3 * sd}


def ssims(x: Windows, y: Windows) -> Floats:
    """Return the mean SSIM of each image of `x` with each of `y`, float64 (n, m)."""
    m = len(y.grey)
    rows = [
        torch.cat(
            [
                similarity_map(x[i : i + 1], y[j : j + TOGETHER]).flatten(1).double().mean(1)
                for j in range(0, m, TOGETHER)
            ]
        )
        for i in range(len(x.grey))
    ]
    return np.asarray(torch.stack(rows).cpu().numpy(), np.float64)


def nearest_others(images: Images, px: int) -> Floats:
    """Return the largest SSIM of each image with another one, float64 (n,), n >= 2."""
    out = []
    for first, mine in zip(range(0, len(images), BLOCK), _prepared(images, px), strict=True):
        rows = _against(images, mine, px)
        at = np.arange(rows.shape[1])
        rows[first + at, at] = -np.inf  # each with itself
        out.append(rows.max(0))
    return np.concatenate(out)


def retrievals(asked: Floats, control: Floats, k: int) -> Floats:
    """Return how many generated images have each asked slice among their k most similar.

    Slices that are as similar as the k-th are retrieved too: copies of one slice score alike.

    Parameters
    ----------
    asked, control : float64, shape (n, g), (m, g)
        Similarities to generated images.
    k : int

    Returns
    -------
    float64, shape (n,)
    """
    pool = np.concatenate([asked, control])
    kth = max(0, len(pool) - k)
    return np.count_nonzero(asked >= np.partition(pool, kth, axis=0)[kth], axis=1).astype(float)


def ranks(similarity: Floats) -> Floats:
    """Return ranks, 1 is the most similar; equal ones have their mean rank.

    Without ties this is argsort of argsort. One argsort alone says which slice has a rank, not
    which rank a slice has.
    """
    return np.asarray(rankdata(-similarity), np.float64)


def ranking(similarity: Floats) -> Floats:
    """Return ranks as scores from 0 to 1, the best the largest; the upper half is above 1/2."""
    return 1 - (ranks(similarity) - 0.5) / len(similarity)


def clustering(features: Floats, *, seed: int) -> Floats:
    """Return 1.0 in the cluster of the larger centre, of 2, and 0.0 in the other: float64 (n,).

    Parameters
    ----------
    features : float64, shape (n, d)
        Similarities. If all slices have the same there is one cluster, and none is called used.
    seed : int
        Of where k-means begins.
    """
    rounded = features.round(DIGITS)
    if len(np.unique(rounded, axis=0)) < 2:
        return np.zeros(len(features))
    found = KMeans(2, n_init=10, random_state=seed % 2**32).fit(rounded)
    return (found.labels_ == found.cluster_centers_.mean(1).argmax()).astype(float)


def _prepared(images: Images, px: int) -> Iterator[Windows]:
    side = min(px, images.shape[-1])
    if side < 2 * REACH + 1:
        raise ValueError(f"scores: slices must be at least 11 px, got {images.shape}")
    where = device.chosen()
    for block in blocks(images):
        grey = np.ascontiguousarray(fit(block, side, 0)[0])
        yield windows(torch.from_numpy(grey).to(where)[:, None].float())


def _against(images: Images, block: Windows, px: int) -> Floats:
    """Return `ssims` of all images with a block, float64 (n, m); they are prepared anew for it."""
    return np.concatenate([ssims(part, block) for part in _prepared(images, px)])
