"""Images that are not scans: PNG, TIFF, JPEG, NPY and NPZ to stored slices, by written rules.

    numbers      8-bit grey is taken as it is; wider integers are HU if the options say so, through
                 the window; floats are mapped linearly from one range for the whole set. Nothing
                 is ever scaled by its own minimum and maximum.
    channels     grey if they differ by at most 2 (JPEG); green is taken, the channel that carries
                 most of the luma and stands in the file. An alpha channel must be opaque.
    orientation  `options.orient`, on the image as stored; EXIF is noted, never applied.
    size         generated images below `size_px` are enlarged, others centred in air; larger ones
                 are reduced by area mean.

These functions run in the limited child process of `readers.py`; they touch nothing but the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint.corpus.arrays import Frames, open_npy, open_npz
from fingerprint.corpus.intact import JPEG, PNG, TIFF
from fingerprint.corpus.orientation import ORIENTATIONS
from fingerprint.corpus.pictures import open_picture
from fingerprint.corpus.scan import MOST_VOXELS, Header, ReadOptions, Rejected, Scan, Stack
from fingerprint.corpus.window import air_level, fit, to_uint8

NPY = b"\x93NUMPY"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
GREY_DIFFERENCE = 2
NO_NEGATIVE = "16-bit images without a value below 0 HU: is their offset missing?"


def is_image(path: Path, head: bytes) -> bool:
    """Tell by the first bytes (16 or more) whether the file is of a kind read here.

    Any office document is a ZIP archive too, so an NPZ must also be called ``.npz``.
    """
    return head.startswith((PNG, JPEG, NPY, *TIFF)) or _is_npz(path, head)


def headers(path: Path, options: ReadOptions) -> list[Header]:
    """Return the one header of an image file.

    `low` and `high` of floats and of wide integers are those of the whole file, which is read for
    it; those of 8-bit images are 0 and 255.

    Raises
    ------
    Rejected
    """
    with _opened(path) as frames:
        _check_size(frames, options)
        low, high = (0.0, 255.0) if frames.pixel == "u8" else _low_high(frames.each)
        return [Header("image", pixel=frames.pixel, low=low, high=high, frames=frames.count)]


def read(paths: Sequence[Path], options: ReadOptions) -> Stack:
    """Read files in the given order as one stack; the images of a file follow one another.

    A file is read whole or rejected whole. `z_mm` counts the images; spacing and origin are
    unknown. `native_px` is the longer side, of the smallest image where they differ.
    """
    parts: list[NDArray[np.uint8]] = []
    source: list[int] = []
    sides: set[int] = set()
    notes: set[str] = set()
    rejected: dict[int, Rejected] = {}
    for i, path in enumerate(paths):
        try:
            with _opened(path) as frames:
                parts.append(_slices(frames, options))
        except Rejected as why:
            rejected[i] = why
            continue
        source += [i] * frames.count
        sides.add(max(frames.shape))
        notes.update(frames.notes)
    if not parts:
        return Stack(None, rejected, {})
    if len(sides) > 1:
        notes.add(f"images of {min(sides)} to {max(sides)} px in one stack")
    nan = float("nan")
    scan = Scan(
        pixels=parts[0] if len(parts) == 1 else np.concatenate(parts),
        z_mm=np.arange(len(source), dtype=np.float64),
        spacing_mm=(nan, nan, nan),
        origin_mm=(nan, nan),
        source=np.array(source, np.int64),
        native_px=min(sides),
        notes=tuple(sorted(notes)),
    )
    return Stack(scan, rejected, {})


def set_range(seen: Iterable[Header]) -> tuple[float, float]:
    """Find the range of a whole set of float images: [0, 1], else [-1, 1].

    Raises
    ------
    Rejected : ``no_range``, if a value lies outside both.
    ValueError : if there is no float image among the headers.
    """
    floats = [header for header in seen if header.pixel == "float"]
    if not floats:
        raise ValueError("set_range: no float image among the headers")
    low, high = min(h.low for h in floats), max(h.high for h in floats)
    found = range_of(low, high)
    if found is None:
        raise Rejected("no_range", f"values from {low:g} to {high:g}")
    return found


def range_of(low: float, high: float) -> tuple[float, float] | None:
    """Return [0, 1] or [-1, 1], whichever first holds all values of a set; else None."""
    usual = ((0.0, 1.0), (-1.0, 1.0))
    return next(((lo, hi) for lo, hi in usual if lo <= low and high <= hi), None)


def bilinear(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Enlarge an image; pixel centres lie at halves, as in Pillow and in torch.

    Pixel (y, x) of the result shows the point ((y + 1/2) h / H - 1/2, (x + 1/2) w / W - 1/2) of the
    image, held inside it. The weights are whole numbers: the result is exact, rounded half to even,
    and the same everywhere.

    Parameters
    ----------
    image : uint8, shape (h, w)
    shape : (H, W), not smaller
    """
    if shape[0] < image.shape[0] or shape[1] < image.shape[1]:
        raise ValueError(f"bilinear: shape {shape} must not be below that of {image.shape}")
    values = _stretched(_stretched(image.astype(np.int64), shape[0]).T, shape[1]).T
    whole, rest = np.divmod(values, one := 4 * shape[0] * shape[1])
    return (whole + (2 * rest + (whole & 1) > one)).astype(np.uint8)


def enlarged(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return images (n, h, w), not larger, as (n, side, side): `bilinear` of each."""
    return np.stack([bilinear(image, (side, side)) for image in images])


def _stretched(values: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Interpolate along the first axis to `n` rows; the result is 2 n times the values."""
    m = len(values)
    at = np.clip((2 * np.arange(n) + 1) * m - n, 0, 2 * n * (m - 1))  # in units of 1 / 2n
    row, weight = np.divmod(at, 2 * n)
    weight = weight[:, None]
    return values[row] * (2 * n - weight) + values[np.minimum(row + 1, m - 1)] * weight


def _is_npz(path: Path, head: bytes) -> bool:
    return head.startswith(ZIP) and path.suffix.lower() == ".npz"


@contextmanager
def _opened(path: Path) -> Iterator[Frames]:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise Rejected("unreadable") from error
    if not head:
        raise Rejected("empty_file")
    if not is_image(path, head):
        raise Rejected("unreadable")
    how = open_npy if head.startswith(NPY) else open_npz if _is_npz(path, head) else open_picture
    with how(path) as frames:
        yield frames


def _check_size(frames: Frames, options: ReadOptions) -> None:
    """Hold the cap for what is stored too: small images grow."""
    if frames.count * options.size_px**2 > MOST_VOXELS:
        raise Rejected("too_large", f"{frames.count} images of {options.size_px} px in one file")


def _low_high(each: Iterator[NDArray[Any]]) -> tuple[float, float]:
    low, high = float("inf"), float("-inf")
    for image in each:
        least, most = float(image.min()), float(image.max())  # NaN shows in both
        if not np.isfinite((least, most)).all():
            raise Rejected("not_finite")
        low, high = min(low, least), max(high, most)
    return low, high


def _slices(frames: Frames, options: ReadOptions) -> NDArray[np.uint8]:
    _check_size(frames, options)
    size, air = options.size_px, air_level(options.window_hu)
    slices = np.empty((frames.count, size, size), np.uint8)
    negative = False
    for i, image in enumerate(frames.each):
        grey = _grey(_levels(image, frames.pixel, options))
        slices[i] = _sized(ORIENTATIONS[options.orient](grey), options, air)
        negative = negative or bool(image.min() < 0)
    if frames.pixel == "u16" and not negative:
        frames.notes.append(NO_NEGATIVE)
    if frames.pixel == "float" and options.value_range:
        frames.notes.append("range {:g}..{:g}".format(*options.value_range))
    return slices


def _levels(image: NDArray[Any], pixel: str, options: ReadOptions) -> NDArray[np.uint8]:
    """Map stored numbers to grey levels, any number of channels."""
    if pixel == "u8":
        return image
    if pixel == "u16":
        if not options.hu:
            raise Rejected("no_unit", f"values from {image.min()} to {image.max()}")
        return to_uint8(image, options.window_hu)
    values = image.astype(np.float64)
    if not np.isfinite(values).all():
        raise Rejected("not_finite")
    if options.value_range is None:
        raise Rejected("no_range", f"values from {values.min():g} to {values.max():g}")
    lo, hi = options.value_range
    return np.clip(np.rint((values - lo) * (255 / (hi - lo))), 0, 255).astype(np.uint8)


def _grey(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One channel of (h, w), (h, w, 2 grey alpha), (h, w, 3) or (h, w, 4 with alpha)."""
    if levels.ndim == 2:
        return levels
    if levels.shape[2] in (2, 4):
        if levels[..., -1].min() < 255:
            raise Rejected("transparent")
        levels = levels[..., :-1]
    if levels.shape[2] == 1:
        return levels[..., 0]
    difference = int((levels.max(2) - levels.min(2)).max())
    if difference > GREY_DIFFERENCE:
        raise Rejected("colour", f"channels differ by {difference}")
    return levels[..., 1]


def _sized(image: NDArray[np.uint8], options: ReadOptions, air: int) -> NDArray[np.uint8]:
    size, longer = options.size_px, max(image.shape)
    if options.generated and longer < size:
        h, w = (max(1, round(side * size / longer)) for side in image.shape)
        image = bilinear(image, (h, w))
    return image if image.shape == (size, size) else fit(image, size, air)[0]
