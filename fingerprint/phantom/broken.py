"""Inputs that no audit may use: broken files and files of another kind, with the code of each."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from fingerprint.phantom.files import dataset, write_nifti
from fingerprint.phantom.people import Patient
from fingerprint.phantom.thorax import patient

FIRST_NUMBER = 900_000  # these files belong to people who have no other


def damage(folder: Path, seed: int) -> dict[Path, str]:
    """Add unusable files to a folder; returns each with the code that its rejection must carry.

    A truncated DICOM file, a localizer, an MR image, a ``.nii.gz`` with one flipped bit, a file
    without bytes and a text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    someone = patient(FIRST_NUMBER + seed % 1000, seed=seed, n_slices=3, size_px=64)
    names = {
        "cut_short": "truncated",
        "scout.dcm": "localizer",
        "other_modality.dcm": "not_ct",
        "flipped_bit.nii.gz": "damaged",
        "nothing.dcm": "empty_file",
        "notes": "unreadable",
    }
    cut, scout, magnetic, flipped, empty, text = (folder / name for name in names)
    _slice(someone, "1").save_as(cut, enforce_file_format=True)
    cut.write_bytes(cut.read_bytes()[: -someone.hu[0].size])
    _localizer(someone).save_as(scout, enforce_file_format=True)
    _magnetic(someone).save_as(magnetic, enforce_file_format=True)
    write_nifti(someone, flipped)
    flipped.write_bytes(_flip_a_bit(flipped.read_bytes(), seed))
    empty.write_bytes(b"")
    text.write_text(f"{someone.name}: please call back.\n")
    return {folder / name: code for name, code in names.items()}


def _slice(someone: Patient, series: str) -> Dataset:
    ds = dataset(someone, 1, someone.hu[1], "soft")
    ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID[:60]}.{series}"
    ds.SOPInstanceUID = f"{ds.SOPInstanceUID[:60]}.{series}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def _localizer(someone: Patient) -> Dataset:
    ds = _slice(someone, "2")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    return ds


def _magnetic(someone: Patient) -> Dataset:
    ds = _slice(someone, "3")
    ds.Modality = "MR"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    return ds


def _flip_a_bit(content: bytes, seed: int) -> bytes:
    """Flip one bit in the packed data, such that unpacking runs to its end or into an error.

    A flip that makes the data end early would be a truncated file, which is another code.
    """
    rng = np.random.default_rng([seed, 9])
    while True:
        broken = bytearray(content)
        broken[rng.integers(len(content) // 4, len(content) - 8)] ^= 1 << int(rng.integers(8))
        try:
            gzip.decompress(bytes(broken))
        except (gzip.BadGzipFile, zlib.error):
            return bytes(broken)
        except EOFError:
            continue
