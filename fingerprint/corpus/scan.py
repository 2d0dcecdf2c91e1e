"""What a reader hands over: headers of files, scans of slices, and coded rejections.

The canonical orientation of everything past this module is axial: `pixels[z, y, x]` with z towards
the head, y towards the back (posterior), x towards the patient's left, so that a slice looks as
radiologists see it. Positions are LPS millimetres, as in DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# before any allocation: what one file, or one stack of slices, may declare
MOST_VOXELS = 512 * 512 * 4096
MOST_RATIO = 200  # bytes unpacked from one packed byte: no CT compresses so well

CODES: dict[str, str] = {
    # whole files
    "unreadable": "not a file that this program can read",
    "empty_file": "no bytes",
    "truncated": "the file ends before its data does",
    "damaged": "a checksum in the file does not fit its bytes",
    "bomb": "the file declares more data than it may hold",
    "too_large": "more voxels than 512 x 512 x 4,096",
    "reader_died": "the reader ran out of memory or time, or was killed, on this file",
    "hostile_name": "a name that leaves the source folder, or a link",
    # DICOM and NIfTI
    "not_ct": "another modality than CT",
    "no_patient": "no PatientID: whose it is cannot be told",
    "not_image": "no pixels in it (a report, a segmentation, a structure set)",
    "localizer": "a scout view, not a slice",
    "derived": "a derived or secondary image (reformat, projection, screen shot)",
    "not_axial": "a coronal, sagittal or oblique plane",
    "gantry_tilt": "tilted gantry: the stack is sheared",
    "no_geometry": "position, orientation or pixel spacing missing or unusable",
    "uneven_spacing": "slices missing or at unequal distances",
    "duplicate_position": "two different slices at one position",
    "mixed_series": "size, spacing or orientation changes inside the series",
    "multi_frame": "a multi-frame object of a kind that is not supported",
    "bits": "a pixel format that is not supported",
    "photometric": "a colour DICOM image",
    "not_3d": "a NIfTI image with other than three dimensions",
    # images that are not scans
    "colour": "a colour image: the channels differ",
    "transparent": "an image with transparency",
    "no_unit": "16-bit grey without a unit: give --hu if these are Hounsfield units",
    "no_range": "float values outside [0, 1] and [-1, 1]: give --range lo,hi",
    "shape": "an array that is neither an image nor a stack of images",
    "not_finite": "NaN or infinite values",
    "not_listed": "not named in slices.tsv",
}


class Rejected(Exception):  # noqa: N818 - an outcome that is counted, not a failure of the program
    """One input cannot be used; `code` is one of `CODES`, `detail` holds no text from the file.

    Numbers (a size, a spacing, an angle) may stand in the detail; names, dates and identifiers may
    not, because it goes to ``rejections.tsv``.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        if code not in CODES:
            raise ValueError(f"Rejected: unknown code {code!r}")
        super().__init__(code, detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Header:
    """What the headers of one file say, before it is read as pixels. Lives in memory only.

    Attributes
    ----------
    kind : str
        ``dicom``, ``nifti`` or ``image``.
    patient : str or None
        As it stands in the file; replaced by its pseudonym as soon as it reaches the parent. None
        for images and NIfTI, whose participants come from a table, a pattern or clusters.
    series : str
        Files with one (patient, series) are one stack of slices. Empty: this file is a stack alone.
    acquisition : str
        Reconstructions of one acquisition share it: they are one scan.
    position_mm : float
        Along the normal of the canonical slice, towards the head.
    sex : str
        ``M``, ``F`` or ``""``.
    age_y : int
        Whole years, capped at 89; -1 when missing.
    pixel : str
        Images only: ``u8``, ``u16`` or ``float``; decides which mapping the whole set needs.
    low, high : float
        Images only: smallest and largest value in the file.
    frames : int
        Slices in the file.
    flags : tuple of str
        Counted in the report: ``deidentified``, ``burned_in``, ``recognizable_face``.
    """

    kind: str
    patient: str | None = None
    series: str = ""
    acquisition: str = ""
    position_mm: float = 0.0
    sex: str = ""
    age_y: int = -1
    pixel: str = "u8"
    low: float = 0.0
    high: float = 255.0
    frames: int = 1
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadOptions:
    """What turns stored numbers into grey levels: one mapping for a whole set, never per image.

    Attributes
    ----------
    window_hu : (lo, hi)
        HU shown as 0 and 255.
    size_px : int
        Side of a stored slice.
    generated : bool
        Square images below `size_px` are enlarged (bilinear); otherwise they are centred in air.
    hu : bool
        16-bit images hold HU.
    value_range : (lo, hi) or None
        Values of float images shown as 0 and 255.
    orient : str
        One of the eight of `settings.Orient`; applied to images only.
    """

    window_hu: tuple[float, float]
    size_px: int = 512
    generated: bool = False
    hu: bool = False
    value_range: tuple[float, float] | None = None
    orient: str = "as-is"


@dataclass(frozen=True)
class Scan:
    """A stack of slices in the canonical orientation, already uint8 and `size_px` wide.

    Attributes
    ----------
    pixels : uint8, shape (n, size_px, size_px)
    z_mm : float64, shape (n,), rising
    spacing_mm : (z, y, x) of the stored grid; NaN where unknown
    origin_mm : (y, x) of the centre of stored pixel (0, 0), LPS; NaN where unknown
    source : int64, shape (n,)
        Which of the files handed to the reader each slice came from.
    native_px : int
        Side of the image before it was brought to `size_px`.
    notes : tuple of str
        What the reader decided for the whole scan (``range -1..1``, ``slices 3 mm apart``).
    """

    pixels: NDArray[np.uint8]
    z_mm: NDArray[np.float64]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float]
    source: NDArray[np.int64]
    native_px: int
    sex: str = ""
    age_y: int = -1
    notes: tuple[str, ...] = field(default=())


def sums(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum and sum of squares of each image (n, h, w), exact; one image at a time, in int64."""
    wide = (image.astype(np.int64).ravel() for image in images)
    pairs = [(int(flat.sum()), int(flat @ flat)) for flat in wide]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@dataclass(frozen=True)
class Stack:
    """What reading one series gives: a scan, or none, and what became of every other file.

    `rejected` and `excluded` map the index of a file to why; a file in neither is in the scan.
    """

    scan: Scan | None
    rejected: dict[int, Rejected]
    excluded: dict[int, str]
