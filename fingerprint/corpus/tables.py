"""What the user says about scans and images: ``participants.tsv`` and ``slices.tsv``.

Both are tab-separated UTF-8 with one line of column names, as in BIDS; ``n/a`` or an empty cell is
a missing value. A table is right or it is refused: a slip in a column of patients would make two
patients of one. An error is one line with the number of the row (the first line is row 1); it never
repeats a cell or the table's path, since it may end in a log.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fingerprint.corpus.scan import Rejected
from fingerprint.ledger import replacing

AGE_CAP = 89  # ages above identify people and are not kept
OLDEST = 130
MISSING = ("", "n/a")
SEX = {
    "m": "M", "male": "M", "man": "M",
    "f": "F", "female": "F", "woman": "F",
    "o": "", "other": "",
}  # fmt: skip
SLICE_COLUMNS = ("file", "participant", "scan", "z_mm", "sex", "age")
# a cell that begins so is a formula in a spreadsheet; an apostrophe in front makes it text
FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Person:
    """Sex (``M``, ``F`` or ``""``) and age in whole years, capped at 89 (-1: missing)."""

    sex: str
    age_y: int


@dataclass(frozen=True, slots=True)
class SliceRow:
    """What ``slices.tsv`` says of one image file; None, ``""`` and -1 where it says nothing."""

    participant: str | None = None
    scan: str | None = None
    z_mm: float | None = None
    sex: str = ""
    age_y: int = -1


def read_participants(path: Path) -> dict[str, Person]:
    """Read ``participants.tsv``: participant_id -> sex and age.

    Columns ``participant_id`` and, if there, ``age`` and ``sex``; BIDS allows others, which are not
    read.

    Raises
    ------
    ValueError
        The table cannot be read, lacks ``participant_id``, names someone twice, or holds a sex or
        an age that is none.
    """
    people: dict[str, Person] = {}
    table = "participants.tsv"
    for row, cells in _rows(table, _lines(table, path), required="participant_id", known=None):
        name = cells["participant_id"]
        if name in MISSING:
            raise _wrong(table, row, "participant_id is missing")
        if name in people:
            raise _wrong(table, row, "participant_id stands in the table twice")
        people[name] = Person(_sex(table, row, cells), _age(table, row, cells))
    return people


def read_slices(path: Path) -> dict[str, SliceRow]:
    """Read ``slices.tsv``: name of an image file, as `same_name` writes it -> what is said of it.

    Column ``file``, a posix path relative to the folder of images; if there, ``participant``,
    ``scan``, ``z_mm`` (along the body, towards the head), ``sex`` and ``age``.

    Raises
    ------
    ValueError
        The table cannot be read, has another column, names a file twice or one outside the folder,
        or holds a position, a sex or an age that is none.
    """
    slices: dict[str, SliceRow] = {}
    table = "slices.tsv"
    for row, cells in _rows(table, _lines(table, path), required="file", known=SLICE_COLUMNS):
        name = _inside(table, row, cells["file"])
        if name in slices:
            raise _wrong(table, row, "file stands in the table twice")
        slices[name] = SliceRow(
            participant=_text(cells.get("participant", "")),
            scan=_text(cells.get("scan", "")),
            z_mm=_number(table, row, cells, "z_mm"),
            sex=_sex(table, row, cells),
            age_y=_age(table, row, cells),
        )
    return slices


def same_name(relative_path: str) -> str:
    """Return a relative path as a table's key: NFC, since systems compose accents differently."""
    return unicodedata.normalize("NFC", relative_path)


def participant_from(pattern: str, relative_path: str) -> str:
    """Take the participant out of a file's relative posix path: the one group of `pattern`.

    Raises
    ------
    ValueError
        `pattern` is not a regular expression with exactly one group.
    Rejected
        ``no_patient``: the pattern does not occur in this path, or its group is empty.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"participant_from: not a regular expression: {error}") from error
    if compiled.groups != 1:
        raise ValueError(
            f"participant_from: the pattern must have exactly one group, has {compiled.groups}"
        )
    found = compiled.search(same_name(relative_path))
    if not found or not found[1]:
        raise Rejected("no_patient", "the pattern does not fit the path")
    return str(found[1])


def quote_cell(text: str) -> str:
    """Make a cell safe to open in a spreadsheet: no formula, no tab, no line break.

    Numbers stay as they are. `unquote_cell` is the way back.
    """
    text = "".join(" " if _is_control(c) else c for c in text)
    if text.startswith((*FORMULA, "'")) and not _is_number(text):
        return "'" + text
    return text


def unquote_cell(text: str) -> str:
    """Undo the apostrophe of `quote_cell`."""
    return text[1:] if text.startswith("'") and text[1:2] in (*FORMULA, "'") else text


def _rows(
    table: str, lines: list[str], *, required: str, known: tuple[str, ...] | None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Row number and cells by column name; empty lines are passed over."""
    columns = [name.strip().lower() for name in lines[0].split("\t")]
    if required not in columns:
        raise ValueError(f"{table}: column {required!r} is missing")
    if len(set(columns)) < len(columns):
        raise ValueError(f"{table}: two columns have one name")
    for i, name in enumerate(columns, 1):
        if known is not None and name not in known:
            raise ValueError(f"{table}: column {i} is none of {', '.join(known)}")
    for row, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = [unquote_cell(cell.strip()) for cell in line.split("\t")]
        if len(cells) != len(columns):
            raise _wrong(table, row, f"{len(cells)} cells under {len(columns)} column names")
        yield row, dict(zip(columns, cells, strict=True))


def _lines(table: str, path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{table}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not UTF-8 at byte {error.start}") from error
    # not splitlines(): that breaks at characters which may stand in a name
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _inside(table: str, row: int, name: str) -> str:
    """Return a relative posix path in its plain form, refused if it can leave the folder."""
    if name in MISSING:
        raise _wrong(table, row, "file is missing")
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or "\\" in name or any(map(_is_control, name)):
        raise _wrong(table, row, "file must be a path inside the folder, with / between its parts")
    return same_name(plain.as_posix())


def _text(cell: str) -> str | None:
    return None if cell in MISSING else cell


def _sex(table: str, row: int, cells: dict[str, str]) -> str:
    cell = cells.get("sex", "").lower()
    if cell in MISSING:
        return ""
    if cell not in SEX:
        raise _wrong(table, row, "sex must be M, F, O or n/a")
    return SEX[cell]


def _age(table: str, row: int, cells: dict[str, str]) -> int:
    if cells.get("age", "") == f"{AGE_CAP}+":
        return AGE_CAP
    age = _number(table, row, cells, "age")
    if age is None:
        return -1
    if not 0 <= age <= OLDEST:
        raise _wrong(table, row, f"age must be 0 to {OLDEST} years, 89+ or n/a")
    return min(int(age), AGE_CAP)


def _number(table: str, row: int, cells: dict[str, str], column: str) -> float | None:
    cell = cells.get(column, "")
    if cell in MISSING:
        return None
    if not _is_number(cell):
        raise _wrong(table, row, f"{column} must be a number or n/a")
    return float(cell)


def _is_control(c: str) -> bool:
    return unicodedata.category(c) == "Cc"


def _is_number(text: str) -> bool:
    # not float(): that takes "nan", "inf" and "1_000" too
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", text, re.ASCII) is not None


def _wrong(table: str, row: int, rule: str) -> ValueError:
    return ValueError(f"{table}: row {row}: {rule}")


def save(path: Path, rows: Iterable[Sequence[str]], columns: Sequence[str]) -> None:
    """Write a table of ours in one rename; every cell is safe to open in a spreadsheet."""
    lines = [columns, *rows]
    text = "".join("\t".join(quote_cell(str(cell)) for cell in line) + "\n" for line in lines)
    with replacing(path) as out:
        out.write(text.encode())
