"""What a slice shows: its class in paper 000, and which organ lies where. Rules, no network.

    c1  upper liver   lung at the back only, below the liver's dome
    c2  heart         the middle of the heart and a few neighbours
    c3  shoulders     upper lung, with bone far aside of it
    ""  none          everything else: the rest of the chest, abdomen, neck, head

A stack is classified as a whole: its slices vote for classes by what they show (`lungs.measures`),
and the assignment with the fewest votes against it is taken among those where c3 lies above c2
above c1 and each is contiguous. The heart is then found by its place: between the end of c1 and
the beginning of c3, or at its usual distance from the one that is there. Single slices have their
votes alone, and half of the confidence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fingerprint.corpus.lungs import Measures, boxes, masks, measures

VERSION = 1
CLASSES = ("c1", "c2", "c3")
# code -> organ and side of the patient
ORGANS: dict[int, tuple[str, str]] = {
    0: ("", ""),
    1: ("soft tissue", ""),
    2: ("lung", "right"),
    3: ("lung", "left"),
    4: ("heart and mediastinum", ""),
    5: ("liver", ""),
    6: ("upper abdomen", "left"),
    7: ("bone", ""),
}

# votes; shares of the body, as in `lungs.Measures`
BACK = 0.09  # lungs so far behind the middle of the body lie below the dome
LUNG = 0.018  # less lung than this is none
APEX = 0.005
ASIDE = 0.025
WIDE = 1.35  # width of the body over its depth, at the shoulders
ONE = 0.3  # lungs no wider than this are one lung, or gas
NARROW = (0.48, 1.6)  # lungs so narrow in a body so wide lie between shoulders
HEART = (-0.02, 0.045)  # how far behind the lungs lie at the heart
TISSUE = 0.32  # between the lungs, at the heart
FULL = 0.13  # lung, at the heart
# where the heart lies
SHARE = (0.13, 0.36)  # of the way from the end of c1 to the beginning of c3
ABOVE_MM, BELOW_MM = (24.0, 54.0), (88.0, 118.0)  # from the end of c1; from the beginning of c3
# organs
DOME = 0.20  # of the body's width: tissue that reaches so far right into the lung is the dome
LIVER = 0.12  # right of the body's middle, in such a slice: what lies there is liver
TIP = 0.125  # how far behind the lungs lie where the tip of the heart may be seen
TIP_AT = (-0.06, 0.18, 0.05)  # beside the middle of the body, from and to; behind it, at most
SPINE = (0.12, 0.12)  # of the body's width beside its middle, of its depth behind it
WALL_PX = 9
COLUMN_PX = 5  # of a column, so that vessels do not count
STATES = ("", "c1", "", "c2", "", "c3", "")  # from the lowest slice to the highest

Labels = NDArray[np.object_]


def regions(
    mids: NDArray[np.uint8], z_mm: NDArray[np.float64] | None = None
) -> tuple[Labels, NDArray[np.float32]]:
    """Tell the class of every slice.

    Parameters
    ----------
    mids : uint8, shape (n, h, h)
        Slices as area means of 128 px, canonical orientation: y to the back, x to the left.
    z_mm : float64, shape (n,), optional
        Heights of the slices of one stack, rising to the head, in any order. Without it, or where a
        height is NaN, every slice stands alone.

    Returns
    -------
    labels : object, shape (n,)
        One of `CLASSES`, or "".
    confidence : float32, shape (n,)
        From 0 to 1: whether the slice, its neighbours and the ends of the stack agree. At most 0.5
        for a slice alone.
    """
    votes = _votes(measures(masks(mids)))
    alone = _alone(votes)
    if z_mm is None or len(mids) < 3 or not np.isfinite(z_mm).all():
        return alone, np.full(len(mids), 0.5, np.float32)
    order = np.argsort(z_mm, kind="stable")
    labels, found = alone.copy(), ordered(votes[order])
    placed, both = _with_heart(found, z_mm[order])
    labels[order] = placed
    agrees = (labels == alone) | ((labels == "c2") & (alone == "")) | (alone == "c2")
    confidence = 0.5 + 0.25 * agrees + 0.25 * both
    return labels, confidence.astype(np.float32)


def _votes(m: Measures) -> NDArray[np.bool_]:
    """Return which of `CLASSES` each slice speaks for, at most one: bool (n, 3)."""
    c1 = (m.lung >= LUNG) & (m.behind >= BACK)
    shoulders = (m.aside >= ASIDE) & (m.aspect >= np.where(m.spread < ONE, NARROW[1], WIDE))
    shoulders |= (m.spread <= NARROW[0]) & (m.aspect >= NARROW[1])  # in any window
    c3 = (m.lung >= APEX) & (m.behind < BACK) & shoulders
    c2 = ~c1 & ~c3 & (m.lung >= FULL) & (m.between >= TISSUE)
    c2 &= (m.behind >= HEART[0]) & (m.behind <= HEART[1])
    return np.stack([c1, c2, c3], axis=1)


def ordered(votes: NDArray[np.bool_]) -> Labels:
    """Return the labels with the fewest votes against them, of all that lie in order.

    Parameters
    ----------
    votes : bool, shape (n, 3)
        Of slices from the lowest to the highest, for `CLASSES`.

    Returns
    -------
    object, shape (n,)
        c1 below c2 below c3, each contiguous.
    """
    alone = _alone(votes)
    wrong = np.array([[label != state for state in STATES] for label in alone], np.int64)
    against = np.zeros((len(votes) + 1, len(STATES)), np.int64)  # votes, up to a slice and state
    for i in range(len(votes)):
        against[i + 1] = np.minimum.accumulate(against[i]) + wrong[i]
    out, k = np.full(len(votes), "", object), len(STATES) - 1
    for i in range(len(votes), 0, -1):
        k = int(np.argmin(against[i][: k + 1]))  # the lowest of equals
        out[i - 1] = STATES[k]
    return out


def _alone(votes: NDArray[np.bool_]) -> Labels:
    """Return what each slice speaks for."""
    return np.where(votes.any(axis=1), np.array(CLASSES, object)[votes.argmax(axis=1)], "")


def _with_heart(labels: Labels, z: NDArray[np.float64]) -> tuple[Labels, bool]:
    """Put c2 where the heart lies, as far as c1 and c3 say; and whether both do.

    Parameters
    ----------
    labels : object, shape (n,)
        From the lowest slice to the highest.
    z : float64, shape (n,), rising
    """
    liver, shoulders = np.flatnonzero(labels == "c1"), np.flatnonzero(labels == "c3")
    # an end of the stack is no end of the class
    end = z[liver[-1]] if len(liver) and liver[-1] + 1 < len(z) else np.nan
    begin = z[shoulders[0]] if len(shoulders) and shoulders[0] > 0 else np.nan
    both = bool(np.isfinite(end) and np.isfinite(begin))
    if both:
        low, high = (end + share * (begin - end) for share in SHARE)
    elif np.isfinite(end):
        low, high = (end + mm for mm in ABOVE_MM)
    elif np.isfinite(begin):
        high, low = (begin - mm for mm in BELOW_MM)
    else:
        return labels, False
    out = np.where(labels == "c2", "", labels)
    heart = (z >= low) & (z <= high) & (out == "")
    if both and not heart.any():  # thicker slices than the heart's share
        heart = (np.abs(z - (low + high) / 2) == np.abs(z - (low + high) / 2).min()) & (out == "")
    out[heart] = "c2"
    return out, both


# -- organs


def organs(mids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return which organ lies where: codes of `ORGANS`, uint8 (n, h, h).

    Soft tissue between the lungs is heart and mediastinum. Below the heart, where the lungs lie at
    the back, all that is deep enough in the body is liver on the right and upper abdomen on the
    left; tissue between the lungs that reaches far into the right one is the dome of the liver. In
    slices without lungs nothing but bone is told from soft tissue.
    """
    found = masks(mids)
    told = measures(found)
    lung = found.right | found.left
    tissue = found.body & ~lung
    aside, front = _places(found.body)
    shown = (told.lung >= LUNG)[:, None, None]
    low = shown & (told.behind >= BACK)[:, None, None]
    between = _between(lung) & tissue & shown
    dome = between & ~low & (_reach(between, aside, front) < -DOME)[:, None, None]
    dome &= aside < -LIVER
    deep = tissue & low & _deep(found.body)
    spine = (np.abs(aside) < SPINE[0]) & (front > SPINE[1])
    out = np.where(found.body, np.uint8(1), np.uint8(0))
    out[between] = 4
    out[dome | (deep & (aside < 0))] = 5
    out[deep & (aside >= 0)] = 6
    tip = deep & (told.behind <= TIP)[:, None, None] & (front < TIP_AT[2])
    out[tip & (aside > TIP_AT[0]) & (aside < TIP_AT[1])] = 4
    # contrast in the heart and the great vessels is as bright as bone
    out[found.bone & (~(between | deep) | spine)] = 7
    out[found.right], out[found.left] = 2, 3
    return out


def _places(body: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far aside of and behind the body's middle every pixel lies, over its size."""
    top, depth, left, width = boxes(body)
    x = (np.arange(body.shape[2]) - left[:, None]) / np.maximum(width, 1)[:, None] - 0.5
    y = (np.arange(body.shape[1]) - top[:, None]) / np.maximum(depth, 1)[:, None] - 0.5
    return (
        np.broadcast_to(x[:, None, :], body.shape),
        np.broadcast_to(y[:, :, None], body.shape),
    )


def _reach(
    between: NDArray[np.bool_], aside: NDArray[np.float64], front: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far right the tissue between the lungs reaches before the spine: (n,), <= 0."""
    columns = (between & (np.abs(front + 0.08) < 0.18)).sum(axis=1) >= COLUMN_PX
    return np.asarray(np.where(columns, aside[:, 0], 0.0).min(axis=1))


def _deep(body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what lies below the wall of the body: `WALL_PX` from its edge, in every slice."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    return np.asarray(ndimage.binary_erosion(body, cross, iterations=WALL_PX), bool)


def _between(lung: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what lies between the outer borders of the lungs, row by row."""
    from_right = np.maximum.accumulate(lung, axis=2)
    from_left = np.maximum.accumulate(lung[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.asarray(from_right & from_left, bool)
