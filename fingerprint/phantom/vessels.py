"""The vessel tree of a lung: every patient grows an own one.

Points are scattered in the chest; each joins the nearest point that is closer to the hilum. The
calibre follows the number of twigs behind it (Murray's law, exponent 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float32]
CANVAS = 1024  # vessels are drawn on this grid and averaged down, so that thin ones stay smooth


@dataclass(frozen=True)
class Tree:
    """Straight pieces of vessel: `start` and `end` (n, 3) as (x, y, a) mm, `radius` (n,) mm."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    radius: NDArray[np.float64]


def grow(points: NDArray[np.float64], hilum: tuple[float, float, float]) -> Tree:
    """Join `points`, shape (n, 3) in mm, to a tree rooted at the hilum."""
    root = np.asarray(hilum)
    reach = np.linalg.norm(points - root, axis=1)
    nodes = np.vstack([root, points[np.argsort(reach, kind="stable")]])
    reach = np.linalg.norm(nodes - root, axis=1)
    parent = np.zeros(len(nodes), dtype=np.int64)
    for child in range(1, len(nodes)):
        gap = np.linalg.norm(nodes[:child] - nodes[child], axis=1)
        parent[child] = np.argmin(
            gap + 0.35 * reach[:child]
        )  # detours make bushes: a fan is wanted
    twigs = np.ones(len(nodes))
    for child in range(len(nodes) - 1, 0, -1):
        twigs[parent[child]] += twigs[child]
    radius = np.clip(0.5 * np.cbrt(twigs[1:]), 0.5, 5.0)
    return Tree(nodes[parent[1:]], nodes[1:], radius)


def both(one: Tree, other: Tree) -> Tree:
    """Put two trees together."""
    pairs = ((one.start, other.start), (one.end, other.end), (one.radius, other.radius))
    return Tree(*(np.concatenate(pair) for pair in pairs))


def draw(tree: Tree, a: float, half_mm: float, to_px: NDArray[np.float64], size_px: int) -> Array:
    """Coverage, float32 in 0..1, of the slab ``a - half_mm .. a + half_mm``.

    `to_px`, 2 x 3, goes from (x, y, 1) in mm to (column, row) as shares of the field of view.
    """
    low, high = a - half_mm, a + half_mm
    z0, z1 = tree.start[:, 2], tree.end[:, 2]
    hit = (np.minimum(z0, z1) < high) & (np.maximum(z0, z1) > low)
    start, end, radius = tree.start[hit], tree.end[hit], tree.radius[hit]
    rise = end[:, 2] - start[:, 2]
    rise = np.where(np.abs(rise) < 1e-6, 1e-6, rise)
    t = np.stack([(low - start[:, 2]) / rise, (high - start[:, 2]) / rise])
    t0, t1 = np.clip(t.min(0), 0, 1)[:, None], np.clip(t.max(0), 0, 1)[:, None]
    ends = [start + t0 * (end - start), start + t1 * (end - start)]
    (x0, y0), (x1, y1) = ((CANVAS * (p[:, :2] @ to_px[:, :2].T + to_px[:, 2])).T for p in ends)
    image = Image.new("L", (CANVAS, CANVAS))
    pen = ImageDraw.Draw(image)
    scale = float(np.hypot(*to_px[:, 0])) * CANVAS
    fill = np.clip(40 + 110 * radius, 0, 255).astype(int)
    for i in np.argsort(radius, kind="stable"):
        r = radius[i] * scale
        box = (x0[i] - r, y0[i] - r, x0[i] + r, y0[i] + r)
        pen.line((x0[i], y0[i], x1[i], y1[i]), fill=int(fill[i]), width=max(1, round(2 * r)))
        pen.ellipse(box, fill=int(fill[i]))
    small = image.resize((size_px, size_px), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)
