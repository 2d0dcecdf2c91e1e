"""Where the lungs, the bones and the tissue between the lungs are, in slices of 128 px.

Grey levels are compared with thresholds that follow the image (Otsu's), so any window will do in
which lung is darker than fat (not one for soft tissue, where both are nearly black). Lungs are dark
parts of the body, large enough, that are neither the gas of the bowel (in front) nor the airway (in
the middle). `measures` says of each slice what tells its height in the chest: how much lung there
is, how wide it is spread in the body, how far behind its middle lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fingerprint.corpus.body import body_mask, thresholds

Mask = NDArray[np.bool_]
LEAST_LUNG = 0.006  # share of the body: smaller dark parts are airways, gas, noise
GAS_FRONT = 0.15  # of the body's depth before its middle: small dark parts there are gas
GAS_MOST = 0.05  # share of the body
AIRWAY = 0.06  # of the body's width about its middle: small dark parts there are the airway
DARK = 0.25  # of the way from air to tissue: lung is darker, fat is not
WHITE = 255
BONE = 0.18  # of the way from tissue to white
CLEAR = 100  # grey levels from tissue to white that it takes to tell bone
NEAR_PX = 3  # ribs lie so close to the lung

_PLANE = np.zeros((3, 3, 3), int)  # neighbours in one image of a stack, never across images
_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class Masks:
    """Of each slice, bool (n, h, w); `right` is the patient's right, at small x."""

    body: Mask
    right: Mask
    left: Mask
    bone: Mask


@dataclass(frozen=True)
class Measures:
    """Of each slice, float64 (n,).

    Attributes
    ----------
    lung : share of the body that is lung
    aspect : width of the body over its depth
    spread : width from the outer border of one lung to that of the other, over the body's
    behind : how far the middle of the lungs lies behind that of the body, over its depth
    between : share of what lies between the outer borders that is tissue
    aside : bone that lies beyond both outer borders, as a share of the body: shoulders
    """

    lung: NDArray[np.float64]
    aspect: NDArray[np.float64]
    spread: NDArray[np.float64]
    behind: NDArray[np.float64]
    between: NDArray[np.float64]
    aside: NDArray[np.float64]


def masks(mids: NDArray[np.uint8]) -> Masks:
    """Return the masks of slices, uint8 (n, h, w): no body where none can be told."""
    body = body_mask(mids)
    body[body.all(axis=(1, 2))] = False  # what `body_mask` says where it finds none
    cut = thresholds(mids)
    air, tissue = _levels(mids, body, cut)
    lung = _lungs(mids, body & (mids <= cut[:, None, None]), body, air + DARK * (tissue - air))
    middle = _middle(body)
    columns = np.arange(mids.shape[2])
    right = lung & (columns < middle[:, None, None])
    # where tissue is nearly white already, blood and muscle are as bright as bone
    bright = np.where(tissue <= WHITE - CLEAR, tissue + BONE * (WHITE - tissue), WHITE)
    bone = body & (mids > bright[:, None, None])
    return Masks(body, right, lung & ~right, bone)


def _lungs(mids: NDArray[np.uint8], dark: Mask, body: Mask, most: NDArray[np.float64]) -> Mask:
    """Keep the dark parts that are lung: darker than `most` somewhere, so that fat is none."""
    parts, count = ndimage.label(dark, _PLANE)
    if not count:
        return dark
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    centres = np.array(ndimage.center_of_mass(dark, parts, np.arange(1, count + 1)))
    image, y, x = np.rint(centres[:, 0]).astype(int), centres[:, 1], centres[:, 2]
    darkest = np.full(count + 1, WHITE, np.uint8)
    np.minimum.at(darkest, parts[dark], mids[dark])
    area = body.sum(axis=(1, 2))
    top, depth, left, width = boxes(body)
    share = sizes / np.maximum(area[image], 1)
    front = (y - top[image]) / np.maximum(depth[image], 1) - 0.5
    aside = np.abs((x - left[image]) / np.maximum(width[image], 1) - 0.5)
    keep = (share >= LEAST_LUNG) & ~((front < -GAS_FRONT) & (share < GAS_MOST))
    keep &= ~((aside < AIRWAY) & (share < GAS_MOST)) & (darkest[1:] < most[image])
    table = np.zeros(count + 1, bool)
    table[1:] = keep
    return np.asarray(table[parts], bool)


def boxes(body: Mask) -> tuple[NDArray[np.int64], ...]:
    """Return first row, rows, first column, columns of each body; zeros where there is none."""
    out = []
    for axis in (2, 1):
        seen: Mask = np.asarray(body.any(axis=axis))
        there = seen.any(axis=1)
        first = np.where(there, seen.argmax(axis=1), 0)
        last = np.where(there, seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1), -1)
        out += [first, last - first + 1]
    return tuple(out)


def _middle(body: Mask) -> NDArray[np.float64]:
    """Return the column that halves the body of each slice."""
    columns = body.sum(axis=1).astype(np.float64)
    total = np.maximum(columns.sum(axis=1), 1)
    return (columns * np.arange(body.shape[2])).sum(axis=1) / total


def _levels(
    mids: NDArray[np.uint8], body: Mask, cut: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the grey level of air and of tissue: medians outside the body, and of its bright."""
    air, tissue = np.zeros(len(mids)), np.full(len(mids), float(WHITE))
    for i, (image, inside, t) in enumerate(zip(mids, body, cut, strict=True)):
        outside, bright = image[~inside], image[inside & (image > t)]
        air[i] = np.median(outside) if len(outside) else 0.0
        tissue[i] = np.median(bright) if len(bright) else float(WHITE)
    return air, tissue


def measures(found: Masks) -> Measures:
    """Measure slices; zeros where there is no lung, or no body."""
    lung = found.right | found.left
    area = found.body.sum(axis=(1, 2))
    top, depth, _, width = boxes(found.body)
    count = lung.sum(axis=(1, 2))
    some = count > 0
    _, _, outer, wide = boxes(lung)
    rows = lung.sum(axis=2)
    centre = (rows * np.arange(lung.shape[1])).sum(axis=1) / np.maximum(count, 1)
    first = np.where(lung.any(axis=2), lung.argmax(axis=2), lung.shape[2])
    last = np.where(lung.any(axis=2), lung.shape[2] - 1 - lung[:, :, ::-1].argmax(axis=2), -1)
    columns = np.arange(lung.shape[2])
    span = (columns >= first[..., None]) & (columns <= last[..., None])
    inside = span.sum(axis=(1, 2))
    beyond = (columns < outer[:, None] - NEAR_PX) | (columns >= (outer + wide)[:, None] + NEAR_PX)
    bone = (found.bone.sum(axis=1) * beyond).sum(axis=1)

    def of(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(some, value, 0.0)

    return Measures(
        lung=of(count / np.maximum(area, 1)),
        aspect=width / np.maximum(depth, 1),
        spread=of(wide / np.maximum(width, 1)),
        behind=of((centre - top) / np.maximum(depth, 1) - 0.5),
        between=of((span & ~lung).sum(axis=(1, 2)) / np.maximum(inside, 1)),
        aside=of(bone / np.maximum(area, 1)),
    )
