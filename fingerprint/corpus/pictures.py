"""PNG, TIFF and JPEG files through Pillow, and the checks that Pillow leaves out.

Pillow's limit against bombs stays on and its warning is an error here. It does not check the CRC of
a PNG's pixels, takes a JPEG without an end for complete, gives 16-bit colour as 8-bit, and turns a
TIFF by its orientation tag: each of these is seen to below. An orientation tag is never applied,
because the images of one set must all be stored the same way; it is noted instead.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from fingerprint.corpus.arrays import LEAST_SIDE, MOST_VOXELS, Frames
from fingerprint.corpus.orientation import INVERSE, ORIENTATIONS
from fingerprint.corpus.scan import Rejected

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_IGNORED = "an EXIF orientation was not applied"

# EXIF orientation -> what Pillow does to a TIFF that has it
EXIF_TURN = {
    2: "flip-x",
    3: "turn-180",
    4: "flip-y",
    5: "transpose",
    6: "turn-90",
    7: "anti",
    8: "turn-270",
}
# Pillow's mode -> the mode whose numbers are taken
MODES_U8 = {
    "1": "L",
    "L": "L",
    "P": "RGB",
    "LA": "LA",
    "La": "LA",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
MODES = dict.fromkeys(MODES_U8, "u8") | {
    "I": "u16",
    "I;16": "u16",
    "I;16B": "u16",
    "I;16L": "u16",
    "F": "float",
}


@contextmanager
def open_picture(path: Path) -> Iterator[Frames]:
    """Open a PNG, TIFF or JPEG; the pages of a TIFF are images of one size."""
    image = _open(path)
    try:
        with warnings.catch_warnings():
            _strict()
            yield _frames(path, image)
    finally:
        image.close()


def _strict() -> None:
    """Odd metadata are nobody's business; a bomb is."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _open(path: Path) -> ImageFile.ImageFile:
    with warnings.catch_warnings():
        _strict()
        try:
            return Image.open(path, formats=("PNG", "TIFF", "JPEG"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise Rejected("bomb", "more pixels than one picture may have") from error
        # a hostile file makes a decoder raise nearly anything: all of it means this one file
        except Exception as error:
            _check_bytes(path)
            raise Rejected("unreadable") from error


def _frames(path: Path, image: ImageFile.ImageFile) -> Frames:
    try:
        count = getattr(image, "n_frames", 1)
    except Exception as error:  # the chain of pages is broken
        raise Rejected("truncated", "a page of a TIFF is missing") from error
    w, h = image.size
    if count > 1 and image.format != "TIFF":
        raise Rejected("multi_frame", f"{count} pictures in one {image.format}")
    if image.mode not in MODES:
        raise Rejected("colour" if image.mode in ("LAB", "HSV") else "bits")
    if min(h, w) < LEAST_SIDE:
        raise Rejected("shape", f"{h} x {w}")
    if count * h * w > MOST_VOXELS:
        raise Rejected("too_large", f"{count} images of {h} x {w}")
    notes: list[str] = []
    shape = _stored_size(image)
    return Frames(MODES[image.mode], count, shape, _each(path, image, count, notes), notes)


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Rows and columns as stored: Pillow exchanges those of a TIFF that is to be turned."""
    w, h = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(274, 1) in (
        5,
        6,
        7,
        8,
    ):
        return w, h
    return h, w


def _each(
    path: Path, image: ImageFile.ImageFile, count: int, notes: list[str]
) -> Iterator[NDArray[Any]]:
    _check_bytes(path)
    first = image.mode, _stored_size(image)
    for page in range(count):
        try:
            if count > 1:
                image.seek(page)
            _check_bits(image, path.stat().st_size, count)
            pixels = _pixels(image, notes)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise Rejected("bomb", "more pixels than one picture may have") from error
        except (Rejected, MemoryError):
            raise
        except Exception as error:  # as in `_open`
            code = "truncated" if "truncated" in str(error) else "unreadable"
            raise Rejected(code, f"page {page + 1}" if count > 1 else "") from error
        if (image.mode, pixels.shape[:2]) != first:
            raise Rejected("shape", "pages of different kinds or sizes")
        yield pixels


def _pixels(image: ImageFile.ImageFile, notes: list[str]) -> NDArray[Any]:
    """Decode one picture as it is stored: orientation undone, palette looked up."""
    tiff = image.format == "TIFF"
    turn = _exif_turn(image) if tiff else ""  # Pillow drops the tag when it has turned
    image.load()
    turn = turn or _exif_turn(image)
    if turn and ORIENTATION_IGNORED not in notes:
        notes.append(ORIENTATION_IGNORED)
    mode = MODES_U8.get(image.mode, image.mode)
    transparent = image.info.get("transparency")
    if transparent is not None:
        if MODES[image.mode] != "u8":
            raise Rejected("transparent")
        mode = "RGBA"
    picture = image if mode == image.mode else image.convert(mode)
    pixels = np.asarray(picture)
    return ORIENTATIONS[INVERSE[turn]](pixels) if turn and tiff else pixels


def _exif_turn(image: Image.Image) -> str:
    try:
        return EXIF_TURN.get(image.getexif().get(274, 1), "")
    except Exception:  # EXIF that cannot be read turns nothing
        return ""


def _check_bits(image: ImageFile.ImageFile, size: int, count: int) -> None:
    """Refuse what Pillow would give with other numbers, and a TIFF that ends too early."""
    raw = str(image.tile[0][3] if image.tile else "")
    if MODES[image.mode] == "u8" and ";16" in raw:
        raise Rejected("bits", "16 bits in a colour channel")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    if tags.get(339, (1,))[0] == 2 and image.mode == "L":
        raise Rejected("bits", "signed 8-bit grey")
    if tags.get(262) == 0 and MODES[image.mode] != "u8":
        raise Rejected("bits", "white is zero")
    for starts, lengths in ((273, 279), (324, 325)):
        if tags.get(starts) and tags.get(lengths):
            end = max(a + b for a, b in zip(tags[starts], tags[lengths], strict=True))
            if end > size:
                raise Rejected("truncated", f"{size} of {end} bytes")
    images = _imagej_images(str(tags.get(270, "")))
    if images not in (1, count):  # a stack whose other images have no page of their own
        raise Rejected("shape", f"{images} images declared in {count} pages")


def _imagej_images(description: str) -> int:
    if description.startswith("ImageJ"):
        for line in description.splitlines():
            name, _, value = line.partition("=")
            if name == "images" and value.isascii() and value.isdigit():
                return int(value)
    return 1


# -- bytes


def _check_bytes(path: Path) -> None:
    """Find a file that ends early or whose checksums do not fit; silent about anything else."""
    with path.open("rb") as file:
        head = file.read(8)
        size = path.stat().st_size
        if head == PNG:
            _check_png(file, size)
        elif head.startswith(JPEG):
            _check_jpeg(file)
        elif head.startswith(TIFF):
            order = "<" if head[:1] == b"I" else ">"
            big = 43 in head[2:4]
            start = file.read(8) if big else head[4:8]
            if len(start) < (8 if big else 4):
                raise Rejected("truncated", f"{size} bytes")
            if struct.unpack(order + ("Q" if big else "I"), start)[0] >= size:
                raise Rejected("truncated", f"{size} bytes, and pages beyond")


def _check_png(file: IO[bytes], size: int) -> None:
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise Rejected("truncated", "a PNG without an end")
        length, name = struct.unpack(">I4s", head)
        if file.tell() + length + 4 > size:
            raise Rejected("truncated", "a PNG ends within a chunk")
        checksum = zlib.crc32(file.read(length), zlib.crc32(name))
        if checksum != int.from_bytes(file.read(4), "big"):
            raise Rejected("damaged", "the checksum of a PNG chunk")
        if name == b"IEND":
            return


def _check_jpeg(file: IO[bytes]) -> None:
    """Look for the mark of the end after the last scan; within a scan it cannot occur."""
    data = file.read()
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise Rejected("truncated", "a JPEG without an end")
