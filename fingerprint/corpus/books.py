"""The account of an ingest: what became of every file, every stack of slices and every slice.

Three tables, without a path or an identifier in them. Nothing leaves the account: a file is
accepted, excluded for a reason or rejected with a code, and `Book.summary` adds them up.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fingerprint.corpus import store, tables
from fingerprint.corpus.identity import Key
from fingerprint.corpus.images import range_of
from fingerprint.corpus.source import SourceFile
from fingerprint.ledger import Damaged, replacing

FILES: dict[str, str] = {
    "token": "object",
    "bytes": "int64",
    "mtime_ns": "int64",
    "ctime_ns": "int64",
    "sha256": "object",
    "code": "object",
    "detail": "object",
    "reason": "object",
    "kind": "object",
    "participant": "object",
    "scan": "object",
    "series": "object",
    "sex": "object",
    "age": "int64",
    "z_mm": "float64",
    "pixel": "object",
    "low": "float64",
    "high": "float64",
    "frames": "int64",
    "flags": "object",
    "told": "object",
}
NAMED = "named_by_file"  # a NIfTI file that no table speaks of: its name stands in for a patient
_BLANK = {"object": "", "int64": 0, "float64": np.nan}
NAMES = ("files", "slices", "series")


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
    def of_files(cls, files: Sequence[SourceFile], key: Key) -> Book:
        """Open the account: one row per file, some of them refused by name already."""
        columns = {
            "token": [f.token for f in files],
            "bytes": [f.size for f in files],
            "mtime_ns": [f.mtime_ns for f in files],
            "ctime_ns": [f.ctime_ns for f in files],
            "code": [f.code for f in files],
            "reason": [f.reason for f in files],
            "age": np.full(len(files), -1),
            "told": [f.told(key) for f in files],
        }
        return replace(cls.empty(), files=_frame(columns, FILES))

    def with_headers(self, headers: Sequence[pd.DataFrame], require: Sequence[str]) -> Book:
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

    def with_outcomes(self, outcomes: Sequence[pd.DataFrame]) -> Book:
        """Enter rows by token (made by `outcomes_of`); columns that they do not name stay."""
        index = pd.Index(self.files["token"])
        columns = {name: self.files[name].to_numpy(copy=True) for name in FILES}
        for table in outcomes:  # one by one: shards name different columns
            at = index.get_indexer(table["token"])
            for name in table.columns:
                columns[name][at] = table[name].to_numpy()
        return replace(self, files=pd.DataFrame(columns))

    def with_series(self, rows: Sequence[Mapping[str, Any]]) -> Book:
        """Add stacks of slices."""
        return replace(self, series=_concat(self.series, _frame(rows, store.SERIES)))

    def with_slices(self, slices: pd.DataFrame) -> Book:
        """Enter the slices in stored order, and give the stacks their final participants."""
        who = slices.drop_duplicates("series").set_index("series")["participant"]
        series = self.series.assign(participant=self.series["series"].map(who))
        return replace(self, slices=slices, series=series)

    def plus(self, new: Book, part: int) -> Book:
        """Append a part."""
        slices = _frame(new.slices.assign(part=part), store.LABELS)
        series = _frame(new.series.assign(part=part), store.SERIES)
        tried_again = self.files["token"].isin(new.files["token"])
        return Book(
            _concat(self.files[~tried_again], new.files),
            _concat(self.slices, slices),
            _concat(self.series, series),
        )

    @property
    def readable(self) -> pd.DataFrame:
        """The files that are neither excluded nor rejected."""
        return self.files[(self.files["code"] == "") & (self.files["reason"] == "")]

    def value_range(self, sealed: Sequence[float] | None) -> tuple[float, float] | None:
        """Range of float images if the whole set shows it: [0, 1] or [-1, 1]; else None.

        One mapping per set: what the sealed parts were mapped with holds for the new one too.
        """
        floats = self.readable[self.readable["pixel"] == "float"]
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
        excluded, rejected = _counts(files["reason"]), _counts(files["code"])
        if len(self.readable) + sum(excluded.values()) + sum(rejected.values()) != len(files):
            raise RuntimeError("summary: accepted + excluded + rejected is not what was seen")
        people = series.drop_duplicates("participant")
        per_scan = slices.groupby("scan").size()
        return {
            "seen": len(files),
            "accepted": len(self.readable),
            "excluded": excluded,
            "rejected": rejected,
            "bytes_in": int(self.readable["bytes"].sum()),
            "scans": int(slices["scan"].nunique()),
            "series": len(series),
            "participants": int((people["participant"] != "").sum()),
            "men": int((people["sex"] == "M").sum()),
            "women": int((people["sex"] == "F").sum()),
            "slices": len(slices),
            "slices_m": int((slices["sex"] == "M").sum()),
            "slices_f": int((slices["sex"] == "F").sum()),
            "slices_per_scan": float(per_scan.mean()) if len(per_scan) else 0.0,
            "no_age": int((people["age"] < 0).sum()),
            "no_sex": int((people["sex"] == "").sum()),
            "flags": _counts(self.readable["flags"].str.split(",").explode()),
            "participants_known": _how_known(slices, self.readable["flags"], set_name),
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        notes = {note for text in self.series["notes"] for note in str(text).split("; ") if note}
        if (self.readable["pixel"] == "float").any():
            notes.add("float images: one range of values was mapped to grey levels")
        return sorted(notes)

    def sidecars(self) -> dict[str, bytes]:
        """Return the tables that are sealed with the corpus: name -> bytes."""
        rejected = self.files[self.files["code"] != ""]
        excluded = self.files[self.files["reason"] != ""]
        people = self.series.drop_duplicates("participant")
        people = people[people["participant"] != ""].sort_values("participant")
        return {
            "sources.parquet": _parquet(self.files),
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

    def save(self, folder: Path) -> None:
        """Leave the account for the next phase."""
        for name in NAMES:
            with replacing(folder / f"{name}.parquet") as out:
                out.write(_parquet(getattr(self, name)))

    @classmethod
    def load(cls, folder: Path) -> Book:
        """Read an account that `save` left."""
        return cls(*(pd.read_parquet(folder / f"{name}.parquet") for name in NAMES))


def outcomes_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return what a shard said of its files as a table; equal texts are one text in memory."""
    named = {name for row in rows for name in row}
    table = _frame(rows, {name: kind for name, kind in FILES.items() if name in named})
    for name in (n for n in table.columns if FILES[n] == "object"):
        table[name] = [sys.intern(text) for text in table[name]]
    return table


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


def _counts(column: pd.Series) -> dict[str, int]:
    counts = column[column.fillna("") != ""].value_counts()
    return {str(name): int(counts[name]) for name in sorted(counts.index)}


def _frame(rows: Any, columns: Mapping[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    kinds = {name: "object" if kind == "str" else kind for name, kind in columns.items()}
    data = {}
    for name, kind in kinds.items():
        blank = _BLANK.get(kind, 0)
        column = frame[name] if name in frame else pd.Series([blank] * len(frame))
        missing = column.isna() & (kind != "float64")
        data[name] = column.astype(object).where(~missing, blank).astype(kind).to_numpy()
    return pd.DataFrame(data)


def _concat(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    return second if first.empty else pd.concat([first, second], ignore_index=True)


def _parquet(frame: pd.DataFrame) -> bytes:
    out = BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()


def _tsv(frame: pd.DataFrame) -> bytes:
    quoted = frame.map(lambda cell: tables.quote_cell(str(cell)))
    return bytes(quoted.to_csv(sep="\t", index=False, lineterminator="\n").encode())
