"""Used or not used, by texture: the system of paper 003 (METHOD.md, section 1.4).

A support vector machine learns to tell what the generator in question made ("used") from what a
shadow generator made that was trained on other slices ("not used"), and is then asked about real
slices. As in the paper, shadow and generator are of different kinds, so what it learns may be their
style and not their training data (E26); beside it therefore a shadow of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import local_binary_pattern
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from fingerprint.measure.pixel_features import BINS, PATTERNS
from fingerprint.membership import Dev, Floats, Images, Scores
from fingerprint.membership.shadow import Grey, Shadow, small

Features = Callable[[Grey], NDArray[Any]]
KERNELS = ("linear", "rbf")
AS_PAPER, SAME_KIND = "shadow", "same-kind"
LEAST_PX = 8  # the widest pattern reaches three pixels to each side


def lbp(images: Grey) -> Floats:
    """Return histograms of local binary patterns of whole images: float64 (n, 54).

    Uniform, rotation invariant, (points, radius) = (8, 1), (16, 2), (24, 3): 10, 18 and 26 bins one
    after the other, each scale adding up to 1.

    Parameters
    ----------
    images : uint8, shape (n, h, w), at least 8 x 8

    Raises
    ------
    ValueError
        Another shape or dtype.

    References
    ----------
    Ojala, Pietikainen and Maenpaa 2002; METHOD.md, section 1.4 for the three scales.
    """
    if images.dtype != np.uint8 or images.ndim != 3 or min(images.shape[1:]) < LEAST_PX:
        raise ValueError(
            f"lbp: images must be uint8 (n, h, w) of at least {LEAST_PX} pixels a side, got "
            f"{images.dtype} {images.shape}"
        )
    out = np.empty((len(images), sum(BINS)))
    for row, image in zip(out, images, strict=True):
        scales = []
        for (points, radius), bins in zip(PATTERNS, BINS, strict=True):
            pattern = local_binary_pattern(image, points, radius, method="uniform").astype(np.intp)
            scales.append(np.bincount(pattern.ravel(), minlength=bins) / image.size)
        row[:] = np.concatenate(scales)
    return out


def machine(used: NDArray[Any], not_used: NDArray[Any], kernel: str) -> Any:
    """Fit the classifier: ``decision_function`` of it is positive where a row looks used.

    C = 1, gamma = scale, features standardised on the training data, classes weighed equally
    (METHOD.md, section 1.4; the paper states no parameter).
    """
    fitted = make_pipeline(
        StandardScaler(), SVC(kernel=kernel, C=1.0, gamma="scale", class_weight="balanced")
    )
    labels = np.repeat([1, 0], [len(used), len(not_used)])
    return fitted.fit(np.concatenate([used, not_used]), labels)


def told_apart(used: NDArray[Any], not_used: NDArray[Any], kernel: str, *, seed: int) -> float:
    """Return how often the classifier tells two generated sets apart: accuracy on unseen halves.

    The paper's check of its features. It says that two generators differ, and nothing about
    membership (E26). As many of one set as of the other.
    """
    rng = np.random.default_rng(seed)
    n = min(len(used), len(not_used))
    first, second = (rows[rng.permutation(len(rows))[:n]] for rows in (used, not_used))
    fitted = machine(first[: n // 2], second[: n // 2], kernel)
    called = [fitted.predict(rows[n // 2 :]) for rows in (first, second)]
    return float((np.mean(called[0] == 1) + np.mean(called[1] == 0)) / 2)


@dataclass(frozen=True)
class Texture:
    """The method.

    Attributes
    ----------
    shadow : Shadow
        As in the paper: a DCGAN.
    same_kind : Shadow, optional
        Of the kind of the generator in question.
    networks : mapping of name to function
        Further features: uint8 (n, h, w) -> (n, d), such as VGG16's.
    """

    shadow: Shadow
    same_kind: Shadow | None = None
    networks: Mapping[str, Features] = field(default_factory=dict)

    @property
    def features(self) -> dict[str, Features]:
        """All features by name, ``lbp`` first."""
        return {"lbp": lbp, **self.networks}

    def fit(self, dev: Dev) -> TextureScorer:
        """Train the shadow generators on the slices that were not used, and the classifiers."""
        made = self.shadow.images(dev.not_used.images)
        given = small(dev.generated, self.shadow.recipe.px)
        machines = {
            f"{name}/{kernel}/{AS_PAPER}": machine(features(given), features(made), kernel)
            for name, features in self.features.items()
            for kernel in KERNELS
        }
        same = self.same_kind.images(dev.not_used.images) if self.same_kind else None
        return TextureScorer(self, machines, same)


@dataclass(frozen=True)
class TextureScorer:
    """What was learnt: classifiers, and the images of the shadow of the same kind."""

    method: Texture
    machines: Mapping[str, Any]
    same: Grey | None

    def __call__(self, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
        """Score real slices: arms ``<features>/<linear|rbf>/<shadow|same-kind>``.

        The first as the paper, whose classifier never sees the images of the test set; the second
        with the generated images in question. Zero is the classifier's own cut. See
        `membership.Scorer`.
        """
        del control, seed
        real = self._features(small(asked, self.method.shadow.recipe.px))
        out: dict[str, Floats] = {
            arm: fitted.decision_function(real[arm.split("/")[0]])
            for arm, fitted in self.machines.items()
        }
        if self.same is None or self.method.same_kind is None:
            return out
        px = self.method.same_kind.recipe.px
        real, given, shadow = (
            self._features(images) for images in (small(asked, px), small(generated, px), self.same)
        )
        for name in real:
            for kernel in KERNELS:
                fitted = machine(given[name], shadow[name], kernel)
                out[f"{name}/{kernel}/{SAME_KIND}"] = fitted.decision_function(real[name])
        return out

    def _features(self, images: Grey) -> dict[str, NDArray[Any]]:
        return {name: of(images) for name, of in self.method.features.items()}
