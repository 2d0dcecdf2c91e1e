"""Small DICOM CT files for the tests: any pixel format, orientation, stack and fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def picture(k: int = 0, shape: tuple[int, int] = (32, 40)) -> NDArray[np.int16]:
    """Slice `k` of a small body in HU, canonical, different in every direction: air, fat, bone."""
    h, w = shape
    hu = np.full(shape, -1000, np.int16)
    hu[4 : h - 4, 5 : w - 5] = 40
    hu[6:12, 8 : w // 2] = -850
    hu[h - 9 : h - 5, w // 2 : w // 2 + 6] = 700
    hu[8:10, w - 9] = 300
    hu[5 + k % 7, 6] = 400 + k
    return hu


def dataset(
    hu: NDArray[Any] | None = None,
    *,
    z: float = 0.0,
    position: tuple[float, float, float] | None = None,
    orientation: tuple[float, ...] = AXIAL,
    spacing: tuple[float, float] = (0.8, 0.7),
    allocated: int = 16,
    stored: int | None = None,
    signed: bool = False,
    slope: float = 1.0,
    intercept: float = -1024.0,
    invert: bool = False,
    implicit: bool = False,
    **tags: Any,
) -> Dataset:
    """Make a CT image of HU values; `tags` replaces any element, None leaves it out.

    `invert` stores the negative, as some writers of MONOCHROME1 do.
    """
    hu = picture() if hu is None else hu
    stored = allocated if stored is None else stored
    values = np.rint((hu.astype(np.float64) - intercept) / slope).astype(np.int64)
    if invert:
        values = (-1 if signed else (1 << stored) - 1) - values
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = CT_IMAGE
    ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{abs(int(z * 1000)) + 1}"
    fields = {
        "SOPClassUID": CT_IMAGE,
        "SOPInstanceUID": ds.file_meta.MediaStorageSOPInstanceUID,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Modality": "CT",
        "PatientID": "patient one",
        "PatientName": "Name^Planted",
        "PatientSex": "F",
        "PatientAge": "053Y",
        "StudyInstanceUID": "1.2.3.1",
        "SeriesInstanceUID": "1.2.3.1.1",
        "FrameOfReferenceUID": "1.2.3.1.9",
        "AcquisitionNumber": 2,
        "ImagePositionPatient": [*(position or (-14.0, -12.0, z))],
        "ImageOrientationPatient": [*orientation],
        "PixelSpacing": [*spacing],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": hu.shape[-2],
        "Columns": hu.shape[-1],
        "BitsAllocated": allocated,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(signed),
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
    for name, value in (fields | tags).items():
        if value is not None:
            setattr(ds, name, value)
    kind = np.dtype(f"<u{allocated // 8}")
    ds.PixelData = (values & ((1 << allocated) - 1)).astype(kind).tobytes()
    ds["PixelData"].VR = "OW" if allocated == 16 else "OB"
    return ds


def write(path: Path, ds: Dataset | None = None, **fields: Any) -> Path:
    """Write a dataset, or one made of `fields`."""
    ds = dataset(**fields) if ds is None else ds
    ds.save_as(path, enforce_file_format=True)
    return path


def series(
    folder: Path, n: int = 5, *, step_mm: float = 2.5, first_mm: float = -10.0, **fields: Any
) -> list[Path]:
    """Write a stack of `n` slices; file names run against the position."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write(
            folder / f"{n - k:03d}",
            **{"hu": picture(k), "z": first_mm + k * step_mm, "InstanceNumber": 7 * k % n} | fields,
        )
        for k in range(n)
    ]


def enhanced(hu: NDArray[Any], *, step_mm: float = 3.0, **fields: Any) -> Dataset:
    """Make an enhanced multi-frame CT of HU values, shape (n, h, w), first frame lowest."""
    ds = dataset(hu, **fields)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, name)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.8, 0.7]
    plane.ImageOrientationPatient = [*AXIAL]
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    frames = []
    for k in range(len(hu)):
        where, rescale, frame = Dataset(), Dataset(), Dataset()
        where.ImagePositionPatient = [-14.0, -12.0, k * step_mm]
        rescale.RescaleSlope, rescale.RescaleIntercept = ds.RescaleSlope, ds.RescaleIntercept
        frame.PlanePositionSequence = Sequence([where])
        frame.PixelValueTransformationSequence = Sequence([rescale])
        frames.append(frame)
    del ds.RescaleSlope, ds.RescaleIntercept
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    ds.NumberOfFrames = len(hu)
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return ds
