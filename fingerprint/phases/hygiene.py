"""Hygiene: controls must be strangers. Those that leak are refused with their list, or left out."""

from __future__ import annotations

from collections.abc import Sequence

from fingerprint.corpus import tables
from fingerprint.job import AuditJob
from fingerprint.measure import hygiene
from fingerprint.measure.hygiene import Leak

FILE = "leaks.tsv"


def judge(job: AuditJob, leaks: Sequence[Leak], *, suspected: bool) -> list[str]:
    """Write the list, and return the control patients that count in no statistic.

    Parameters
    ----------
    suspected : bool
        Near-duplicates, rather than what both corpora certainly hold.

    Raises
    ------
    ValueError
        Controls that were given leak, and ``--drop-leaking`` was not.
    """
    if not leaks:
        return []
    tables.save(job.out / FILE, (leak.as_row() for leak in leaks), hygiene.COLUMNS)
    patients = sorted({leak.control_patient for leak in leaks})
    if job.settings.drop_leaking:
        return patients
    if "controls" in job.corpora:
        raise ValueError(
            f"controls: {len(patients)} of their patients are in the real corpus"
            f"{', or seem to be' * suspected}: {hygiene.in_words(leaks)}; the list is in "
            f"{job.out / FILE}. Take them out, or leave them out with --drop-leaking and another "
            "OUT"
        )
    return []  # drawn from the real corpus: one person under two pseudonyms; said, and kept


def note(job: AuditJob, leaks: Sequence[Leak], left_out: Sequence[str]) -> None:
    """Say on the first page what was found."""
    if not leaks:
        return
    patients = len({leak.control_patient for leak in leaks})
    what = (
        f"{patients} control patients leak, and were left out of every statistic"
        if left_out
        else f"{patients} patients of the real corpus may be enrolled under two pseudonyms: their "
        "copies stand out less"
    )
    line = f"{what}: see {FILE}"
    notes = [one for one in job.read()["notes"] if FILE not in one]
    job.update(notes=[*notes, line])
