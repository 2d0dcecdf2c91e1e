"""From what a DICOM file stores to grey levels: sign, padding, rescale and window in one table.

A stored pixel has at most 16 bits, so all that happens to it is one look-up: 65,536 entries, made
by `window.to_uint8` itself and therefore the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fingerprint.corpus.scan import Rejected
from fingerprint.corpus.window import to_uint8

PLAUSIBLE_HU = (-1100.0, 300.0)  # where nearly all of a CT image lies, and none of its negative


@dataclass(frozen=True)
class Stored:
    """How one file stores its pixels.

    Attributes
    ----------
    allocated, stored : int
        Bits that a pixel takes, and bits of it that count (the lowest ones).
    signed : bool
    slope, intercept : float
        HU = slope x pixel + intercept; they may differ from slice to slice.
    padding : (lo, hi) or None
        Stored values that are not image, both included.
    inverse : bool
        Photometric interpretation MONOCHROME1.
    """

    allocated: int
    stored: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None = None
    inverse: bool = False


def stored_of(ds: Dataset, rescale: Dataset) -> Stored:
    """Read the pixel format of a file.

    Parameters
    ----------
    ds : Dataset
        The header.
    rescale : Dataset
        Where slope and intercept stand: the header, or an item of a functional group.

    Raises
    ------
    Rejected : ``photometric`` or ``bits``.
    """
    photometric = str(ds.get("PhotometricInterpretation") or "").strip()
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or int(ds.get("SamplesPerPixel") or 1) > 1:
        raise Rejected("photometric", "not a grey image")
    allocated = int(ds.get("BitsAllocated") or 0)
    stored = int(ds.get("BitsStored") or allocated)
    high = ds.get("HighBit")
    if allocated not in (8, 16) or not 1 < stored <= allocated:
        raise Rejected("bits", f"{stored} of {allocated} bits")
    if high is not None and int(high) != stored - 1:
        raise Rejected("bits", f"high bit {int(high)} of {stored} stored bits")
    signed = int(ds.get("PixelRepresentation") or 0) == 1
    slope, intercept = (_number(rescale.get(f"Rescale{name}")) for name in ("Slope", "Intercept"))
    if slope is None or intercept is None or slope == 0:
        raise Rejected("bits", "no slope and intercept: the unit of the pixels is unknown")
    padding = _padding(ds, allocated, signed)
    return Stored(allocated, stored, signed, slope, intercept, padding, photometric[-1] == "1")


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _padding(ds: Dataset, allocated: int, signed: bool) -> tuple[int, int] | None:
    """Return the padding values in the signedness of the pixels, whatever the tag's own is."""
    first = ds.get("PixelPaddingValue")
    if not isinstance(first, int):
        return None
    last = ds.get("PixelPaddingRangeLimit")
    ends = [_wrap(v, allocated, signed) for v in (first, last if isinstance(last, int) else first)]
    return min(ends), max(ends)


def _wrap(value: int, bits: int, signed: bool) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


@lru_cache(maxsize=64)
def _values(allocated: int, stored: int, signed: bool) -> NDArray[np.int64]:
    """Value of every bit pattern: unused high bits (old overlays) are cut off, the sign spread."""
    low = np.arange(1 << allocated) & ((1 << stored) - 1)
    return np.where(low >> (stored - 1) != 0, low - (1 << stored), low) if signed else low


def _hu(form: Stored, negative: bool) -> NDArray[np.float64]:
    values = _values(form.allocated, form.stored, form.signed)
    if negative:
        values = (-1 if form.signed else (1 << form.stored) - 1) - values
    return values.astype(np.float64) * form.slope + form.intercept


def _is_padding(form: Stored) -> NDArray[np.bool_]:
    """Tell which bit patterns are padding; the tag may use the bits that pixels do not."""
    if form.padding is None:
        return np.zeros(1 << form.allocated, bool)
    lo, hi = form.padding
    used = _values(form.allocated, form.stored, form.signed)
    whole = _values(form.allocated, form.allocated, form.signed)
    return ((used >= lo) & (used <= hi)) | ((whole >= lo) & (whole <= hi))


@lru_cache(maxsize=64)
def _table(form: Stored, window_hu: tuple[float, float], negative: bool) -> NDArray[np.uint8]:
    return to_uint8(_hu(form, negative), window_hu, _is_padding(form))


def to_grey(raw: NDArray[Any], form: Stored, window_hu: tuple[float, float]) -> NDArray[np.uint8]:
    """Show stored pixels as grey levels.

    Parameters
    ----------
    raw : uint8 or uint16, any shape
        Bit patterns as stored.
    form : Stored
    window_hu : (lo, hi)

    Raises
    ------
    Rejected : ``photometric``, if a MONOCHROME1 image makes no sense either way round.
    """
    negative = form.inverse and _is_negative(raw, form)
    return _table(form, window_hu, negative)[raw]


def _is_negative(raw: NDArray[Any], form: Stored) -> bool:
    """Tell whether a MONOCHROME1 image is stored as its negative.

    By the standard the tag speaks of the display only and the rescale still gives HU; some writers
    invert the pixels as well. The two are a few thousand HU apart, so the values tell.
    """
    counts = np.bincount(raw.ravel(), minlength=1 << form.allocated)
    counts[_is_padding(form)] = 0
    lo, hi = PLAUSIBLE_HU
    plain, negative = (
        int(counts[(hu >= lo) & (hu <= hi)].sum()) for hu in (_hu(form, False), _hu(form, True))
    )
    if 2 * max(plain, negative) < counts.sum():
        raise Rejected("photometric", "MONOCHROME1 whose values are not HU either way round")
    return negative > plain
