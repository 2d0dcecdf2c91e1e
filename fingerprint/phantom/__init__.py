"""Synthetic thorax patients, their files, and planted copies: the demo, the canaries, the truth.

people     who: build, sex, age, made-up identifiers
thorax     one patient in HU, painted by `wall` and `chest` on a `canvas` along `outlines`,
           with `vessels` and `fields` of their own
files      DICOM series, NIfTI volumes; `broken`: files that must be rejected
plant      copies of a slice, of known kind and strength
hospital   forty patients on disk; a generated set with planted copies
"""

from fingerprint.phantom.broken import damage
from fingerprint.phantom.copies import KINDS, bend_of, plant, pose_of
from fingerprint.phantom.files import write_dicom, write_nifti
from fingerprint.phantom.hospital import (
    NOBODY,
    Hospital,
    Truth,
    novel,
    seen,
    truth_table,
    write_generated,
    write_hospital,
)
from fingerprint.phantom.people import REGIONS, Patient
from fingerprint.phantom.thorax import masks, one_slice, patient

__all__ = [
    "KINDS",
    "NOBODY",
    "REGIONS",
    "Hospital",
    "Patient",
    "Truth",
    "bend_of",
    "damage",
    "masks",
    "novel",
    "one_slice",
    "patient",
    "plant",
    "pose_of",
    "seen",
    "truth_table",
    "write_dicom",
    "write_generated",
    "write_hospital",
    "write_nifti",
]
