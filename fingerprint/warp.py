"""Where a pose puts an image: the one place where this is decided.

**A pose brings a query onto a slice.** The query is first mirrored (left and right exchanged) if
`mirrored` is 1, then turned by `angle_deg` about the image centre ((n - 1) / 2, (n - 1) / 2),
positive from the x axis to the y axis (clockwise as displayed), then enlarged by `scale` about the
same centre, then shifted by (`shift_y_px`, `shift_x_px`), **in pixels of a 512 x 512 image whatever
the resolution**. Points are (y, x). So the posed query shows at the point p of the slice what the
query shows at

    q = c + R(-angle) (p - c - shift) / scale,      then x -> n - 1 - x if mirrored

and a query point q lies at ``p = c + scale R(angle) (q - c) + shift`` on the slice. A pose is five
float64 in the order of `POSE`; what a copy was moved by is the inverse of the pose that is found.

Everything here is float64, element by element, in a fixed order: no matrix product, no sum whose
order a library chooses. The same bits come out on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSE = ("angle_deg", "scale", "shift_y_px", "shift_x_px", "mirrored")
IDENTITY = (0.0, 1.0, 0.0, 0.0, 0.0)
SIDE_PX = 512  # the unit of shifts

Poses = NDArray[np.float64]


def compose(second: ArrayLike, first: ArrayLike) -> Poses:
    """Return the pose that does `first`, then `second`; shapes (..., 5), broadcast.

    Mirroring stands first in a pose: moving it past a turn changes the sense of the turn.
    """
    a, b = _checked("compose", second), _checked("compose", first)
    flip = 1 - 2 * a[..., 4]
    y, x = b[..., 2], flip * b[..., 3]
    c, s = _turn(a[..., 0])
    return np.stack(
        np.broadcast_arrays(
            a[..., 0] + flip * b[..., 0],
            a[..., 1] * b[..., 1],
            a[..., 2] + a[..., 1] * (c * y + s * x),
            a[..., 3] + a[..., 1] * (c * x - s * y),
            np.abs(a[..., 4] - b[..., 4]),
        ),
        axis=-1,
    )


def inverse(pose: ArrayLike) -> Poses:
    """Return the pose that undoes `pose`, shape (..., 5)."""
    p = _checked("inverse", pose)
    flip = 1 - 2 * p[..., 4]
    c, s = _turn(p[..., 0])
    y, x = p[..., 2] / p[..., 1], p[..., 3] / p[..., 1]
    return np.stack(
        [
            -flip * p[..., 0],
            1 / p[..., 1],
            -(c * y - s * x),
            -flip * (c * x + s * y),
            p[..., 4],
        ],
        axis=-1,
    )


def matrix(pose: ArrayLike, side_px: int = SIDE_PX) -> NDArray[np.float64]:
    """Return where query points go: (y, x, 1) of the query -> (y, x, 1) of the slice.

    Parameters
    ----------
    pose : float64, shape (..., 5)
    side_px : int
        Side of the square images whose pixels the matrix speaks of.

    Returns
    -------
    float64, shape (..., 3, 3)
    """
    p = _checked("matrix", pose)
    centre, unit = (side_px - 1) / 2, side_px / SIDE_PX
    c, s = _turn(p[..., 0])
    flip = 1 - 2 * p[..., 4]
    k = p[..., 1]
    out = np.zeros((*p.shape[:-1], 3, 3))
    out[..., 0, 0], out[..., 0, 1] = k * c, k * s * flip
    out[..., 1, 0], out[..., 1, 1] = -k * s, k * c * flip
    # the middle of the image goes to the middle, plus the shift; mirroring keeps it
    for row in (0, 1):
        moved = out[..., row, 0] * centre + out[..., row, 1] * centre
        out[..., row, 2] = centre + p[..., 2 + row] * unit - moved
    out[..., 2, 2] = 1.0
    return out


def apply(images: NDArray[Any], poses: ArrayLike, *, air: float = 0.0) -> NDArray[np.float64]:
    """Show images at poses: bilinear, air outside.

    Parameters
    ----------
    images : shape (n, h, h), or (1, h, h) to show one image at n poses
        Any real dtype.
    poses : float64, shape (n, 5), or (5,) or (1, 5) for all images
    air : float
        Value outside the image; a point less than a pixel outside is in between.

    Returns
    -------
    float64, shape (n, h, h)
        Not rounded.

    Raises
    ------
    ValueError
        Images that are not square, or counts that do not match.
    """
    p = np.atleast_2d(_checked("apply", poses))
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"apply: images must be square (n, h, h), got shape {images.shape}")
    if p.ndim != 2 or (len(p) != len(images) and 1 not in (len(p), len(images))):
        raise ValueError(f"apply: one pose per image, got {len(images)} images, {p.shape} poses")
    side = images.shape[1]
    if len(p) == 1:
        return sample(images, *points(p[0], side), air=air)
    out = np.empty((len(p), side, side))
    for i, pose in enumerate(p):
        image = images[i : i + 1] if len(images) > 1 else images
        out[i] = sample(image, *points(pose, side), air=air)[0]
    return out


def points(
    pose: ArrayLike, side_px: int, *, margin_px: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the query point that each pixel of the slice shows.

    Parameters
    ----------
    pose : float64, shape (5,)
    side_px : int
        Side of the query and of the slice.
    margin_px : int
        Also for this many pixels around the slice.

    Returns
    -------
    y, x : float64, shape (h, h) each, h = side_px + 2 margin_px
    """
    p = _checked("points", pose)
    centre, unit = (side_px - 1) / 2, side_px / SIDE_PX
    c, s = _turn(p[0])
    axis = np.arange(-margin_px, side_px + margin_px) - centre
    y, x = axis[:, None] - p[2] * unit, axis[None, :] - p[3] * unit
    at_y = (c * y - s * x) / p[1] + centre
    at_x = (1 - 2 * p[4]) * ((c * x + s * y) / p[1]) + centre
    return at_y, at_x


def sample(
    images: NDArray[Any], y: NDArray[np.float64], x: NDArray[np.float64], *, air: float = 0.0
) -> NDArray[np.float64]:
    """Read images (n, h, h) at points (a, b), bilinear: float64 (n, a, b)."""
    # two pixels of air around: every point outside reads air without a question asked
    width = images.shape[1] + 4
    canvas = np.full((len(images), width, width), air, np.float64)
    canvas[:, 2:-2, 2:-2] = images
    flat = canvas.reshape(len(images), -1)
    y, x = np.clip(y + 2, 0, width - 1.5), np.clip(x + 2, 0, width - 1.5)
    top, left = np.floor(y), np.floor(x)
    v, u = y - top, x - left
    at = top.astype(np.intp) * width + left.astype(np.intp)
    one_u, one_v = 1 - u, 1 - v
    out = np.empty((len(images), *y.shape))
    for shown, values in zip(out, flat, strict=True):
        upper = values.take(at) * one_u
        upper += values.take(at + 1) * u
        lower = values.take(at + width) * one_u
        lower += values.take(at + width + 1) * u
        upper *= one_v
        lower *= v
        np.add(upper, lower, out=shown)
    return out


def _turn(angle_deg: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cosine and sine; rounded to 2^-40, so that two C libraries give the same bits."""
    radians, one = np.deg2rad(angle_deg), 2.0**40
    return np.rint(np.cos(radians) * one) / one, np.rint(np.sin(radians) * one) / one


def _checked(name: str, pose: ArrayLike) -> Poses:
    p = np.asarray(pose, np.float64)
    if p.ndim < 1 or p.shape[-1] != len(POSE):
        raise ValueError(f"{name}: a pose has {len(POSE)} numbers {POSE}, got shape {p.shape}")
    return p
