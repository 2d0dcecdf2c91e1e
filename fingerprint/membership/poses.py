"""The most similar images of a set at the best pose, registered: with the steps of the search.

    screen   every pose of a slice against every image, 32 px
    refine   the best few at 64 and 128 px; r of the high-pass image over the common overlap
    register the best of those by an affine map

A slice is the query, as in an audit: few slices are turned, resized and shifted, not many images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint.corpus.images import enlarged
from fingerprint.corpus.screen import inside, screen_of
from fingerprint.corpus.window import fit
from fingerprint.measure.fisher import z_of
from fingerprint.membership import Floats, Images, blocks
from fingerprint.register import affine, resample, scores
from fingerprint.search import pose, refine
from fingerprint.search.align import Limits
from fingerprint.search.candidates import MARGIN
from fingerprint.search.device import chosen
from fingerprint.search.images import highpass
from fingerprint.search.product import int8_product
from fingerprint.settings import IMAGES, Settings

MID, THUMB = 128, 32
QUERIES = 16  # posed at a time
SCREENED = 4096  # images that a slice meets at all its poses at a time
HIGHPASS = IMAGES.index("highpass")
LARGEST = 1 - 1e-9  # r beyond which z says no more: a copy, bit for bit
LEAST = -1.0  # r of a pair without an answer

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Searched:
    """A set of images, ready to be searched: 17 kB each.

    Attributes
    ----------
    mids : uint8, shape (n, 128, 128)
    screens : int8, shape (n, 384)
    """

    mids: Grey
    screens: NDArray[np.int8]

    @cached_property
    def lengths(self) -> Floats:
        """Lengths of the screens, float64 (n,); infinite where all of one is 0."""
        lengths = np.sqrt((self.screens.astype(np.float64) ** 2).sum(1))
        return np.where(lengths > 0, lengths, np.inf)


def searched(images: Images) -> Searched:
    """Prepare a set of images; smaller ones are enlarged."""
    mids = mids_of(images)
    return Searched(mids, inside(screen_of(fit(mids, THUMB, 0)[0])))


def mids_of(images: Images) -> Grey:
    """Return images at 128 px: area means, or bilinear where they are smaller."""
    parts = [
        fit(block, MID, 0)[0] if block.shape[-1] >= MID else enlarged(block, MID)
        for block in blocks(images)
    ]
    return np.concatenate(parts) if parts else np.empty((0, MID, MID), np.uint8)


def _contrast(mids: Grey) -> Tensor:
    """Return high-pass images of mean 0 and length 1, float32 (n, 16384)."""
    flat = torch.from_numpy(highpass(mids).astype(np.float32)).flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-6)


def best_z(asked: Searched, images: Searched, settings: Settings, *, keep: int) -> Floats:
    """Return Fisher z of the most similar images of each slice, the most similar first.

    Parameters
    ----------
    asked, images : Searched
    settings : Settings
        The poses; with ``pose`` off, slices are compared as they are stored.
    keep : int
        Images of each slice that are looked at closely.

    Returns
    -------
    float64, shape (n asked, min(keep, n images))
        Of the high-pass image at the best pose, registered; a constant image has the lowest.
    """
    k = min(keep, len(images.mids))
    stored = _stored(asked.mids, images.mids)
    if not settings.pose:
        return _z(-np.sort(-stored, axis=1)[:, :k])
    grid, out = pose.grid_of(settings), np.empty((len(asked.mids), k))
    limits = Limits(
        settings.angle_deg + MARGIN.angle_deg,
        settings.scale + MARGIN.scale,
        settings.shift_px + MARGIN.shift_px,
    )
    for first in range(0, len(asked.mids), QUERIES):
        rows = pose.posed(asked.mids[first : first + QUERIES], grid)
        for i, of_one in enumerate(rows):
            at = first + i
            near, starts = _screened(of_one, images, grid, stored[at], k)
            r = _closely(asked.mids[at], images.mids[near], starts, limits)
            out[at] = -np.sort(-r)[:k]
    return _z(out)


def _stored(asked: Grey, images: Grey) -> Floats:
    """Return r of all pairs as they are stored, float64 (n, m); without contrast the lowest."""
    mine, parts = _contrast(asked).double(), []
    for block in blocks(images):
        made = _contrast(block).double()
        r = mine @ made.T
        r[~mine.any(1)] = LEAST
        r[:, ~made.any(1)] = LEAST
        parts.append(r.numpy())
    return np.concatenate(parts, axis=1)


def _z(r: Floats) -> Floats:
    return np.asarray(z_of(np.clip(r, LEAST * LARGEST, LARGEST)), np.float64)


def _screened(
    rows: NDArray[np.int8], images: Searched, grid: pose.Grid, stored: Floats, keep: int
) -> tuple[NDArray[np.int64], Floats]:
    """Return the images most similar at any pose or as stored, rising, and their best poses."""
    best, at = np.empty(len(images.mids)), np.empty(len(images.mids), np.int64)
    for first in range(0, len(best), SCREENED):
        some = slice(first, first + SCREENED)
        product = int8_product(torch.from_numpy(images.screens[some]), torch.from_numpy(rows))
        most = product.max(1)
        best[some], at[some] = most.values.numpy(), most.indices.numpy()
    r = best / images.lengths
    near = np.union1d(refine.best_of(r, keep), refine.best_of(stored, keep))
    return near, grid.poses[at[near]]


def _closely(query: Grey, images: Grey, starts: Floats, limits: Limits) -> Floats:
    """Return r of a slice with some images, refined, the best registered: float64 (c,)."""
    one, many = query[None], refine.scored_images(images)
    poses, _ = refine.coarse(
        refine.coarse_images(one), refine.coarse_images(images), starts, limits
    )
    poses, scored = refine.fine(refine.scored_images(one), many, poses, limits)
    r = np.nan_to_num(scored[HIGHPASS], nan=LEAST)
    best = int(np.argmax(r))
    if r[best] == LEAST:  # no image has an answer, and a border would give one
        return r
    r[best] = max(r[best], _registered(query, images[best], poses[best]))
    return r


def _registered(query: Grey, image: Grey, start: Floats) -> float:
    """Return r of the high-pass image after an affine map, on the common overlap."""
    where = chosen()
    moving, fixed = (
        torch.from_numpy(part)[None, None].to(where).float() for part in (query, image)
    )
    found = affine.affine(moving, fixed, start=affine.from_poses(start[None], MID).to(where))
    shown = resample.warp_affine(moving, found.matrix)
    common = resample.inside(resample.affine_field(found.matrix, MID))
    r = scores.scores(shown, fixed, common)[0, scores.NAMES.index("r_highpass")]
    return float(np.nan_to_num(r, nan=LEAST))
