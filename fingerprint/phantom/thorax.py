"""One axial slice of a synthetic thorax: shapes painted from the skin inwards, in HU.

    x -> patient's left            a   height in mm: 0 lower edge of the lungs, 54 liver dome,
    y -> back                          78 middle of the heart, 120 carina, 168 aortic arch,
                                       200 clavicles, 221 shoulders
Every outline is a radius over the angle around the middle of the chest, or an ellipse or a rod in
(x, y). Edges are one pixel soft, which is what makes 128 pixels look like 512. The body is bent by
a smooth field of a few mm, an own one for each patient, so that no organ is a true ellipse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fingerprint.phantom import fields, vessels
from fingerprint.phantom.people import Build, build

Array = NDArray[np.float32]
Box = tuple[slice, slice]

LABELS = (
    "air", "body", "lung_right", "lung_left", "liver", "spleen", "stomach", "heart", "aorta",
    "trachea", "spine", "bone", "nodule",
)  # fmt: skip
_ANGLES = 1024
_THETA = (np.arange(_ANGLES) + 0.5) / _ANGLES * 2 * np.pi - np.pi  # 0: back, +-pi: front
_HEIGHT = np.array([0.0, 30, 60, 90, 120, 150, 180, 200, 215, 230])
# half width, front and back of the rib cage (inside) and of the muscles (outside), mm at _HEIGHT
_CAGE = np.array(
    [
        [127, 131, 131, 128, 124, 115, 97, 78, 58, 30],
        [88, 92, 92, 88, 80, 68, 50, 38, 27, 12],
        [82, 88, 91, 92, 91, 88, 78, 68, 57, 40],
    ]
)
_MUSCLE = np.array(
    [
        [145, 148, 149, 152, 158, 164, 172, 180, 186, 184],
        [101, 104, 104, 102, 99, 92, 80, 66, 56, 50],
        [108, 112, 115, 117, 119, 118, 112, 106, 100, 94],
    ]
)


@dataclass(frozen=True)
class Frame:
    """What all slices of one patient share: the grid, its bent coordinates, textures and noise."""

    body: Build
    size_px: int
    px_mm: float
    to_px: NDArray[np.float64]
    x: Array
    y: Array
    rho: Array
    theta: NDArray[np.int16]
    coarse: Array
    coarse_weights: Array
    fine: Array
    fine_weights: Array
    noise: Array
    streaks: Array
    tree: tuple[vessels.Tree, vessels.Tree]
    nodules: NDArray[np.float64]
    seed: tuple[int, int]


# -- the frame -------------------------------------------------------------------------------------


def frame(number: int, *, seed: int, size_px: int) -> Frame:
    """Everything that the slices of patient `number` have in common."""
    if size_px < 16:
        raise ValueError(f"frame: size_px must be at least 16, got {size_px}")
    body = build(number, seed)
    rng = np.random.default_rng([seed, number, 3])
    px = body.field / size_px
    axis = (np.arange(size_px) + 0.5) * px - body.field / 2
    turn = np.deg2rad(body.roll_deg)
    c, s = np.cos(turn), np.sin(turn)
    across, along = axis[None, :] - body.shift[0], axis[:, None] - body.shift[1]
    knots = fields.spread(size_px, 9)
    bend = [4.0 * (knots @ fields.lattice(rng, 9, 9) @ knots.T) for _ in range(2)]
    x = (c * across + s * along + bend[0]).astype(np.float32)
    y = (c * along - s * across + bend[1]).astype(np.float32)
    index = (np.arctan2(x, y) + np.float32(np.pi)) * np.float32(_ANGLES / (2 * np.pi))
    fine_knots = min(size_px, 144)
    tree_rng = np.random.default_rng([seed, number, 4])
    to_mm = np.array([[c, s], [-s, c]])
    back = np.linalg.inv(to_mm)
    offset = np.array(body.shift) / body.field + 0.5
    return Frame(
        body=body,
        size_px=size_px,
        px_mm=px,
        to_px=np.column_stack([back / body.field, offset]),
        x=x,
        y=y,
        rho=np.hypot(x, y),
        theta=np.minimum(index, _ANGLES - 1).astype(np.int16),
        coarse=fields.lattice(rng, 16, 26, 26),
        coarse_weights=fields.spread(size_px, 26),
        fine=fields.lattice(rng, 24, fine_knots, fine_knots),
        fine_weights=fields.spread(size_px, fine_knots),
        noise=fields.grain(rng, size_px + size_px // 4),
        streaks=fields.grain(rng, size_px + size_px // 4, streaks=True),
        tree=(_tree(body, tree_rng, -1), _tree(body, tree_rng, 1)),
        nodules=_nodules(body, tree_rng),
        seed=(seed, number),
    )


def _inside_cage(body: Build, points: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    wide, front, back = (np.interp(points[:, 2], _HEIGHT, row) for row in _CAGE)
    deep = np.where(points[:, 1] > 0, back, front) * body.depth
    return (points[:, 0] / (wide * body.width)) ** 2 + (points[:, 1] / deep) ** 2 < share**2


def _tree(body: Build, rng: np.random.Generator, side: int) -> vessels.Tree:
    points = rng.uniform((22, -95, -5), (140, 95, 225), (1500, 3))
    points = points[_inside_cage(body, points, 0.95)] * (side, 1, 1)
    return vessels.grow(points, (40.0 * side, 6.0, 116.0))


def _nodules(body: Build, rng: np.random.Generator) -> NDArray[np.float64]:
    """(x, y, a, radius) in mm of every nodule."""
    points = rng.uniform((45, -80, 60), (125, 80, 200), (200, 3))
    points = points[_inside_cage(body, points, 0.85)][: body.nodules]
    points[:, 0] *= rng.choice([-1, 1], len(points))
    return np.column_stack([points, rng.uniform(4, 14, len(points))])


# -- outlines --------------------------------------------------------------------------------------


def _radius(wide: float, front: float, back: float, power: float) -> NDArray[np.float64]:
    """Radius over `_THETA` of a superellipse with different depths before and behind."""
    sine, cosine = np.abs(np.sin(_THETA)), np.cos(_THETA)
    deep = np.where(cosine > 0, back, front)
    return ((sine / wide) ** power + (np.abs(cosine) / deep) ** power) ** (-1 / power)


def _bump(at: float, width: float) -> NDArray[np.float64]:
    """Bell over the angle, on both sides of the body, `at` radians from the back."""
    return np.exp(-(((np.abs(_THETA) - at) / width) ** 2))


def _cage(body: Build, a: float) -> NDArray[np.float64]:
    wide, front, back = (float(np.interp(a, _HEIGHT, row)) for row in _CAGE)
    return _radius(wide * body.width, front * body.depth, back * body.depth, 2.25)


def _muscle(body: Build, a: float) -> NDArray[np.float64]:
    wide, front, back = (float(np.interp(a, _HEIGHT, row)) for row in _MUSCLE)
    top = float(np.clip((a - 150) / 60, 0, 1))
    wide *= 1 + (body.shoulders - 1) * top
    outline = _radius(wide * body.width, front * body.depth, back * body.depth, 2.3 + 0.3 * top)
    outline += 5 * _bump(0.42, 0.22) - 5 * _bump(0, 0.13)  # the long muscles beside the spine
    outline += 7 * np.exp(-(((a - 165) / 30) ** 2)) * _bump(2.45, 0.3)  # pectorals
    return outline


def _skin(body: Build, a: float, muscle: NDArray[np.float64]) -> NDArray[np.float64]:
    thick = body.fat * (1 - 0.45 * _bump(0, 0.6) - 0.25 * _bump(np.pi, 0.35))
    thick *= 1 - 0.35 * np.clip((a - 150) / 70, 0, 1)
    breast = np.exp(-(((a - 88) / 38) ** 2)) * _bump(2.42, 0.36)
    waves = sum(
        (1.5 + 0.06 * body.fat) / (k + 1) * row[0] * np.sin((k + 1) * _THETA + 3 * row[1])
        for k, row in enumerate(body.lobes)
    )
    return muscle + np.maximum(thick + waves + body.breast * breast, 3.0) + 2.0


# -- painting --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slice:
    """A slice being painted: `image` (HU) and, when asked for, `labels`, change in place."""

    frame: Frame
    a: float
    image: Array
    labels: NDArray[np.uint8] | None
    grain: Array
    cloud: Array

    def paint(self, box: Box, cover: Array, hu: float | Array, label: str = "") -> None:
        """Lay `hu` over the box, as far as `cover` (0..1) says."""
        view = self.image[box]
        view += cover * (hu - view)
        if self.labels is not None and label:
            self.labels[box][cover > 0.5] = LABELS.index(label)


_ALL: Box = (slice(None), slice(None))


def _soft(depth_mm: Array, px_mm: float) -> Array:
    """Coverage from the depth inside an edge."""
    return np.clip(depth_mm * np.float32(1 / px_mm) + np.float32(0.5), 0, 1)


def _box(frame_: Frame, x: float, y: float, reach: float) -> Box:
    """Pixels within `reach` mm of a point, bending included; may be empty."""
    share = frame_.to_px @ (x, y, 1.0)
    half = (reach + 16) / frame_.body.field
    low = np.floor((share - half) * frame_.size_px).astype(int)
    high = np.ceil((share + half) * frame_.size_px).astype(int)
    (c0, r0), (c1, r1) = np.clip([low, high], 0, frame_.size_px)
    return slice(r0, r1), slice(c0, c1)


def _ellipse(
    on: _Slice, x: float, y: float, rx: float, ry: float, turn_deg: float = 0.0
) -> tuple[Box, Array]:
    """Depth inside an ellipse, mm (exact on the edge to first order), in its box."""
    box = _box(on.frame, x, y, max(rx, ry))
    c, s = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    dx, dy = on.frame.x[box] - np.float32(x), on.frame.y[box] - np.float32(y)
    u = dx * np.float32(c / rx) + dy * np.float32(s / rx)
    v = dy * np.float32(c / ry) - dx * np.float32(s / ry)
    return box, (1 - np.sqrt(u * u + v * v)) * np.float32(min(rx, ry))


def _rod(
    on: _Slice, start: tuple[float, float], end: tuple[float, float], r: float
) -> tuple[Box, Array]:
    """Depth inside a rod with round ends, mm."""
    (x0, y0), (x1, y1) = start, end
    length = float(np.hypot(x1 - x0, y1 - y0))
    box = _box(on.frame, (x0 + x1) / 2, (y0 + y1) / 2, length / 2 + r)
    dx, dy = on.frame.x[box] - np.float32(x0), on.frame.y[box] - np.float32(y0)
    ux, uy = (x1 - x0) / max(length, 1e-6), (y1 - y0) / max(length, 1e-6)
    t = np.clip(dx * np.float32(ux) + dy * np.float32(uy), 0, length)
    return box, np.float32(r) - np.hypot(dx - t * np.float32(ux), dy - t * np.float32(uy))


def _organ(on: _Slice, shape: tuple[Box, Array], hu: float | Array, label: str = "") -> None:
    box, depth = shape
    on.paint(box, _soft(depth, on.frame.px_mm), hu, label)


def _bone(
    on: _Slice, shape: tuple[Box, Array], marrow: float = 190, shell: float = 620, mm: float = 2.2,
    label: str = "bone",
) -> None:  # fmt: skip
    """Compact shell around grainy marrow."""
    box, depth = shape
    inner = _soft(depth - np.float32(mm), 2.0)
    hu = shell + inner * (marrow + 45 * on.grain[box] - shell)
    on.paint(box, _soft(depth, on.frame.px_mm), hu, label)


# -- layers, from the skin inwards -----------------------------------------------------------------


def _table(on: _Slice) -> None:
    """A curved shell below the patient (above a prone one), foam inside."""
    f = on.frame
    axis = ((np.arange(f.size_px) + 0.5) * f.px_mm - f.body.field / 2).astype(np.float32)
    prone = f.body.position.endswith("P")
    deepest = (_MUSCLE[1].max() if prone else _MUSCLE[2].max()) * f.body.depth + f.body.fat
    top = deepest * (1.0 if prone else 0.82) + f.body.table + (f.body.breast if prone else 2)
    down = (-axis if prone else axis)[:, None] - (-f.body.shift[1] if prone else f.body.shift[1])
    sag = np.square(axis)[None, :] * np.float32(-1 / 1100)
    depth = down - np.float32(top) - sag
    side = np.float32(205) - np.abs(axis)[None, :]
    inside = np.minimum(np.minimum(depth, 24 - depth + 0.0006 * np.square(axis)[None, :]), side)
    rows = np.flatnonzero((inside > -2).any(axis=1))
    if len(rows):
        box = (slice(rows[0], rows[-1] + 1), slice(None))
        on.paint(box, _soft(inside[box], f.px_mm), -930)
        on.paint(box, _soft(1.3 - np.abs(inside[box] - 1.3), f.px_mm), -250)


def _wall(on: _Slice) -> tuple[NDArray[np.float64], Array]:
    """Skin, fat, breast tissue, muscle and ribs; gives the cage and the depth inside it."""
    f, a, body = on.frame, on.a, on.frame.body
    cage, muscle = _cage(body, a), _muscle(body, a)
    muscle = np.maximum(muscle, cage + 13)
    skin = _skin(body, a, muscle)
    deep = skin.astype(np.float32)[f.theta] - f.rho
    on.paint(_ALL, _soft(deep, f.px_mm), 25, "body")
    fat = -104 + 7 * on.cloud
    if body.breast:
        front = np.exp(-(((a - 88) / 34) ** 2)) * _bump(2.42, 0.3).astype(np.float32)[f.theta]
        fat += 130 * np.clip(2.2 * front + 0.6 * on.cloud - 1.3, 0, 1) * (deep > 6)
    on.paint(_ALL, _soft(deep - 2, f.px_mm), fat)
    planes = np.clip(
        1.4 - np.abs(on.cloud) * 14, 0, 1
    )  # level lines of a field: fat between muscles
    inner = muscle.astype(np.float32)[f.theta] - f.rho
    on.paint(_ALL, _soft(inner, f.px_mm), 54 + 4 * on.grain - 120 * planes)
    inside = cage.astype(np.float32)[f.theta] - f.rho
    _ribs(on, inside)
    return cage, inside


def _ribs(on: _Slice, inside: Array) -> None:
    """Twelve hoops that sink towards the front: each slice cuts them obliquely."""
    f = on.frame
    ring = np.flatnonzero((inside > -13) & (inside < 1))
    phi = np.abs(_THETA)[f.theta.ravel()[ring]]
    sink = 66 * (np.minimum(phi, 2.4) / 2.4) ** 1.25 - 42 * np.maximum(phi - 2.4, 0)
    turn = (on.a + sink) / 25 + f.body.rib_phase
    off = 25 * np.abs(turn - np.rint(turn))
    depth = (1 - np.hypot(off / 6.6, (inside.ravel()[ring] + 6.2) / 4.6)) * 4.6
    depth = np.where((phi > 0.2) & (phi < 2.95), depth, -9).astype(np.float32)
    bone = _soft(depth, f.px_mm)
    cartilage = phi > 2.4
    hu = np.where(cartilage, 95, 640 - 430 * _soft(depth - 1.6, 1.5))
    flat = on.image.ravel()
    flat[ring] += bone * (hu.astype(np.float32) - flat[ring])
    if on.labels is not None:
        on.labels.ravel()[ring[(bone > 0.5) & ~cartilage]] = LABELS.index("bone")


def _lungs(on: _Slice, inside: Array) -> Array:
    f, a = on.frame, on.a
    cover = _soft(inside, f.px_mm) * np.float32(np.clip((232 - a) / 6, 0, 1))
    prone = f.body.position.endswith("P")
    sag = np.clip(f.y * np.float32(-0.45 if prone else 0.45), -40, 45)  # blood sinks
    hu = -862 + sag + 16 * on.grain + 10 * on.cloud
    for side in (-1, 1):
        at = (a - 112) * 0.95 * side * -1 if side > 0 else 112 - a
        fissure = 1.1 - np.abs(f.y - np.float32(0.9 * (a - 100) if side > 0 else 0.8 * (a - 92)))
        hu += 150 * _soft(fissure, f.px_mm) * ((f.x > 0) == (side > 0)) * (abs(at) < 90)
    half = 2.5
    tree = [vessels.draw(tree, a, half, f.to_px, f.size_px) for tree in f.tree]
    bright = np.maximum(tree[0], tree[1])
    hu += bright * (35 - hu)
    for x, y, z, r in f.nodules:
        if abs(a - z) < r:
            box, depth = _ellipse(on, x, y, *[np.sqrt(r * r - (a - z) ** 2)] * 2)
            ball = _soft(depth, f.px_mm)
            hu[box] += ball * (30 - hu[box])
    on.paint(_ALL, cover, hu)
    if on.labels is not None:
        lung = (cover > 0.5) & (hu < -300)
        on.labels[lung & (f.x < 0)] = LABELS.index("lung_right")
        on.labels[lung & (f.x >= 0)] = LABELS.index("lung_left")
        for x, y, z, r in f.nodules:
            if abs(a - z) < r:
                box, depth = _ellipse(on, x, y, *[np.sqrt(r * r - (a - z) ** 2)] * 2)
                on.labels[box][(depth > 0) & (cover[box] > 0.5)] = LABELS.index("nodule")
    return cover


def _dome(on: _Slice, x: float, y: float, rx: float, ry: float, height: float) -> tuple[Box, Array]:
    """A diaphragm of that height: an ellipse that shrinks upwards to nothing."""
    share = np.sqrt(max(0.0, 1 - on.a / height))
    if share < 0.05:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
    return _ellipse(on, x, y, rx * share, ry * share)


def _abdomen(on: _Slice, inside: Array) -> None:
    """What stands below the diaphragm: liver, stomach, spleen and the fat between them."""
    f, body = on.frame, on.frame.body
    w, d = body.width, body.depth
    blood = 0.35 * (body.blood_hu - 42)
    within = _soft(inside, f.px_mm)

    def organ(shape: tuple[Box, Array], hu: float | Array, label: str = "") -> None:
        box, depth = shape
        if depth.size:
            on.paint(box, _soft(depth, f.px_mm) * within[box], hu, label)

    left = _dome(on, 58 * w, -6 * d, 78 * w, 84 * d, body.dome[1])
    organ(left, -96 + 6 * on.cloud[left[0]])
    if left[1].size:
        organ(
            _dome(on, 92 * w, 34 * d, 38 * w, 46 * d, body.dome[1] - 4), 48 + 1.2 * blood, "spleen"
        )
        sx, sy = 52 * w, -26 * d
        stomach = _dome(on, sx, sy, 46 * w, 42 * d, body.dome[1] - 2)
        organ(stomach, 32, "stomach")
        box, depth = stomach
        gas = np.minimum(
            depth - 4, (sy - 6 - f.y[box]) if not body.position.endswith("P") else f.y[box] - sy
        )
        organ((box, gas), -985)
    liver = _dome(on, -62 * w, -8 * d, 92 * w, 92 * d, body.dome[0])
    organ(liver, 58 + blood + 4 * on.grain[liver[0]] + 3 * on.cloud[liver[0]], "liver")
    lobe = _dome(on, 4 * w, -52 * d, 62 * w, 34 * d, body.dome[0] - 16)
    organ(lobe, 58 + blood + 4 * on.grain[lobe[0]], "liver")
    box, depth = liver
    if depth.size:  # hepatic veins: level lines of the texture, where it is deep enough
        lines = np.clip(1.2 - np.abs(on.cloud[box] - 0.7) * 16, 0, 1) * (depth > 14)
        on.paint(box, lines * within[box], 52 + 1.5 * blood)


def _mediastinum(on: _Slice, cage: NDArray[np.float64]) -> None:
    """Fat between the lungs, heart, great vessels, windpipe, gullet."""
    f, a, body = on.frame, on.a, on.frame.body
    front, back = -float(cage[0]), float(cage[_ANGLES // 2])
    blood, wall = body.blood_hu, 48 + 0.3 * (body.blood_hu - 42)
    size, hx, ha = body.heart
    up = a - ha
    arch = body.arch
    parts: list[tuple[tuple[Box, Array], float, str, float]] = []  # shape, HU, label, fat around it

    def tube(x: float, y: float, r: float, lo: float, hi: float, hu: float = blood, label: str = "",
             fat: float = 5.0, ry: float | None = None) -> None:  # fmt: skip
        ease = float(np.clip(min(a - lo, hi - a) / 8 + 1, 0, 1))
        if ease > 0.3:
            parts.append((_ellipse(on, x, y, r * ease, (ry or r) * ease), hu, label, fat))

    def duct(start: tuple[float, float], end: tuple[float, float], r: float, at: float,
             hu: float = blood, label: str = "", fat: float = 4.0) -> None:  # fmt: skip
        rest = r * r - (0.75 * (a - at)) ** 2
        if rest > 4:
            parts.append((_rod(on, start, end, float(np.sqrt(rest))), hu, label, fat))

    tube(24, back - 24, 12.5, -20, arch - 6, label="aorta")
    tube(-17, -20 + 0.1 * (120 - a), 15.5, 88 + ha, arch - 4, label="aorta")
    duct((-12, -18), (22, back - 34), 13.5, arch, label="aorta")
    tube(17, -30, 14, 100 + ha, 140 + ha)
    duct((14, -26), (-46, 6), 10, 126 + ha)
    duct((16, -26), (50, 10), 10.5, 133 + ha)
    tube(-34, -12, 9, 98 + ha, arch + 16)
    tube(-26, 8, 12, -20, 42 + ha)
    duct((-32, -22), (30, -38), 7, arch + 19)
    for x, y, r in ((-16, -16, 6.5), (4, -10, 4.5), (22, 4, 5.5)):
        spread = 1 + max(0.0, a - arch) / 60
        tube(x * spread, y, r, arch + 8, 260)
    for side in (-1, 1):  # jugular and subclavian veins, the hila
        tube(side * (26 + 0.5 * (a - 190)), -16, 6.5, arch + 24, 260)
        tube(side * 46, 4, 9, 92, 132, fat=2, ry=15)
    tube(8, back - 27, 7.5, -20, 260, 38, ry=6)
    sleeve = 27 + 7 * np.exp(-(((a - 150) / 40) ** 2)) + 0.12 * max(0.0, a - 190)
    middle = _ellipse(on, 2, (front + back) / 2 - 2, sleeve, (back - front) / 2 + 2)
    fat = -92.0
    _organ(on, middle, fat)
    profile = np.sqrt(max(0.0, 1 - ((up - 74) / 58) ** 2))
    heart = profile > 0.2
    if heart:
        hx0, hy0 = 17 + hx, -26 * body.depth + 0.05 * (74 - up)
        rx, ry = 66 * size * profile * body.width, 50 * size * profile * body.depth
        turn = 32 + body.heart_turn_deg
        _organ(on, _ellipse(on, hx0, hy0, rx + 5, ry + 5, turn), fat, "heart")
    for shape, _, _, around in parts:
        _organ(on, (shape[0], shape[1] + np.float32(around)), fat)
    if heart:
        _organ(on, _ellipse(on, hx0, hy0, rx, ry, turn), wall, "heart")
        for dx, dy, sx, sy in ((0.42, 0.12, 0.36, 0.42), (-0.1, -0.48, 0.5, 0.3),
                               (-0.62, -0.02, 0.27, 0.44), (-0.12, 0.52, 0.4, 0.32)):  # fmt: skip
            c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
            x, y = hx0 + c * dx * rx - s * dy * ry, hy0 + s * dx * rx + c * dy * ry
            _organ(on, _ellipse(on, x, y, sx * rx, sy * ry, turn), blood)
    for shape, hu, label, _ in parts:
        _organ(on, shape, hu, label)
    _airways(on, back)


def _airways(on: _Slice, back: float) -> None:
    a = on.a
    if a > 116:
        shape = _ellipse(on, 1, back - 44, 9.5, 9)
        if a > 122:
            _organ(on, (shape[0], shape[1] + np.float32(2)), 45)
            _organ(on, shape, -990, "trachea")
    if 86 < a < 126:
        out = 12 + 0.62 * (124 - a)
        for side in (-1, 1):
            shape = _ellipse(on, side * out, back - 46 - 0.1 * (124 - a), 7.5, 6.5)
            _organ(on, (shape[0], shape[1] + np.float32(2)), 45)
            _organ(on, shape, -990, "trachea")


def _skeleton(on: _Slice, cage: NDArray[np.float64]) -> None:
    a, body = on.a, on.frame.body
    front, back = -float(cage[0]), float(cage[_ANGLES // 2])
    y = back - 9
    _organ(on, _ellipse(on, 0, y + 14, 34, 30), 52)  # muscle and fat behind the pleura
    phase = (a / 27 + 2 * body.rib_phase) % 1
    disc = float(np.clip(1.5 - abs(phase - 0.5) * 16, 0, 1))
    _bone(on, _rod(on, (0, y + 31), (0, y + 52 - 8 * disc), 3.2), 260, 560, 1.5, "spine")
    for side in (-1, 1):
        _bone(
            on,
            _rod(on, (side * 10, y + 12), (side * (40 - 14 * disc), y + 26), 4.2),
            210,
            560,
            1.6,
            "spine",
        )
        _bone(on, _rod(on, (side * 13, y + 18), (0, y + 33), 3.4), 260, 600, 1.5, "spine")
    _organ(on, _ellipse(on, 0, y + 20.5, 9.5, 8.5), 28, "spine")
    grow = 1 - 0.16 * np.clip(a / 220, 0, 1)
    _bone(
        on,
        _ellipse(on, 0, y, 19.5 * grow, 15.5 * grow),
        185 - 85 * disc,
        480 - 360 * disc,
        1.6,
        "spine",
    )
    if 48 < a < 192:
        wide = float(np.interp(a, [48, 70, 165, 182, 192], [7, 13, 15, 27, 22]))
        _bone(on, _ellipse(on, 0, front - 7, wide, 6.2), 140, 420, 1.6)
    top = float(np.clip((a - 112) / 30, 0, 1))
    for side in (-1, 1):
        if top > 0.1:  # shoulder blade: a plate, with its spine higher up
            wide = float(np.interp(a, _HEIGHT, _CAGE[0])) * body.width
            inner = (side * (68 + 4 * np.sin(a / 20)), back + 12.0)
            lift = float(np.clip((a - 160) / 60, 0, 1))
            outer = (side * (68 + (52 + 14 * lift) * top), back + 10 - (52 + 6 * lift) * top)
            del wide
            _bone(on, _rod(on, inner, outer, 2.7), 300, 520, 1.2)
            if a > 182:
                mid = ((inner[0] + outer[0]) / 2, (inner[1] + outer[1]) / 2)
                _bone(on, _rod(on, mid, (side * 150 * body.width, back - 10), 3.4), 260, 560, 1.4)
            if a > 196:
                _bone(
                    on,
                    _ellipse(on, side * 128 * body.width, back - 50, 8, 14, -side * 25),
                    240,
                    560,
                    2.0,
                )
        if a > 203:
            ball = 25 * np.sqrt(max(0.0, 1 - ((a - 226) / 26) ** 2))
            if ball > 5:
                _bone(
                    on, _ellipse(on, side * 158 * body.width, back - 62, ball, ball), 170, 640, 2.4
                )
        rise = (a - 186) / 0.3  # the collar bone climbs sideways
        if -10 < rise < 150:
            near, far = max(14.0, rise - 24), min(135.0, rise + 24)
            if far > near:
                sweep = [(side * x, front - 8 + 0.12 * x + 6 * np.sin(x / 22)) for x in (near, far)]
                _bone(on, _rod(on, *sweep, 6.0), 260, 620, 2.0)


def render(
    f: Frame, index: int, n_slices: int, *, labels: bool = False
) -> tuple[NDArray[np.int16], NDArray[np.uint8] | None]:
    """Slice `index` of `n_slices` in HU, int16 (size_px, size_px), and its label map if asked for."""
    low, high = f.body.range_mm
    a = low + (high - low) * index / (n_slices - 1)
    shape = (f.size_px, f.size_px)
    share = (a + 20) / 260
    on = _Slice(
        frame=f,
        a=a,
        image=np.full(shape, -1000, np.float32),
        labels=np.zeros(shape, np.uint8) if labels else None,
        grain=fields.smooth(f.fine, share, f.fine_weights),
        cloud=fields.smooth(f.coarse, share, f.coarse_weights),
    )
    _table(on)
    cage, inside = _wall(on)
    _lungs(on, inside)
    if a < max(f.body.dome):
        _abdomen(on, inside)
    _mediastinum(on, cage)
    _skeleton(on, cage)
    _noise(on, index)
    hu = np.rint(np.clip(on.image, -1024, 3071)).astype(np.int16)
    if f.body.padded:
        hu[outside_circle(f.size_px)] = -2000
    return hu, on.labels


def _noise(on: _Slice, index: int) -> None:
    """Add the noise of this slice: an own piece of the patient's grain; streaks between shoulders."""
    f = on.frame
    rng = np.random.default_rng([*f.seed, 5, index])
    spare = f.noise.shape[0] - f.size_px
    (r0, c0), (r1, c1) = rng.integers(0, spare + 1, (2, 2))
    sign = np.float32(rng.choice([-1, 1]) * f.body.noise_hu)
    image = on.image
    image += sign * f.noise[r0 : r0 + f.size_px, c0 : c0 + f.size_px]
    strength = 34 * float(np.clip((on.a - 185) / 30, 0, 1))
    if strength:
        band = np.exp(-np.square((f.y - np.float32(15)) / np.float32(55)))
        image += np.float32(strength) * band * f.streaks[r1 : r1 + f.size_px, c1 : c1 + f.size_px]


def outside_circle(size_px: int) -> NDArray[np.bool_]:
    """Corners outside the reconstructed circle, bool (size_px, size_px)."""
    axis = (np.arange(size_px) + 0.5) * 2 / size_px - 1
    return np.hypot(axis[:, None], axis[None, :]) > 1
