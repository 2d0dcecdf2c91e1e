"""A hospital of synthetic patients on disk, and a generated set in which copies are planted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fingerprint.corpus.window import air_level, fit, to_uint8
from fingerprint.phantom.broken import damage
from fingerprint.phantom.copies import KINDS, NEED_A_STRANGER, plant
from fingerprint.phantom.files import write_dicom, write_nifti
from fingerprint.phantom.people import Patient
from fingerprint.phantom.thorax import one_slice, patient

NOBODY = 1_000_000  # patients from this number on are in no hospital
_PER_FOLDER = 4
_NIFTI_EVERY = 5
_SHARP_EVERY = 10
WINDOW_HU = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Hospital:
    """What `write_hospital` wrote; patients are made again when asked for.

    Attributes
    ----------
    numbers : tuple of int
        Patients, by number.
    participant : dict
        Number -> who it is to the reader of the files: the PatientID of DICOM, the stem of NIfTI.
    identifiers : tuple of str
        Planted strings (names, dates, numbers) that must appear in no output.
    unusable : dict
        File -> rejection code, of every file that was damaged on purpose.
    files : int
        Files that hold slices of patients.
    """

    folder: Path
    seed: int
    n_slices: int
    size_px: int
    numbers: tuple[int, ...]
    participant: dict[int, str]
    identifiers: tuple[str, ...]
    unusable: dict[Path, str]
    files: int

    def patient(self, number: int) -> Patient:
        """Make a patient again."""
        return patient(number, seed=self.seed, n_slices=self.n_slices, size_px=self.size_px)

    def one_slice(self, number: int, index: int) -> NDArray[np.int16]:
        """Make one slice again, HU int16 (size_px, size_px); for any number, also `NOBODY`'s."""
        size, n = self.size_px, self.n_slices
        return one_slice(number, index, seed=self.seed, n_slices=n, size_px=size)


def write_hospital(
    folder: Path,
    *,
    patients: int = 40,
    seed: int,
    n_slices: int = 24,
    size_px: int = 512,
    first: int = 1,
    damaged: bool = True,
) -> Hospital:
    """Write a hospital: DICOM series mixed in folders, NIfTI volumes with ``participants.tsv``.

    Every fifth patient is a ``sub-*.nii.gz`` beside ``participants.tsv``; DICOM the others, four
    to a folder under names that say nothing, every tenth patient in two reconstructions.

    Parameters
    ----------
    first : int
        Number of the first patient: another range is a hospital of other people (controls).
    damaged : bool
        Add the files of `damage` in a folder of their own.
    """
    numbers = tuple(range(first, first + patients))
    participant: dict[int, str] = {}
    identifiers: list[str] = []
    rows = ["participant_id\tage\tsex"]
    files = 0
    for i, number in enumerate(numbers):
        one = patient(number, seed=seed, n_slices=n_slices, size_px=size_px)
        identifiers += one.identifiers
        if i % _NIFTI_EVERY == _NIFTI_EVERY - 1:
            participant[number] = f"sub-{number:04d}"
            write_nifti(one, folder / f"{participant[number]}.nii.gz")
            rows.append(f"{participant[number]}\t{one.age}\t{one.sex}")
            files += 1
            continue
        participant[number] = one.patient_id
        drawer = folder / f"study{i // _PER_FOLDER:02d}"
        files += len(write_dicom(one, drawer))
        if i % _SHARP_EVERY == 1:
            files += len(write_dicom(one, drawer, series="sharp"))
    if len(rows) > 1:
        (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    unusable = damage(folder / "incoming", seed) if damaged else {}
    return Hospital(
        folder=folder,
        seed=seed,
        n_slices=n_slices,
        size_px=size_px,
        numbers=numbers,
        participant=participant,
        identifiers=tuple(identifiers),
        unusable=unusable,
        files=files,
    )


# -- the generated set -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """Where a generated image comes from; `kind` is ``novel`` for an image of nobody.

    `participant` is as in `Hospital`, ``""`` for a novel one; `index` counts slices from the feet.
    """

    kind: str
    level: float
    participant: str
    number: int
    index: int


def seen(
    hu: NDArray[np.int16],
    *,
    size_px: int = 512,
    window_hu: tuple[float, float] = WINDOW_HU,
) -> NDArray[np.uint8]:
    """Return a slice as ingest stores it, uint8 (size_px, size_px): padding is air, then window."""
    return fit(to_uint8(hu, window_hu), size_px, air_level(window_hu))[0]


def novel(
    which: int, *, seed: int, n_slices: int = 24, size_px: int = 512
) -> tuple[NDArray[np.int16], int]:
    """Return a slice of somebody who is in no hospital, HU, and its index in that body."""
    number = NOBODY + which
    index = int(np.random.default_rng([seed, number, 10]).integers(n_slices))
    return one_slice(number, index, seed=seed, n_slices=n_slices, size_px=size_px), index


def write_generated(
    folder: Path,
    hospital: Hospital,
    copies: Sequence[tuple[str, float]],
    novel_images: int,
    *,
    seed: int,
    size_px: int = 512,
    window_hu: tuple[float, float] = WINDOW_HU,
) -> dict[str, Truth]:
    """Write what a generator might have made: 8-bit PNG files under names that say nothing.

    Parameters
    ----------
    copies : sequence of (kind, level)
        One planted copy each, of a slice drawn from the hospital; patients repeat only when there
        are more copies than patients. Strangers of ``tile`` and ``blend`` are nobody.
    novel_images : int
        How many images of nobody.
    size_px, window_hu
        As the corpus is ingested: an exact copy then equals the stored slice, pixel for pixel.

    Returns
    -------
    dict
        File name -> where it comes from. `truth_table` makes a file of it, to be kept elsewhere.
    """
    unknown = sorted({kind for kind, _ in copies} - set(KINDS))
    if unknown:
        raise ValueError(f"write_generated: unknown kinds {unknown}; there are {list(KINDS)}")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 11])
    names = [f"{n:08x}.png" for n in rng.choice(2**32, len(copies) + novel_images, replace=False)]
    sources = [n for _ in range(0, len(copies), len(hospital.numbers))
               for n in rng.permutation(hospital.numbers)]  # fmt: skip
    truth: dict[str, Truth] = {}
    for i, name in enumerate(names):
        stranger = None
        kind, level = copies[i] if i < len(copies) else ("novel", 0.0)
        if kind in ("novel", *NEED_A_STRANGER):
            hu, index = _somebody_else(hospital, i)
            stranger = image = seen(hu, size_px=size_px, window_hu=window_hu)
            truth[name] = Truth(kind, level, "", NOBODY + i, index)
        if kind != "novel":
            number, index = int(sources[i]), int(rng.integers(hospital.n_slices))
            own = seen(hospital.one_slice(number, index), size_px=size_px, window_hu=window_hu)
            image = plant(own, kind, level, seed=seed + i, stranger=stranger)
            truth[name] = Truth(kind, level, hospital.participant[number], number, index)
        Image.fromarray(image).save(folder / name)
    return dict(sorted(truth.items()))


def _somebody_else(hospital: Hospital, which: int) -> tuple[NDArray[np.int16], int]:
    n, size = hospital.n_slices, hospital.size_px
    return novel(which, seed=hospital.seed, n_slices=n, size_px=size)


def truth_table(truth: dict[str, Truth]) -> str:
    """Return the truth as text, one line per file; keep it outside the folder of images."""
    columns = [field.name for field in fields(Truth)]
    lines = ["\t".join(["file", *columns])]
    for name, row in truth.items():
        lines.append("\t".join([name, *(str(getattr(row, column)) for column in columns)]))
    return "\n".join(lines) + "\n"
