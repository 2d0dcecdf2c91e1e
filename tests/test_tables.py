"""Tables beside scans and images: right, or refused with the number of the row."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerprint.corpus.scan import Rejected
from fingerprint.corpus.tables import (
    Person,
    SliceRow,
    participant_from,
    quote_cell,
    read_participants,
    read_slices,
    same_name,
    unquote_cell,
)


def write(tmp_path: Path, *lines: str, end: str = "\n") -> Path:
    path = tmp_path / "table.tsv"
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def refused(path: Path, read: object = read_slices) -> str:
    with pytest.raises(ValueError, match=r"(participants|slices)\.tsv: ") as error:
        read(path)  # type: ignore[operator]
    message = str(error.value)
    assert "\n" not in message
    assert str(path) not in message
    return message


def test_participants_as_in_bids(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "participant_id\tage\tsex\tgroup",
        "sub-01\t34\tF\tcontrol",
        "sub-02\tn/a\tn/a\tn/a",
        "sub-03\t89+\tmale\tx",
        "sub-04\t97\tM\tx",
        "sub-05\t34.9\tO\tx",
    )
    assert read_participants(path) == {
        "sub-01": Person("F", 34),
        "sub-02": Person("", -1),
        "sub-03": Person("M", 89),
        "sub-04": Person("M", 89),
        "sub-05": Person("", 34),
    }


def test_participants_without_age_and_sex_are_kept(tmp_path: Path) -> None:
    assert read_participants(write(tmp_path, "participant_id", "a")) == {"a": Person("", -1)}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("sub-02\tyoung\tF", "row 3: age must be a number"),
        ("sub-02\t-1\tF", "row 3: age must be 0 to 130"),
        ("sub-02\t131\tF", "row 3: age must be 0 to 130"),
        ("sub-02\tnan\tF", "row 3: age must be a number"),
        ("sub-02\t50\tX", "row 3: sex must be"),
        ("n/a\t50\tF", "row 3: participant_id is missing"),
        ("sub-01\t50\tF", "row 3: participant_id stands in the table twice"),
        ("sub-02\t50", "row 3: 2 cells under 3 column names"),
    ],
)
def test_a_wrong_participant_is_named_by_its_row(tmp_path: Path, line: str, rule: str) -> None:
    path = write(tmp_path, "participant_id\tage\tsex", "sub-01\t50\tM", line)
    assert rule in refused(path, read_participants)


def test_slices_with_every_column(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "file\tparticipant\tscan\tz_mm\tsex\tage",
        "a/1.png\tp1\ts1\t-12.5\tF\t60",
        "a/2.png\tn/a\t\tn/a\tn/a\tn/a",
    )
    assert read_slices(path) == {
        "a/1.png": SliceRow("p1", "s1", -12.5, "F", 60),
        "a/2.png": SliceRow(None, None, None, "", -1),
    }


def test_only_the_file_column_is_needed(tmp_path: Path) -> None:
    assert read_slices(write(tmp_path, "file", "1.png")) == {"1.png": SliceRow()}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path, end: str, bom: str) -> None:
    path = write(tmp_path, f"{bom}File\tParticipant ", "a.png\tp", "", "b.png\tp", end=end)
    assert list(read_slices(path)) == ["a.png", "b.png"]


def test_names_beyond_ascii_are_found_however_they_are_composed(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Ärzte/日本 x\u2028y.png")
    path = write(tmp_path, "file", decomposed)
    assert list(read_slices(path)) == [same_name("Ärzte/日本 x\u2028y.png")]
    twice = write(tmp_path, "file", decomposed, unicodedata.normalize("NFC", decomposed))
    assert "row 3: file stands in the table twice" in refused(twice)


@pytest.mark.parametrize(
    "name",
    ["../../x<script>", "/etc/passwd", "a/../../b.png", "..", "a\\b.png", "a\0b.png", "a\x1bb.png"],
)
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    message = refused(write(tmp_path, "file", "a.png", name))
    assert "row 3: file must be a path inside the folder" in message
    assert name not in message


def test_markup_in_a_name_is_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, "file\tparticipant", "./x<script>.png\t'=1+1")
    assert read_slices(path) == {"x<script>.png": SliceRow("=1+1")}


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (["file\tpatient", "a\tb"], "column 2 is none of file, participant, scan"),
        (["participant", "a"], "column 'file' is missing"),
        (["file\tage\tAge", "a\t1\t2"], "two columns have one name"),
        (["file", "a", "b", "a"], "row 4: file stands in the table twice"),
        (["file", "a", "./a"], "row 3: file stands in the table twice"),
        (["file\tz_mm", "a\tinf"], "row 2: z_mm must be a number"),
        (["file\tz_mm", "a\t1_0"], "row 2: z_mm must be a number"),
        (["file\tscan", "n/a\tb"], "row 2: file is missing"),
        (["file\tscan", "a\tb\tc"], "row 2: 3 cells under 2 column names"),
        ([], "column 'file' is missing"),
    ],
)
def test_a_wrong_table_of_slices_is_one_clear_line(
    tmp_path: Path, lines: list[str], rule: str
) -> None:
    assert rule in refused(write(tmp_path, *lines))


def test_what_is_no_utf8_or_not_there_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("file\nä".encode("utf-16"))
    assert "not UTF-8 at byte 0" in refused(path)
    assert "cannot be read" in refused(tmp_path / "Smith.tsv")


def test_a_pattern_takes_the_participant_out_of_the_path() -> None:
    assert participant_from(r"^(sub-\d+)/", "sub-07/ct/1.png") == "sub-07"
    assert participant_from(r"(?:scan|ct)_(\w+?)_", "ct_p12_003.png") == "p12"


@pytest.mark.parametrize("path", ["other/1.png", "sub-/1.png"])
def test_a_path_without_the_pattern_is_nobodys(path: str) -> None:
    with pytest.raises(Rejected, match="no_patient"):
        participant_from(r"sub-(\d*)", path)


@pytest.mark.parametrize(
    ("pattern", "rule"), [("(", "not a regular"), ("a", "has 0"), ("(a)(b)", "has 2")]
)
def test_a_pattern_needs_exactly_one_group(pattern: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        participant_from(pattern, "a")


@pytest.mark.parametrize(
    ("cell", "quoted"),
    [
        ("=HYPERLINK()", "'=HYPERLINK()"),
        ("+a", "'+a"),
        ("-a", "'-a"),
        ("@a", "'@a"),
        ("'=a", "''=a"),
        ("-12.5", "-12.5"),
        ("1e-5", "1e-5"),
        ("a\tb\nc\rd", "a b c d"),
        ("", ""),
        ("x<script>", "x<script>"),
    ],
)
def test_a_cell_is_never_a_formula(cell: str, quoted: str) -> None:
    assert quote_cell(cell) == quoted


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"))))
def test_quoting_is_undone_by_reading(text: str) -> None:
    quoted = quote_cell(text)
    assert unquote_cell(quoted) == text
    assert not quoted.startswith(("=", "@"))
