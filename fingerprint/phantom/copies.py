"""Planted copies of a slice, of known kind and strength (METHOD 3.12).

    exact     the slice
    noise     plus Gaussian noise; level = its standard deviation in grey levels
    blur      Gaussian blur; level = its standard deviation in pixels
    gamma     255 (v / 255) ^ level
    pose      turned by 15 deg, scaled by 10 %, shifted by 40 px at 512 (in proportion on other
              sizes), each times level (0..1); signs and direction are drawn
    elastic   bent by a smooth field; level = its longest arrow in pixels
    mirrored  left and right exchanged
    tile      a rectangle of the slice in a stranger; level = its share of the area
    blend     level x slice + (1 - level) x stranger

Grey levels are rounded half to even and clipped to 0..255. What comes from outside the image is
air, 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.uint8]
Grey = NDArray[np.float64]

MAX_ANGLE_DEG = 15.0
MAX_SCALE = 0.10
MAX_SHIFT_PX = 40.0  # at 512
BEND_PX = 32.0  # smoothness of an elastic field, at 512


@dataclass(frozen=True)
class Moved:
    """Where pose puts a point: ``centre + scale R(angle) (point - centre) + shift``.

    Points are (y, x); R turns x towards y, which is clockwise on the screen.
    """

    angle_deg: float
    scale: float
    shift_y_px: float
    shift_x_px: float


def pose_of(level: float, *, seed: int, side_px: int) -> Moved:
    """Return the pose that `plant` of kind ``pose`` gives an image of that side."""
    rng = np.random.default_rng(seed)
    turn, grow = rng.choice([-1.0, 1.0], 2)
    way = rng.uniform(0, 2 * np.pi)
    shift = level * MAX_SHIFT_PX * side_px / 512
    return Moved(
        angle_deg=float(turn * level * MAX_ANGLE_DEG),
        scale=float(1 + grow * level * MAX_SCALE),
        shift_y_px=float(shift * np.sin(way)),
        shift_x_px=float(shift * np.cos(way)),
    )


def bend_of(level: float, *, seed: int, shape: tuple[int, int]) -> Grey:
    """Return the field that `plant` of kind ``elastic`` bends with, float64 (2, h, w), (y, x) px.

    The copy shows at p what the slice shows at p + field(p).
    """
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((2, *shape))
    smooth = BEND_PX * max(shape) / 512
    field = np.stack([ndimage.gaussian_filter(one, smooth, mode="wrap") for one in white])
    field -= field.mean(axis=(1, 2), keepdims=True)
    return np.asarray(field * (level / np.hypot(*field).max()), np.float64)


def plant(
    image: Image, kind: str, level: float = 0.0, *, seed: int, stranger: Image | None = None
) -> Image:
    """Make a copy of a slice; the same arguments give the same copy.

    Parameters
    ----------
    image : uint8, shape (h, w)
    kind : str
        One of `KINDS`.
    level : float
        Strength, in the unit of the kind; not used by ``exact`` and ``mirrored``.
    seed : int
    stranger : uint8, shape (h, w), optional
        Image of somebody else: needed by ``tile`` and ``blend``.

    Returns
    -------
    uint8, shape (h, w)

    Raises
    ------
    ValueError
        An unknown kind, a level that the kind does not have, another dtype or shape.
    """
    if kind not in KINDS:
        raise ValueError(f"plant: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if image.dtype != np.uint8 or image.ndim != 2:
        raise ValueError(f"plant: image must be uint8 (h, w), got {image.dtype} {image.shape}")
    low, high = _LEVELS[kind]
    if not low <= level <= high:
        raise ValueError(f"plant: level of {kind} must lie in [{low}, {high}], got {level}")
    if kind in NEED_A_STRANGER and (stranger is None or stranger.shape != image.shape):
        raise ValueError(f"plant: {kind} needs a stranger of shape {image.shape}")
    other = image if stranger is None else stranger
    return _grey(KINDS[kind](image.astype(np.float64), level, seed, other.astype(np.float64)))


def _grey(values: Grey) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _exact(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    return image


def _noise(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    return image + level * np.random.default_rng(seed).standard_normal(image.shape)


def _blur(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    return np.asarray(ndimage.gaussian_filter(image, level, mode="constant"), np.float64)


def _gamma(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    return np.asarray(255 * (image / 255) ** level, np.float64)


def _pose(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    moved = pose_of(level, seed=seed, side_px=max(image.shape))
    c, s = np.cos(np.deg2rad(moved.angle_deg)), np.sin(np.deg2rad(moved.angle_deg))
    there = np.array([[c, s], [-s, c]]) * moved.scale  # (y, x): x turns towards y
    back = np.linalg.inv(there)
    centre = (np.array(image.shape) - 1) / 2
    shift = np.array([moved.shift_y_px, moved.shift_x_px])
    offset = centre - back @ (centre + shift)
    return np.asarray(
        ndimage.affine_transform(image, back, offset, order=1, mode="constant"), np.float64
    )


def _elastic(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    at = np.indices(image.shape) + bend_of(level, seed=seed, shape=(image.shape[0], image.shape[1]))
    return np.asarray(ndimage.map_coordinates(image, at, order=1, mode="constant"), np.float64)


def _mirrored(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    return image[:, ::-1]


def _tile(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    """Paste the rectangle; its middle is drawn from the middle half, where the body is."""
    size = np.rint(np.array(image.shape) * np.sqrt(level)).astype(int)
    middle = np.random.default_rng(seed).uniform(0.25, 0.75, 2) * image.shape
    first = np.clip(np.rint(middle - size / 2).astype(int), 0, np.array(image.shape) - size)
    box = tuple(slice(f, f + n) for f, n in zip(first, size, strict=True))
    mixed = stranger.copy()
    mixed[box] = image[box]
    return mixed


def _blend(image: Grey, level: float, seed: int, stranger: Grey) -> Grey:
    return level * image + (1 - level) * stranger


KINDS: dict[str, Callable[[Grey, float, int, Grey], Grey]] = {
    "exact": _exact,
    "noise": _noise,
    "blur": _blur,
    "gamma": _gamma,
    "pose": _pose,
    "elastic": _elastic,
    "mirrored": _mirrored,
    "tile": _tile,
    "blend": _blend,
}
NEED_A_STRANGER = ("tile", "blend")
_LEVELS: dict[str, tuple[float, float]] = {
    "exact": (0, np.inf),
    "noise": (0, np.inf),
    "blur": (0, np.inf),
    "gamma": (1e-3, 1e3),
    "pose": (0, 1),
    "elastic": (0, np.inf),
    "mirrored": (0, np.inf),
    "tile": (0, 1),
    "blend": (0, 1),
}
