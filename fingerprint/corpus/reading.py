"""The two kinds of ingest shard that touch input files: headers, and stacks of slices.

Both run a limited child process and pseudonymise what it says before anything is kept: what a shard
leaves on disk holds tokens and pseudonyms, never a path, a name or an identifier.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fingerprint import ledger
from fingerprint.corpus import anatomy, store, tables
from fingerprint.corpus.books import NAMED, Book
from fingerprint.corpus.clusters import clusters
from fingerprint.corpus.identity import Key, pseudonym, scan_id, token
from fingerprint.corpus.listing import Files, Places, SourceFile
from fingerprint.corpus.readers import Reader
from fingerprint.corpus.scan import Header, ReadOptions, Rejected, Scan, Stack, sums
from fingerprint.corpus.window import fit
from fingerprint.ledger import Counts, Values

MID_PX = 128
LOST = {"truncated", "damaged", "reader_died"}  # a slice that was there, not a letter beside it
ORDER = ("participant", "scan", "series", "z_mm")
UNKNOWN = tables.Person(sex="", age_y=-1)


def survey_files(
    files: Sequence[SourceFile],
    people: Mapping[str, tables.Person],
    key: Key,
    options: ReadOptions,
    limits: tuple[float, float],
) -> tuple[Values, Counts]:
    """Read the headers of some files; return one pseudonymised row per file."""
    with Reader(*limits) as reader:
        answers = reader.headers([f.path for f in files], options)
    rows = []
    for file, answer in zip(files, answers, strict=True):
        if isinstance(answer, Rejected):
            rows.append(_refused(file, answer))
        else:
            rows.append(_surveyed(file, answer[0], people, key))
    refused = sum("code" in row for row in rows)
    return {"rows": ledger.as_json(rows)}, {"files": len(rows), "rejected": refused}


def _refused(file: SourceFile, why: Rejected) -> dict[str, Any]:
    return {
        "token": file.token,
        "sha256": _sha256(file.path),
        "code": why.code,
        "detail": why.detail,
    }


def names_of(file: SourceFile, header: Header, key: Key) -> tuple[str, str, str]:
    """Return the pseudonyms of a file's participant ("" if unknown), scan and series."""
    who = file.participant or header.patient
    scan = header.acquisition or file.scan or file.token
    series = header.series or file.scan or file.token
    return (
        pseudonym(key, who) if who is not None else "",
        scan_id(key, f"{who}\n{scan}"),
        scan_id(key, f"{who}\n{series}"),
    )


def _surveyed(
    file: SourceFile, header: Header, people: Mapping[str, tables.Person], key: Key
) -> dict[str, Any]:
    who = file.participant or header.patient  # what the user says of a file goes before its tag
    person = people.get(who, UNKNOWN) if who is not None else UNKNOWN
    participant, scan, series = names_of(file, header, key)
    flags = header.flags
    if header.kind == "nifti" and who not in people and not str(who).startswith("sub-"):
        flags = (*flags, NAMED)
    return {
        "token": file.token,
        "kind": header.kind,
        "participant": participant,
        "scan": scan,
        "series": series,
        "sex": person.sex or header.sex or file.sex,
        "age": next((a for a in (person.age_y, header.age_y, file.age_y) if a >= 0), -1),
        "z_mm": file.z_mm,
        "pixel": header.pixel if header.kind == "image" else "",
        "low": header.low,
        "high": header.high,
        "frames": header.frames,
        "flags": ",".join(flags),
    }


@dataclass(frozen=True, slots=True)
class Unit:
    """One stack of slices to read: its files and what is known of it."""

    series: str
    scan: str
    participant: str
    kind: str
    sex: str
    age: int
    frames: int
    files: tuple[SourceFile, ...]
    z_mm: tuple[float, ...]
    lost: int  # unreadable files in the same folders: so many gaps in the stack have a cause

    def depends(self) -> list[Any]:
        """Return what decides the result of reading it, without a path."""
        files = [(f.token, f.size, f.mtime_ns, f.ctime_ns) for f in self.files]
        z = [None if np.isnan(v) else v for v in self.z_mm]
        who = [self.series, self.scan, self.participant, self.sex, self.age]
        return [*who, files, z, self.lost]


@dataclass(frozen=True)
class Stacks:
    """Files in the order of the stacks that they make, as columns: a million units are large.

    Attributes
    ----------
    rows : DataFrame
        What the survey said of each file, and how many unreadable files lie beside it (`lost`).
    files : Files
        The same files.
    """

    rows: pd.DataFrame
    files: Files

    def __getitem__(self, part: slice) -> Stacks:
        return Stacks(self.rows.iloc[part], self.files[part])

    def __iter__(self) -> Iterator[Unit]:
        members = zip(self.rows.itertuples(index=False), self.files, strict=True)
        for _, group in itertools.groupby(members, lambda member: member[0].series):
            yield self._unit(list(group))

    def _unit(self, members: list[tuple[Any, SourceFile]]) -> Unit:
        rows, files = zip(*members, strict=True)
        return Unit(
            series=rows[0].series,
            scan=rows[0].scan,
            participant=rows[0].participant,
            kind=rows[0].kind,
            sex=rows[0].sex,
            age=max(row.age for row in rows),
            frames=sum(row.frames for row in rows),
            files=files,
            z_mm=tuple(row.z_mm for row in rows),
            lost=sum({f.folder: row.lost for row, f in members}.values()),
        )


def stacks_of(book: Book, files: Files) -> Stacks:
    """Put the readable files in the order (participant, scan, series, z)."""
    gone = set(book.files.loc[book.files["code"].isin(LOST), "token"])
    lost = Counter(f.folder for f in files if f.token in gone) if gone else Counter()
    rows = book.readable("token", "kind", *ORDER, "sex", "age", "frames")
    rows = rows.sort_values([*ORDER, "token"])
    at = Places(files.tokens()).of(rows["token"].to_numpy(np.bytes_))
    files = files.take(at)
    beside = [lost[f.folder] for f in files] if lost else 0
    return Stacks(rows.drop(columns="token").assign(lost=beside), files)


def read_units(
    units: Stacks, options: ReadOptions, key: Key, limits: tuple[float, float]
) -> tuple[Values, Counts]:
    """Read stacks of slices: compressed pixels, a row per slice, an outcome per file."""
    values: dict[str, NDArray[Any]] = {}
    slices: list[dict[str, Any]] = []
    series: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    mids = []
    with Reader(*limits) as reader:
        for i, unit in enumerate(units):
            paths = [f.path for f in unit.files]
            stack = reader.read(paths, unit.kind, options, lost=unit.lost)
            hashes = [_sha256(f.path) for f in unit.files]
            files += _outcomes(unit, stack, hashes)
            if stack.scan is None or not len(stack.scan.pixels):
                continue
            packed = store.BLOSC.encode(np.ascontiguousarray(stack.scan.pixels))
            values[f"p{i}"] = np.frombuffer(bytes(packed), np.uint8)
            slices += _slice_rows(unit, stack.scan, i, key, alone=options.generated)
            series.append(_series_row(unit, stack.scan, hashes))
            if not unit.participant and not options.generated:
                mids.append(_mid(stack.scan.pixels))
    values["mids"] = np.concatenate(mids) if mids else np.zeros((0, 1, 1), np.uint8)
    values["rows"] = ledger.as_json({"files": files, "slices": slices, "series": series})
    return values, {"slices": len(slices), "files": len(files)}


def _outcomes(unit: Unit, stack: Stack, hashes: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for i, (file, digest) in enumerate(zip(unit.files, hashes, strict=True)):
        why = stack.rejected.get(i)
        rows.append(
            {
                "token": file.token,
                "sha256": digest,
                "code": why.code if why else "",
                "detail": why.detail if why else "",
                "reason": stack.excluded.get(i, ""),
            }
        )
    return rows


def _slice_rows(
    unit: Unit, scan: Scan, member: int, key: Key, *, alone: bool
) -> list[dict[str, Any]]:
    total, squares = sums(scan.pixels)
    frames = np.bincount(scan.source, minlength=len(unit.files))
    seen = np.zeros(len(unit.files), np.int64)
    z_mm = np.array([scan.z_mm[i] if np.isnan(unit.z_mm[s]) else unit.z_mm[s]
                     for i, s in enumerate(scan.source)], np.float64)  # fmt: skip
    # the images of one array of a generated set are not slices of one body
    region, confidence = anatomy.regions(_mid(scan.pixels), None if alone else z_mm)
    rows = []
    for i, image in enumerate(scan.pixels):
        source = int(scan.source[i])
        name = unit.files[source].token
        if frames[source] > 1:
            name = token(key, f"{name}#{seen[source]}")
        seen[source] += 1
        rows.append(
            {
                "participant": unit.participant,
                "scan": unit.scan,
                "series": unit.series,
                "z_mm": float(z_mm[i]),
                "sex": unit.sex,
                "age": unit.age,
                "region": str(region[i]),
                "region_confidence": float(confidence[i]),
                "sum": int(total[i]),
                "sum_of_squares": int(squares[i]),
                "native_px": scan.native_px,
                "token": name,
                "digest": hashlib.sha256(image.tobytes()).hexdigest(),
                "member": member,
                "index": i,
            }
        )
    return rows


def _series_row(unit: Unit, scan: Scan, hashes: Sequence[str]) -> dict[str, Any]:
    z, y, x = (float(v) for v in scan.spacing_mm)
    return {
        "series": unit.series,
        "scan": unit.scan,
        "participant": unit.participant,
        "n_slices": len(scan.pixels),
        "spacing_z_mm": z,
        "spacing_y_mm": y,
        "spacing_x_mm": x,
        "origin_y_mm": float(scan.origin_mm[0]),
        "origin_x_mm": float(scan.origin_mm[1]),
        "sex": unit.sex,
        "age": unit.age,
        "native_px": scan.native_px,
        "source_digest": ledger.digest_of(sorted(hashes)),
        "notes": "; ".join(scan.notes),
    }


def _mid(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return fit(pixels, min(MID_PX, pixels.shape[-1]), 0)[0]


def _sha256(path: Path) -> str:
    """Digest of a file, "" if it cannot be opened: the reader gave it a code already."""
    try:
        return ledger.digest_of_file(path)
    except OSError:
        return ""


def order(slices: pd.DataFrame, mids: NDArray[np.uint8], set_name: str) -> pd.DataFrame:
    """Put slices in stored order; near-duplicate clusters stand in for unknown participants.

    Parameters
    ----------
    slices : DataFrame
        One row per slice, as read.
    mids : uint8, shape (m, h, w)
        Small images of the slices without a participant, in the order of `slices`.
    set_name : str
        Generated images belong to nobody and are not clustered.
    """
    unknown = np.flatnonzero(slices["participant"] == "")
    if set_name != "generated" and len(unknown):
        labels = clusters(mids)
        tokens = slices["token"].to_numpy(object)[unknown]
        least = pd.Series(tokens).groupby(labels).transform("min")
        participant = slices["participant"].to_numpy(object)
        participant[unknown] = "C" + least.to_numpy(object)
        slices = slices.assign(participant=participant)
    index = slices[[*ORDER, "token"]].sort_values([*ORDER, "token"], kind="stable").index
    return slices.iloc[index].reset_index(drop=True)
