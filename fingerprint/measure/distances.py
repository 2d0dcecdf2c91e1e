"""Distances between whole sets: generated from real, and controls from real as their floor.

Always measured, and never called FID: Fréchet distance and KID on 64 principal components of 64 px
pixels and of histograms of local binary patterns. FID itself needs the weights of a network that
the user supplies (METHOD.md, section 3.14). All sets of a row are of one size: the bias of such a
distance depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from fingerprint.measure import attribution, frechet, kid, pixel_features
from fingerprint.measure.entries import Findings, entries, entry

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]

FEATURES: dict[str, Callable[[Images], Floats]] = {
    "pixels": pixel_features.pixels_64,
    "texture": pixel_features.lbp,
}
NO_WEIGHTS = (
    "no weights were given: FID needs those of a feature network, such as "
    "pt_inception-2015-12-05-6726825d.pth; name it with encoder and weights in the settings"
)
NO_FLOOR = "no control images in this run, so the distance has no floor to be read against"


@dataclass(frozen=True)
class Sets:
    """Images of equal number, and what of each was drawn independently.

    Attributes
    ----------
    images : mapping
        ``real, generated`` and, where there are any, ``control``: uint8, shape (n, side, side).
    group : mapping
        The patient of each image; of generated ones the cluster of duplicates.
    """

    images: Mapping[str, Images]
    group: Mapping[str, NDArray[Any]]

    @property
    def n(self) -> int:
        """Images in each set."""
        return len(self.images["real"])


def measured(sets: Sets, seed: int) -> Findings:
    """Return both distances on both kinds of features, generated and control from real."""
    out: Findings = {"distance.n": sets.n}
    both = [sets.images[who] for who in ("generated", "control") if who in sets.images]
    overlap = energy_overlap(*both) if len(both) == 2 else None
    out |= entry("images.energy_overlap", overlap, NO_FLOOR)
    for name, of in FEATURES.items():
        try:
            k = pixel_features.components(sets.n)
        except frechet.RankDeficient as error:
            out |= entries({f"distance.{name}.generated": None}, str(error))
            continue
        made = {who: of(images) for who, images in sets.images.items()}
        # fitted on real alone: a control inside the fit would look nearer than a new set can
        basis = pixel_features.fit(made["real"], k)
        projected = {who: basis.project(features) for who, features in made.items()}
        out |= _pair(f"distance.{name}", projected, sets, seed)
        out[f"distance.{name}.components"] = projected["real"].shape[1]
    return out


def energy_overlap(images: Images, others: Images) -> float:
    """Return how far two sets overlap in high-frequency energy: 1 as one, 0 apart.

    One less the largest difference of their distribution functions (Kolmogorov-Smirnov) of the SD
    of each image less its Gaussian blur (sigma: a 64th of the side). Controls that are sharper or
    noisier than what they judge are not exchangeable with it (METHOD.md, section 3.0).

    Parameters
    ----------
    images, others : uint8, shape (n, side, side)
    """
    sigma = images.shape[1] / 64
    sd = [
        [float((x - ndimage.gaussian_filter(x, sigma)).std()) for x in each.astype(np.float64)]
        for each in (images, others)
    ]
    return 1 - float(stats.ks_2samp(*sd).statistic)


def _pair(key: str, features: Mapping[str, Floats], sets: Sets, seed: int) -> Findings:
    """Return the distances of generated and of control images from real ones."""
    out: Findings = {}
    real = frechet.moments(features["real"])
    for who in ("generated", "control"):
        if who not in features:
            out |= entry(f"{key}.{who}", None, NO_FLOOR)
            continue
        out[f"{key}.{who}"] = frechet.frechet(frechet.moments(features[who]), real)
        out |= entry(
            f"{key}.{who}.infinite",
            frechet.fid_infinite(features[who], features["real"], seed=seed).value,
        )
        out |= _kid(f"{key}.{who}.kid", features, sets, who, seed)
    return out


def _kid(key: str, features: Mapping[str, Floats], sets: Sets, who: str, seed: int) -> Findings:
    """Return KID with its interval over patients and clusters of duplicates."""
    groups = sets.group["real"], sets.group[who]
    if min(len(np.unique(group)) for group in groups) < 2:
        return entry(key, None, "all images of a set are of one patient, or repeat each other")
    # pairs of slices of one patient resemble each other; copies among generated ones must count
    within = (False, who == "generated")
    told = kid.kid_interval(features["real"], features[who], *groups, within=within, seed=seed)
    return entry(key, told.value) | entry(f"{key}.low", told.low) | entry(f"{key}.high", told.high)


def fid(features: Mapping[str, Floats] | None, made_with: Mapping[str, Any]) -> Findings:
    """Return FID of generated and control images from real ones, or why there is none.

    Parameters
    ----------
    features : mapping or None
        As `Sets.images`, by the network; None: no weights were given.
    made_with : mapping
        Digest of the weights, resize rule, versions: `models.encoders.provenance`.
    """
    if features is None:
        return entries(dict.fromkeys(("fid.value", "fid.control")), NO_WEIGHTS)
    out: Findings = {f"fid.with.{name}": value for name, value in made_with.items()}
    n, d = features["real"].shape
    out |= {"fid.n": n}
    for key, who in {"fid.value": "generated", "fid.control": "control"}.items():
        if who not in features:
            out |= entry(key, None, NO_FLOOR)
            continue
        try:
            both = (frechet.moments(features[name]) for name in (who, "real"))
            out[key] = frechet.frechet(*both)
        except frechet.RankDeficient as error:
            out |= entry(key, None, str(error))
    return out


def paper_000() -> Findings:
    """Return Table 2 and Figure 4 of paper 000 as printed, and what the figure shows (E10, E11)."""
    told = attribution.attribution(attribution.FIGURE_4)
    out: Findings = {f"paper000.table2.{n}": value for n, value in attribution.TABLE_2}
    return out | {
        "paper000.figure4": np.asarray(attribution.FIGURE_4).tolist(),
        "paper000.figure4.p": told.p,
        "paper000.figure4.diagonal_sum": told.diagonal_sum,
        "paper000.figure4.row_hits": told.row_hits,
        "paper000.figure4.column_hits": told.column_hits,
    }
