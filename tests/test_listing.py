"""A million files are held as columns, and come out as they went in."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint.corpus.listing import BATCH, Files, Places, SourceFile

FILE = SourceFile("/data/ct", "0001.png", "0123456789ab", 1000, 1_700_000_000_000_000_000, 17)
# bytes of a name that are not UTF-8 reach Python as lone surrogates
NAMES = st.text(st.characters(max_codepoint=0x2FFF), max_size=8) | st.just("caf\udce9.png")
FILES = st.builds(
    SourceFile,
    folder=NAMES,
    name=NAMES,
    token=st.text("0123456789abcdef", min_size=12, max_size=12),
    size=st.integers(0, 2**62),
    mtime_ns=st.integers(-(2**62), 2**62),
    ctime_ns=st.integers(0, 2**62),
    participant=st.none() | NAMES,
    scan=st.none() | NAMES,
    z_mm=st.none() | st.floats(-1e6, 1e6),
    sex=st.sampled_from(["", "M", "F"]),
    age_y=st.integers(-1, 89),
    code=st.sampled_from(["", "unreadable"]),
    reason=st.sampled_from(["", "not_data"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(FILES, max_size=12), st.data())
def test_files_come_out_as_they_went_in(files: list[SourceFile], data: st.DataObject) -> None:
    listed = Files(files)
    assert list(listed) == files
    assert [listed[i] for i in range(-len(files), len(files))] == files * 2
    first, last = (data.draw(st.integers(-14, 14)) for _ in range(2))
    assert list(listed[first:last]) == files[first:last]
    assert list(pickle.loads(pickle.dumps(listed[first:last]))) == files[first:last]
    order = data.draw(st.permutations(range(len(files))))
    assert list(listed.take(np.array(order, np.int64))) == [files[i] for i in order]
    assert listed.tokens().tolist() == [f.token.encode() for f in files]


def test_a_number_that_is_no_file_is_refused() -> None:
    with pytest.raises(IndexError):
        Files([FILE])[1]
    with pytest.raises(ValueError, match="without gaps"):
        Files([FILE])[::2]


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30)))
def test_places_are_those_of_a_dictionary(there: list[int], asked: list[int]) -> None:
    tokens = [f"{i:012x}".encode() for i in there]
    where = {name: i for i, name in enumerate(tokens)}
    wanted = [f"{i:012x}".encode() for i in asked]
    found = Places(np.array(tokens, np.bytes_)).of(np.array(wanted, "S12"))
    assert found.tolist() == [where.get(name, -1) for name in wanted]


def test_a_hundred_thousand_files_take_little_and_travel_in_parts() -> None:
    def each(n: int):
        for i in range(n):
            yield replace(FILE, name=f"{i:07d}.png", token=f"{i:012x}", participant=f"p{i // 118}")

    before = pa.total_allocated_bytes()
    files = Files(each(100_000))
    assert (pa.total_allocated_bytes() - before) / 100_000 < 160  # bytes; as objects 360
    assert files[BATCH].name == f"{BATCH:07d}.png"
    assert len(pickle.dumps(files[5000:5100])) < 20_000
