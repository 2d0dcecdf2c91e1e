"""The file that an ImageCLEF task asks for: a line for every slice, its name and 1 or 0.

Names of files are what such a file is for; they stand in no other one of a run.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import PurePath

HEADER = ("name", "label")


def written(called: Iterable[tuple[str, bool]], *, header: bool, extension: bool) -> str:
    """Return the text of a submission, in the order of the names.

    Parameters
    ----------
    called : iterable of (str, bool)
        File name of each slice, and whether it is called used; slices that could not be read are
        not among them.
    header : bool
        Begin with ``name,label``.
    extension : bool
        Whole file names; else what stands before the last dot.
    """
    rows = sorted((name if extension else PurePath(name).stem, int(used)) for name, used in called)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows] if header else rows)
    return text.getvalue()
