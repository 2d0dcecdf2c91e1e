"""Used or not used, ours: at every pose, after registration, and relative to what is normal.

A slice that a generator has learnt by heart has an image that shows it, moved perhaps; any other
slice has only images that resemble it, as they resemble everyone. So a slice is compared at its
best pose, and what it reaches is held against two things that need no label of it: how much slices
that were not used resemble the same images (METHOD.md, section 3.6), and how much this slice
resembles slices of other people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fingerprint.measure.null import Controls, p_pooled
from fingerprint.membership import Dev, Floats, Images, Scores
from fingerprint.membership.describe import drawn
from fingerprint.membership.poses import best_z, searched
from fingerprint.settings import Settings

KEEP = 12  # images of each slice that are looked at closely
NEXT = 10
NEAR = 0.99  # quantile of the slices that were not used, above which an image shows a slice
EVEN = 1e-3  # weight of z where p are equal: a ROC without steps
SPREAD = 1.4826  # of a median absolute deviation, as a standard deviation


@dataclass(frozen=True)
class Calibrated:
    """The method; it learns nothing from development data but the level of slices not used.

    Attributes
    ----------
    settings : Settings
        Poses, controls, seed.
    """

    settings: Settings

    def fit(self, dev: Dev) -> Calibrated:
        """Return the scorer: the method itself, whose reference is ``control``."""
        del dev
        return self

    def __call__(self, asked: Images, generated: Images, control: Images, *, seed: int) -> Scores:
        """Score real slices.

        ``nearest`` : z of the most similar image
        ``standard`` : the same, in robust standard deviations of what slices not used reach
        ``tail`` : minus log10 of its conformal p among them
        ``relative`` : z of the most similar image less the mean z of the most similar slices of
            other people: a slice that resembles everyone gains nothing
        ``excess`` : z of the most similar image less the mean of the next: one copy stands out
        ``share`` : how many of the most similar images are nearer than slices not used ever get

        Slices not used go through the same steps as asked ones: with fewer images looked at
        closely they would reach less, and p would be too small. See `membership.Scorer`.

        Raises
        ------
        ValueError
            No generated image, or no reference slice.
        """
        for name, images in (("generated", generated), ("control", control)):
            if not len(images):
                raise ValueError(f"calibrated: {name} must hold an image, got none")
        s = self.settings
        chosen = drawn(control, s.controls, seed)
        real, made, others = searched(asked), searched(generated), searched(chosen)
        z = best_z(real, made, s, keep=KEEP)
        normal = best_z(others, made, s, keep=KEEP)[:, 0]
        among = best_z(real, others, s, keep=NEXT).mean(1)
        return {
            "relative": z[:, 0] - among,
            "standard": standardised(z[:, 0], normal),
            "tail": tail(z[:, 0], normal),
            "nearest": z[:, 0],
            "excess": z[:, 0] - (z[:, 1:].mean(1) if z.shape[1] > 1 else 0.0),
            "share": (z > np.quantile(normal, NEAR)).mean(1) + EVEN * z[:, 0],
        }


def standardised(z: Floats, normal: Floats) -> Floats:
    """Return ``(z - median) / (1.4826 MAD)`` of what is normal; only the shift without a spread."""
    middle = float(np.median(normal))
    spread = SPREAD * float(np.median(np.abs(normal - middle)))
    return (z - middle) / (spread or 1.0)


def tail(z: Floats, normal: Floats) -> Floats:
    """Return ``-log10 p`` with conformal p = (1 + #{normal >= z}) / (n + 1), and a little of z.

    p takes n + 1 values: without the little, all slices beyond the last would be equal.
    """
    controls = Controls(normal, np.arange(len(normal)), np.zeros(len(normal)))
    return np.asarray(-np.log10(p_pooled(z, controls)) + EVEN * z, np.float64)
