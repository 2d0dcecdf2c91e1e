"""PNG, TIFF and JPEG files through Pillow, and what Pillow must not do to them.

Its limit against bombs stays on, and the warning below that limit is an error here. It gives 16-bit
colour as 8-bit, reads signed bytes as unsigned and turns a TIFF by its orientation tag (a TIFF that
is neither packed nor square comes out scrambled). An orientation tag is never applied, because the
images of one set must all be stored the same way; it is noted instead. Whether the bytes are all
there is decided in `intact.py`, before Pillow sees them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from fingerprint.corpus.arrays import LEAST_SIDE, Frames
from fingerprint.corpus.intact import STRIPS, check_bytes, tiff_turns
from fingerprint.corpus.orientation import INVERSE, ORIENTATIONS
from fingerprint.corpus.scan import MOST_VOXELS, Rejected

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
    turns = tiff_turns(path)
    with warnings.catch_warnings(), _bytes(path, turns) as file:
        warnings.simplefilter("ignore")  # odd metadata are nobody's business; a bomb is
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with _open(file, path) as image:
            notes = [ORIENTATION_IGNORED] if turns else []
            yield _frames(path, image, notes)


def _bytes(path: Path, turns: list[tuple[int, bytes]]) -> IO[bytes]:
    """Open the file, or a copy in memory in which no tag asks for a turn."""
    if not turns:
        return path.open("rb")
    data = bytearray(path.read_bytes())
    for at, upright in turns:
        data[at : at + len(upright)] = upright
    return io.BytesIO(data)


def _open(file: IO[bytes], path: Path) -> ImageFile.ImageFile:
    try:
        return Image.open(file, formats=("PNG", "TIFF", "JPEG"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Rejected("bomb", "more pixels than one picture may have") from error
    # a hostile file makes a decoder raise nearly anything: all of it means this one file
    except Exception as error:
        check_bytes(path)
        raise Rejected("unreadable") from error


def _frames(path: Path, image: ImageFile.ImageFile, notes: list[str]) -> Frames:
    try:
        count = getattr(image, "n_frames", 1)
    except Exception as error:  # as in `_open`
        check_bytes(path)
        raise Rejected("unreadable", "the pages of a TIFF") from error
    w, h = image.size
    if count > 1 and image.format != "TIFF":
        raise Rejected("multi_frame", f"{count} pictures in one {image.format}")
    if image.mode not in MODES:
        raise Rejected("colour" if image.mode in ("LAB", "HSV") else "bits")
    if min(h, w) < LEAST_SIDE:
        raise Rejected("shape", f"{h} x {w}")
    if count * h * w > MOST_VOXELS:
        raise Rejected("too_large", f"{count} images of {h} x {w}")
    return Frames(MODES[image.mode], count, (h, w), _each(path, image, count, notes), notes)


def _each(
    path: Path, image: ImageFile.ImageFile, count: int, notes: list[str]
) -> Iterator[NDArray[Any]]:
    check_bytes(path)
    first = image.mode, image.size[::-1]
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
    before = _exif_turn(image)
    image.load()
    turn = before or _exif_turn(image)  # a PNG may say so after its pixels
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
    if before and image.format == "TIFF":  # by its XMP, which Pillow has followed
        return ORIENTATIONS[INVERSE[before]](pixels)
    return pixels


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
    for starts, lengths in STRIPS:
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
