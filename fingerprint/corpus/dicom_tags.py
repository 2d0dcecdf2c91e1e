"""What a DICOM header says of the patient and of the series: numbers, digests, flags.

The patient's identifier is the one text that is read, and the parent replaces it at once.
"""

from __future__ import annotations

import hashlib
import math
import re

from pydicom.dataset import Dataset

MAX_AGE_Y = 89


def text(ds: Dataset, name: str) -> str:
    """Return a tag as text without the padding around it; empty if missing."""
    value = ds.get(name)
    return "" if value is None else str(value).strip(" \0\t\r\n")


def sex_of(ds: Dataset) -> str:
    """``M``, ``F`` or ``""``."""
    sex = text(ds, "PatientSex").upper()
    return sex if sex in ("M", "F") else ""


def age_of(ds: Dataset) -> int:
    """Return whole years, at most 89 (an age above that names a person); -1 when missing."""
    match = re.fullmatch(r"(\d{1,4})([YMWD]?)", text(ds, "PatientAge").upper())
    if not match:
        return -1
    number, unit = int(match[1]), match[2] or "Y"
    days = {"Y": 365.25, "M": 365.25 / 12, "W": 7, "D": 1}[unit]
    years = number if unit == "Y" else math.floor(number * days / 365.25)
    return min(years, MAX_AGE_Y) if years <= 150 else -1


def series_of(ds: Dataset) -> str:
    """Digest of study and series; empty if the file names no series: then it is a stack alone."""
    series = text(ds, "SeriesInstanceUID")
    return _digest("series", text(ds, "StudyInstanceUID"), series) if series else ""


def acquisition_of(ds: Dataset) -> str:
    """Digest of what the reconstructions of one acquisition share.

    Study, frame of reference and acquisition number; times are no help, since they run on from
    slice to slice. Without a number each series is an acquisition of its own.
    """
    study, frame = text(ds, "StudyInstanceUID"), text(ds, "FrameOfReferenceUID")
    number = text(ds, "AcquisitionNumber")
    if study and frame and number:
        return _digest("acquisition", study, frame, number.lstrip("0") or "0")
    return series_of(ds)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def flags_of(ds: Dataset) -> tuple[str, ...]:
    """Return what the report counts: de-identified, burned-in text, a recognizable face."""

    def says_yes(name: str) -> bool:
        return text(ds, name).upper() == "YES"

    methods = ds.get("DeidentificationMethodCodeSequence")
    flags = {
        "deidentified": says_yes("PatientIdentityRemoved") or bool(methods),
        "burned_in": says_yes("BurnedInAnnotation"),
        "recognizable_face": says_yes("RecognizableVisualFeatures"),
    }
    return tuple(name for name, is_set in flags.items() if is_set)
