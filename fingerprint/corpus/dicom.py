"""DICOM: is it a file of that kind, what does its header say, one series of files as a scan."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom.config
from numpy.typing import NDArray

from fingerprint.corpus.dicom_file import Frame, frames_of, parse, refuse_short
from fingerprint.corpus.dicom_tags import (
    acquisition_of,
    age_of,
    flags_of,
    series_of,
    sex_of,
    text,
)
from fingerprint.corpus.pixels import to_grey
from fingerprint.corpus.planes import SAME_MM, refuse_leaning, refuse_mixed, step_of
from fingerprint.corpus.scan import MOST_VOXELS, Header, ReadOptions, Rejected, Scan, Stack
from fingerprint.corpus.window import air_level, fit, stored_grid

SAME_SLICE = "same slice again"
_FIRST_VRS = (b"UL", b"UI", b"CS", b"DA", b"TM", b"SH", b"OB")


def is_dicom(path: Path, head: bytes) -> bool:
    """Tell a DICOM file by its first bytes: the mark after the preamble, or a first element.

    Parameters
    ----------
    path : Path
        Not opened.
    head : bytes
        The first 132 bytes or more.
    """
    if head[128:132] == b"DICM":
        return True
    group, element = int.from_bytes(head[0:2], "little"), int.from_bytes(head[2:4], "little")
    if len(head) < 12 or group not in (0x0002, 0x0008) or element > 0x0020:
        return False
    return head[4:6] in _FIRST_VRS or int.from_bytes(head[4:8], "little") <= 64


def headers(path: Path, options: ReadOptions) -> list[Header]:
    """Read the allowed tags of one file, without its pixels.

    A file whose pixels are cut short passes: its place in the series is known, and `read` counts
    it as a slice that is missing.

    Raises
    ------
    Rejected : the code of the first rule that the file breaks.
    """
    with _quiet():
        file = parse(path)
        frames = frames_of(file)
        return [
            Header(
                kind="dicom",
                patient=text(file.ds, "PatientID"),
                series=series_of(file.ds),
                acquisition=acquisition_of(file.ds),
                position_mm=min(f.plane.position_mm for f in frames),
                sex=sex_of(file.ds),
                age_y=age_of(file.ds),
                frames=len(frames),
                flags=flags_of(file.ds),
            )
        ]


def read(paths: Sequence[Path], options: ReadOptions, *, lost: int = 0) -> Stack:
    """Read one series as a scan.

    Slices are sorted by position along the normal, never by name or number. A file that cannot be
    read is rejected alone; doubtful geometry rejects the series.

    Parameters
    ----------
    paths : sequence of Path
        The files of one series, in any order.
    options : ReadOptions
        `window_hu` and `size_px` matter here.
    lost : int
        Slices of this series that are known to be missing, beyond those that fail here.
    """
    with _quiet():
        job = _Job(tuple(paths), options)
        for i in range(len(paths)):
            job.try_file(i)
        try:
            scan = _scan(job, lost) if job.frames else None
        except Rejected as error:
            return Stack(None, {i: job.rejected.get(i, error) for i in range(len(paths))}, {})
        excluded = {} if scan is None else job.repeats(scan.source)
        return Stack(scan, job.rejected, excluded)


@dataclass
class _Job:
    """One series while it is read: what is left of it, and what was refused."""

    paths: tuple[Path, ...]
    options: ReadOptions
    frames: list[tuple[int, Frame]] = field(default_factory=list)
    rejected: dict[int, Rejected] = field(default_factory=dict)
    sex: str = ""
    age_y: int = -1

    def try_file(self, i: int) -> None:
        """Take the slices of one file, or note why not."""
        try:
            file = parse(self.paths[i])
            frames = frames_of(file)
            refuse_short(file, frames)
        except Exception as error:
            self.refuse(i, error)
            return
        self.frames += [(i, frame) for frame in frames]
        self.sex = max(self.sex, sex_of(file.ds))
        self.age_y = max(self.age_y, age_of(file.ds))

    def refuse(self, i: int, error: Exception) -> None:
        """Note why a file is not used; running out of memory is for the parent to handle."""
        if isinstance(error, MemoryError):
            raise error
        if not isinstance(error, Rejected):
            error = Rejected("unreadable", type(error).__name__)
        self.rejected[i] = error

    def repeats(self, source: NDArray[np.int64]) -> dict[int, str]:
        """Files of which nothing is in the scan although nothing is wrong with them."""
        used = set(source.tolist()) | set(self.rejected)
        return {i: SAME_SLICE for i in range(len(self.paths)) if i not in used}


def _scan(job: _Job, lost: int) -> Scan | None:
    size = job.options.size_px
    refuse_mixed([frame.plane for _, frame in job.frames])
    order = sorted(job.frames, key=lambda f: (f[1].plane.position_mm, str(f[1].path), f[1].index))
    if len(order) * size * size > MOST_VOXELS:
        raise Rejected("too_large", f"{len(order)} slices")
    pixels, kept = _pixels(job, order)
    if not kept:
        return None
    planes = [frame.plane for _, frame in kept]
    z_mm = np.array([plane.position_mm for plane in planes])
    refuse_leaning(planes)
    step = step_of(z_mm, lost + len(job.rejected))
    first = planes[0]
    spacing, origin = stored_grid(
        first.shape, size, first.spacing_mm, (float(first.corner[1]), float(first.corner[0]))
    )
    failed = len(job.rejected)
    return Scan(
        pixels=pixels,
        z_mm=z_mm,
        spacing_mm=(step, *spacing),
        origin_mm=origin,
        source=np.array([i for i, _ in kept], np.int64),
        native_px=max(first.shape),
        sex=job.sex,
        age_y=job.age_y,
        notes=(f"{failed} slices could not be read",) if failed else (),
    )


def _pixels(
    job: _Job, order: Sequence[tuple[int, Frame]]
) -> tuple[NDArray[np.uint8], list[tuple[int, Frame]]]:
    """Read slices in order of position; a slice that is there already is left out."""
    window, size = job.options.window_hu, job.options.size_px
    air = air_level(window)
    pixels = np.empty((len(order), size, size), np.uint8)
    kept: list[tuple[int, Frame]] = []
    for i, frame in order:
        try:
            grey = frame.plane.turn(to_grey(frame.pixels(), frame.form, window))
            image = fit(grey, size, air)[0]
        except Exception as error:
            job.refuse(i, error)
            continue
        z = frame.plane.position_mm
        if kept and z - kept[-1][1].plane.position_mm < SAME_MM:
            if not np.array_equal(pixels[len(kept) - 1], image):
                raise Rejected("duplicate_position", f"two different slices at {z:.2f} mm")
            continue
        pixels[len(kept)] = image
        kept.append((i, frame))
    return pixels[: len(kept)], kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom from warning: its messages quote the file."""
    settings = pydicom.config.settings
    mode = settings.reading_validation_mode
    settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.reading_validation_mode = mode
