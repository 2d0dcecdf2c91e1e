"""The account of an ingest: what became of every file, every stack of slices and every slice.

Three tables, without a path or an identifier in them. Nothing leaves the account: a file is
accepted, excluded for a reason or rejected with a code, and `Book.summary` adds them up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fingerprint.corpus import store, tables
from fingerprint.corpus.identity import Key
from fingerprint.corpus.images import range_of
from fingerprint.corpus.listing import Files, Places
from fingerprint.ledger import Damaged, replacing

FILES: dict[str, str] = {
    "token": "str",
    "bytes": "int64",
    "mtime_ns": "int64",
    "ctime_ns": "int64",
    "sha256": "str",
    "code": "str",
    "detail": "str",
    "reason": "str",
    "kind": "str",
    "participant": "str",
    "scan": "str",
    "series": "str",
    "sex": "str",
    "age": "int64",
    "z_mm": "float64",
    "pixel": "str",
    "low": "float64",
    "high": "float64",
    "frames": "int64",
    "flags": "str",
    "told": "str",
}
NAMED = "named_by_file"  # a NIfTI file that no table speaks of: its name stands in for a patient
_BLANK = {"str": "", "float64": np.nan}
BATCH = 8192  # files held as Python objects at a time


@dataclass(frozen=True)
class Book:
    """Immutable: every step returns a new one."""

    files: pd.DataFrame
    slices: pd.DataFrame
    series: pd.DataFrame

    @classmethod
    def empty(cls) -> Book:
        """Return the account of nothing."""
        return cls(_frame([], FILES), _frame([], store.LABELS), _frame([], store.SERIES))

    @classmethod
    def of_files(cls, files: Files, key: Key) -> Book:
        """Open the account: one row per file, some of them refused by name already."""
        tables = [_opened(files[i : i + BATCH], key) for i in range(0, len(files), BATCH)]
        return replace(cls.empty(), files=_concat(cls.empty().files, *tables))

    def with_headers(self, headers: Iterable[pd.DataFrame], require: Sequence[str]) -> Book:
        """Enter what the headers said; exclude what lacks a required label."""
        book = self.with_outcomes(headers)
        files = book.files
        # an acquisition may change inside a series (one per slice on old scanners): the least one
        files["scan"] = (
            files.groupby("series")["scan"].transform("min").where(files["series"] != "", "")
        )
        readable = (files["code"] == "") & (files["reason"] == "")
        lacks = {"age": files["age"] < 0, "sex": files["sex"] == ""}
        for name in require:
            files.loc[readable & lacks[name] & (files["reason"] == ""), "reason"] = f"no_{name}"
        return book

    def with_outcomes(self, outcomes: Iterable[pd.DataFrame]) -> Book:
        """Enter rows by token (made by `outcomes_of`); columns that they do not name stay."""
        places = Places(self.files["token"].to_numpy(np.bytes_))
        open_columns: dict[str, NDArray[Any]] = {}
        for table in outcomes:  # one by one: shards name different columns
            at = places.of(table["token"].to_numpy(np.bytes_))
            if (at < 0).any():
                raise RuntimeError(
                    "with_outcomes: a shard speaks of files that are not in the book"
                )
            for name in table.columns.drop("token"):
                if name not in open_columns:
                    open_columns[name] = _writable(self.files[name])
                open_columns[name][at] = _writable(table[name])
        columns = {name: self.files[name] for name in FILES}
        for name in list(open_columns):
            columns[name] = _closed(open_columns.pop(name))
        return replace(self, files=pd.DataFrame(columns))

    def with_series(self, series: Sequence[pd.DataFrame]) -> Book:
        """Add stacks of slices (made by `series_of`)."""
        return replace(self, series=_concat(self.series, *series))

    def with_slices(self, slices: pd.DataFrame) -> Book:
        """Enter the slices in stored order, and give the stacks their final participants."""
        who = slices.drop_duplicates("series").set_index("series")["participant"]
        series = self.series.assign(participant=self.series["series"].map(who))
        return replace(self, slices=slices, series=series)

    def with_sums(self, sums: pd.DataFrame) -> Book:
        """Enter what the writing of the chunks said of each slice: columns `store.SUMS`."""
        if len(sums) != len(self.slices):
            raise RuntimeError("with_sums: not as many slices were written as were read")
        return replace(self, slices=self.slices.assign(**{n: sums[n].to_numpy() for n in sums}))

    def plus(self, new: Book, part: int) -> Book:
        """Append a part."""
        slices = _frame(new.slices.assign(part=part), store.LABELS)
        series = _frame(new.series.assign(part=part), store.SERIES)
        files = self.files
        if len(files):  # else a million tokens are looked up for nothing
            files = files[~files["token"].isin(new.files["token"])]
        return Book(
            _concat(files, new.files),
            _concat(self.slices, slices),
            _concat(self.series, series),
        )

    def readable(self, *columns: str) -> pd.DataFrame:
        """Return the files that are neither excluded nor rejected: these columns of them."""
        good = (self.files["code"] == "") & (self.files["reason"] == "")
        return self.files.loc[good, list(columns)]

    def value_range(self, sealed: Sequence[float] | None) -> tuple[float, float] | None:
        """Range of float images if the whole set shows it: [0, 1] or [-1, 1]; else None.

        One mapping per set: what the sealed parts were mapped with holds for the new one too.
        """
        readable = self.readable("pixel", "low", "high")
        floats = readable[readable["pixel"] == "float"]
        if sealed is not None:
            return float(sealed[0]), float(sealed[1])
        return range_of(floats["low"].min(), floats["high"].max()) if len(floats) else None

    def within(self, sealed: Sequence[float] | None) -> Book:
        """Reject float images outside the range of the sealed parts: clipped, they would change."""
        if sealed is None:
            return self
        files = self.files.copy()
        floats = (files["pixel"] == "float") & (files["code"] == "") & (files["reason"] == "")
        outside = floats & ((files["low"] < sealed[0]) | (files["high"] > sealed[1]))
        files.loc[outside, "code"] = "no_range"
        files.loc[outside, "detail"] = f"outside {sealed[0]:g} to {sealed[1]:g}, of earlier parts"
        return replace(self, files=files)

    def tally(self) -> str:
        """Codes and reasons with their counts, for one line on the terminal."""
        counts = {**_counts(self.files["code"]), **_counts(self.files["reason"])}
        return ", ".join(f"{n} {name}" for name, n in counts.items()) or "nothing refused"

    def summary(self, set_name: str) -> dict[str, Any]:
        """Return the data table of paper 000 for this corpus, and how participants are known."""
        files, slices, series = self.files, self.slices, self.series
        readable = self.readable("bytes", "flags")
        excluded, rejected = _counts(files["reason"]), _counts(files["code"])
        if len(readable) + sum(excluded.values()) + sum(rejected.values()) != len(files):
            raise RuntimeError("summary: accepted + excluded + rejected is not what was seen")
        people = series.drop_duplicates("participant")
        per_scan = slices.groupby("scan").size()
        return {
            "seen": len(files),
            "accepted": len(readable),
            "excluded": excluded,
            "rejected": rejected,
            "bytes_in": int(readable["bytes"].sum()),
            "scans": int(slices["scan"].nunique()),
            "series": len(series),
            "participants": int((people["participant"] != "").sum()),
            "men": int((people["sex"] == "M").sum()),
            "women": int((people["sex"] == "F").sum()),
            "slices": len(slices),
            "slices_m": int((slices["sex"] == "M").sum()),
            "slices_f": int((slices["sex"] == "F").sum()),
            "classes": _counts(slices["region"]) | {"none": int((slices["region"] == "").sum())},
            "slices_per_scan": float(per_scan.mean()) if len(per_scan) else 0.0,
            "no_age": int((people["age"] < 0).sum()),
            "no_sex": int((people["sex"] == "").sum()),
            "flags": _count_flags(readable["flags"]),
            "participants_known": _how_known(slices, readable["flags"], set_name),
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        texts = self.series["notes"].unique()
        notes = {note for text in texts for note in str(text).split("; ") if note}
        if (self.readable("pixel")["pixel"] == "float").any():
            notes.add("float images: one range of values was mapped to grey levels")
        return sorted(notes)

    def sidecars(self) -> dict[str, bytes]:
        """Return the tables that are sealed with the corpus: name -> bytes."""
        rejected = self.files[self.files["code"] != ""]
        excluded = self.files[self.files["reason"] != ""]
        people = self.series.drop_duplicates("participant")
        people = people[people["participant"] != ""].sort_values("participant")
        return {
            "sources.parquet": parquet(self.files),
            "rejections.tsv": _tsv(rejected[["token", "bytes", "sha256", "code", "detail"]]),
            "excluded.tsv": _tsv(excluded[["token", "bytes", "reason"]]),
            "participants.tsv": _tsv(
                pd.DataFrame(
                    {
                        "participant_id": people["participant"],
                        "age": people["age"].where(people["age"] >= 0, "n/a").astype(object),
                        "sex": people["sex"].replace("", "n/a"),
                    }
                )
            ),
            "dataset_description.json": json.dumps(
                {
                    "Name": "fingerprint corpus",
                    "BIDSVersion": "1.10.0",
                    "DatasetType": "derivative",
                    "GeneratedBy": [{"Name": "fingerprint"}],
                },
                indent=1,
            ).encode(),
        }

    def save(self, folder: Path, *names: str) -> None:
        """Leave some of the tables for the next phase."""
        for name in names:
            with replacing(folder / f"{name}.parquet") as out:
                getattr(self, name).to_parquet(out, index=False)

    @classmethod
    def load(cls, folder: Path, *names: str) -> Book:
        """Read some of the tables that `save` left; the others are empty."""
        tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
        return replace(cls.empty(), **tables)


def outcomes_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return what a shard said of its files as a table."""
    named = {name for row in rows for name in row}
    return _frame(rows, {name: kind for name, kind in FILES.items() if name in named})


def slices_of(rows: Sequence[Mapping[str, Any]], shard: int) -> pd.DataFrame:
    """Return the slices that shard number `shard` read as a table, and where they lie in it."""
    labels = {k: v for k, v in store.LABELS.items() if k not in (*store.SUMS, "part")}
    table = _frame(rows, labels | {"member": "int32", "index": "int32"})
    return table.assign(shard=np.full(len(table), shard, np.int32))


def series_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the stacks of slices that a shard read as a table."""
    return _frame(rows, store.SERIES)


def read_book(corpus: store.Corpus) -> Book:
    """Return the account of a sealed corpus."""
    try:
        files = pd.read_parquet(BytesIO(corpus.stored("sources.parquet")))
    except (ValueError, OSError) as error:
        raise Damaged(f"{corpus.path.name}: sources.parquet cannot be read") from error
    return Book(files, corpus.slices, corpus.scans)


def _how_known(slices: pd.DataFrame, flags: pd.Series, set_name: str) -> str:
    if set_name == "generated":
        return "not needed"
    if flags.str.contains(NAMED).any():
        return "file names"
    if slices["participant"].str.startswith("C").any():
        return "clusters"
    return "known"


def _opened(files: Files, key: Key) -> pd.DataFrame:
    rows = [
        (f.token, f.size, f.mtime_ns, f.ctime_ns, f.code, f.reason, -1, f.told(key)) for f in files
    ]
    names = ("token", "bytes", "mtime_ns", "ctime_ns", "code", "reason", "age", "told")
    return _frame(dict(zip(names, zip(*rows, strict=True), strict=True)), FILES)


def _count_flags(flags: pd.Series) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for text, n in flags.value_counts().items():
        counts.update(dict.fromkeys(filter(None, str(text).split(",")), int(n)))
    return {name: counts[name] for name in sorted(counts)}


def _counts(column: pd.Series) -> dict[str, int]:
    counts = column[column.fillna("") != ""].value_counts()
    return {str(name): int(counts[name]) for name in sorted(counts.index)}


def _frame(rows: Any, columns: Mapping[str, str]) -> pd.DataFrame:
    """Return these columns and no others, in this order; what is missing is blank."""
    frame = pd.DataFrame(rows).reset_index(drop=True)
    return pd.DataFrame({name: _column(frame, name, kind) for name, kind in columns.items()})


def _column(frame: pd.DataFrame, name: str, kind: str) -> pd.Series:
    blank = _BLANK.get(kind, 0)
    if name not in frame:
        return pd.Series(blank, index=frame.index, dtype=kind)
    column = frame[name]
    if kind != "float64" and (missing := column.isna()).any():
        column = column.astype(object).where(~missing, blank)
    return column.astype(kind)


def _writable(column: pd.Series) -> NDArray[Any]:
    """Return a column to be written row by row: short texts take 16 bytes, as objects 68."""
    if column.dtype.kind in "if":
        return column.to_numpy(copy=True)
    return column.to_numpy(object).astype(np.dtypes.StringDType())


def _closed(column: NDArray[Any]) -> pd.Series:
    return pd.Series(column if column.dtype.kind in "if" else column.astype(object))


def _concat(*tables: pd.DataFrame) -> pd.DataFrame:
    some = [table for table in tables if len(table)]
    return pd.concat(some, ignore_index=True) if some else tables[0]


def parquet(frame: pd.DataFrame) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    out = BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()


def _tsv(frame: pd.DataFrame) -> bytes:
    quoted = frame.map(lambda cell: tables.quote_cell(str(cell)))
    return bytes(quoted.to_csv(sep="\t", index=False, lineterminator="\n").encode())
