"""Slices of a synthetic thorax, painted from the outside inwards, in HU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fingerprint.phantom import fields, outlines, vessels
from fingerprint.phantom.canvas import LABELS, Frame, Slice
from fingerprint.phantom.chest import paint_abdomen, paint_lungs, paint_mediastinum
from fingerprint.phantom.people import Build, Patient, build, identity, levels, regions
from fingerprint.phantom.wall import paint_skeleton, paint_table, paint_wall

PADDING_HU = -2000
_SCANNED_MM = 210.0


def patient(number: int, *, seed: int, n_slices: int, size_px: int = 512) -> Patient:
    """Make patient `number`: the same arguments give the same patient, to the last bit.

    The scan reaches from the upper liver to the shoulders, in slices 5 to 10 mm apart; with few
    slices the body is a short one, and changes more from slice to slice: from 24 slices on
    nearly all neighbours have r > 0.95, more than in a real scan with slices of 8 mm.

    Raises
    ------
    ValueError
        Fewer than 3 slices, or fewer than 16 pixels a side.
    """
    of = frame(number, seed=seed, size_px=size_px)
    slices = [render(of, i, n_slices)[0] for i in range(n_slices)]
    return _described(of, np.stack(slices), number, seed)


def _described(of: Frame, hu: NDArray[np.int16], number: int, seed: int) -> Patient:
    body, n_slices = of.body, len(hu)
    rng = np.random.default_rng([seed, number, 6])
    step = float(np.clip(round(2 * _SCANNED_MM / (n_slices - 1)) / 2, 5, 10))
    bottom = round(float(rng.uniform(-420, -180)), 1)
    corner = of.px_mm / 2 - body.field / 2
    patient_id, name, birth_date, accession = identity(number, seed, body)
    return Patient(
        number=number,
        seed=seed,
        hu=hu,
        z_mm=np.array([bottom + step * i for i in range(n_slices)]),
        spacing_mm=(step, of.px_mm, of.px_mm),
        origin_mm=(corner, corner),
        sex=body.sex,
        age=body.age,
        region=regions(body, n_slices),
        position=body.position,
        padded=body.padded,
        nodules=body.nodules,
        patient_id=patient_id,
        name=name,
        birth_date=birth_date,
        accession=accession,
    )


def one_slice(
    number: int, index: int, *, seed: int, n_slices: int, size_px: int = 512
) -> NDArray[np.int16]:
    """Return ``patient(number, ...).hu[index]`` without making the other slices."""
    return render(frame(number, seed=seed, size_px=size_px), index, n_slices)[0]


def masks(of: Patient) -> dict[str, NDArray[np.bool_]]:
    """Return where each organ is, bool (z, y, x): the ground truth behind the image.

    ``body`` is everything inside the skin, ``lungs`` both lungs with their vessels and nodules;
    the others are as in `canvas.LABELS`.
    """
    shared = frame(of.number, seed=of.seed, size_px=of.hu.shape[-1])
    drawn = [render(shared, i, len(of.hu), labels=True)[1] for i in range(len(of.hu))]
    label = np.stack([one for one in drawn if one is not None])
    found = {name: label == i for i, name in enumerate(LABELS) if name not in ("air", "body")}
    found["body"] = label > 0
    found["lungs"] = found["lung_right"] | found["lung_left"] | found["nodule"]
    return found


def frame(number: int, *, seed: int, size_px: int) -> Frame:
    """Return everything that the slices of patient `number` have in common."""
    if size_px < 16:
        raise ValueError(f"phantom: size_px must be at least 16, got {size_px}")
    body = build(number, seed)
    rng = np.random.default_rng([seed, number, 3])
    x, y, to_px = _grid(body, size_px, rng)
    theta = (np.arctan2(x, y) + np.float32(np.pi)) * np.float32(outlines.ANGLES / (2 * np.pi))
    knots = min(size_px, 144)
    spare = size_px + size_px // 4
    return Frame(
        body=body,
        size_px=size_px,
        px_mm=body.field / size_px,
        to_px=to_px,
        x=x,
        y=y,
        rho=np.sqrt(x * x + y * y),
        theta=np.minimum(theta, outlines.ANGLES - 1).astype(np.int16),
        coarse=fields.lattice(rng, 16, 26, 26),
        coarse_weights=fields.spread(size_px, 26),
        fine=fields.lattice(rng, 24, knots, knots),
        fine_weights=fields.spread(size_px, knots),
        noise=fields.grain(rng, spare),
        streaks=fields.streaks(rng, spare),
        tree=vessels.both(_tree(body, rng, -1), _tree(body, rng, 1)),
        nodules=_nodules(body, rng),
        seed=(seed, number),
    )


def _grid(
    body: Build, size_px: int, rng: np.random.Generator
) -> tuple[fields.Array, fields.Array, NDArray[np.float64]]:
    """Bent coordinates of every pixel, and the straight way back from mm to the field of view."""
    axis = (np.arange(size_px) + 0.5) * body.field / size_px - body.field / 2
    across, along = axis[None, :] - body.shift[0], axis[:, None] - body.shift[1]
    c, s = np.cos(np.deg2rad(body.roll_deg)), np.sin(np.deg2rad(body.roll_deg))
    weights = fields.spread(size_px, 9)
    bend = [3.0 * fields.smooth(fields.lattice(rng, 9, 9), weights) for _ in range(2)]
    x = (c * across + s * along + bend[0]).astype(np.float32)
    y = (c * along - s * across + bend[1]).astype(np.float32)
    back = np.array([[c, -s], [s, c]]) / body.field
    return x, y, np.column_stack([back, np.array(body.shift) / body.field + 0.5])


def _tree(body: Build, rng: np.random.Generator, side: int) -> vessels.Tree:
    points = rng.uniform((20, -95, -5), (140, 95, 225), (2600, 3))
    points = points[outlines.inside_cage(body, points, 0.95)] * (side, 1, 1)
    return vessels.grow(points, (40.0 * side, 6.0, 124.0))


def _nodules(body: Build, rng: np.random.Generator) -> NDArray[np.float64]:
    points = rng.uniform((45, -80, 60), (125, 80, 200), (200, 3))
    points = points[outlines.inside_cage(body, points, 0.85)][: body.nodules]
    points[:, 0] *= rng.choice([-1, 1], len(points))
    return np.column_stack([points, rng.uniform(4, 14, len(points))])


def render(
    of: Frame, index: int, n_slices: int, *, labels: bool = False
) -> tuple[NDArray[np.int16], NDArray[np.uint8] | None]:
    """Slice `index` of `n_slices`, HU int16 (size_px, size_px), and its label map if asked for.

    A slice is the same whether rendered alone or with the others.
    """
    a = float(levels(of.body, n_slices)[index])
    depth = (a + 20) / 260
    shape = (of.size_px, of.size_px)
    on = Slice(
        frame=of,
        a=a,
        image=np.full(shape, -1000, np.float32),
        labels=np.zeros(shape, np.uint8) if labels else None,
        cage=outlines.cage(of.body, a),
        muscle=outlines.muscle(of.body, a),
        grain=fields.smooth(fields.between(of.fine, depth), of.fine_weights),
        cloud=fields.smooth(fields.between(of.coarse, depth), of.coarse_weights),
    )
    paint_table(on)
    inside = paint_wall(on)
    paint_lungs(on, inside)
    if a < max(of.body.dome):
        paint_abdomen(on, inside)
    paint_mediastinum(on)
    paint_skeleton(on, inside)
    _add_noise(on, index)
    hu = np.rint(np.clip(on.image, -1024, 3071)).astype(np.int16)
    if of.body.padded:
        hu[outside_circle(of.size_px)] = PADDING_HU
    return hu, on.labels


def _add_noise(on: Slice, index: int) -> None:
    """Noise of this slice: an own piece of the patient's grain; streaks between the shoulders."""
    f, image = on.frame, on.image
    rng = np.random.default_rng([*f.seed, 5, index])
    (r0, c0), (r1, c1) = rng.integers(0, len(f.noise) - f.size_px + 1, (2, 2))
    sd = np.float32(rng.choice([-1, 1]) * f.body.noise_hu)
    image += sd * f.noise[r0 : r0 + f.size_px, c0 : c0 + f.size_px]
    sd = np.float32(16 * np.clip((on.a - 185) / 30, 0, 1))
    if sd:
        band = np.exp(-np.square((f.y - np.float32(15)) / np.float32(55)))
        image += sd * band * f.streaks[r1 : r1 + f.size_px, c1 : c1 + f.size_px]


def outside_circle(size_px: int) -> NDArray[np.bool_]:
    """Corners outside the reconstructed circle, bool (size_px, size_px)."""
    axis = (np.arange(size_px) + 0.5) * 2 / size_px - 1
    return np.hypot(axis[:, None], axis[None, :]) > 1
