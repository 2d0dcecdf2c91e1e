"""What lies inside the rib cage: lungs, heart and great vessels, and the organs under the domes."""

from __future__ import annotations

import numpy as np

from fingerprint.phantom import outlines, vessels
from fingerprint.phantom.canvas import LABELS, Array, Shape, Slice, ellipse, grown, rod

FAT_HU = -92.0
HEART_MM = 92.0
_SLAB_MM = 2.0  # half the thickness in which a lung vessel is seen


def paint_lungs(on: Slice, inside: Array) -> None:
    """Parenchyma (denser where the blood sinks), fissures, vessels, nodules."""
    f, a = on.frame, on.a
    cover = on.soft(inside) * np.float32(np.clip((232 - a) / 6, 0, 1))
    rows = np.flatnonzero(cover.any(axis=1))
    if not len(rows):
        return
    box = (slice(rows[0], rows[-1] + 1), slice(None))
    cover, x, y = cover[box], f.x[box], f.y[box]
    down = -0.45 if f.body.position.endswith("P") else 0.45
    hu = -862 + np.clip(y * np.float32(down), -40, 45) + 16 * on.grain[box] + 10 * on.cloud[box]
    fissure = np.where(x > 0, np.float32(0.9 * (a - 100)), np.float32(0.8 * (a - 92)))
    hu += 150 * on.soft(1.1 - np.abs(y - fissure))
    hu += vessels.draw(f.tree, a, _SLAB_MM, f.to_px, f.size_px)[box] * (-10 - hu)
    on.paint(box, cover, hu)
    if on.labels is not None:
        lung = cover > 0.5
        on.labels[box][lung & (x < 0)] = LABELS.index("lung_right")
        on.labels[box][lung & (x >= 0)] = LABELS.index("lung_left")
    for px, py, z, r in f.nodules:
        if abs(a - z) < 0.95 * r:
            cut = float(np.sqrt(r * r - (a - z) ** 2))
            at, depth = ellipse(on, px, py, cut, cut)
            on.paint(at, on.soft(np.minimum(depth, inside[at])), 30, "nodule")


def _dome(
    on: Slice, x: float, y: float, rx: float, ry: float, height: float,
    off: tuple[float, float] = (0.0, 0.0),
) -> Shape:  # fmt: skip
    """Return an organ under the diaphragm: an ellipse that shrinks to nothing at `height`.

    It stands off the axis (x, y) of its dome, the less the higher up.
    """
    share = float(np.sqrt(max(0.0, 1 - on.a / height)))
    x, y = x + share * off[0], y + share * off[1]
    if share < 0.05:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
    return ellipse(on, x, y, rx * share, ry * share)


def paint_abdomen(on: Slice, inside: Array) -> None:
    """Liver, stomach, spleen and the fat between them, as far as the domes reach."""
    body = on.frame.body
    w, d = body.width, body.depth
    blood = 0.35 * (body.blood_hu - 42)

    def organ(shape: Shape, hu: float | Array, label: str = "") -> None:
        box, depth = shape
        on.fill((box, np.minimum(depth, inside[box])), hu, label)

    for fat in (
        _dome(on, 0, -46 * d, 118 * w, 74 * d, min(body.dome) + 2),
        _dome(on, 56 * w, -16 * d, 84 * w, 84 * d, body.dome[1]),
    ):
        organ(fat, -96 + 6 * on.cloud[fat[0]])
    axis, height = (56 * w, -16 * d), body.dome[1] - 3
    spleen = _dome(on, *axis, 38 * w, 46 * d, height, (36 * w, 48 * d))
    organ(spleen, 48 + 1.2 * blood, "spleen")
    stomach = _dome(on, *axis, 46 * w, 42 * d, height, (-4 * w, -10 * d))
    organ(stomach, 32, "stomach")
    box, depth = stomach
    level = axis[1] - 12
    above = on.frame.y[box] - level if body.position.endswith("P") else level - on.frame.y[box]
    organ((box, np.minimum(depth - 4, above)), -985)  # gas floats on what was swallowed
    right = _dome(on, -60 * w, -14 * d, 92 * w, 90 * d, body.dome[0])
    lobe = _dome(on, 4 * w, -52 * d, 62 * w, 34 * d, body.dome[0] - 16)
    for box, depth in (right, lobe):
        organ((box, depth), 58 + blood + 4 * on.grain[box] + 3 * on.cloud[box], "liver")
    box, depth = right  # hepatic veins: level lines of the texture, where the liver is thick
    lines = np.float32(1.6) - np.abs(on.cloud[box] - np.float32(0.7)) * 12
    organ((box, np.minimum(lines, depth - 14)), 52 + 1.5 * blood)


def paint_mediastinum(on: Slice) -> None:
    """Fat between the lungs, heart, great vessels, gullet, windpipe."""
    a, body = on.a, on.frame.body
    front, back = -float(on.cage[outlines.FRONT]), float(on.cage[outlines.BACK])
    width = 20 + 9 * np.exp(-(((a - 150) / 40) ** 2)) + 0.12 * max(0.0, a - 190)
    low = float(np.clip((90 - a) / 60, 0, 1))  # lower down only the back half: the crura
    top = front + low * 0.62 * (back - front)
    on.fill(ellipse(on, 3, (top + back) / 2 - 2, width, (back - top) / 2 + 2), FAT_HU)
    if a > 60:
        on.fill(rod(on, (-7, front + 4), (9, front + 22), 9), FAT_HU)
    parts = _great_vessels(on, back)
    heart = _heart(on)
    if heart:
        on.fill(grown(heart[0], 5), FAT_HU, "heart")
    for shape, _, _, around in parts:
        on.fill(grown(shape, around), FAT_HU)
    if heart:
        on.fill(heart[0], 48 + 0.3 * (body.blood_hu - 42), "heart")
        for chamber in heart[1:]:
            on.fill(chamber, body.blood_hu, "heart")
    for shape, hu, label, _ in parts:
        on.fill(shape, hu, label)
    _airways(on, back)


def _heart(on: Slice) -> list[Shape]:
    """Return the muscle, then its four chambers; nothing above or below the heart."""
    body = on.frame.body
    size, shift, height = body.heart
    up = on.a - height
    profile = float(max(0.0, 1 - ((up - HEART_MM) / 70) ** 2) ** 0.6)
    if profile < 0.25:
        return []
    x, y = 17 + shift, -26 * body.depth + 0.05 * (HEART_MM - up)
    rx, ry = 66 * size * profile * body.width, 50 * size * profile * body.depth
    turn = 32 + body.heart_turn_deg
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    chambers = (
        (0.42, 0.12, 0.36, 0.42), (-0.1, -0.48, 0.5, 0.3),
        (-0.62, -0.02, 0.27, 0.44), (-0.12, 0.52, 0.4, 0.32),
    )  # fmt: skip
    return [ellipse(on, x, y, rx, ry, turn)] + [
        ellipse(on, x + c * u * rx - s * v * ry, y + s * u * rx + c * v * ry, p * rx, q * ry, turn)
        for u, v, p, q in chambers
    ]


def _great_vessels(on: Slice, back: float) -> list[tuple[Shape, float, str, float]]:
    """Shape, HU, label and the fat around it, mm, of every tube that the slice cuts."""
    a, body = on.a, on.frame.body
    blood, arch, up = body.blood_hu, body.arch, body.heart[2]
    tubes: list[
        tuple[float, float, float, float, float, float, float, str, float]
    ] = [  # x, y, rx, ry, from, to, HU, label, fat
        (24.0, back - 24, 12.5, 12.5, -20, arch - 6, blood, "aorta", 5),
        (-17, -20 + 0.1 * (120 - a), 15.5, 15.5, 104 + up, arch - 4, blood, "aorta", 5),
        (17, -30, 14, 14, 112 + up, 146 + up, blood, "", 5),
        (-34, -12, 9, 9, 108 + up, arch + 16, blood, "", 5),
        (-26, 8, 12, 12, -20, 60 + up, blood, "", 0),
        (8, back - 27, 7.5, 6, -20, 260, 38, "", 5),
    ]
    wide = 1 + max(0.0, a - arch) / 60
    for x, y, r in ((-16, -16, 6.5), (4, -10, 4.5), (22, 4, 5.5)):
        tubes.append((x * wide, y, r, r, arch + 8, 260.0, blood, "", 5.0))
    for side in (-1, 1):
        tubes.append((side * (26 + 0.5 * (a - 190)), -16, 6.5, 6.5, arch + 24, 260, blood, "", 4))
        tubes.append((side * 46, 4, 9, 15, 100, 140, blood, "", 2))  # the root of the lung
    ducts = [  # from, to, r, height, label
        ((-12.0, -18.0), (22.0, back - 34), 13.5, arch, "aorta"),
        ((14, -26), (-46, 6), 10.0, 134 + up, ""),
        ((16, -26), (50, 10), 10.5, 141 + up, ""),
        ((-32, -22), (30, -38), 7.0, arch + 19, ""),
    ]
    parts: list[tuple[Shape, float, str, float]] = []
    for tube in tubes:
        ease = float(np.clip(min(a - tube[4], tube[5] - a) / 8 + 1, 0, 1))
        if ease > 0.3:
            shape = ellipse(on, tube[0], tube[1], tube[2] * ease, tube[3] * ease)
            parts.append((shape, *tube[6:]))
    for start, end, r, height, label in ducts:
        rest = r * r - (0.75 * (a - height)) ** 2
        if rest > 4:
            parts.append((rod(on, start, end, float(np.sqrt(rest))), blood, label, 4))
    return parts


def _airways(on: Slice, back: float) -> None:
    """Windpipe, and below the carina the two main bronchi."""
    a = on.a
    shapes = []
    if a > 130:
        shapes.append(ellipse(on, 1, back - 44, 9, 8.5))
    if 104 < a < 134:
        for side in (-1, 1):
            x, y = side * (8 + 0.62 * (134 - a)), back - 45 - 0.1 * (134 - a)
            shapes.append(ellipse(on, x, y, 7, 6))
    for shape in shapes:
        on.fill(grown(shape, 2), 45)
    for shape in shapes:
        on.fill(shape, -990, "airway")
