"""The eight ways to store a slice; which one a set is in, and in which window.

Every orientation is an operation on the last two axes ``[y, x]`` of an array whose row 0 is the top
of the picture and column 0 its left. With ``new[y, x]`` for an image of h rows and w columns:

    as-is       old[y, x]
    flip-x      old[y, w-1-x]         left and right exchanged
    flip-y      old[h-1-y, x]         upside down, mirrored
    turn-90     old[h-1-x, y]         a quarter turn clockwise
    turn-180    old[h-1-y, w-1-x]     a half turn
    turn-270    old[x, w-1-y]         a quarter turn counter-clockwise
    transpose   old[x, y]             mirrored about the diagonal from top left
    anti        old[h-1-x, w-1-y]     mirrored about the diagonal from top right

A set whose images lie otherwise than the real ones is searched in vain and would end in "none
found", so both checks come before the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus.window import fit

Turn = Callable[[NDArray[Any]], NDArray[Any]]

ORIENTATIONS: dict[str, Turn] = {
    "as-is": lambda a: a,
    "flip-x": lambda a: a[..., ::-1],
    "flip-y": lambda a: a[..., ::-1, :],
    "turn-90": lambda a: a.swapaxes(-1, -2)[..., ::-1],
    "turn-180": lambda a: a[..., ::-1, ::-1],
    "turn-270": lambda a: a.swapaxes(-1, -2)[..., ::-1, :],
    "transpose": lambda a: a.swapaxes(-1, -2),
    "anti": lambda a: a.swapaxes(-1, -2)[..., ::-1, ::-1],
}
INVERSE = {name: name for name in ORIENTATIONS} | {"turn-90": "turn-270", "turn-270": "turn-90"}

# -- the margins below were measured on real CT; see the notes of the functions
SIDE_PX = 32  # |value - 128| <= 128: 1,024 products stay below 2^24, so float32 sums are exact
SAME_R = 0.999  # strangers at 32 px in any orientation reach 0.93, neighbours in a scan 0.99
MOST_R = 0.9999  # keeps the z of identical images finite, at 4.95
MARGIN_Z = 0.08
WINDOW_DISTANCE = 0.25
BLOCK = 1024  # real slices held at a time: 8 x 240 turned images make 60 MiB of products with them


class Slices(Protocol):
    """What the real slices are read from: a corpus."""

    @property
    def n(self) -> int:
        """Number of slices."""

    def read(self, first: int, last: int, array: str) -> NDArray[Any]:
        """Return slices `first` to `last` (exclusive): uint8, shape (last - first, s, s)."""


@dataclass(frozen=True)
class OrientationCheck:
    """How well generated images fit real ones in each orientation.

    Attributes
    ----------
    best : str
        The orientation to bring the generated images into: what ``--orient`` must be given.
    scores : dict of str to float
        Orientation -> mean Fisher z of the best correlation of each generated image.
    copies : dict of str to int
        Orientation -> generated images that equal a real slice at low resolution (r > 0.999).
    gap : float
        Score of `best` less that of ``as-is``.
    margin : float
        What `gap` must exceed.
    decided : bool
        Another orientation than ``as-is`` fits better by more than the margin.
    """

    best: str
    scores: dict[str, float]
    copies: dict[str, int]
    gap: float
    margin: float
    decided: bool


@dataclass(frozen=True)
class WindowCheck:
    """Whether two sets can be in one window.

    Attributes
    ----------
    distance : float
        Total variation distance of the two grey-level histograms, 0 to 1.
    floor : float
        The same between the two halves of the real set.
    limit : float
        What `distance` must exceed.
    same : bool
    note : str
        One sentence for the report; empty when `same`.
    """

    distance: float
    floor: float
    limit: float
    same: bool
    note: str


def best_orientation(generated: NDArray[np.uint8], real: Slices) -> OrientationCheck:
    """Compare generated with real slices in all flips and quarter turns, at 32 x 32 pixels.

    For each generated image and orientation: the best Pearson r over the real slices, as Fisher z;
    then the mean over the images. Copies count much (z to 4.95), strangers a little.

    Parameters
    ----------
    generated : uint8, shape (n, s, s), s >= 32
        Any size: brought to 32 by area mean.
    real : Slices
        A corpus; its thumbs are read in blocks. A copy speaks for its orientation only if its
        source is among them, so all are.

    Raises
    ------
    ValueError : if a set is empty or not of square images of 32 pixels or more.

    Notes
    -----
    The margin is max(0.08, 0.4 / sqrt(n), 1 / n). Measured on real chest CT (LIDC-IDRI, TCGA-LUAD,
    Lung-PET-CT-Dx, COVID-19-NY-SBU: 30 patients; IQ-OTH/NCCD: 29 groups), 3,000 splits into halves
    of different patients for each number of images: no false alarm. `flip-y` and `turn-180` are
    found in 0.93 of sets of 16 images and 0.98 of sets of 32 or more, quarter turns in 0.95 of sets
    of 4 and in all of 8. Exact copies stand out by 2.2 or more in every orientation and are found
    from one image up. Comparing with one patient in another window raised up to 0.07, below the
    margin.

    Warnings
    --------
    Left and right look alike: a mirrored set (`flip-x`) of images that are *not* copies is found in
    less than 0.03 of cases. It is found if 4 of 100 images are copies; and a generator that learned
    from mirrored images too may make 4 mirrored copies and no other.
    """
    few = _small("generated", generated)
    turned = np.concatenate([turn(few) for turn in ORIENTATIONS.values()])
    best_r = dict(
        zip(ORIENTATIONS, np.split(_best_r(turned, real), len(ORIENTATIONS)), strict=True)
    )
    scores = {name: _mean_z(r) for name, r in best_r.items()}
    copies = {name: int((r > SAME_R).sum()) for name, r in best_r.items()}
    best = max(scores, key=scores.__getitem__)  # a tie goes to the first, that is to as-is
    gap = scores[best] - scores["as-is"]
    n = len(few)
    margin = max(MARGIN_Z, 0.4 / n**0.5, 1 / n)
    return OrientationCheck(best, scores, copies, gap, margin, best != "as-is" and gap > margin)


def same_window(generated: NDArray[np.uint8], real: Slices) -> WindowCheck:
    """Compare the grey levels of two sets: whether one window can have made both.

    Histograms of 32 levels at 32 x 32 pixels, air included: its grey level tells windows apart
    best. Advisory: sets that show other parts of the body differ too.

    Parameters
    ----------
    generated : uint8, shape (n, s, s), s >= 32
    real : Slices
        A corpus; its thumbs are read in blocks. They are ordered by patient, so that the two halves
        are different people.

    Notes
    -----
    The limit is max(0.25, 0.7 / sqrt(n), twice the distance of the real halves). Measured as in
    `best_orientation`: one window, other patients: at most 0.24 for 4 images and 0.16 for 64; full
    against lung window: at least 0.78; full against the bone-like window of IQ-OTH/NCCD: 0.31 to
    0.39.
    """
    few, half = _small("generated", generated), real.n // 2
    halves = [_levels(_thumbs(real, 0, half)), _levels(_thumbs(real, half, real.n))]
    floor = _distance(*halves) if half else 0.0
    limit = max(WINDOW_DISTANCE, 0.7 / len(few) ** 0.5, 2 * floor)
    distance = _distance(_levels([few]), halves[0] + halves[1])
    same = distance <= limit
    note = (
        f"the grey levels of the generated and the real set differ (distance {distance:.2f}, "
        f"limit {limit:.2f}): they may have been made with different windows"
    )
    return WindowCheck(distance, floor, limit, same, "" if same else note)


def _small(name: str, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            f"{name}: must be uint8 images (n, s, s), n > 0, got {images.dtype} {images.shape}"
        )
    if images.shape[1] != images.shape[2] or images.shape[1] < SIDE_PX:
        raise ValueError(f"{name}: images must be square, {SIDE_PX} px or more: {images.shape}")
    return fit(images, SIDE_PX, 0)[0]


def _thumbs(real: Slices, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
    if not real.n:
        raise ValueError("real: must hold a slice, holds none")
    for low in range(first, last, BLOCK):
        yield real.read(low, min(low + BLOCK, last), "thumb")


def _best_r(few: NDArray[np.uint8], real: Slices) -> NDArray[np.float64]:
    """Largest Pearson r of each image over all slices; a constant image correlates with none."""
    a, a_sum, a_var = _sums(few)
    best = np.full(len(few), -1.0)
    for thumbs in _thumbs(real, 0, real.n):
        b, b_sum, b_var = _sums(thumbs)
        product = (a @ b.T).astype(np.float64) * SIDE_PX**2 - np.outer(a_sum, b_sum)
        scale = np.sqrt(np.outer(a_var, b_var))
        r = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
        best = np.maximum(best, r.max(1))
    return best


def _sums(
    images: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    values = images.reshape(len(images), -1).astype(np.float32) - 128
    total = values.sum(1, dtype=np.float64)
    squares = np.einsum("ij,ij->i", values, values, dtype=np.float64)
    return values, total, SIDE_PX**2 * squares - total**2


def _mean_z(r: NDArray[np.float64]) -> float:
    return float(np.arctanh(np.clip(r, -MOST_R, MOST_R)).mean())


def _levels(blocks: Iterable[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Histogram of 32 grey levels."""
    counts = (np.bincount(block.ravel() >> 3, minlength=32) for block in blocks)
    return sum(counts, np.zeros(32, np.int64))


def _distance(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)
