"""From a token or a pseudonym back to the file or the patient, for whoever holds key and source.

Nothing is written: the answer is for the terminal inside the hospital, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fingerprint.corpus.identity import Key, token
from fingerprint.corpus.readers import Reader
from fingerprint.corpus.reading import names_of
from fingerprint.corpus.scan import ReadOptions, Rejected
from fingerprint.corpus.source import SourceFile, walk

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
    left = {QUERY.sub(r"\1", name): name for name in wanted}
    files = walk(sources, key, participant_from=participant_from)
    for file in files:
        if file.token in left:
            yield left.pop(file.token), f"file {file.path}"
    if any(name[0] in "PS" for name in left):
        for name, what in _people(files, key):
            if name in left:
                yield left.pop(name), what
    if any(name[0] not in "PS" for name in left):
        for file in files:
            for i in range(MOST_FRAMES):
                name = token(key, f"{file.token}#{i}")
                if name in left:
                    yield left.pop(name), f"file {file.path}, image {i}"


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
                who = answer[0].patient or file.participant
                participant, scan, series = names_of(file, answer[0], key)
                yield participant, f"patient {who} ({file.path})"
                yield scan, f"scan of patient {who} ({file.path})"
                yield series, f"series of patient {who} ({file.path})"
