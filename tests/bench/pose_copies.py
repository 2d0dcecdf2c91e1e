"""Copies of real slices for `pose_study.py`, and what their scores say of a larger corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from fingerprint.corpus import dicom, images
from fingerprint.corpus.scan import ReadOptions
from fingerprint.corpus.window import fit
from fingerprint.phantom.copies import plant
from fingerprint.warp import apply

SEED = 20250123
SLICES, PATIENTS = 1_002_012, 8_463  # the corpus that is extrapolated to
TAIL = 0.01  # of the strangers, to which a tail is fitted
BOOTSTRAPS = 200


# -- real slices, and copies of them


@dataclass(frozen=True)
class Data:
    pixels: np.ndarray  # uint8 (s, 512, 512)
    group: np.ndarray  # int (s,): a patient or a series, or a cluster of near-duplicates
    kind: np.ndarray  # int (s,): 0 DICOM, 1 8-bit pictures; strangers are of the same kind
    mids: np.ndarray  # uint8 (s, 128, 128)

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1


def load(folder: Path) -> Data:
    """Read every axial slice, each with the group that is never split."""
    options = ReadOptions(
        window_hu=(-1000.0, 1000.0), size_px=512, generated=False, hu=False, value_range=None,
        orient="as-is",
    )  # fmt: skip
    pixels, group, kind = [], [], []
    for row in pd.read_csv(folder / "manifest.csv").itertuples():
        path = str(row.path)
        pictures = path.startswith("slices_8bit")
        series = path.startswith(("dicom_series", "dicom_slices"))
        if not (pictures or series or "covid-19-ny-sbu" in path and "/axial/" in path):
            continue
        scan = (images if pictures else dicom).read([folder / path], options).scan
        if scan is None:
            continue
        pixels.append(scan.pixels[0])
        two_kernels = path.startswith("dicom_series/lung_dx-a0002")  # of one scan
        group.append(str(row.group if pictures else "A0002" if two_kernels else row.patient))
        kind.append(int(pictures))
    stack = np.stack(pixels)
    numbers = np.unique(group, return_inverse=True)[1]
    return Data(stack, numbers, np.array(kind), fit(stack, 128, 0)[0])


@dataclass(frozen=True)
class Change:
    """How far a copy is changed, at most; `whole` changes each by all of it, with random signs."""

    angle_deg: float = 0
    scale: float = 0
    shift_px: float = 0
    elastic_px: float = 0
    gamma: float = 1
    noise: float = 0
    covered: float = 0  # share of the image that shows somebody else
    whole: bool = True


MOVED = Change(15, 0.10, 40, 6, 1.4, whole=False)


@dataclass(frozen=True)
class Copies:
    pixels: np.ndarray  # uint8 (q, 512, 512)
    mids: np.ndarray
    source: np.ndarray  # int (q,): the slice each shows
    other: np.ndarray  # int (q,): group of who covers it; -1


def copies_of(data: Data, change: Change, each: int, seed: int) -> Copies:
    """Make `each` copies per group, of slices drawn from it."""
    rng = np.random.default_rng(seed)
    pixels, source, other = [], [], []
    for n, group in enumerate(np.tile(np.arange(data.groups), each)):
        of = int(rng.choice(np.flatnonzero(data.group == group)))
        strangers = np.flatnonzero((data.group != group) & (data.kind == data.kind[of]))
        stranger = int(rng.choice(strangers))
        pixels.append(changed(data.pixels[of], change, data.pixels[stranger], rng, seed + n))
        source.append(of)
        other.append(data.group[stranger] if change.covered else -1)
    stack = np.stack(pixels)
    return Copies(stack, fit(stack, 128, 0)[0], np.array(source), np.array(other))


def changed(
    image: np.ndarray, c: Change, stranger: np.ndarray, rng: np.random.Generator, seed: int
) -> np.ndarray:
    signs = rng.choice([-1.0, 1.0], 3)
    share = np.ones(4) if c.whole else rng.uniform(0, 1, 4)
    way, far = rng.uniform(0, 2 * np.pi), c.shift_px * np.sqrt(share[3])
    if c.elastic_px:
        image = plant(image, "elastic", c.elastic_px, seed=seed)
    moved = (
        signs[0] * share[0] * c.angle_deg, 1 + signs[1] * share[1] * c.scale,
        far * np.sin(way), far * np.cos(way), 0,
    )  # fmt: skip
    grey = apply(image[None], moved)[0]
    grey = 255 * (grey / 255) ** (c.gamma ** (signs[2] * share[2]))
    grey = grey + c.noise * rng.standard_normal(grey.shape)
    image = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    if c.covered:
        image = plant(image, "tile", 1 - c.covered, seed=seed, stranger=stranger)
    return image


# -- what a set of scores says


@dataclass(frozen=True)
class Scores:
    """Fisher z of copies (q) and slices (s), and who is a stranger to whom.

    Attributes
    ----------
    z : float64, shape (q, s)
        0 where a slice is no stranger of the copy: of its own group, of another kind, of the group
        that covers it, or without a score.
    stranger : bool, shape (q, s)
    mine : float64, shape (q,)
        Best z of the source's group.
    rank : int64, shape (q,)
        Of the source's group among all groups here.
    home, group : int64, shapes (q,), (s,)
        Group of the source and of the slices.
    share : float64, shape (q, s)
        Weight of a stranger: one for all scores of a group.
    size : float
        How many such scores a corpus of `SLICES` has.
    """

    z: np.ndarray
    stranger: np.ndarray
    mine: np.ndarray
    rank: np.ndarray
    home: np.ndarray
    group: np.ndarray
    share: np.ndarray
    size: float


def scores_of(data: Data, copies: Copies, r: np.ndarray) -> Scores:
    """Sort out r (q, s), NaN where a pair has no score."""
    z = np.arctanh(np.clip(r, -0.999999, 0.999999))
    there, home = ~np.isnan(z), data.group[copies.source]
    own = data.group[None, :] == home[:, None]
    mine = np.where(own & there, z, -np.inf).max(1)
    stranger = ~own & there & (data.group[None, :] != copies.other[:, None])
    best = np.stack([np.where(stranger & m, z, -np.inf).max(1) for m in members(data)], 1)
    rank = 1 + (best > mine[:, None]).sum(1)
    stranger &= data.kind[None, :] == data.kind[copies.source][:, None]
    counts = np.maximum(np.stack([(there & m).sum(1) for m in members(data)], 1), 1)
    share = stranger / counts[:, data.group]
    # where only the best slice of a group has a score, a group counts as the slices that it has
    size = SLICES if there.all() else SLICES * data.groups / len(data.group)
    return Scores(
        np.where(stranger, z, 0), stranger, mine, rank, home, data.group, share, float(size)
    )


@dataclass(frozen=True)
class Found:
    """What is found of some copies, here and extrapolated.

    Attributes
    ----------
    rank : int64, shape (q,)
    above : float64, shape (q,)
        Strangers above the source in a corpus of `SLICES`.
    shape : float
        Of the tail that was fitted; 0 is exponential.
    expected, counted : float
        Shares of the strangers above the source, summed over copies: by the tail, and as they are.
    """

    rank: np.ndarray
    above: np.ndarray
    shape: float
    expected: float
    counted: float

    def within(self, kept: int) -> float:
        return float(np.mean(self.above < kept))


def found(scores: Scores, times: np.ndarray | None = None) -> Found:
    """Extrapolate how many strangers stand above the source of each copy.

    The z of strangers are centred and scaled for each copy, every group with one weight; a
    generalised Pareto tail is fitted (by moments) to the highest hundredth of all of them. Its
    shape is held at 0 or more: a tail with an end would promise what so few groups cannot show.

    Parameters
    ----------
    times : shape (groups,), optional
        How often each group was drawn, in a bootstrap.
    """
    s = scores
    times = np.ones(s.group.max() + 1) if times is None else times
    weight = s.share * times[s.group]
    weight /= weight.sum(1, keepdims=True)
    centre = (weight * s.z).sum(1)
    width = np.sqrt((weight * (s.z - centre[:, None]) ** 2).sum(1))
    t = ((s.z - centre[:, None]) / width[:, None])[s.stranger]
    source = (s.mine - centre) / width
    p, shape = _tail(t, (weight * times[s.home][:, None])[s.stranger], source)
    counted = (weight * (s.z > s.mine[:, None])).sum()
    keep = np.repeat(np.arange(len(p)), times[s.home].astype(int))
    return Found(s.rank[keep], s.size * p[keep], shape, float(p.sum()), float(counted))


def _tail(t: np.ndarray, weight: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, float]:
    """Return P(T > at), and the shape of the fitted tail; below it, what was counted."""
    order = np.argsort(-t, kind="stable")
    t, share = t[order], np.cumsum(weight[order]) / weight.sum()
    n = max(3, int(np.searchsorted(share, TAIL)))
    start, excess, w = t[n], t[:n] - t[n], weight[order][:n]
    mean = np.average(excess, weights=w)
    shape = float((1 - mean**2 / np.average((excess - mean) ** 2, weights=w)) / 2)
    held = max(shape, 0.0)
    beyond = share[n - 1] * stats.genpareto.sf(at - start, held, scale=mean * (1 - held))
    counted = share[np.clip(np.searchsorted(-t, -at), 1, len(t)) - 1]
    return np.where(at > start, beyond, counted), shape


def intervals(scores: Scores, value: Callable[[Found], Sequence[float]]) -> np.ndarray:
    """Return 2.5 and 97.5 % of some values over draws of groups with replacement, (2, n)."""
    rng, groups = np.random.default_rng(SEED), int(scores.group.max()) + 1
    draws = []
    for _ in range(BOOTSTRAPS):
        times = np.bincount(rng.integers(0, groups, groups), minlength=groups)
        draws.append(value(found(scores, times.astype(float))))
    return np.percentile(draws, [2.5, 97.5], axis=0)


def members(data: Data) -> Iterator[np.ndarray]:
    return (data.group == g for g in range(data.groups))
