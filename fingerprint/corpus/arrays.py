"""Images in NPY and NPZ files: what a file declares is checked before anything is allocated.

Which numbers are images is decided by the shape alone. A side has at least 8 pixels and a channel
axis 1, 3 or 4, so no shape reads two ways:

    (H, W)                              one image
    (N, H, W)                           N images
    (H, W, C)      C = 1, 3, 4          one image
    (N, C, H, W)   C = 1, 3             N images
    (N, H, W, C)   C = 1, 3, 4          N images
    anything else                       rejected, `shape`
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fingerprint.corpus.scan import MOST_RATIO, MOST_VOXELS, Rejected

LEAST_SIDE = 8


@dataclass(frozen=True)
class Frames:
    """The images of one open file; none is read before `each` is asked for it.

    Attributes
    ----------
    pixel : str
        ``u8``, ``u16`` (any wider integer) or ``float``.
    count : int
    shape : (h, w)
    each : iterator of arrays, shape (h, w) or (h, w, c), the numbers as stored
        Raises `Rejected` where the file turns out to be damaged.
    notes : list of str
        Complete when `each` is exhausted.
    """

    pixel: str
    count: int
    shape: tuple[int, int]
    each: Iterator[NDArray[Any]]
    notes: list[str]


@dataclass(frozen=True)
class Layout:
    """How an array holds images.

    Attributes
    ----------
    count : int
    shape : (h, w)
    one : tuple of int
        Shape of one image as stored, with its channels.
    axis : int or None
        Where in `one` the channels are.
    """

    count: int
    shape: tuple[int, int]
    one: tuple[int, ...]
    axis: int | None


# number of axes -> what may lead, where (h, w) and the channels are in one image, how many channels
LAYOUTS: dict[int, list[tuple[int, tuple[int, int], int | None, tuple[int, ...]]]] = {
    2: [(0, (0, 1), None, ())],
    3: [(1, (0, 1), None, ()), (0, (0, 1), 2, (1, 3, 4))],
    4: [(1, (1, 2), 0, (1, 3)), (1, (0, 1), 2, (1, 3, 4))],
}


def layout(shape: tuple[int, ...]) -> Layout:
    """Read the shape of an array by the rule above.

    Raises
    ------
    Rejected : ``shape``.
    """
    for leading, (y, x), axis, allowed in LAYOUTS.get(len(shape), []):
        count, one = prod(shape[:leading]), shape[leading:]
        channels_fit = axis is None or one[axis] in allowed
        if count > 0 and min(one[y], one[x]) >= LEAST_SIDE and channels_fit:
            return Layout(count, (one[y], one[x]), one, axis)
    raise Rejected("shape", f"array of shape {' x '.join(map(str, shape)) or 'a single number'}")


@contextmanager
def open_npy(path: Path) -> Iterator[Frames]:
    """Open an NPY file; pickles are never read."""
    with path.open("rb") as file:
        yield _frames(file, path.stat().st_size)


@contextmanager
def open_npz(path: Path) -> Iterator[Frames]:
    """Open an NPZ file that holds exactly one array."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Rejected("truncated", "the list of an archive's files is missing") from error
    with archive:
        members = archive.infolist()
        if len(members) != 1 or not members[0].filename.endswith(".npy"):
            raise Rejected("shape", f"an archive of {len(members)} files instead of one array")
        member = members[0]
        # the archive declares both sizes: the packed one cannot be larger than the file
        packed = max(1, min(member.compress_size, path.stat().st_size))
        if member.file_size > MOST_RATIO * packed:
            raise Rejected("bomb", f"{packed} bytes declare {member.file_size}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Rejected("unreadable", f"compression of type {member.compress_type}")
        if member.flag_bits & 0x1:
            raise Rejected("unreadable", "encrypted")
        try:
            file = archive.open(member)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise Rejected("damaged", "the archive contradicts itself") from error
        with file:
            yield _frames(file, member.file_size)


def _frames(file: IO[bytes], size: int) -> Frames:
    """Compare what the header declares with the cap, then with the bytes that are there."""
    shape, fortran, dtype = _header(file)
    if dtype.hasobject:
        raise Rejected("unreadable", "an array of Python objects")
    if dtype.kind not in "buif":
        raise Rejected("bits", f"numbers of kind {dtype.kind}")
    lay = layout(shape)
    n, (h, w) = lay.count, lay.shape
    if n * h * w > MOST_VOXELS:
        raise Rejected("too_large", f"{n} images of {h} x {w}")
    declared, there = prod(shape) * dtype.itemsize, size - file.tell()
    if declared > there:
        raise Rejected("truncated", f"{there} of {declared} bytes")
    if declared < there:
        raise Rejected("shape", f"{there - declared} bytes after the array")
    pixel = "float" if dtype.kind == "f" else "u8" if dtype.str in ("|u1", "|b1") else "u16"
    read = _whole if fortran else _one_by_one
    return Frames(pixel, n, lay.shape, read(file, dtype, lay), [])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = npy.read_magic(file)
            if version == (1, 0):
                return npy.read_array_header_1_0(file)
            if version == (2, 0):
                return npy.read_array_header_2_0(file)
    # a hostile header makes its parser raise nearly anything: all of it means this one file
    except Exception as error:
        code = "truncated" if str(error).startswith("EOF: reading") else "unreadable"
        raise Rejected(code, "the header of an array") from error
    raise Rejected("unreadable", f"NPY format {version[0]}.{version[1]}")


def _one_by_one(file: IO[bytes], dtype: np.dtype[Any], lay: Layout) -> Iterator[NDArray[Any]]:
    for _ in range(lay.count):
        yield _image(_numbers(file, lay.one, dtype), lay.axis)
    _numbers(file, (0,), dtype)


def _whole(file: IO[bytes], dtype: np.dtype[Any], lay: Layout) -> Iterator[NDArray[Any]]:
    """Column-major files hold the images interleaved: all of them must be read at once."""
    images = _numbers(file, (*lay.one[::-1], lay.count), dtype).T
    _numbers(file, (0,), dtype)
    for image in images:
        yield _image(image, lay.axis)


def _numbers(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Read an array; one of no numbers asks for the end of the file, where an archive's CRC is."""
    size = prod(shape) * dtype.itemsize
    try:
        data = file.read(size or 1)
    except EOFError as error:
        raise Rejected("truncated", "the packed array ends early") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise Rejected("damaged", "the checksum of an archive") from error
    if len(data) != size:
        raise Rejected("truncated", f"{len(data)} of {size} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _image(numbers: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """One image, channels last, a single channel dropped, booleans as black and white."""
    if axis is not None:
        numbers = np.moveaxis(numbers, axis, -1)
        numbers = numbers[..., 0] if numbers.shape[-1] == 1 else numbers
    return numbers * np.uint8(255) if numbers.dtype == bool else numbers
