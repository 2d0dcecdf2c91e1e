"""Whether the bytes of a PNG, TIFF or JPEG file are all there and its checksums fit.

Decoders are lenient where an audit must not be: Pillow does not check the CRC of a PNG's pixels,
takes a JPEG without an end for complete, and passes over pages of a TIFF that are cut off. A JPEG
or a TIFF has no checksum: a flipped bit in its pixels cannot be seen.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fingerprint.corpus.scan import Rejected

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

ORIENTATION = 274
STRIPS = ((273, 279), (324, 325))  # tags of offsets and of lengths: strips, tiles
MOST_PAGES = 65_536
TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def check_bytes(path: Path) -> None:
    """Find a file that ends early or whose checksums do not fit; silent about anything else.

    Raises
    ------
    Rejected : ``truncated`` or ``damaged``.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if head == PNG:
            _check_png(file, path.stat().st_size)
        elif head.startswith(JPEG):
            _check_jpeg(file)
        elif head.startswith(TIFF):
            for _ in _tiff_tags(file, path.stat().st_size):
                pass


def tiff_turns(path: Path) -> list[tuple[int, bytes]]:
    """Where a TIFF asks to be turned: offset in the file, and the bytes that ask for nothing."""
    with path.open("rb") as file:
        if not file.read(4).startswith(TIFF):
            return []
        file.seek(0)
        order = "<" if file.read(1) == b"I" else ">"
        return [
            (at, struct.pack(order + "H", 1))
            for tag, value, at in _tiff_tags(file, path.stat().st_size)
            if tag == ORIENTATION and value != 1
        ]


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
    end, scan = data.rfind(b"\xff\xd9"), data.rfind(b"\xff\xda")
    if end < max(scan, 0):
        raise Rejected("truncated", "a JPEG without an end")


def _tiff_tags(file: IO[bytes], size: int) -> Iterator[tuple[int, int, int]]:
    """Walk the pages: (tag, value if it is one short number else 0, where that value stands).

    What a tag points to must lie within the file; a chain of pages that never ends is cut.
    """

    def numbers(form: str, at: int) -> tuple[int, ...]:
        length = struct.calcsize(order + form)
        if at + length > size:
            raise Rejected("truncated", f"{size} bytes, and more are referred to")
        file.seek(at)
        return struct.unpack(order + form, file.read(length))

    file.seek(0)
    order = "<" if file.read(1) == b"I" else ">"
    big = numbers("H", 2)[0] == 43
    word, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    width = struct.calcsize(order + word)
    (page,) = numbers(word, 8 if big else 4)
    for _ in range(MOST_PAGES):
        if not page:
            return
        (n,) = numbers(count, page)
        first = page + struct.calcsize(order + count)
        step = struct.calcsize(order + entry) + width
        for at in range(first, first + min(n, MOST_PAGES) * step, step):
            tag, kind, length = numbers(entry, at)
            value_at = at + step - width
            stored = length * TYPE_BYTES.get(kind, 1)
            if stored > width:
                (start,) = numbers(word, value_at)
                if start + stored > size:
                    raise Rejected("truncated", f"{size} bytes, and more are referred to")
            one = kind == 3 and length == 1
            yield tag, numbers("H", value_at)[0] if one else 0, value_at
        (page,) = numbers(word, first + n * step)
