"""Outlines of a thorax: the radius of rib cage, muscles and skin over the angle, at any height.

x -> patient's left            a   height in mm: 0 lower edge of the lungs, 90 liver dome,
y -> back                          92 middle of the heart, 132 carina, 168 aortic arch,
                                   200 collar bones, 207 shoulders
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.phantom.people import Build

Radius = NDArray[np.float64]

ANGLES = 2048
THETA = (np.arange(ANGLES) + 0.5) / ANGLES * 2 * np.pi - np.pi  # 0: back, +-pi: front
BACK = ANGLES // 2
SIDE = 3 * ANGLES // 4
FRONT = 0
HEIGHT = np.array([0.0, 30, 60, 90, 120, 150, 180, 200, 215, 230])
# half width, front and back of the rib cage (inside) and of the muscles (outside), mm at HEIGHT
CAGE = np.array(
    [
        [127, 130, 130, 129, 126, 123, 119, 114, 109, 103],
        [87, 90, 91, 88, 85, 80, 74, 69, 65, 60],
        [84, 88, 90, 91, 90, 88, 86, 84, 81, 78],
    ]
)
MUSCLE = np.array(
    [
        [148, 150, 152, 155, 157, 160, 163, 166, 169, 172],
        [101, 103, 104, 103, 102, 99, 96, 93, 90, 87],
        [115, 118, 120, 121, 122, 121, 119, 117, 114, 111],
    ]
)


def _superellipse(wide: float, front: float, back: float, power: float) -> Radius:
    sine, cosine = np.abs(np.sin(THETA)), np.cos(THETA)
    deep = np.where(cosine > 0, back, front)
    return ((sine / wide) ** power + (np.abs(cosine) / deep) ** power) ** (-1 / power)


def bump(at: float, width: float) -> Radius:
    """Bell over the angle, on both sides of the body, `at` radians from the back."""
    return np.exp(-(((np.abs(THETA) - at) / width) ** 2))


def cage(body: Build, a: float) -> Radius:
    """Inside of the ribs."""
    wide, front, back = (float(np.interp(a, HEIGHT, row)) for row in CAGE)
    return _superellipse(wide * body.width, front * body.depth, back * body.depth, 2.25)


def inside_cage(body: Build, points: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Which points (x, y, a) lie in the rib cage shrunk to `share` of its width and depth."""
    wide, front, back = (np.interp(points[:, 2], HEIGHT, row) for row in CAGE)
    deep = np.where(points[:, 1] > 0, back, front) * body.depth
    return (points[:, 0] / (wide * body.width)) ** 2 + (points[:, 1] / deep) ** 2 < share**2


def muscle(body: Build, a: float) -> Radius:
    """Outside of the muscles."""
    wide, front, back = (float(np.interp(a, HEIGHT, row)) for row in MUSCLE)
    top = float(np.clip((a - 150) / 60, 0, 1))
    wide *= 1 + (body.shoulders - 1) * top
    outline = _superellipse(
        wide * body.width, front * body.depth, back * body.depth, 2.3 + 0.3 * top
    )
    outline += 5 * bump(0.42, 0.22) - 5 * bump(0, 0.13)  # the long muscles beside the spine
    outline += 7 * np.exp(-(((a - 165) / 30) ** 2)) * bump(2.45, 0.3)  # pectorals
    return np.maximum(outline, cage(body, a) + 13)


def breast(a: float) -> Radius:
    """How much of the height of the breasts stands at each angle, 0..1."""
    return np.exp(-(((a - 95) / 58) ** 2)) * bump(2.42, 0.36)


def skin(body: Build, a: float, muscle: Radius) -> Radius:
    """Outside of the body."""
    thick = body.fat * (1 - 0.45 * bump(0, 0.6) - 0.25 * bump(np.pi, 0.35))
    thick *= 1 - 0.25 * np.clip((a - 130) / 90, 0, 1)
    for k, (size, phase, *_) in enumerate(body.lobes, start=1):
        thick = thick + (1.5 + 0.06 * body.fat) / k * size * np.sin(k * THETA + 3 * phase)
    return muscle + np.maximum(thick + body.breast * breast(a), 3.0) + 2.0
