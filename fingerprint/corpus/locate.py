"""From a token or a pseudonym back to the file or the patient, for whoever holds key and source.

Nothing is written: the answer is for the terminal inside the hospital, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fingerprint.corpus.identity import Key, token
from fingerprint.corpus.listing import SourceFile
from fingerprint.corpus.readers import Reader
from fingerprint.corpus.reading import names_of
from fingerprint.corpus.scan import ReadOptions, Rejected
from fingerprint.corpus.source import walk

BATCH = 256
MOST_FRAMES = 4096
QUERY = re.compile(r"^(?:[gcp]_|C)([0-9a-f]{12})$")


def locate(
    sources: Sequence[Path], wanted: Sequence[str], key: Key, participant_from: str | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (asked, what it is): ``file PATH``, ``file PATH, image N`` or ``patient ID (PATH)``.

    Parameters
    ----------
    sources : paths
        The folders that were ingested, given as they were then.
    wanted : sequence of str
        Tokens, query names (``g_...``), pseudonyms of participants (``P...``) or scans (``S...``).
    """
    asked: dict[str, list[str]] = {}
    for name in dict.fromkeys(wanted):
        asked.setdefault(QUERY.sub(r"\1", name), []).append(name)
    files = walk(sources, key, participant_from=participant_from)
    for bare, what in _candidates(files, key, asked):
        for name in asked.pop(bare, ()):
            yield name, what


def _candidates(
    files: Sequence[SourceFile], key: Key, asked: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """Yield what there is, the cheapest first, as long as something is asked for."""
    for file in files:
        yield file.token, f"file {file.path}"
    if any(name[:1] in ("P", "S") for name in asked):
        yield from _people(files, key)
    if any(name[:1] not in ("P", "S") for name in asked):
        for file in files:
            for i in range(MOST_FRAMES):
                yield token(key, f"{file.token}#{i}"), f"file {file.path}, image {i}"


def _people(files: Sequence[SourceFile], key: Key) -> Iterator[tuple[str, str]]:
    """Yield every pseudonym in the headers with what it stands for."""
    options = ReadOptions(window_hu=(-1000.0, 1000.0))
    with Reader() as reader:
        for i in range(0, len(files), BATCH):
            batch = [f for f in files[i : i + BATCH] if not f.code and not f.reason]
            answers = reader.headers([f.path for f in batch], options)
            for file, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Rejected):
                    continue
                who = file.participant or answer[0].patient
                participant, scan, series = names_of(file, answer[0], key)
                yield participant, f"patient {who} ({file.path})"
                yield scan, f"scan of patient {who} ({file.path})"
                yield series, f"series of patient {who} ({file.path})"
