"""The slice being painted: its grid, soft-edged shapes, and laying HU over what is there.

Edges are one pixel soft, which is what makes a slice of 128 pixels look like one of 512. The grid
is bent by a smooth field of a few mm, an own one for each patient: no organ is a true ellipse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.phantom.fields import Weights
from fingerprint.phantom.outlines import Radius
from fingerprint.phantom.people import Build
from fingerprint.phantom.vessels import Tree

Array = NDArray[np.float32]
Box = tuple[slice, slice]
Shape = tuple[Box, Array]  # depth inside an edge, mm, in the box

LABELS = (
    "air", "body", "lung_right", "lung_left", "liver", "spleen", "stomach", "heart", "aorta",
    "airway", "spine", "bone", "nodule",
)  # fmt: skip
_MARGIN_MM = 16  # the grid is bent by less


@dataclass(frozen=True)
class Frame:
    """What all slices of one patient share.

    Attributes
    ----------
    to_px : float64 (2, 3)
        From (x, y, 1) in mm to (column, row) as shares of the field of view, bending left out.
    x, y : float32 (size_px, size_px)
        Bent coordinates of every pixel, mm from the middle of the chest.
    rho, theta : float32, int16, same shape
        The same in polar form; `theta` counts entries of `outlines.THETA`.
    coarse, fine : float32 (planes, knots, knots)
        Lattices of the textures; `*_weights` carry them to pixels.
    noise, streaks : float32, somewhat larger than a slice
        Each slice takes an own piece.
    nodules : float64 (n, 4)
        x, y, a and radius in mm.
    """

    body: Build
    size_px: int
    px_mm: float
    to_px: NDArray[np.float64]
    x: Array
    y: Array
    rho: Array
    theta: NDArray[np.int16]
    coarse: Array
    coarse_weights: Weights
    fine: Array
    fine_weights: Weights
    noise: Array
    streaks: Array
    tree: Tree
    nodules: NDArray[np.float64]
    seed: tuple[int, int]


@dataclass(frozen=True)
class Slice:
    """A slice at height `a`; `image` (HU) and, when asked for, `labels` change in place.

    `cage` and `muscle` are its outlines: inside of the ribs, outside of the muscles. `grain` (3 mm)
    and `cloud` (15 mm) are its textures, of mean 0 and variance about 1.
    """

    frame: Frame
    a: float
    cage: Radius
    muscle: Radius
    image: Array
    labels: NDArray[np.uint8] | None
    grain: Array
    cloud: Array

    def paint(self, box: Box, cover: Array, hu: float | NDArray[Any], label: str = "") -> None:
        """Lay `hu` over the box, as far as `cover` (0..1) says."""
        view = self.image[box]
        view += cover * (hu - view)
        if self.labels is not None and label:
            self.labels[box][cover > 0.5] = LABELS.index(label)

    def fill(self, shape: Shape, hu: float | NDArray[Any], label: str = "") -> None:
        """Lay `hu` over a shape."""
        box, depth = shape
        self.paint(box, self.soft(depth), hu, label)

    def soft(self, depth: NDArray[Any]) -> Array:
        """Coverage from the depth inside an edge: one pixel from 0 to 1."""
        return soft(depth, self.frame.px_mm)


def soft(depth: NDArray[Any], width_mm: float) -> Array:
    """Coverage from the depth inside an edge that is `width_mm` wide."""
    scaled: Array = depth * np.float32(1 / width_mm)
    return np.clip(scaled + np.float32(0.5), 0, 1)


def grown(shape: Shape, mm: float) -> Shape:
    """Return the same shape, larger by `mm` on all sides."""
    return shape[0], shape[1] + np.float32(mm)


def box_around(frame: Frame, x: float, y: float, reach_mm: float) -> Box:
    """Pixels within `reach_mm` of a point, bending included; may be empty."""
    share = frame.to_px @ (x, y, 1.0)
    half = (reach_mm + _MARGIN_MM) / frame.body.field
    low = np.floor((share - half) * frame.size_px).astype(int)
    high = np.ceil((share + half) * frame.size_px).astype(int)
    (c0, r0), (c1, r1) = np.clip([low, high], 0, frame.size_px)
    return slice(r0, r1), slice(c0, c1)


def ellipse(on: Slice, x: float, y: float, rx: float, ry: float, turn_deg: float = 0.0) -> Shape:
    """Return an ellipse; its depth is exact at the edge on the short axis."""
    box = box_around(on.frame, x, y, max(rx, ry))
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    dx, dy = on.frame.x[box] - np.float32(x), on.frame.y[box] - np.float32(y)
    u = dx * np.float32(c / rx) + dy * np.float32(s / rx)
    v = dy * np.float32(c / ry) - dx * np.float32(s / ry)
    return box, (1 - np.sqrt(u * u + v * v)) * np.float32(min(rx, ry))


def rod(on: Slice, start: tuple[float, float], end: tuple[float, float], r: float) -> Shape:
    """Return a rod with round ends."""
    (x0, y0), (x1, y1) = start, end
    length = float(np.hypot(x1 - x0, y1 - y0))
    box = box_around(on.frame, (x0 + x1) / 2, (y0 + y1) / 2, length / 2 + r)
    dx, dy = on.frame.x[box] - np.float32(x0), on.frame.y[box] - np.float32(y0)
    ux, uy = np.float32((x1 - x0) / max(length, 1e-6)), np.float32((y1 - y0) / max(length, 1e-6))
    t = np.clip(dx * ux + dy * uy, 0, np.float32(length))
    dx, dy = dx - t * ux, dy - t * uy
    return box, np.float32(r) - np.sqrt(dx * dx + dy * dy)


def bone(
    on: Slice, shape: Shape, *, marrow: float = 190, shell: float = 620, mm: float = 2.2,
    label: str = "bone",
) -> None:  # fmt: skip
    """Lay a compact shell, `mm` thick, around grainy marrow."""
    box, depth = shape
    inner = soft(depth - np.float32(mm), 2.0)
    hu = shell + inner * (marrow + 45 * on.grain[box] - shell)
    on.paint(box, on.soft(depth), hu, label)
