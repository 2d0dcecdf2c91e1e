"""Table, chest wall and skeleton of a slice."""

from __future__ import annotations

import numpy as np

from fingerprint.phantom import outlines
from fingerprint.phantom.canvas import LABELS, Array, Slice, bone, ellipse, rod, soft

ALL = (slice(None), slice(None))


def paint_table(on: Slice) -> None:
    """Paint a curved shell with foam inside, below the patient, before a prone one."""
    f, body = on.frame, on.frame.body
    axis = ((np.arange(f.size_px) + 0.5) * f.px_mm - body.field / 2).astype(np.float32)
    prone = body.position.endswith("P")
    deepest = outlines.MUSCLE[1 if prone else 2].max() * body.depth + 0.7 * body.fat
    top = deepest * (1.0 if prone else 0.96) + body.table + 0.8 * prone * body.breast
    down = (-axis + body.shift[1] if prone else axis - body.shift[1])[:, None]
    bowl = np.square(axis)[None, :] * np.float32(1 / 1100)
    depth = np.minimum(down - np.float32(top) + bowl, 26 - down + np.float32(top) - 0.3 * bowl)
    depth = np.minimum(depth, np.float32(205) - np.abs(axis)[None, :])
    rows = np.flatnonzero((depth > -2).any(axis=1))
    if len(rows):
        box = (slice(rows[0], rows[-1] + 1), slice(None))
        on.fill((box, depth[box]), -930)
        on.fill((box, 1.3 - np.abs(depth[box] - 1.3)), -250)


def paint_wall(on: Slice) -> Array:
    """Skin, fat, breasts, muscles and ribs; returns the depth inside the rib cage, mm."""
    f, a, body = on.frame, on.a, on.frame.body
    deep = outlines.skin(body, a, on.muscle).astype(np.float32)[f.theta] - f.rho
    on.fill((ALL, deep), 25, "body")
    fat = np.float32(7) * on.cloud - np.float32(104)
    if body.breast and abs(a - 95) < 110:
        gland = outlines.breast(a).astype(np.float32)[f.theta]
        fat += 130 * np.clip(2.2 * gland + 0.6 * on.cloud - 1.3, 0, 1) * (deep > 6)
    on.fill((ALL, deep - 2), fat)
    inner = on.muscle.astype(np.float32)[f.theta] - f.rho
    inside = on.cage.astype(np.float32)[f.theta] - f.rho
    on.fill((ALL, inner), 54 + 4 * on.grain - 130 * _planes(on, inner, inside))
    _ribs(on, inside)
    return inside


def _planes(on: Slice, inner: Array, inside: Array) -> Array:
    """Fat between muscles, 0..1: level lines of a field, and the sheet between two layers."""
    wide = np.float32(1.0 + 0.8 * np.clip((on.a - 140) / 60, 0, 1))
    lines = np.abs(on.cloud - np.float32(0.2)) * 15
    sheet = np.abs(inner + inside + 11 + 4 * on.cloud) * np.float32(0.45)
    return np.clip(wide - np.minimum(lines, sheet), 0, 1)


def _ribs(on: Slice, inside: Array) -> None:
    """Twelve hoops that sink towards the front: each slice cuts them obliquely."""
    f = on.frame
    ring = np.flatnonzero((inside > -13) & (inside < 1))
    phi = np.abs(outlines.THETA).astype(np.float32)[f.theta.ravel()[ring]]
    sink = 84 * (np.minimum(phi, 2.4) / 2.4) ** 1.25 - 42 * np.maximum(phi - 2.4, 0)
    turn = (on.a + sink) / 25 + f.body.rib_phase
    off = 25 * np.abs(turn - np.rint(turn))
    depth = (1 - np.hypot(off / 7.5, (inside.ravel()[ring] + 5.8) / 4.0)) * 4.0
    depth = np.where((phi > 0.2) & (phi < 2.95), depth, -9).astype(np.float32)
    cover = on.soft(depth)
    cartilage = phi > 2.4
    hu = np.where(cartilage, 95, 500 - 290 * soft(depth - 1.5, 1.5))
    flat = on.image.ravel()
    flat[ring] += cover * (hu.astype(np.float32) - flat[ring])
    if on.labels is not None:
        on.labels.ravel()[ring[(cover > 0.5) & ~cartilage]] = LABELS.index("bone")


def paint_skeleton(on: Slice, inside: Array) -> None:
    """Paint spine, breast bone, shoulder blades, collar bones, heads of the humerus."""
    a = on.a
    front, back = -float(on.cage[outlines.FRONT]), float(on.cage[outlines.BACK])
    _spine(on, back)
    if 48 < a < 192:
        wide = float(np.interp(a, [48, 70, 165, 182, 192], [7, 13, 15, 27, 22]))
        bone(on, ellipse(on, 0, front - 7, wide, 6.2), marrow=140, shell=420, mm=1.6)
    arm = float(on.muscle[outlines.SIDE]) - 28
    for side in (-1, 1):
        if a > 145:
            _armpit(on, side, inside)
        if a > 115:
            _shoulder_blade(on, side, back, arm)
        if a > 190:
            ball = 25 * np.sqrt(max(0.0, 1 - ((a - 224) / 35) ** 2))
            head = ellipse(on, side * arm, back - 62, ball + 1, ball + 1)
            bone(on, head, marrow=170, shell=640, mm=2.4)
        climb = (a - 170) / 0.45  # the collar bone climbs sideways
        near, far = max(14.0, climb - 30), min(118.0, climb + 30)
        if far > near:
            ends = [(side * x, front - 8 + 0.12 * x + 6 * np.sin(x / 22)) for x in (near, far)]
            bone(on, rod(on, ends[0], ends[1], 6.0), marrow=260, mm=2.0)


def _spine(on: Slice, back: float) -> None:
    a, body = on.a, on.frame.body
    y = back - 9
    on.fill(ellipse(on, 0, y + 14, 33, 29), 52)  # muscle behind the pleura
    phase = (a / 27 + 2 * body.rib_phase) % 1
    disc = float(np.clip(1.5 - abs(phase - 0.5) * 16, 0, 1))
    tip = min(y + 50 - 8 * disc, float(on.muscle[outlines.BACK]) - 5)
    bone(on, rod(on, (0, y + 31), (0, tip), 3.0), marrow=260, shell=520, mm=1.5, label="spine")
    for side in (-1, 1):
        across = rod(on, (side * 10, y + 12), (side * (34 - 12 * disc), y + 22), 3.6)
        bone(on, across, marrow=210, shell=480, mm=1.6, label="spine")
        arch = rod(on, (side * 13, y + 18), (0, y + 33), 3.4)
        bone(on, arch, marrow=260, shell=560, mm=1.5, label="spine")
    on.fill(ellipse(on, 0, y + 20.5, 9.5, 8.5), 28, "spine")
    grow = 1 - 0.16 * np.clip(a / 220, 0, 1)
    block = ellipse(on, 0, y, 19.5 * grow, 15.5 * grow)
    bone(on, block, marrow=185 - 85 * disc, shell=480 - 360 * disc, mm=1.6, label="spine")


def _armpit(on: Slice, side: int, inside: Array) -> None:
    """Paint the fat between the muscles of chest and shoulder, with its vessels."""
    a, body = on.a, on.frame.body
    ease = float(np.clip((a - 145) / 25, 0.05, 1))
    x, y = side * 108 * body.width, 8 - 0.25 * (a - 145)
    box, depth = ellipse(on, x, y, 22 * ease, 30 * ease, side * 24)
    on.paint(box, 0.9 * soft(np.minimum(depth + 5 * on.cloud[box], -12 - inside[box]), 5.0), -98)
    for k in (-1, 0, 1):
        box, depth = ellipse(on, x + 7 * k, y - 4 + 9 * k * side, 3, 3)
        on.fill((box, np.minimum(depth, -12 - inside[box])), body.blood_hu)


def _shoulder_blade(on: Slice, side: int, back: float, arm: float) -> None:
    """Paint a plate; higher up its spine and the socket."""
    a = on.a
    top = float(np.clip((a - 108) / 34, 0, 1))
    lift = float(np.clip((a - 160) / 60, 0, 1))
    x0, y0 = side * (68 + 4 * np.sin(a / 20)), back + 12
    x1, y1 = side * (68 + (52 + 14 * lift) * top), back + 10 - (52 + 6 * lift) * top
    bone(on, rod(on, (x0, y0), (x1, y1), 2.5), marrow=300, shell=460, mm=1.2)
    if a > 182:
        mid = ((x0 + x1) / 2, (y0 + y1) / 2)
        ridge = rod(on, mid, (side * (arm - 6), back - 10), 3.2)
        bone(on, ridge, marrow=260, shell=540, mm=1.4)
    if a > 196:
        socket = ellipse(on, side * (arm - 30), back - 50, 8, 14, -side * 25)
        bone(on, socket, marrow=240, shell=560, mm=2.0)
