"""Who a synthetic patient is: a build, a sex, an age, and identifiers that must never leak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Position = Literal["HFS", "FFS", "HFP", "FFP"]
_POSITIONS: tuple[Position, ...] = ("HFS",) * 9 + ("FFS",) * 3 + ("HFP", "FFP")
REGIONS = ("c1", "c2", "c3")  # upper liver, heart, shoulders; "" lies between them


# how much a slice changes with height: 1 - r per mm x 1000, in steps of 10 mm from 10 to 220 mm
_PACE = (3.0, 3.3, 3.6, 4.6, 5.3, 5.5, 4.6, 3.9, 3.5, 2.8, 2.9, 3.5, 3.6, 3.6, 4.9, 5.0, 4.7, 5.5,
         6.5, 6.0, 5.3)  # fmt: skip


@dataclass(frozen=True)
class Build:
    """What makes one body differ from the next; lengths in mm, HU where the name says so."""

    sex: str
    age: int
    width: float
    depth: float
    fat: float
    breast: float
    field: float
    shift: tuple[float, float]
    roll_deg: float
    heart: tuple[float, float, float]
    heart_turn_deg: float
    arch: float
    dome: tuple[float, float]
    shoulders: float
    blood_hu: float
    noise_hu: float
    table: float
    rib_phase: float
    range_mm: tuple[float, float]
    lobes: NDArray[np.float64]
    nodules: int
    position: Position
    padded: bool


@dataclass(frozen=True)
class Patient:
    """One synthetic scan in the canonical orientation of `fingerprint.corpus.scan`.

    Attributes
    ----------
    hu : int16, shape (z, y, x)
        z towards the head, y towards the back, x towards the patient's left. A few patients have a
        padding circle of -2000.
    z_mm : float64, shape (z,), rising
    spacing_mm : (z, y, x)
    origin_mm : (y, x) of the centre of pixel (0, 0), LPS
    region : tuple of str, one per slice
        ``c1`` upper liver, ``c2`` heart, ``c3`` shoulders, ``""`` between them.
    patient_id, name, birth_date, accession
        Made up. They stand in the files that are written, so that a test can search every output
        for them.
    """

    number: int
    seed: int
    hu: NDArray[np.int16]
    z_mm: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float]
    sex: str
    age: int
    region: tuple[str, ...]
    position: Position
    padded: bool
    nodules: int
    patient_id: str
    name: str
    birth_date: str
    accession: str

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every planted string that must appear in no output."""
        return (self.patient_id, self.name, self.birth_date, self.accession)


def build(number: int, seed: int) -> Build:
    """Draw the body of patient `number`; the same arguments give the same body."""
    rng = np.random.default_rng([seed, number, 1])
    female = bool(rng.random() < 0.5)
    fat = float(np.clip(rng.lognormal(2.75 if female else 2.6, 0.42), 6, 38))
    width = float((0.93 if female else 1.03) * np.exp(0.055 * rng.standard_normal()))
    depth = float((0.94 if female else 1.02) * np.exp(0.075 * rng.standard_normal()))
    across = 2 * (168 * width + fat)
    return Build(
        sex="F" if female else "M",
        age=int(rng.integers(20, 86)),
        width=width,
        depth=depth,
        fat=fat,
        breast=float(rng.uniform(10, 34)) if female else 0.0,
        field=float(round(np.clip(across * rng.uniform(1.04, 1.17), 300, 500))),
        shift=(float(rng.normal(0, 7)), float(rng.normal(0, 5))),
        roll_deg=float(rng.normal(0, 2.5)),
        heart=(float(rng.normal(1, 0.09)), float(rng.normal(0, 5)), float(rng.normal(0, 8))),
        heart_turn_deg=float(rng.normal(0, 8)),
        arch=float(rng.normal(168, 6)),
        dome=(float(rng.normal(90, 6)), float(rng.normal(78, 6))),
        shoulders=float(rng.normal(1, 0.05)),
        blood_hu=float(rng.uniform(130, 260) if rng.random() < 0.5 else 42),
        noise_hu=float(rng.uniform(8, 18)),
        table=float(rng.uniform(2, 9)),
        rib_phase=float(rng.random()),
        range_mm=(float(rng.normal(22, 4)), float(rng.normal(207, 3))),
        lobes=rng.normal(0, 1, (6, 4)),
        nodules=int(rng.integers(1, 4)) if rng.random() < 0.3 else 0,
        position=_POSITIONS[int(rng.integers(len(_POSITIONS)))],
        padded=bool(rng.random() < 0.15),
    )


def levels(body: Build, n_slices: int) -> NDArray[np.float64]:
    """Height in the body of every slice, mm above the lower edge of the lungs, rising.

    The scan always reaches from the upper liver to the shoulders, whatever the number of slices,
    and steps so that each slice differs from the one below by about as much as any other does.
    """
    if n_slices < 3:
        raise ValueError(f"phantom: n_slices must be at least 3, got {n_slices}")
    edge = np.linspace(10, 220, len(_PACE) + 1)
    change = np.concatenate([[0.0], np.cumsum(_PACE)])
    first, last = np.interp(body.range_mm, edge, change)
    return np.interp(np.linspace(first, last, n_slices), change, edge)


def regions(body: Build, n_slices: int) -> tuple[str, ...]:
    """Ground truth of the three classes of paper 000, each with at least one slice."""
    a = levels(body, n_slices)
    heart = 96 + body.heart[2]
    reach = max(18.0, float(np.abs(a - heart).min()))
    found = np.full(n_slices, "", dtype="<U2")
    found[np.abs(a - heart) <= reach] = "c2"
    found[(a <= max(46.0, a[0])) & (found == "")] = "c1"
    found[(a >= min(192.0, a[-1])) & (found == "")] = "c3"
    return tuple(str(name) for name in found)


def identity(number: int, seed: int, body: Build) -> tuple[str, str, str, str]:
    """Return the made-up patient id, name, birth date and accession number."""
    rng = np.random.default_rng([seed, number, 2])
    first = rng.choice(["Ada", "Bela", "Cyra", "Dario", "Enno", "Fenja", "Goro", "Hedda"])
    born = f"{2019 - body.age}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    return (
        f"PHANTOM-{number:04d}",
        f"Leakwitness{number:04d}^{first}",
        born,
        f"ACC{rng.integers(10**8, 10**9)}",
    )
