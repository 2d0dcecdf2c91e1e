"""The corpus on disk: one Zarr v3 group that anyone can open, and that notices any changed byte.

    CORPUS/
      zarr.json            the pointer: metadata, attributes, digest of the manifest, own seal
      manifests/<sha>.json every stored file of the sealed state: bytes, crc32c, sha256
      pixels/              uint8 (slice, y, x), opens as HU
      mid/ thumb/          the same slices at 128 and 32 px, area means
      screen/              int8 at 32 px: what the search at every pose multiplies
      organs/              uint8 at 128 px: which organ lies where, codes of `anatomy.ORGANS`
      scan/ participant/ sex/ age/ z_mm/ ...   one label per slice
      series_table/        one row per stack of slices: spacing, origin, source digest
      sources.parquet      what became of every input file, by token

People open it with ``xr.open_zarr(CORPUS)``. Here the chunks are read as files, because zarr before
3.2 turns a missing chunk into black slices and blosc can crash on damaged bytes: no stored byte
reaches a codec before its crc32c equals the manifest's. That finds flips, truncation, gaps, swaps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from fingerprint.corpus import anatomy, screen
from fingerprint.ledger import Damaged, digest_of

FORMAT = (1, 2)  # 1.0 had no small pictures; 1.1 no anatomy
POINTER = "zarr.json"
JOURNAL = ".ingest/journal.json"
ROWS = 65_536  # labels in one chunk

# small pictures of every slice, made at ingest: name -> side, version of how they are made
SMALLER: dict[str, int] = {"mid": 128, "thumb": 32, "screen": screen.SIDE, "organs": 128}
DERIVED: dict[str, int] = {
    "mid": 1,
    "thumb": 1,
    "screen": screen.VERSION,
    "organs": anatomy.VERSION,
    "region_confidence": anatomy.VERSION,
}
HU = ("pixels", "mid", "thumb")  # what opens as HU
PIXELS = ("pixels", *SMALLER)
# made with them, for exact correlation; a screen sums to zero. No part of the content digest
SUMS = (
    "sum_mid",
    "sum_of_squares_mid",
    "sum_thumb",
    "sum_of_squares_thumb",
    "sum_of_squares_screen",
)

# one label per slice, in this order; text is "" and a number -1 where it is not known
LABELS: dict[str, str] = {
    "participant": "str",
    "scan": "str",
    "series": "str",
    "z_mm": "float64",
    "sex": "str",
    "age": "int16",
    "region": "str",
    "region_confidence": "float32",
    "sum": "int64",
    "sum_of_squares": "int64",
    **dict.fromkeys(SUMS, "int64"),
    "native_px": "int16",
    "token": "str",
    "digest": "str",
    "part": "int32",
}
# one row per stack of slices
SERIES: dict[str, str] = {
    "series": "str",
    "scan": "str",
    "participant": "str",
    "n_slices": "int64",
    "spacing_z_mm": "float64",
    "spacing_y_mm": "float64",
    "spacing_x_mm": "float64",
    "origin_y_mm": "float64",
    "origin_x_mm": "float64",
    "sex": "str",
    "age": "int16",
    "native_px": "int16",
    "source_digest": "str",
    "notes": "str",
    "part": "int32",
}
BLOSC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)


def canonical(document: Any) -> bytes:
    """Return the one byte string that stands for a JSON document, so that any flip is seen."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def chunk_name(k: int, array: str = "pixels") -> str:
    """Relative path of chunk `k`."""
    return f"{array}/c/{k}/0/0"


def is_chunk(name: str) -> bool:
    """Whether a stored file is a chunk of pictures."""
    return name.startswith(tuple(f"{array}/c/" for array in PIXELS))


def dtype_of(array: str) -> type[np.uint8] | type[np.int8]:
    """Return how the numbers of one of `PIXELS` are stored."""
    return np.int8 if array == "screen" else np.uint8


def encode(slices: NDArray[Any], chunk_slices: int) -> bytes:
    """Return the stored bytes of one chunk: bytes (n <= chunk_slices, y, x), filled up with 0.

    The same bytes that zarr writes for blosc-lz4-5 with bitshuffle, then crc32c.
    """
    full = np.zeros((chunk_slices, *slices.shape[1:]), slices.dtype)
    full[: len(slices)] = slices
    packed = bytes(BLOSC.encode(full))
    return packed + google_crc32c.value(packed).to_bytes(4, "little")


def entry(stored: bytes) -> list[Any]:
    """Return what the manifest remembers of a file: bytes, crc32c of all of it, sha256."""
    return [len(stored), google_crc32c.value(stored), hashlib.sha256(stored).hexdigest()]


@dataclass(frozen=True)
class Corpus:
    """A sealed corpus, open for reading. Made by `open_corpus`.

    Attributes
    ----------
    path : Path
    head : dict
        The attributes of the root group.
    manifest : dict
        Relative path of every stored file -> [bytes, crc32c, sha256].
    """

    path: Path
    head: dict[str, Any]
    manifest: dict[str, list[Any]]

    @property
    def digest(self) -> str:
        """Digest of the content: the digests of the parts, in order, and how they were made."""
        return str(self.head["digest"])

    @property
    def set_name(self) -> str:
        """``real``, ``generated`` or ``control``."""
        return str(self.head["set"])

    @property
    def key_id(self) -> str:
        """Which key made the pseudonyms."""
        return str(self.head["key_id"])

    @property
    def size_px(self) -> int:
        """Side of a slice."""
        return int(self.head["size_px"])

    @property
    def chunk_slices(self) -> int:
        """Slices in one chunk."""
        return int(self.head["chunk_slices"])

    @property
    def window_hu(self) -> tuple[float, float]:
        """HU shown as 0 and as 255."""
        low, high = self.head["window_hu"]
        return float(low), float(high)

    @property
    def n(self) -> int:
        """Number of slices."""
        return int(self.head["n"])

    @property
    def summary(self) -> dict[str, Any]:
        """The data table: what was seen, accepted, excluded, rejected; men, women, bytes."""
        return dict(self.head["summary"])

    def has(self, name: str) -> bool:
        """Whether a label or one of `PIXELS` is stored, made as this version makes it."""
        made = self.head.get("derived", {}).get(name, 1)
        return f"{name}/zarr.json" in self.manifest and made == DERIVED.get(name, 1)

    def require(self, *names: str) -> None:
        """Make sure that labels or arrays are stored: format 1.0 had no `screen` and no `SUMS`.

        Raises
        ------
        ValueError
            One line: what is not there, and how it is made.
        """
        for name in names:
            if not self.has(name):
                made = ".".join(map(str, self.head["fingerprint_format"]))
                raise ValueError(
                    f"{self.path}: a corpus of format {made} without the {name} that this version "
                    "needs; ingest its files again with --replace"
                )

    def label(self, name: str, rows: slice = slice(None)) -> NDArray[Any]:
        """Return one label of every slice, or of some `rows`; only their chunks are read.

        Labels of all slices of a corpus that is not large are read once, and must not be written.
        """
        if rows == slice(None) and self.n <= ROWS:
            if name not in self._labels:
                self._labels[name] = self._read_label(name, rows)
                self._labels[name].flags.writeable = False
            return self._labels[name]
        return self._read_label(name, rows)

    @cached_property
    def _labels(self) -> dict[str, NDArray[Any]]:
        return {}

    def _read_label(self, name: str, rows: slice) -> NDArray[Any]:
        self.require(name)
        first, last, _ = rows.indices(self.n)
        for k in range(first // ROWS, -(-last // ROWS)):
            self.stored(f"{name}/c/{k}")
        self.stored(f"{name}/{POINTER}")
        array = zarr.open_array(self.path / name, mode="r")
        return _column(array[first:last], LABELS[name])

    @cached_property
    def slices(self) -> pd.DataFrame:
        """One row per slice, in stored order; columns `LABELS` (of format 1.0: without `SUMS`)."""
        return self._table("", {name: kind for name, kind in LABELS.items() if self.has(name)})

    @cached_property
    def scans(self) -> pd.DataFrame:
        """One row per stack of slices; columns `SERIES`."""
        return self._table("series_table/", SERIES)

    def _table(self, folder: str, columns: dict[str, str]) -> pd.DataFrame:
        return pd.DataFrame(self._columns(folder, columns))

    def _columns(self, folder: str, columns: dict[str, str]) -> dict[str, NDArray[Any]]:
        for name in self.manifest:
            if any(name.startswith(f"{folder}{column}/") for column in columns):
                self.stored(name)
        group = zarr.open_group(self.path / folder, mode="r", use_consolidated=False)
        return {name: _column(np.asarray(group[name]), kind) for name, kind in columns.items()}

    def side(self, array: str) -> int:
        """Side of a slice in one of `PIXELS`."""
        return min(SMALLER.get(array, self.size_px), self.size_px)

    def read(self, first: int, last: int, array: str = "pixels") -> NDArray[Any]:
        """Return slices `first` to `last` (exclusive), every stored byte verified.

        Parameters
        ----------
        array : str
            One of `PIXELS`.

        Returns
        -------
        uint8 (``screen``: int8), shape (last - first, side, side)

        Raises
        ------
        ledger.Damaged
            Naming the chunk whose bytes are not those that were sealed.
        ValueError
            A corpus of an older format does not have this array.
        """
        if not 0 <= first <= last <= self.n:
            raise ValueError(f"read: 0 <= first <= last <= {self.n} must hold, got {first}, {last}")
        out = np.empty((last - first, self.side(array), self.side(array)), dtype_of(array))
        step = self.chunk_slices
        for k in range(first // step, -(-last // step)):
            low, high = max(first, k * step), min(last, (k + 1) * step)
            out[low - first : high - first] = self.chunk(k, array)[low - k * step : high - k * step]
        return out

    def at(self, indices: Sequence[int] | NDArray[np.int64], array: str = "pixels") -> NDArray[Any]:
        """Return single slices in the order asked for, each chunk decoded once."""
        wanted = np.asarray(indices, np.int64)
        out = np.empty((len(wanted), self.side(array), self.side(array)), dtype_of(array))
        for k in np.unique(wanted // self.chunk_slices):
            here = np.flatnonzero(wanted // self.chunk_slices == k)
            out[here] = self.chunk(int(k), array)[wanted[here] - k * self.chunk_slices]
        return out

    def chunk(self, k: int, array: str = "pixels") -> NDArray[Any]:
        """Decode one chunk: bytes (chunk_slices, side, side), verified first."""
        self.require(array)
        stored = self.stored(chunk_name(k, array))
        decoded = np.frombuffer(BLOSC.decode(memoryview(stored)[:-4]), dtype_of(array))
        return decoded.reshape(self.chunk_slices, self.side(array), self.side(array))

    def stored(self, name: str) -> bytes:
        """Return the bytes of a stored file once its length and crc32c equal the manifest's."""
        expected = self.manifest.get(name)
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise Damaged(f"{self.path.name}: {name} is missing or unreadable") from error
        if expected is None or [len(data), google_crc32c.value(data)] != expected[:2]:
            raise Damaged(f"{self.path.name}: {name} is not what was sealed{self._hint()}")
        return data

    def _hint(self) -> str:
        interrupted = (self.path / JOURNAL).exists()
        return "; an ingest was interrupted here, run it again to restore" if interrupted else ""


def _column(array: Any, kind: str) -> NDArray[Any]:
    values = np.asarray(array)
    return values.astype(object) if kind == "str" else values


def open_corpus(path: Path | str) -> Corpus:
    """Open a sealed corpus: check the pointer, its seal and the manifest, read no pixel.

    Raises
    ------
    ValueError
        Not a corpus, or made by a newer version of this program.
    ledger.Damaged
        The pointer or the manifest is not what was written.
    """
    path = Path(path)
    document = pointer(path)
    head = document["attributes"]
    name = f"manifests/{head['manifest']}.json"
    try:
        data = (path / name).read_bytes()
    except OSError as error:
        raise Damaged(f"{path.name}: {name} is missing or unreadable") from error
    if hashlib.sha256(data).hexdigest() != head["manifest"]:
        raise Damaged(f"{path.name}: {name} is not what was sealed")
    return Corpus(path, head, json.loads(data))


def pointer(path: Path) -> dict[str, Any]:
    """Read and verify the root ``zarr.json``."""
    try:
        data = (path / POINTER).read_bytes()
    except OSError as error:
        if _was_sealed(path):
            raise Damaged(f"{path.name}: zarr.json is missing or unreadable") from error
        raise ValueError(f"{path}: not a corpus (no zarr.json); make one with ingest") from error
    try:
        document = json.loads(data)
        attributes = document["attributes"]
        version = attributes["fingerprint_format"]
        seal = attributes["seal"]
    except (ValueError, KeyError, TypeError) as error:
        if not _was_sealed(path):
            raise ValueError(
                f"{path}: a Zarr group, but not a corpus; make one with ingest"
            ) from error
        raise Damaged(f"{path.name}: zarr.json is not what was sealed") from error
    if isinstance(version, list) and version[0] > FORMAT[0] and seal == seal_of(document):
        raise ValueError(f"{path}: corpus format {version}; install fingerprint >= {version[0]}.0")
    if seal != seal_of(document) or data != canonical(document):
        raise Damaged(f"{path.name}: zarr.json is not what was sealed")
    return dict(document)


def seal_of(document: dict[str, Any]) -> str:
    """Digest of the root document without its own seal."""
    attributes = {k: v for k, v in document["attributes"].items() if k != "seal"}
    return digest_of(document | {"attributes": attributes})


def is_corpus(path: Path) -> bool:
    """Whether a folder holds a sealed corpus (of any version, sound or not)."""
    try:
        return b"fingerprint_format" in (path / POINTER).read_bytes() or _was_sealed(path)
    except OSError:
        return _was_sealed(path)


def _was_sealed(path: Path) -> bool:
    return (path / "manifests").is_dir() and any((path / "manifests").iterdir())


def verify(path: Path) -> Iterator[str]:
    """Recompute every digest of a corpus; yield one line for each file that is not as sealed."""
    try:
        corpus = open_corpus(path)
    except Damaged as error:
        yield str(error)
        return
    for name, expected in sorted(corpus.manifest.items()):
        try:
            if entry((path / name).read_bytes()) != expected:
                yield f"{path.name}: {name} is not what was sealed"
        except OSError:
            yield f"{path.name}: {name} is missing or unreadable"
    known = set(corpus.manifest) | {POINTER, f"manifests/{corpus.head['manifest']}.json"}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        if name not in known and not name.startswith((".ingest/", ".lease", "manifests/")):
            yield f"{path.name}: {name} does not belong to the corpus"


def content_digest(rows: pd.DataFrame) -> str:
    """Digest of one part: what was stored, in order; not how it was chunked or compressed."""
    columns = [
        "participant",
        "scan",
        "series",
        "z_mm",
        "sex",
        "age",
        "native_px",
        "token",
        "digest",
    ]
    digest = hashlib.sha256()
    for first in range(0, max(1, len(rows)), ROWS):
        text = (
            rows[columns]
            .iloc[first : first + ROWS]
            .to_csv(index=False, header=first == 0, lineterminator="\n", float_format="%.6f")
        )
        digest.update(text.encode())
    return digest.hexdigest()
