"""Bring one query onto many slices: Gauss-Newton on correlation, many pairs at a time.

Inverse compositional ECC (Evangelidis and Psarakis 2008, doi:10.1109/TPAMI.2008.113, sections 3 and
4, with the two images exchanged as in Baker and Matthews 2004): the slice is held fixed, so its
derivatives and their products are computed once, and a step costs one look at the query,

    step = H^-1 G' (lambda w - f)        f slice, G its derivatives, w the query as posed now
    lambda = (f'f - f'G H^-1 G'f) / (f'w - f'G H^-1 G'w)      H = G'G; all with means removed

and the pose becomes ``pose o step^-1``.

Both images are int8, derivatives are rounded to int8, and the query is looked up, without weights,
in a copy of itself enlarged four times. So every sum is one of integers that float32 holds, and the
rest is float64, pair by pair: no bit depends on how many pairs are done at once, on threads or on
the machine. Bilinear weights in float32 were rejected: they cost twice as much, and poses that a
rounding error moves over the border of a lattice cell would differ between machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fingerprint import warp

FINER = 4  # the enlarged query has this many points per pixel
FRACTION = 9  # bits after the point of a place in it
PIECE = 1024  # pixels: 127 x 127 x 1,024 < 2^24, the integers that float32 holds
HELD = 2**19  # pixels of slices held at a time: their derivatives stay in the cache
LOOK = 2**16  # pixels looked up at a time: these stay in the nearer cache

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """How far a pose may go, in the units of `warp.POSE`; beyond, a pair keeps what it had."""

    angle_deg: float
    scale: float
    shift_px: float


@dataclass(frozen=True)
class _Fixed:
    """Slices with what is computed of them once; sums are over pixels, with means removed."""

    side: int
    rows: NDArray[np.float32]  # (c, pieces, 6, PIECE): slice, its four derivatives, ones
    sums: Floats  # (c, 6): of each row, means not removed
    ff: Floats  # (c,)
    gf: Floats  # (c, 4)
    back: Floats  # (c, 4, 4): H^-1
    toward: Floats  # (c, 4): H^-1 G'f


def align(
    query: NDArray[np.int8],
    slices: NDArray[np.int8],
    starts: Floats,
    *,
    steps: int,
    limits: Limits,
) -> tuple[Floats, Floats]:
    """Improve the pose of one query on each of some slices.

    Parameters
    ----------
    query : int8, shape (h, h)
    slices : int8, shape (c, h, h)
        Zero is nothing: what both images show outside of themselves. At most 127 in size.
    starts : float64, shape (c, 5)
        Poses; whether they mirror is not changed.
    steps : int
        Steps of Gauss-Newton.
    limits : Limits

    Returns
    -------
    poses : float64, shape (c, 5)
        The best that were met, the start among them.
    r : float64, shape (c,)
        Their correlation, on the images given and with the query looked up coarsely: good for
        ranking, not an exact r. -2 where an image is constant.
    """
    if slices.shape[1:] != query.shape or len(starts) != len(slices):
        raise ValueError(
            f"align: one start per slice and images of one size, got {query.shape}, "
            f"{slices.shape}, {starts.shape}"
        )
    poses, r = np.array(starts, np.float64), np.full(len(starts), -2.0)
    for mirrored in np.unique(poses[:, 4]):
        enlarged = _enlarged(query[:, ::-1] if mirrored else query)
        here = np.flatnonzero(poses[:, 4] == mirrored)
        pairs = max(1, HELD // query.size)
        for at in (here[i : i + pairs] for i in range(0, len(here), pairs)):
            fixed = _fixed(slices[at])
            poses[at, :4], r[at] = _aligned(enlarged, fixed, poses[at], steps, limits)
    return poses, r


def _aligned(
    enlarged: Tensor, fixed: _Fixed, starts: Floats, steps: int, limits: Limits
) -> tuple[Floats, Floats]:
    place = _place(starts, fixed.side)
    best, best_r = place, np.full(len(starts), -2.0)
    for k in range(steps + 1):
        cross, squares = _look(enlarged, fixed, place)
        r = _r(fixed, cross, squares)
        better = r > best_r
        best, best_r = np.where(better, place, best), np.where(better, r, best_r)
        if k < steps:
            moved, sound = _step(fixed, cross, place)
            sound &= _within(moved, limits, fixed.side)
            place = np.where(sound, moved, best)
    moved_at_all = (best != _place(starts, fixed.side)).any(0)
    return np.where(moved_at_all[:, None], _pose(best, fixed.side), starts[:, :4]), best_r


# -- poses as the place of a slice point in the query: q = m p + u, complex, from the image centre


def _place(poses: Floats, side: int) -> Floats:
    """Return (4, c): real and imaginary part of m, x and y of u, in pixels of `side`."""
    matrix = warp.matrix(poses, side)
    c, s = matrix[:, 0, 0], -matrix[:, 1, 0]  # of enlarging and turning the query
    square = c * c + s * s
    a, b = c / square, -s / square
    y, x = poses[:, 2] * (side / warp.SIDE_PX), poses[:, 3] * (side / warp.SIDE_PX)
    return np.stack([a, b, -(a * x - b * y), -(a * y + b * x)])


def _pose(place: Floats, side: int) -> Floats:
    """Undo `_place`: (c, 4), without the mirroring; rounded, since arc tangents differ by a bit."""
    a, b, _, _ = place
    y, x = _shift(place, side)
    pose = np.stack([np.rad2deg(np.arctan2(-b, a)), 1 / np.sqrt(a * a + b * b), y, x], axis=1)
    return np.rint(pose * 2**24) / 2**24


def _shift(place: Floats, side: int) -> tuple[Floats, Floats]:
    a, b, x, y = place
    unit = warp.SIDE_PX / side / (a * a + b * b)
    return -(y * a - x * b) * unit, -(x * a + y * b) * unit


def _within(place: Floats, limits: Limits, side: int) -> NDArray[np.bool_]:
    """Whether poses keep to the limits; without an arc tangent, whose last bits may differ."""
    a, b, _, _ = place
    square = a * a + b * b
    y, x = _shift(place, side)
    turned = np.abs(b) * np.cos(np.deg2rad(limits.angle_deg)) <= a * np.sin(
        np.deg2rad(limits.angle_deg)
    )
    with np.errstate(divide="ignore"):
        scale = 1 / np.sqrt(square)
    sized = np.abs(scale - 1) <= limits.scale
    near = np.maximum(np.abs(y), np.abs(x)) <= limits.shift_px
    return np.asarray(turned & sized & near, bool)


# -- one step


def _step(fixed: _Fixed, cross: Floats, place: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return where Gauss-Newton goes next (4, c), and whether it goes anywhere."""
    fw, gw = cross[:, 0], cross[:, 1:]
    explained = fixed.toward * gw
    down = fw - (explained[:, 0] + explained[:, 1] + explained[:, 2] + explained[:, 3])
    known = fixed.toward * fixed.gf
    up = fixed.ff - (known[:, 0] + known[:, 1] + known[:, 2] + known[:, 3])
    sound = (down > 0) & (up > 0)
    gain = np.where(sound, up, 0.0) / np.where(sound, down, 1.0)
    d = gain * _times(fixed.back, gw) - fixed.toward.T
    d[:2] /= fixed.side / 2  # derivatives by turn and size are per half a side
    a, b, x, y = place
    c, s = 1 + d[0], d[1]
    square = c * c + s * s
    sound &= square > 0.25
    square = np.where(sound, square, 1.0)
    na, nb = (a * c + b * s) / square, (b * c - a * s) / square
    moved = np.stack([na, nb, x - (na * d[2] - nb * d[3]), y - (na * d[3] + nb * d[2])])
    return moved, sound & np.isfinite(moved).all(0)


def _r(fixed: _Fixed, cross: Floats, squares: Floats) -> Floats:
    """Correlation now; -2 where an image is constant."""
    product = fixed.ff * squares
    there = product > 0
    return np.where(there, cross[:, 0] / np.sqrt(np.where(there, product, 1.0)), -2.0)


def _times(matrix: Floats, vector: Floats) -> Floats:
    """(c, 4, 4) with (c, 4) -> (4, c), in a fixed order."""
    v = vector.T
    return np.stack(
        [
            matrix[:, i, 0] * v[0]
            + matrix[:, i, 1] * v[1]
            + matrix[:, i, 2] * v[2]
            + matrix[:, i, 3] * v[3]
            for i in range(4)
        ]
    )


# -- the fixed image


def _fixed(slices: NDArray[np.int8]) -> _Fixed:
    count, side, _ = slices.shape
    rows = np.zeros((count, -(-side * side // PIECE), 6, PIECE), np.float32)
    products = np.empty((count, 6, 6))
    few = max(1, LOOK // (side * side))
    for at in (slice(i, i + few) for i in range(0, count, few)):
        _fill(rows[at], slices[at].astype(np.float32))
        pieces = rows[at] @ rows[at].transpose(0, 1, 3, 2)  # of integers: exact
        products[at] = pieces.sum(1, dtype=np.float64)
    sums = products[:, 5]
    centred = products - sums[:, :, None] * sums[:, None, :] / (side * side)
    back = _inverted(centred[:, 1:5, 1:5])
    gf = centred[:, 0, 1:5]
    return _Fixed(side, rows, sums, centred[:, 0, 0], gf, back, _times(back, gf).T)


def _fill(rows: NDArray[np.float32], f: NDArray[np.float32]) -> None:
    """Fill in the slices, their derivatives by size, turn, x, y, and ones.

    Derivatives are rounded; the same rows make H, so a step only loses a little of its aim by that.
    None is beyond 127: central differences of bytes, and both together at the corners, are held.
    """
    count, side, _ = f.shape
    by_y, by_x = np.zeros_like(f), np.zeros_like(f)
    by_y[:, 1:-1] = (f[:, 2:] - f[:, :-2]) / 2
    by_x[:, :, 1:-1] = (f[:, :, 2:] - f[:, :, :-2]) / 2
    away = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / np.float32(side / 2)
    y, x = away[:, None], away[None, :]
    parts = (f, by_x * x + by_y * y, by_y * x - by_x * y, by_x, by_y, np.ones_like(f))
    for i, part in enumerate(parts):
        np.clip(np.rint(part, out=part), -127, 127, out=part)
        flat = part.reshape(count, -1)
        if flat.shape[1] % PIECE:
            flat = np.pad(flat, ((0, 0), (0, rows.shape[1] * PIECE - flat.shape[1])))
        rows[:, :, i] = flat.reshape(count, -1, PIECE)


def _inverted(h: Floats) -> Floats:
    """Invert symmetric positive 4 x 4 matrices by Gauss-Jordan; a library's order is its own.

    A millionth of the trace on the diagonal keeps slices without structure finite.
    """
    ridge = 1e-6 * (h[:, 0, 0] + h[:, 1, 1] + h[:, 2, 2] + h[:, 3, 3]) + 1e-9
    left, right = h + ridge[:, None, None] * np.eye(4), np.tile(np.eye(4), (len(h), 1, 1))
    for i in range(4):
        pivot = left[:, i, i].copy()
        left[:, i] /= pivot[:, None]
        right[:, i] /= pivot[:, None]
        for j in range(4):
            if j != i:
                factor = left[:, j, i, None].copy()
                left[:, j] -= factor * left[:, i]
                right[:, j] -= factor * right[:, i]
    return right


# -- the query


def _enlarged(query: NDArray[np.int8]) -> Tensor:
    """Enlarge a query `FINER` times, bilinear, with half of its side of nothing all around it."""
    side = len(query)
    around = np.zeros((2 * side + 1, 2 * side + 1))
    first = side // 2
    around[first : first + side, first : first + side] = query
    out = np.empty((2 * side, FINER, 2 * side, FINER))
    for i in range(FINER):
        across = around[:-1] * (1 - i / FINER) + around[1:] * (i / FINER)
        for j in range(FINER):
            out[:, i, :, j] = across[:, :-1] * (1 - j / FINER) + across[:, 1:] * (j / FINER)
    return torch.from_numpy(np.rint(out).astype(np.int8).ravel())


def _look(enlarged: Tensor, fixed: _Fixed, place: Floats) -> tuple[Floats, Floats]:
    """Return products of the rows with the posed query (c, 5), and its own (c,); less means."""
    count, pieces, _, _ = fixed.rows.shape
    cross, squares = np.empty((count, 6)), np.empty(count)
    looks = max(1, LOOK // fixed.side**2)
    seen = np.zeros((looks, pieces * PIECE), np.float32)
    for first in range(0, count, looks):
        at = slice(first, min(first + looks, count))
        n = at.stop - first
        seen[:n, : fixed.side**2] = _seen(enlarged, place[:, at], fixed.side)
        w = seen[:n].reshape(n, pieces, PIECE, 1)
        cross[at] = (fixed.rows[at] @ w)[..., 0].astype(np.float64).sum(1)
        squares[at] = (w.transpose(0, 1, 3, 2) @ w)[..., 0, 0].astype(np.float64).sum(1)
    total, pixels = cross[:, 5], fixed.side**2
    return cross[:, :5] - fixed.sums[:, :5] * total[:, None] / pixels, (
        squares - total * total / pixels
    )


def _seen(enlarged: Tensor, place: Floats, side: int) -> NDArray[np.float32]:
    """Look the query up at the places of all pixels: (c, h h)."""
    wide = 2 * side * FINER
    a, b, x, y = (part[:, None] for part in place)
    away = np.arange(side) - (side - 1) / 2
    # the middle of the query, and half a point for rounding to the nearest
    middle = (side - 1) / 2 + side // 2 + 0.5 / FINER
    last = (wide << FRACTION) - 1
    across = _whole(a * away + x + middle)[:, None, :] + _whole(-b * away)[:, :, None]
    down = _whole(b * away)[:, None, :] + _whole(a * away + y + middle)[:, :, None]
    across = across.clamp_(0, last).bitwise_right_shift_(FRACTION)
    at = down.clamp_(0, last).bitwise_right_shift_(FRACTION).mul_(wide).add_(across)
    values = enlarged.index_select(0, at.view(-1)).view(len(place[0]), -1)
    return values.float().numpy()


def _whole(pixels: Floats) -> Tensor:
    """Places in the enlarged query, in integers with `FRACTION` bits after the point."""
    return torch.from_numpy(np.rint(pixels * (FINER << FRACTION)).astype(np.int32))
