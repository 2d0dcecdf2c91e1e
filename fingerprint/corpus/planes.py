"""Where slices lie: canonical axes, order along the normal, and the rules of a proper stack.

**Canonical axial orientation, LPS mm: x to the patient's left, y to the back, z to the head.** A
stored plane is turned to it by transposing and flipping, never by resampling, so a plane more than
`OBLIQUE_DEG` away from it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus.scan import Rejected

OBLIQUE_DEG = 2.0  # patients do not lie straighter than this
SHEAR_DEG = 1.0  # a stack that leans more than this was made by a tilted gantry
GANTRY_DEG = 35.0  # gantries do not tilt further
SAME_MM = 0.01  # positions closer than this are one position
UNEVEN = 0.1  # share of the step by which a distance may differ: positions are rounded decimals


@dataclass(frozen=True)
class Plane:
    """One slice in space, after its turn.

    Attributes
    ----------
    shape : (h, w)
    spacing_mm : (y, x)
    corner : float64, shape (3,)
        LPS position of the centre of pixel (0, 0).
    axes : float64, shape (2, 3)
        Unit vectors along rising y and rising x.
    transpose, flip_y, flip_x : bool
        The turn from stored to canonical pixels; transposed first.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    corner: NDArray[np.float64]
    axes: NDArray[np.float64]
    transpose: bool
    flip_y: bool
    flip_x: bool

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector towards the head."""
        return np.cross(self.axes[1], self.axes[0])

    @property
    def position_mm(self) -> float:
        """Height along the normal."""
        return float(self.corner @ self.normal)

    def turn(self, image: NDArray[Any]) -> NDArray[Any]:
        """Turn a stored image, shape (rows, columns), to the canonical one. A view."""
        if self.transpose:
            image = image.T
        return image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def plane_of(
    position: NDArray[np.float64],
    row: NDArray[np.float64],
    column: NDArray[np.float64],
    spacing_mm: tuple[float, float],
    shape: tuple[int, int],
    *,
    tilt_deg: float = 0.0,
) -> Plane:
    """Place a stored image in space.

    Parameters
    ----------
    position : shape (3,)
        LPS mm of the centre of the first stored pixel.
    row, column : shape (3,)
        Unit vectors along a row (rising column index) and along a column.
    spacing_mm : (between rows, between columns)
    shape : (rows, columns)
    tilt_deg : float
        What the scanner says of its gantry.

    Raises
    ------
    Rejected : ``no_geometry``, ``not_axial`` or ``gantry_tilt``.
    """
    lengths = np.array([row @ row, column @ column])
    if not np.allclose(lengths, 1, atol=0.02) or abs(row @ column) > 0.02:
        raise Rejected("no_geometry", "the directions of rows and columns are not at right angles")
    transpose = bool(abs(row[1]) > abs(row[0]))
    along_x, along_y = (column, row) if transpose else (row, column)
    flip_x, flip_y = bool(along_x[0] < 0), bool(along_y[1] < 0)
    _refuse_oblique(along_x, along_y, tilt_deg)
    corner = position.astype(np.float64)
    if flip_x:
        corner = corner + along_x * (
            (shape[0] - 1) * spacing_mm[0] if transpose else (shape[1] - 1) * spacing_mm[1]
        )
    if flip_y:
        corner = corner + along_y * (
            (shape[1] - 1) * spacing_mm[1] if transpose else (shape[0] - 1) * spacing_mm[0]
        )
    axes = np.stack([-along_y if flip_y else along_y, -along_x if flip_x else along_x])
    if transpose:
        shape, spacing_mm = shape[::-1], spacing_mm[::-1]
    return Plane(shape, spacing_mm, corner, axes, transpose, flip_y, flip_x)


def _refuse_oblique(
    along_x: NDArray[np.float64], along_y: NDArray[np.float64], tilt_deg: float
) -> None:
    """Refuse what cannot be axial; a plane tilted like a gantry waits for its neighbours."""
    off_x, off_y = _angle(along_x, 0), _angle(along_y, 1)
    if off_x <= OBLIQUE_DEG and off_y <= OBLIQUE_DEG:
        return
    like_gantry = off_x <= OBLIQUE_DEG and off_y <= GANTRY_DEG and abs(along_y[0]) < 0.05
    if like_gantry and abs(tilt_deg) > OBLIQUE_DEG:
        raise Rejected("gantry_tilt", f"gantry tilted by {abs(tilt_deg):.1f} degrees")
    if not like_gantry:
        raise Rejected("not_axial", f"plane turned by {max(off_x, off_y):.0f} degrees")


def _angle(direction: NDArray[np.float64], axis: int) -> float:
    """Degrees between a unit vector and an axis, signs ignored."""
    return math.degrees(math.acos(min(1.0, abs(float(direction[axis])))))


def refuse_mixed(planes: Sequence[Plane]) -> None:
    """Refuse planes of one series that differ in size, spacing or orientation."""
    first = planes[0]
    for plane in planes[1:]:
        if plane.shape != first.shape:
            raise Rejected("mixed_series", f"sizes {first.shape} and {plane.shape}")
        if not np.allclose(plane.spacing_mm, first.spacing_mm, rtol=1e-3):
            raise Rejected("mixed_series", "pixel spacing changes")
        if not np.allclose(plane.axes, first.axes, atol=2e-3):
            raise Rejected("mixed_series", "orientation changes")


def refuse_leaning(planes: Sequence[Plane]) -> None:
    """Refuse a stack, sorted by position, whose slices are shifted against each other."""
    oblique = _angle(planes[0].normal, 2)
    offsets = np.array([plane.corner - planes[0].corner for plane in planes])
    height = offsets @ planes[0].normal
    sideways = offsets - height[:, None] * planes[0].normal
    drift = np.linalg.norm(sideways, axis=1)
    lean = math.degrees(math.atan2(drift[-1], height[-1])) if height[-1] > 0 else 0.0
    straight = np.outer(height / height[-1], sideways[-1]) if height[-1] > 0 else sideways
    wander = float(np.linalg.norm(sideways - straight, axis=1).max())
    if wander > max(planes[0].spacing_mm):
        raise Rejected("mixed_series", f"slices shifted sideways by up to {drift.max():.1f} mm")
    if lean > SHEAR_DEG:
        raise Rejected("gantry_tilt", f"the stack leans by {lean:.1f} degrees")
    if oblique > OBLIQUE_DEG:
        raise Rejected("not_axial", f"plane turned by {oblique:.0f} degrees")


def step_of(positions_mm: NDArray[np.float64], lost: int) -> float:
    """Distance between neighbouring slices, or NaN for a single slice.

    Parameters
    ----------
    positions_mm : float64, shape (n,), strictly rising
    lost : int
        Slices known to be missing, because their files could not be read: at most so many gaps.

    Raises
    ------
    Rejected : ``uneven_spacing``, with the distances.
    """
    steps = np.diff(positions_mm)
    if not len(steps):
        return math.nan
    if lost == 0:
        smallest = float(np.median(steps))
    else:
        smallest = float(steps.min())
    whole = np.maximum(np.rint(steps / smallest), 1)
    step = float(steps.sum() / whole.sum())
    gaps = int(whole.sum()) - len(steps)
    if gaps > lost or np.abs(steps - whole * step).max() > UNEVEN * step:
        raise Rejected(
            "uneven_spacing",
            f"{len(positions_mm)} slices {steps.min():.3f} to {steps.max():.3f} mm apart, "
            f"median {np.median(steps):.3f}, {lost} known to be missing",
        )
    return step
