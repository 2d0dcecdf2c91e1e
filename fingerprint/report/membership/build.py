"""A membership folder becomes one page: everything inside it, nothing fetched, readable from disk.

Built from a finished run or from a broken one, with the template, style, script and policy of the
page of an audit. There is no picture of a slice on it, and no name of a patient or of a file.
"""

from __future__ import annotations

from pathlib import Path

from fingerprint.measure import papers
from fingerprint.report import build as audit
from fingerprint.report.build import NAME, WITHOUT_IMAGES
from fingerprint.report.membership import drawn, first
from fingerprint.report.membership.page import MembershipPage
from fingerprint.report.membership.read import Lies, read
from fingerprint.report.membership.sections import SECTIONS


def build(out: Path, *, without_real_images: bool = False) -> Path:
    """Write the report of a membership run, finished or not, in one rename, for its owner alone.

    Parameters
    ----------
    out : Path
        The folder of the run.
    without_real_images : bool
        Changes the name of the file alone: the page never shows a slice.

    Returns
    -------
    Path
        ``report.html`` or ``report-without-real-images.html`` inside `out`.

    Raises
    ------
    ValueError
        If `out` holds no membership run.
    """
    lies = read(Path(out))
    path = Path(out) / (WITHOUT_IMAGES if without_real_images else NAME)
    audit.write(path, render(lies))
    return path


def figures(out: Path) -> None:
    """Write the ROC of every task as a file of its own: ``roc.svg``, or ``roc-<task>.svg``."""
    found = read(Path(out)).findings
    side = "test" if found["labelled"] else "dev"
    for task, sides in found["roc"].items():
        curves = {name: (one["fpr"], one["tpr"]) for name, one in sides[side].items()}
        name = "roc.svg" if len(found["roc"]) == 1 else f"roc-{task}.svg"
        if curves:
            audit.write(Path(out) / name, drawn.roc(curves, f"{task}, {side.upper()}"))


def render(lies: Lies) -> str:
    """Return the page as text."""
    held = {**lies.findings, **papers.collect(), "document": lies.document}
    page = MembershipPage(held, None, {}, "")
    built = [(s, s.absent(page)) for s in SECTIONS]
    title = "Membership report"
    return audit.html(
        ("report.css", "membership.css"),
        title=f"INCOMPLETE: {title.lower()}" if lies.missing else title,
        has_images=False,
        missing=lies.missing,
        notes=[*lies.notes, *lies.findings.get("notes", [])],
        run=str(lies.document.get("run") or "")[:12],
        when=audit.when_of(lies.document),
        version=str((lies.document.get("versions") or {}).get("fingerprint", "")),
        question=first.QUESTION,
        verdict=first.verdict(page),
        headlines=first.headlines(page),
        sections=[(s.name, s.title, why, () if why else s.build(page)) for s, why in built],
    )
