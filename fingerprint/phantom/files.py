"""Synthetic patients as files: DICOM series and NIfTI volumes, in the varied forms scanners write.

The files carry the made-up name, birth date and numbers of a patient in every tag and header field
where real files carry real ones: a test can then search all outputs for them.
"""

from __future__ import annotations

import gzip
import hashlib
from itertools import permutations, product
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from fingerprint.phantom.people import Patient
from fingerprint.phantom.thorax import PADDING_HU

Series = Literal["soft", "sharp"]

# which axes of a stored slice run against the canonical ones (y to the back, x to the left)
_REVERSED: dict[str, tuple[bool, bool]] = {
    "HFS": (False, False),
    "FFS": (False, True),
    "HFP": (True, True),
    "FFP": (True, False),
}
_AXES = [
    tuple(ends[i][way] for i, way in zip(order, ways, strict=True))
    for ends in (("LR", "PA", "SI"),)
    for order in permutations(range(3))
    for ways in product((0, 1), repeat=3)
]


def reconstructed(patient: Patient, series: Series) -> NDArray[np.int16]:
    """HU of one of two reconstructions of the same acquisition, int16 (z, y, x).

    ``soft`` is `patient.hu`; ``sharp`` has steeper edges and more noise, as a lung kernel has.
    """
    if series == "soft":
        return patient.hu
    if series != "sharp":
        raise ValueError(f"phantom: series must be soft or sharp, got {series!r}")
    rng = np.random.default_rng([patient.seed, patient.number, 7])
    sharp = np.empty_like(patient.hu)
    for out, hu in zip(sharp, patient.hu.astype(np.float32), strict=True):
        edges = hu - ndimage.gaussian_filter(hu, 1.0)
        noisy = hu + 0.8 * edges + 18 * rng.standard_normal(hu.shape, dtype=np.float32)
        out[:] = np.clip(np.rint(noisy), -1024, 3071)
    sharp[patient.hu == PADDING_HU] = PADDING_HU
    return sharp


# -- DICOM -----------------------------------------------------------------------------------------


def write_dicom(
    patient: Patient, folder: Path, *, shuffle_names: bool = True, series: Series = "soft"
) -> list[Path]:
    """Write one CT Image Storage file per slice; returns the files in the order of `patient.hu`.

    Explicit VR little endian. By patient: orientation (head or feet first, supine or prone), signed
    or unsigned pixels, slope 1 or 0.5, an intercept that changes from slice to slice, a padding
    circle named by PixelPaddingValue.

    Parameters
    ----------
    shuffle_names : bool
        Names without extension in no order; otherwise readable ones in the order of the slices.
    series : ``soft`` or ``sharp``
        Which reconstruction; both have one study, frame of reference and acquisition number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, hu in enumerate(reconstructed(patient, series)):
        name = f"{patient.patient_id}-{series}-{i:04d}.dcm"
        if shuffle_names:
            name = hashlib.sha256(f"{patient.seed} {name}".encode()).hexdigest()[:10].upper()
        path = folder / name
        dataset(patient, i, hu, series).save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def dataset(patient: Patient, index: int, hu: NDArray[np.int16], series: Series) -> Dataset:
    """Return slice `index` as a DICOM dataset; `hu` is its pixels in the canonical orientation."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = _uid(patient, series, str(index))
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality = "CT"
    _set_person(ds, patient)
    ds.StudyInstanceUID = _uid(patient, "study")
    ds.SeriesInstanceUID = _uid(patient, "series", series)
    ds.FrameOfReferenceUID = _uid(patient, "frame")
    ds.AcquisitionNumber = 1
    ds.SeriesNumber = 2 if series == "soft" else 3
    ds.InstanceNumber = index + 1
    ds.ConvolutionKernel = "B40f" if series == "soft" else "B70f"
    _set_geometry(ds, patient, index)
    _set_pixels(ds, patient, index, hu)
    return ds


def _uid(patient: Patient, *parts: str) -> UID:
    return generate_uid(entropy_srcs=[str(patient.seed), patient.patient_id, *parts])


def _set_person(ds: Dataset, patient: Patient) -> None:
    ds.PatientID = patient.patient_id
    ds.PatientName = patient.name
    ds.PatientBirthDate = patient.birth_date
    ds.PatientSex = patient.sex
    ds.PatientAge = f"{patient.age:03d}Y"
    ds.AccessionNumber = patient.accession
    ds.StudyID = patient.accession[3:]
    ds.StudyDate = ds.SeriesDate = "20190517"
    ds.StudyTime = "101500"
    ds.ReferringPhysicianName = f"Referrer^{patient.name.split('^')[0]}"
    ds.StudyDescription = f"Thorax {patient.name.split('^')[0]}"
    ds.Manufacturer = "Phantom"


def _set_geometry(ds: Dataset, patient: Patient, index: int) -> None:
    flip_y, flip_x = _REVERSED[patient.position]
    _, dy, dx = patient.spacing_mm
    h, w = patient.hu.shape[1:]
    y = patient.origin_mm[0] + flip_y * (h - 1) * dy
    x = patient.origin_mm[1] + flip_x * (w - 1) * dx
    z = float(patient.z_mm[index])
    ds.PatientPosition = patient.position
    ds.ImageOrientationPatient = [-1.0 if flip_x else 1.0, 0, 0, 0, -1.0 if flip_y else 1.0, 0]
    ds.ImagePositionPatient = [f"{v:.9g}" for v in (x, y, z)]
    ds.PixelSpacing = [f"{v:.10g}" for v in (dy, dx)]
    ds.SliceThickness = f"{patient.spacing_mm[0]:g}"


def _set_pixels(ds: Dataset, patient: Patient, index: int, hu: NDArray[np.int16]) -> None:
    form = patient.number % 4  # how this scanner stores HU
    slope = 0.5 if form == 2 else 1.0
    intercept = (0, -1024, -1024, -1024 if index % 2 else -1000)[form]
    signed = form != 1 or patient.padded
    flip_y, flip_x = _REVERSED[patient.position]
    stored = np.rint((hu.astype(np.float64) - intercept) / slope)
    stored = stored[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 16
    ds.BitsStored = 16 if signed else 12
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(signed)
    ds.RescaleSlope, ds.RescaleIntercept = f"{slope:g}", f"{intercept:g}"
    ds.RescaleType = "HU"
    if patient.padded:
        ds.PixelPaddingValue = int((PADDING_HU - intercept) / slope)
    ds.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()


# -- NIfTI -----------------------------------------------------------------------------------------


def write_nifti(patient: Patient, path: Path) -> Path:
    """Write one int16 volume, ``.nii`` or ``.nii.gz``; its axes run one of 48 ways, by patient."""
    _, dy, dx = patient.spacing_mm
    affine = np.diag([-dx, -dy, patient.spacing_mm[0], 1.0])  # voxels run L, P, S; the world is RAS
    affine[:3, 3] = (-patient.origin_mm[1], -patient.origin_mm[0], patient.z_mm[0])
    image = nib.Nifti1Image(patient.hu.transpose(2, 1, 0), affine, dtype=np.int16)
    axes = _AXES[np.random.default_rng([patient.seed, patient.number, 8]).integers(len(_AXES))]
    image = image.as_reoriented(ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(axes)))
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"{patient.name} {patient.birth_date}".encode()
    image.header["aux_file"] = patient.patient_id.encode()
    image.header["db_name"] = patient.accession.encode()
    content = image.to_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = path.name.endswith(".gz")
    path.write_bytes(gzip.compress(content, 1, mtime=0) if packed else content)
    return path
