"""The file that an ImageCLEF task asks for: a line for every slice, its name and 1 or 0.

Names of files are what such a file is for; they stand in no other one of a run.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import PurePath

HEADER = ("name", "label")


def written(
    names: Mapping[str, str], called: Mapping[str, bool], *, header: bool, extension: bool
) -> str:
    """Return the text of a submission, in the order of the names.

    Parameters
    ----------
    names : mapping of token to file name
    called : mapping of token to bool
        Which slices are called used; slices that could not be read are not in it.
    header : bool
        Begin with ``name,label``.
    extension : bool
        Whole file names; else what stands before the last dot.

    Raises
    ------
    ValueError
        A slice without a name.
    """
    missing = [token for token in called if token not in names]
    if missing:
        raise ValueError(f"written: names must have every slice, {len(missing)} are missing")
    rows = sorted(
        (names[token] if extension else PurePath(names[token]).stem, int(used))
        for token, used in called.items()
    )
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows] if header else rows)
    return text.getvalue()
