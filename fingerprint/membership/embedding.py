"""Used or not used, by what networks see in slices (METHOD.md, section 1.3: paper 002).

A real slice is the more likely used the nearer generated slices are to it, in the features of a
network. No development data is learnt from: an arm is one network, one distance, one way to bring
out edges, and one way to make one number of a slice's similarities to all generated ones. Which arm
is right is chosen outside, on development data.

Cosine and Euclidean distance of features of length 1 say the same of a pair, d^2 = 2 (1 - cos): in
the arm ``max`` they order slices alike, in the means not quite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import euclidean_distances

from fingerprint.membership import Dev, Floats, Images, Scorer, Scores, blocks
from fingerprint.membership.enhance import ENHANCED
from fingerprint.membership.tops import Tops, named
from fingerprint.models import encoders, mae

Features = NDArray[np.float32]
Network = Callable[[NDArray[np.uint8]], Features]


@dataclass(frozen=True)
class Embedding:
    """The method; `fit` learns nothing.

    Attributes
    ----------
    networks : mapping of name to callable
        Slices uint8 (n, h, w) -> their features float32 (n, d), each slice by itself; `network_of`.
    enhanced : names in `enhance.ENHANCED`
    top : how many of the most similar generated slices the arm ``top<n>`` takes the mean of; all,
        where there are fewer
    """

    networks: Mapping[str, Network]
    enhanced: tuple[str, ...] = ("plain", "unsharp")
    top: int = 10

    def __post_init__(self) -> None:
        """Raise ValueError with the field, its rule and its value."""
        if not self.networks:
            raise ValueError("Embedding: networks must be at least one, got none")
        if not self.enhanced or not set(self.enhanced) <= set(ENHANCED):
            raise ValueError(
                f"Embedding: enhanced must be some of {', '.join(ENHANCED)}; got {self.enhanced}"
            )
        if self.top < 1:
            raise ValueError(f"Embedding: top must be >= 1, got {self.top}")

    def fit(self, dev: Dev) -> Scorer:
        """Return the scores of these networks; development data is not looked at."""
        return partial(scores, self)


def network_of(loaded: encoders.Loaded | mae.Loaded, *, batch: int = 16) -> Network:
    """Return what makes features with an encoder or a masked autoencoder that was loaded."""
    if isinstance(loaded, mae.Loaded):
        return partial(mae.encode, loaded, batch=batch)
    return partial(encoders.encode, loaded, batch=batch)


def scores(
    how: Embedding, asked: Images, generated: Images, control: Images, *, seed: int
) -> Scores:
    """Score real slices; see `membership.Scorer`.

    Each slice by itself, from `generated` alone: `control` and `seed` change nothing.

    Returns
    -------
    mapping of ``<network>/<distance>/<enhanced>/<max, top<n> or mean>`` to float64 (n,)

    Raises
    ------
    ValueError
        No asked or no generated slice, features that are not (n, d) or not finite.
    """
    for name, images in (("asked", asked), ("generated", generated)):
        if not len(images):
            raise ValueError(f"scores: {name} must have at least one slice, got none")
    mine = _joined([_features(how, block) for block in blocks(asked)])  # 64 MB for 4,000 of 4,096
    tops: dict[str, Tops] = {}
    for block in blocks(generated):
        for of, features in _features(how, block).items():
            if (d := features.shape[1]) != (length := mine[of].shape[1]):
                raise ValueError(f"scores: features of {of[0]} must be (n, {length}), got (n, {d})")
            for distance, similar in SIMILARITIES.items():
                arm = f"{of[0]}/{distance}/{of[1]}"
                so_far = tops.get(arm, Tops.empty((len(asked),), how.top))
                tops[arm] = so_far.plus(similar(mine[of], features))
    return {
        f"{arm}/{named(reduction, how.top)}": values
        for arm, top in tops.items()
        for reduction, values in top.reduced().items()
    }


def cosine(x: Features, y: Features) -> Floats:
    """Return the cosine less 1 of each pair of rows, float64 (n, m), from -2 to 0.

    A row of zeros has no direction: its pairs get -2, the least that there can be.
    """
    return np.where(_defined(x, y), np.clip(_unit(x) @ _unit(y).T, -1, 1) - 1, -2)


def euclidean(x: Features | Floats, y: Features | Floats) -> Floats:
    """Return minus the Euclidean distance of each pair of rows, float64 (n, m)."""
    return -euclidean_distances(x.astype(np.float64), y.astype(np.float64))


def euclidean_unit(x: Features, y: Features) -> Floats:
    """Return `euclidean` of rows of length 1, from -2 to 0; with a row of zeros -2."""
    return np.where(_defined(x, y), euclidean(_unit(x), _unit(y)), -2)


def manhattan(x: Features, y: Features) -> Floats:
    """Return minus the sum of absolute differences of each pair of rows, float64 (n, m)."""
    return -cdist(x, y, "cityblock")


SIMILARITIES: Mapping[str, Callable[[Features, Features], Floats]] = {
    "cosine": cosine,
    "euclidean": euclidean,
    "euclidean-unit": euclidean_unit,
    "manhattan": manhattan,
}


def _unit(x: Features) -> Floats:
    """Return rows of length 1; of zeros, zeros."""
    length = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1), np.float64)


def _defined(x: Features, y: Features) -> NDArray[np.bool_]:
    """Whether both rows of a pair have a direction, bool (n, m)."""
    return (np.count_nonzero(x, axis=1) > 0)[:, None] & (np.count_nonzero(y, axis=1) > 0)


def _features(how: Embedding, images: NDArray[np.uint8]) -> dict[tuple[str, str], Features]:
    """Return the features of some slices, by network and by how they are enhanced."""
    made = {name: ENHANCED[name](images) for name in how.enhanced}
    out = {}
    for network, of in how.networks.items():
        for name, slices in made.items():
            features = of(slices)
            if features.ndim != 2 or len(features) != len(images):
                raise ValueError(
                    f"scores: features of {network} must be ({len(images)}, d), "
                    f"got {features.shape}"
                )
            if not np.isfinite(features).all():
                raise ValueError(f"scores: features of {network} must be finite, some are not")
            out[network, name] = features
    return out


def _joined(parts: list[dict[tuple[str, str], Features]]) -> dict[tuple[str, str], Features]:
    return {of: np.concatenate([part[of] for part in parts]) for of in parts[0]}
