"""The files of an ingest as columns: a million take 0.1 to 0.2 GB, as objects three times that.

`Files` is a sequence of `SourceFile`; one is made when it is asked for.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fingerprint.corpus.identity import Key, token

BATCH = 4096


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file: where it is, which bytes, and what the tables say of it.

    `participant` and `scan` are as the user wrote them (or None): in memory only.
    """

    folder: str
    name: str
    token: str
    size: int
    mtime_ns: int
    ctime_ns: int
    participant: str | None = None
    scan: str | None = None
    z_mm: float | None = None
    sex: str = ""
    age_y: int = -1
    code: str = ""
    reason: str = ""

    def told(self, key: Key) -> str:
        """Keyed digest of what the tables say of this file: it changes when they do."""
        said = [self.participant, self.scan, self.z_mm, self.sex, self.age_y, self.code]
        return token(key, json.dumps(said))

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.folder, self.name)


# a path need not be UTF-8, nor what is cut from one: Python's surrogates are kept as bytes
_ANY = pa.binary()
_FEW = pa.dictionary(pa.int32(), _ANY)  # texts that come again and again
_SCHEMA = pa.schema(
    {
        "folder": _FEW,
        "name": _ANY,
        "token": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "ctime_ns": pa.int64(),
        "participant": _FEW,
        "scan": _ANY,
        "z_mm": pa.float64(),
        "sex": _FEW,
        "age_y": pa.int16(),
        "code": _FEW,
        "reason": _FEW,
    }
)


class Files(Sequence[SourceFile]):
    """Immutable; a part of it is a view."""

    def __init__(self, files: Iterable[SourceFile] = ()) -> None:
        each = iter(files)
        batches = iter(lambda: list(itertools.islice(each, BATCH)), [])
        # with one dictionary for all batches, rows can be put in another order
        self._table = pa.Table.from_batches(map(_columns, batches), _SCHEMA).unify_dictionaries()

    @classmethod
    def _of(cls, table: pa.Table) -> Files:
        files = cls.__new__(cls)
        files._table = table
        return files

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (list(self),)  # to a worker goes what is in the view, not what is behind it

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[SourceFile]:
        for batch in self._table.to_batches(max_chunksize=BATCH):
            yield from map(SourceFile, *map(_listed, batch.columns))

    @overload
    def __getitem__(self, at: int) -> SourceFile: ...
    @overload
    def __getitem__(self, at: slice) -> Files: ...
    def __getitem__(self, at: int | slice) -> SourceFile | Files:
        if isinstance(at, slice):
            first, last, step = at.indices(len(self))
            if step != 1:
                raise ValueError(f"Files: a part must be without gaps, got a step of {step}")
            return Files._of(self._table.slice(first, max(0, last - first)))
        if not -len(self) <= at < len(self):
            raise IndexError(f"Files: {len(self)} files, asked for number {at}")
        return next(iter(self[at % len(self) : at % len(self) + 1]))

    def take(self, order: NDArray[np.int64]) -> Files:
        """Return some of the files, in the order of these indices."""
        return Files._of(self._table.take(pa.array(order)))

    def tokens(self) -> NDArray[np.bytes_]:
        """Return the tokens, shape (n,)."""
        return as_bytes(self._table["token"])


class Places:
    """Where tokens stand in a column of tokens."""

    def __init__(self, tokens: NDArray[np.bytes_]) -> None:
        self._order = np.argsort(tokens, kind="stable")
        self._sorted = tokens[self._order]

    def of(self, asked: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the row of each token that is asked for; -1: there is none."""
        if not len(self._sorted):
            return np.full(len(asked), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
        return np.where(self._sorted[at] == asked, self._order[at], -1)


def as_bytes(column: pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Return a column of short texts as fixed-width bytes, to be sorted and looked up."""
    parts = [
        np.array(batch.to_pylist(), np.bytes_)
        for chunk in column.chunks
        for batch in (chunk[i : i + BATCH] for i in range(0, len(chunk), BATCH))
    ]
    return np.concatenate(parts) if parts else np.zeros(0, "S1")


def _listed(column: pa.Array) -> list[Any]:
    """Return Python objects, None for null; pyarrow's own way takes five times as long."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        return list(column.to_pylist())  # numpy would say NaN for null
    values: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    if column.type != _ANY:
        return values
    return [v if v is None else v.decode("utf-8", "surrogatepass") for v in values]


def _columns(files: Sequence[SourceFile]) -> pa.RecordBatch:
    names = [field.name for field in dataclasses.fields(SourceFile)]
    columns = {name: [getattr(file, name) for file in files] for name in names}
    for name in ("folder", "name", "participant", "scan", "sex", "code", "reason"):
        columns[name] = [
            v if v is None else v.encode("utf-8", "surrogatepass") for v in columns[name]
        ]
    return pa.RecordBatch.from_pydict(columns, _SCHEMA)
