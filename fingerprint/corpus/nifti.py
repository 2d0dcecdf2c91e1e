"""NIfTI: is it a file of that kind, and one volume as a scan.

The content is unpacked and checked here, to the end of the file, before anything is made of it:
nibabel does not look at the checksum of a ``.nii.gz`` and reads a flipped bit as another image.
nibabel reads the header; the voxels are a view of the bytes.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from nibabel import imageglobals
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fingerprint.corpus.planes import OBLIQUE_DEG
from fingerprint.corpus.scan import (
    MOST_RATIO,
    MOST_VOXELS,
    Header,
    ReadOptions,
    Rejected,
    Scan,
    Stack,
)
from fingerprint.corpus.window import air_level, fit, stored_grid, to_uint8

LUNG_LIKE_HU = -500.0
AIR_SHARE = 0.001  # a CT shows at least so much air; an MR image has nothing below zero
_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20
_LPS = np.diag([-1.0, -1.0, 1.0])  # NIfTI is RAS


@dataclass(frozen=True)
class Volume:
    """What a header declares.

    Attributes
    ----------
    shape : (i, j, k)
        Voxels along the axes of the file, of which k varies slowest.
    kind : numpy dtype of a voxel
    offset : int
        Of the first voxel, in unpacked bytes.
    slope, intercept : float
        HU = slope x voxel + intercept.
    order : (int, int, int)
        File axis of canonical z, y, x.
    flips : (bool, bool, bool)
        Whether that axis runs against z, y, x.
    spacing_mm : (z, y, x)
    origin_mm : (z, y, x)
        LPS position of the first canonical voxel.
    """

    shape: tuple[int, int, int]
    kind: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]

    @property
    def end(self) -> int:
        """Unpacked bytes up to the last voxel."""
        return self.offset + math.prod(self.shape) * self.kind.itemsize

    @property
    def n_slices(self) -> int:
        """Axial slices."""
        return self.shape[self.order[0]]


def is_nifti(path: Path, head: bytes) -> bool:
    """Tell a NIfTI file by its first bytes; of what we read only NIfTI is ever a gzip file.

    Parameters
    ----------
    path : Path
        Not opened.
    head : bytes
        The first 348 bytes or more.
    """
    return head[:2] == _GZIP or head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def headers(path: Path, options: ReadOptions) -> list[Header]:
    """Read the header of one file. NIfTI names no patient: a table or the folder does.

    Raises
    ------
    Rejected : the code of the first rule that the file breaks.
    """
    del options  # the same for every reader
    with _opened(path) as file:
        volume = _volume(file)
    _refuse_large(volume, path.stat().st_size, packed=_is_packed(path))
    return [Header(kind="nifti", position_mm=volume.origin_mm[0], frames=volume.n_slices)]


def read(paths: Sequence[Path], options: ReadOptions) -> Stack:
    """Read one volume as a scan.

    Parameters
    ----------
    paths : sequence of one Path
    options : ReadOptions
        `window_hu` and `size_px` matter here.

    Raises
    ------
    ValueError : if there are other than one path.
    """
    if len(paths) != 1:
        raise ValueError(f"nifti.read: paths must be one volume, got {len(paths)}")
    try:
        return Stack(_scan(paths[0], options), {}, {})
    except Rejected as error:
        return Stack(None, {0: error}, {})


def _scan(path: Path, options: ReadOptions) -> Scan:
    volume, content = _content(path)
    voxels: NDArray[Any] = np.frombuffer(
        content, volume.kind, math.prod(volume.shape), volume.offset
    )
    stack = voxels.reshape(volume.shape, order="F").transpose(volume.order)
    z_step, y_step, x_step = (-1 if flip else 1 for flip in volume.flips)
    stack = stack[::z_step, ::y_step, ::x_step]
    n, h, w = stack.shape
    size = options.size_px
    if n * size * size > MOST_VOXELS:
        raise Rejected("too_large", f"{n} slices")
    pixels = _to_grey(stack, volume, options)
    z, y, x = volume.spacing_mm
    spacing, origin = stored_grid((h, w), size, (y, x), volume.origin_mm[1:])
    return Scan(
        pixels=pixels,
        z_mm=volume.origin_mm[0] + z * np.arange(n, dtype=np.float64),
        spacing_mm=(z, *spacing),
        origin_mm=origin,
        source=np.zeros(n, np.int64),
        native_px=max(h, w),
    )


def _to_grey(stack: NDArray[Any], volume: Volume, options: ReadOptions) -> NDArray[np.uint8]:
    """Show voxels as grey levels, slice by slice, and make sure that they can be HU.

    Parameters
    ----------
    stack : any number, shape (n, h, w)
        Canonical axes, as stored.
    """
    n, size = len(stack), options.size_px
    air = air_level(options.window_hu)
    pixels = np.empty((n, size, size), np.uint8)
    dark = 0
    for k, image in enumerate(stack):
        hu = image.astype(np.float64) * volume.slope + volume.intercept
        if not np.isfinite(hu).all():
            raise Rejected("not_finite", f"in slice {k + 1} of {n}")
        dark += int(np.count_nonzero(hu <= LUNG_LIKE_HU))
        pixels[k] = fit(to_uint8(hu, options.window_hu), size, air)[0]
    if dark < AIR_SHARE * stack.size:
        raise Rejected("not_ct", f"no air below {LUNG_LIKE_HU:.0f} HU")
    return pixels


# -- the header


def _volume(file: gzip.GzipFile | IO[bytes]) -> Volume:
    """Read and judge a header; `file` stands at its begin and is unpacked already."""
    head = _exactly(file, 540)
    magic2 = head[4:8] in (b"n+2\0", b"ni2\0")
    if (head[4:8] if magic2 else head[344:348])[:2] == b"ni":
        raise Rejected("unreadable", "a header whose voxels are in another file")
    if not magic2 and head[344:348] != b"n+1\0":
        raise Rejected("unreadable", "not a NIfTI file")
    kind = Nifti2Header if magic2 else Nifti1Header
    try:
        with imageglobals.ErrorLevel(30), imageglobals.LoggingOutputSuppressor():
            header = kind.from_fileobj(io.BytesIO(head))
            slope, intercept = header.get_slope_inter()
            shape = _shape(header.get_data_shape())
            offset = int(header["vox_offset"])
            affine = np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise Rejected("unreadable", f"header: {type(error).__name__}") from error
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        raise Rejected("no_geometry", "neither sform nor qform is set")
    voxel = header.get_data_dtype()
    if voxel.kind not in "iuf" or voxel.itemsize > 8:
        raise Rejected("bits", "voxels that are no plain numbers")
    if offset < 0:
        raise Rejected("unreadable", "voxels before the begin of the file")
    order, flips, spacing, origin = _axes(affine, shape)
    return Volume(
        shape,
        voxel,
        offset,
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        order,
        flips,
        spacing,
        origin,
    )


def _shape(declared: Sequence[int]) -> tuple[int, int, int]:
    shape = [int(n) for n in declared]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or min(shape) < 1:
        raise Rejected("not_3d", f"{len(shape)} dimensions")
    return shape[0], shape[1], shape[2]


def _axes(
    affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[
    tuple[int, int, int],
    tuple[bool, bool, bool],
    tuple[float, float, float],
    tuple[float, float, float],
]:
    """Find which file axis is z, y and x, and where the first canonical voxel lies.

    Parameters
    ----------
    affine : float64, shape (4, 4)
        File indices (i, j, k) to RAS mm.
    """
    if not np.isfinite(affine).all():
        raise Rejected("no_geometry", "an affine that is not finite")
    steps = _LPS @ affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    if spacing.min() <= 1e-6:
        raise Rejected("no_geometry", "an axis without length")
    cosines = steps / spacing
    axis_of = np.abs(cosines).argmax(axis=0)  # world axis of each file axis
    if sorted(axis_of) != [0, 1, 2]:
        raise Rejected("not_axial", "axes that are not a frame")
    off = math.degrees(math.acos(min(1.0, float(np.abs(cosines).max(axis=0).min()))))
    if off > OBLIQUE_DEG:
        raise Rejected("not_axial", f"axes turned by {off:.0f} degrees")
    z, y, x = (int(np.flatnonzero(axis_of == world)[0]) for world in (2, 1, 0))
    flips = tuple(bool(cosines[axis_of[a], a] < 0) for a in (z, y, x))
    corner = _LPS @ affine[:3, 3]
    for a, flip in zip((z, y, x), flips, strict=True):
        corner = corner + (steps[:, a] * (shape[a] - 1) if flip else 0)
    return (
        (z, y, x),
        (flips[0], flips[1], flips[2]),
        (float(spacing[z]), float(spacing[y]), float(spacing[x])),
        (float(corner[2]), float(corner[1]), float(corner[0])),
    )


# -- the bytes


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _opened(path: Path) -> gzip.GzipFile | IO[bytes]:
    return gzip.GzipFile(path, "rb") if _is_packed(path) else path.open("rb")


def _refuse_large(volume: Volume, size: int, *, packed: bool) -> None:
    """Compare what is declared with what may be, before anything is allocated."""
    voxels = math.prod(volume.shape)
    if voxels > MOST_VOXELS:
        raise Rejected("too_large", f"{voxels} voxels")
    if packed and volume.end > MOST_RATIO * size:
        raise Rejected("bomb", f"{volume.end} bytes declared in {size}")
    if not packed and volume.end > size:
        raise Rejected("truncated", f"{size} of {volume.end} bytes")


def _content(path: Path) -> tuple[Volume, NDArray[np.uint8] | bytearray]:
    """Header and unpacked bytes of a file, read to its end so that its checksum is compared."""
    size, packed = path.stat().st_size, _is_packed(path)
    with _opened(path) as file:
        volume = _volume(file)
        _refuse_large(volume, size, packed=packed)
        if not packed:
            return volume, np.memmap(path, np.uint8, "r")
        file.seek(0)
        content = bytearray(volume.end)
        _fill(file, content)
        rest = MOST_RATIO * size - volume.end
        while piece := _piece(file, _PIECE):
            rest -= len(piece)
            if rest < 0:
                raise Rejected("bomb", f"more than {MOST_RATIO} times its size")
    return volume, content


def _fill(file: gzip.GzipFile | IO[bytes], content: bytearray) -> None:
    view, at = memoryview(content), 0
    while at < len(content):
        piece = _piece(file, min(_PIECE, len(content) - at))
        if not piece:
            raise Rejected("truncated", f"{at} of {len(content)} bytes")
        view[at : at + len(piece)] = piece
        at += len(piece)


def _exactly(file: gzip.GzipFile | IO[bytes], n: int) -> bytes:
    head = b""
    while len(head) < n and (piece := _piece(file, n - len(head))):
        head += piece
    if len(head) < 348:
        raise Rejected("truncated", f"{len(head)} bytes: less than a header")
    return head


def _piece(file: gzip.GzipFile | IO[bytes], n: int) -> bytes:
    try:
        return file.read(n)
    except EOFError as error:
        raise Rejected("truncated", "the compressed data end early") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise Rejected("damaged", "the checksum or the compressed data") from error
