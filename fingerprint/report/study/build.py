"""A study folder becomes one page: everything inside it, nothing fetched, readable from a disk.

Built from a finished study or from a broken one, with the template, style, script and policy of the
page of an audit; pictures and curves are taken from the audits in the folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fingerprint.corpus import store
from fingerprint.ledger import Damaged
from fingerprint.report import build as audit
from fingerprint.report.build import NAME, WITHOUT_IMAGES, Open
from fingerprint.report.pairs import Shown, pictures
from fingerprint.report.study import first
from fingerprint.report.study import pictures as shown
from fingerprint.report.study.page import StudyPage
from fingerprint.report.study.read import Lies, best_r, only_first, read
from fingerprint.report.study.sections import SECTIONS

log = logging.getLogger(__name__)


def build(
    out: Path, *, without_real_images: bool = False, open_corpus: Open = store.open_corpus
) -> Path:
    """Write the report of a study, finished or not, in one rename, for its owner alone.

    Parameters
    ----------
    out : Path
        The folder of a study.
    without_real_images : bool
        Leave out every picture of a slice: the version to pass on.
    open_corpus : callable
        Opens the corpora in the folder.

    Returns
    -------
    Path
        ``report.html`` or ``report-without-real-images.html`` inside `out`.

    Raises
    ------
    ValueError
        If `out` holds no study.
    """
    lies = read(Path(out), open_corpus)
    path = Path(out) / (WITHOUT_IMAGES if without_real_images else NAME)
    audit.write(path, render(lies, without_real_images=without_real_images))
    return path


def render(lies: Lies, *, without_real_images: bool) -> str:
    """Return the page as text."""
    page = page_of(lies, audit.LEFT_OUT if without_real_images else "")
    built = [(s, _absent(page, s.name, s.absent)) for s in SECTIONS]
    return audit.html(
        ("report.css", "study.css"),
        title="INCOMPLETE: study report" if lies.missing else "Study report",
        has_images=bool(page.examples) or any(isinstance(x, Shown) for x in page.tops.values()),
        missing=lies.missing,
        notes=[*lies.notes, *lies.findings.get("notes", [])],
        run=str(lies.document.get("study") or "")[:12],
        when=audit.when_of(lies.document),
        version=str((lies.document.get("versions") or {}).get("fingerprint", "")),
        question=first.QUESTION,
        verdict=first.verdict(page),
        headlines=first.headlines(page),
        sections=[(s.name, s.title, why, () if why else s.build(page)) for s, why in built],
    )


def _absent(page: StudyPage, name: str, absent: Callable[[StudyPage], str]) -> str:
    """Say why a section cannot be shown: most need at least one training set."""
    if page.points or name in ("differs", "settings", "words"):
        return absent(page)
    return "no training set was chosen yet"


def page_of(lies: Lies, reason: str) -> StudyPage:
    """Return what the sections are made from; with a `reason`, without pictures of slices."""
    curves = {name: best_r(left) for name, left in lies.audits.items()}
    examples: dict[str, str] = {}
    tops: dict[str, Shown | str] = {}
    between: dict[str, tuple[str, str]] = {}
    if not reason:
        examples, (tops, between) = _examples(lies), _tops(lies)
    return StudyPage(
        findings=lies.findings,
        matrix=None,
        pictures={},
        without_images=reason,
        curves={name: sets for name, sets in curves.items() if sets},
        examples=examples,
        tops=tops,
        between=between,
        reports=lies.reports,
    )


def _examples(lies: Lies) -> dict[str, str]:
    """Draw slices and images of one run of each size; a damaged chunk costs its picture."""
    out: dict[str, str] = {}
    for name in lies.findings["points"]:
        real, made = (lies.corpora.get(f"{kind}/{name}") for kind in ("cohorts", "pools"))
        if real is None or made is None:  # also a further run: its set is that of the first
            continue
        try:
            out[name] = shown.strip(real, made)
        except (Damaged, KeyError, ValueError) as error:
            log.warning("%s is shown without pictures by class (%s)", name, type(error).__name__)
    return out


def _tops(lies: Lies) -> tuple[dict[str, Shown | str], dict[str, tuple[str, str]]]:
    """Draw the most similar pair of each audit whose corpora can be opened."""
    out: dict[str, Shown | str] = {}
    between = {}
    for name, left in lies.audits.items():
        if not {"real", "generated"} <= set(left.corpora):
            out[name] = "a corpus of this audit cannot be opened"
            continue
        one = only_first(left)
        what = (one.findings, left.corpora["generated"], left.corpora["real"], one.registration)
        for top in pictures(*what).values():
            out[name] = top
            two = shown.between(*what) if isinstance(top, Shown) and top.affine else None
            if two is not None:
                between[name] = two
    return out, between
