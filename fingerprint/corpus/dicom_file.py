"""One DICOM file: its allowed tags, the rules that make it slices of a CT, and its pixels.

Only the tags of `ALLOWED` are read. Nothing of them but numbers and digests leaves this module,
apart from the patient's identifier, which the parent replaces at once.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.pixels import get_decoder, pixel_array
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from fingerprint.corpus.dicom_tags import text
from fingerprint.corpus.pixels import Stored, stored_of
from fingerprint.corpus.planes import Plane, plane_of
from fingerprint.corpus.scan import MOST_RATIO, MOST_VOXELS, Rejected

ALLOWED = (
    "SOPClassUID ImageType Modality PatientID PatientSex PatientAge PatientIdentityRemoved "
    "DeidentificationMethodCodeSequence StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID "
    "AcquisitionNumber ImagePositionPatient ImageOrientationPatient PixelSpacing "
    "GantryDetectorTilt BurnedInAnnotation RecognizableVisualFeatures SamplesPerPixel "
    "PhotometricInterpretation NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit "
    "PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
).split()
_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in ALLOWED]
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_UNDEFINED = 0xFFFFFFFF
_CT_IMAGES = {"1.2.840.10008.5.1.4.1.1.2" + more for more in ("", ".1", ".2")}
_NO_IMAGES = {"SR", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "PR", "KO", "REG", "DOC"}
_OTHER_IMAGES = {"MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "RF", "SC", "OT", "XC", "IO"}
_SCOUTS = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_REFORMATS = {
    *("REFORMATTED", "MPR", "MIP", "MINIP", "MPVR", "PROJECTION", "AVERAGE", "CPR", "VRT", "SSD"),
    *("SCREEN", "SCREENSHOT", "VOLUME3D"),
}


@dataclass(frozen=True)
class File:
    """The allowed tags of a file, and what is known of its pixels without reading them.

    `tag`, `offset` and `length` are those of the pixel data element; `tag` is 0 if there is none.
    """

    path: Path
    ds: Dataset
    size: int
    tag: int
    offset: int
    length: int
    ended_early: bool
    syntax: UID
    little: bool


@dataclass(frozen=True)
class Frame:
    """One slice in one file: where it lies, and where and how its pixels are stored."""

    path: Path
    index: int
    plane: Plane
    form: Stored
    shape: tuple[int, int]
    offset: int | None  # of the first byte; None if compressed
    little: bool

    def pixels(self) -> NDArray[Any]:
        """Read the bit patterns of this slice, shape (rows, columns), uint8 or uint16."""
        if self.offset is None:
            raw = pixel_array(self.path, index=self.index, raw=True)
            if raw.shape != self.shape or raw.dtype.itemsize * 8 != self.form.allocated:
                raise Rejected("unreadable", "the compressed image has another size")
            return raw.view(np.uint8 if raw.dtype.itemsize == 1 else np.uint16)
        kind = np.dtype(f"{'<' if self.little else '>'}u{self.form.allocated // 8}")
        raw = np.fromfile(self.path, kind, math.prod(self.shape), offset=self.offset)
        if raw.size < math.prod(self.shape):
            raise Rejected("truncated", f"{raw.size} of {math.prod(self.shape)} pixels")
        return raw.reshape(self.shape)


def parse(path: Path) -> File:
    """Read the allowed tags of a file and find its pixels.

    Raises
    ------
    Rejected : ``bits``, for a deflated file: inflating it means holding what it declares;
        ``bomb``, for an element of impossible length.
    Exception : whatever pydicom raises on bytes that are not DICOM.
    """
    found = {"tag": 0, "length": 0, "long": 0}

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag != _PIXEL_DATA and tag not in _FLOAT_PIXELS:
            return False
        found.update(tag=int(tag), length=length, long=vr in EXPLICIT_VR_LENGTH_32)
        return True

    with path.open("rb") as file:
        if str(DeflatedExplicitVRLittleEndian).encode() in file.read(1024):
            raise Rejected("bits", "deflated DICOM")
        file.seek(0)
        try:
            ds = read_partial(file, at_pixels, force=True, specific_tags=_TAGS)
        except MemoryError as error:  # headers are small: a length that is not true
            raise Rejected("bomb", "an element longer than the file") from error
        end, size = file.tell(), os.fstat(file.fileno()).st_size
    implicit, little = ds.original_encoding
    if not found["tag"]:
        offset = size
    else:
        offset = end + (12 if found["long"] and not implicit else 8)
    syntax = ds.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian
    return File(
        path=path,
        ds=ds,
        size=size,
        tag=found["tag"],
        offset=offset,
        length=found["length"],
        ended_early=end > size,
        syntax=UID(str(syntax)),
        little=bool(little),
    )


def frames_of(file: File) -> list[Frame]:
    """Apply the rules to a file; what is left are slices of a CT.

    Raises
    ------
    Rejected : with the code of the first rule that is broken.
    """
    ds = file.ds
    _refuse_other_kinds(file)
    _refuse_derived(ds)
    if not text(ds, "PatientID"):
        raise Rejected("no_patient")
    shape = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if min(shape) < 1:
        raise Rejected("no_geometry", "no rows or no columns")
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    n = int(ds.get("NumberOfFrames") or 1)
    if n < 1 or (groups is None and n > 1) or (groups is not None and len(groups) != n):
        raise Rejected("multi_frame", f"{n} frames without a place for each")
    shared = _first(ds, "SharedFunctionalGroupsSequence")
    frames = []
    for k in range(n):
        layers = [ds] if groups is None else [groups[k], shared]
        frames.append(_frame(file, k, shape, layers))
    _refuse_large(file, frames)
    return frames


def refuse_short(file: File, frames: Sequence[Frame]) -> None:
    """Refuse a file with fewer bytes than its pixels take; what is there would be a part."""
    if frames[0].offset is None:
        return
    needed = len(frames) * math.prod(frames[0].shape) * frames[0].form.allocated // 8
    there = max(0, min(file.length, file.size - file.offset))
    if there < needed:
        raise Rejected("truncated", f"{there} of {needed} pixel bytes")


def _refuse_other_kinds(file: File) -> None:
    modality = text(file.ds, "Modality")
    if modality in _NO_IMAGES:
        raise Rejected("not_image", modality)
    sop_class = text(file.ds, "SOPClassUID") or text(file.ds.file_meta, "MediaStorageSOPClassUID")
    if not file.tag:
        if file.ended_early or not sop_class or sop_class in _CT_IMAGES:
            raise Rejected("truncated", "the file ends before its pixels begin")
        raise Rejected("not_image", "no pixel data")
    if modality != "CT":
        detail = modality if modality in _OTHER_IMAGES else "" if modality else "no modality"
        raise Rejected("not_ct", detail)
    if file.tag in _FLOAT_PIXELS:
        raise Rejected("bits", "floating-point pixels")


def _refuse_derived(ds: Dataset) -> None:
    values = [v.strip().upper() for v in _strings(ds.get("ImageType"))]
    words = {word for value in values[2:] for word in re.findall(r"[A-Z0-9]+", value)}
    if words & _SCOUTS:
        raise Rejected("localizer")
    marks = {"DERIVED", "SECONDARY"} & set(values[:2]) | words & _REFORMATS
    if marks:
        raise Rejected("derived", f"image type {', '.join(sorted(marks))}")


def _frame(file: File, k: int, shape: tuple[int, int], layers: Sequence[Dataset]) -> Frame:
    """Make one frame; a functional group stands in the frame's own layer or in the shared one."""
    frame_type = _group(layers, "CTImageFrameTypeSequence")
    if "FrameType" in frame_type:
        kind = Dataset()
        kind.ImageType = frame_type.FrameType
        _refuse_derived(kind)
    form = stored_of(file.ds, _group(layers, "PixelValueTransformationSequence"))
    position = _numbers(_group(layers, "PlanePositionSequence"), "ImagePositionPatient", 3)
    axes = _numbers(_group(layers, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing = _numbers(_group(layers, "PixelMeasuresSequence"), "PixelSpacing", 2)
    if spacing.min() <= 0:
        raise Rejected("no_geometry", "a pixel spacing that is not positive")
    tilt = _numbers(file.ds, "GantryDetectorTilt", 1) if "GantryDetectorTilt" in file.ds else [0.0]
    plane = plane_of(
        position,
        axes[:3],
        axes[3:],
        (float(spacing[0]), float(spacing[1])),
        shape,
        tilt_deg=float(tilt[0]),
    )
    offset = file.offset + k * math.prod(shape) * form.allocated // 8
    return Frame(
        file.path, k, plane, form, shape, None if _compressed(file) else offset, file.little
    )


def _compressed(file: File) -> bool:
    """Tell whether the pixels need a decoder, and refuse what no decoder here can read."""
    syntax = file.syntax
    known = syntax.name != str(syntax)  # otherwise it is text from the file
    if file.length != _UNDEFINED:
        if known and syntax.is_transfer_syntax and syntax.is_compressed:
            raise Rejected("unreadable", "compressed pixels of a stated length")
        return False
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        name = syntax.name if known else "an unknown compression"
        raise Rejected("bits", f"{name}: no decoder")
    return True


def _refuse_large(file: File, frames: Sequence[Frame]) -> None:
    voxels = len(frames) * math.prod(frames[0].shape)
    if voxels > MOST_VOXELS:
        raise Rejected("too_large", f"{voxels} pixels")
    size = voxels * frames[0].form.allocated // 8
    if frames[0].offset is None and size > MOST_RATIO * file.size:
        raise Rejected("bomb", f"{size} bytes of pixels in {file.size}")


def _group(layers: Sequence[Dataset], name: str) -> Dataset:
    """Return the first item of a functional group; in a plain file all tags stand in the header."""
    if len(layers) == 1:
        return layers[0]
    return next((_first(layer, name) for layer in layers if name in layer), Dataset())


def _first(ds: Dataset, name: str) -> Dataset:
    items = ds.get(name)
    return items[0] if items else Dataset()


def _numbers(ds: Dataset, name: str, n: int) -> NDArray[np.float64]:
    try:
        values = np.array(ds.get(name), np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        values = np.empty(0)
    if len(values) != n or not np.isfinite(values).all():
        raise Rejected("no_geometry", f"{name} missing or not {n} numbers")
    return values


def _strings(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]
