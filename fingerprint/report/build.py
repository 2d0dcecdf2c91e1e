"""A run folder becomes one page: everything inside it, nothing fetched, readable from a disk.

Built from a finished run or from a broken one: what is missing is named in the title and in its
place. The page carries a policy that forbids everything except its own style, its own pictures and
its one script, so that text from a file can never run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fingerprint.corpus import store
from fingerprint.ledger import Damaged, replacing
from fingerprint.measure import findings as measure
from fingerprint.register import kept
from fingerprint.report import card, classes, first, page, sections
from fingerprint.report.pairs import Shown, Slices, pictures
from fingerprint.search import correlation, matches

log = logging.getLogger(__name__)

NAME, WITHOUT_IMAGES = "report.html", "report-without-real-images.html"
REFERENCES = ("real", "control", "generated")  # a matrix for each corpus that was searched
FILES = {"correlation.zarr": "search", "matches.parquet": "register", "findings.json": "stats"}
LEFT_OUT = (
    "Pictures were left out of this version, the generated ones too: an image that copies a slice "
    "shows the patient."
)
Open = Callable[[Path], Slices]


@dataclass(frozen=True)
class Left:
    """What a run left: everything that could be read, and a sentence for what could not."""

    run: Mapping[str, Any]
    findings: Mapping[str, Any]
    matrices: Mapping[str, xr.Dataset]
    corpora: Mapping[str, Slices]
    missing: list[str]
    notes: list[str]
    best: pd.DataFrame | None = None
    registration: xr.Dataset | None = None
    queries: pd.DataFrame | None = None


def build(
    run: Path, *, without_real_images: bool = False, open_corpus: Open = store.open_corpus
) -> Path:
    """Write the report of a run, finished or not, in one rename, for its owner alone.

    Parameters
    ----------
    run : Path
        The folder that an audit left.
    without_real_images : bool
        Leave out every picture of a slice: the version to pass on.
    open_corpus : callable
        Opens the corpora that ``run.json`` names.

    Returns
    -------
    Path
        ``report.html`` or ``report-without-real-images.html`` inside `run`; beside it ``card.md``.

    Raises
    ------
    ValueError
        If `run` holds no run.
    """
    left = read(Path(run), open_corpus)
    path = Path(run) / (WITHOUT_IMAGES if without_real_images else NAME)
    write(Path(run) / card.NAME, card.text(left.findings))
    write(path, render(left, without_real_images=without_real_images))
    return path


def write(path: Path, text: str) -> None:
    """Write a page in one rename, for its owner alone."""
    with replacing(path) as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(text.encode())


# -- reading what is there


def read(run: Path, open_corpus: Open) -> Left:
    """Read a run folder; whatever cannot be read is named and left out."""
    if not (run / "run.json").exists():
        raise ValueError(f"build: {run} is not a run (no run.json); make one with audit")
    notes: list[str] = []
    document = tried("run.json", lambda: json.loads((run / "run.json").read_bytes()), notes) or {}
    missing = _missing(run, document)
    searched = matrices(run / "correlation.zarr", notes)
    table = best = None
    listed = run / "matches.parquet"
    if listed.exists():
        image = measure.primary_image(document)
        table = tried("matches.parquet", lambda: matches.most_similar(listed, image), notes)
    if table is not None:
        best = tried("matches.parquet", lambda: matches.best_pairs(listed), notes)
    corpora = _corpora(run, document, open_corpus, notes)
    found = None
    if (run / "findings.json").exists():
        found = tried(
            "findings.json", lambda: json.loads((run / "findings.json").read_bytes()), notes
        )
    if found is None:
        found = _collect(searched, table, best, document, corpora)
    registration = None
    if (run / "registration.zarr").exists():
        kept_there = partial(_of_pairs, run / "registration.zarr", found)
        registration = tried("registration.zarr", kept_there, notes)
    queries = None
    if (run / "queries.parquet").exists():
        queries = tried("queries.parquet", partial(pd.read_parquet, run / "queries.parquet"), notes)
    return Left(document, found, searched, corpora, missing, notes, best, registration, queries)


def _of_pairs(path: Path, findings: Mapping[str, Any]) -> xr.Dataset:
    """Read the registration of the pairs that are shown, and of no other."""
    dataset = kept.load(path)
    shown = {findings[f"pair.{k}.query"] for k in range(1, (findings.get("pairs.shown") or 0) + 1)}
    rows = [i for i, query in enumerate(dataset["query"].values) if str(query) in shown]
    return dataset.isel(query=rows).load()


def matrices(path: Path, notes: list[str]) -> dict[str, xr.Dataset]:
    """Open every matrix of ``correlation.zarr`` that is there and has a finished stage."""
    out = {}
    for name in REFERENCES:
        if not (path if name == "real" else path / name).exists():
            continue
        matrix = tried("correlation.zarr", partial(_matrix, path, name), notes)
        if matrix is not None:
            out[name] = matrix
    return out


def _matrix(path: Path, name: str) -> xr.Dataset | None:
    """Open a matrix; None while no stage of it is finished, which is no damage."""
    try:
        return correlation.load(path, name)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError) or "finished" not in str(error):
            raise
        return None


def tried(name: str, load: Callable[[], Any], notes: list[str], command: str = "audit") -> Any:
    """Load a file that a command left; a damaged one must not cost the rest of the page."""
    try:
        return load()
    except Exception as error:  # zarr, parquet and JSON each raise their own kinds on damage
        log.warning("%s cannot be read (%s)", name, type(error).__name__)
        notes.append(f"{name} cannot be read: it is damaged. Run the {command} again.")
        return None


def _missing(run: Path, document: Mapping[str, Any]) -> list[str]:
    """Name the phases that are not done and the files that are not there."""
    out = unfinished(document)
    out += [
        f"Phase {phase} has not ended: {name} is not there."
        for name, phase in FILES.items()
        if not (run / name).exists()
    ]
    if document.get("status") != "complete" and not out:
        out.append(f"The run is marked {document.get('status', 'unreadable')}, not complete.")
    return out


def unfinished(document: Mapping[str, Any]) -> list[str]:
    """Name the phases that are not done, of a run or a study."""
    return [
        f"Phase {name}: {counts['done']:,} of {counts['planned']:,} shards are done."
        for name, counts in (document.get("phases") or {}).items()
        if counts["done"] < counts["planned"]
    ]


def _corpora(
    run: Path, document: Mapping[str, Any], open_corpus: Open, notes: list[str]
) -> dict[str, Slices]:
    """Open the corpora of the run, if they are still where it left them and still the same."""
    out = {}
    for role, entry in (document.get("inputs") or {}).items():
        if not entry:
            continue
        try:
            corpus = open_corpus(run / entry["path"])
        except (ValueError, OSError, Damaged) as error:
            log.warning("the %s corpus cannot be opened (%s)", role, type(error).__name__)
            notes.append(f"The {role} corpus cannot be opened where the run left it.")
            continue
        if corpus.digest == entry["digest"]:
            out[role] = corpus
        else:
            notes.append(f"The {role} corpus has changed since the run: its images are not shown.")
    return out


def _collect(
    searched: Mapping[str, xr.Dataset],
    table: pd.DataFrame | None,
    best: pd.DataFrame | None,
    document: Mapping[str, Any],
    corpora: Mapping[str, Slices],
) -> Mapping[str, Any]:
    """Return the numbers of a run that did not get to its findings."""
    summaries = {role: corpus.summary for role, corpus in corpora.items()}
    return measure.collect(searched, table, document, summaries, best=best)


# -- rendering


def render(left: Left, *, without_real_images: bool) -> str:
    """Return the page as text."""
    shown: Mapping[int, Shown | str] = {}
    reason = LEFT_OUT if without_real_images else ""
    if not reason and not {"real", "generated"} <= set(left.corpora):
        reason = "No pictures: a corpus of this run cannot be opened."
    if not reason:
        shown = pictures(
            left.findings, left.corpora["generated"], left.corpora["real"], left.registration
        )
    sheets = {} if reason else _sheets(left)
    matrix = left.matrices.get("real")
    made = page.Page(left.findings, matrix, shown, reason, left.best, sheets, left.queries)
    built = [(s, s.titled(made), s.absent(made)) for s in sections.SECTIONS]
    return html(
        ("report.css",),
        title="INCOMPLETE: audit report" if left.missing else "Audit report",
        has_images=any(isinstance(one, Shown) for one in shown.values()),
        missing=left.missing,
        notes=[*left.notes, *left.findings.get("notes", [])],
        run=str(left.run.get("run") or "")[:12],
        when=when_of(left.run),
        version=str((left.run.get("versions") or {}).get("fingerprint", "")),
        question=made.question,
        verdict=first.verdict(made),
        headlines=first.headlines(made),
        sections=[(s.name, title, why, () if why else s.build(made)) for s, title, why in built],
    )


def html(styles: Sequence[str], **page: Any) -> str:
    """Return a page as text: what stands in the template, with these styles, and our script."""
    script = _resource("report.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # our own file, no text from outside: the policy below allows this script and no other
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_resource("report.html.j2")).render(
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
        style=Markup("".join(map(_resource, styles))),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704 - our own file
        markup=Markup,  # noqa: S704 - for the drawings that figures.py made
        **page,
    )


def _sheets(left: Left) -> dict[tuple[str, str], str]:
    """Draw slices by class, of the corpora whose slices have one; a damaged chunk costs its set."""
    out: dict[tuple[str, str], str] = {}
    for query_set, role in measure.SETS.items():
        if role in left.corpora and left.findings.get(f"class.{query_set}.none") is not None:
            try:
                out |= classes.sheets({query_set: left.corpora[role]})
            except Damaged as error:
                log.warning("%s slices are shown without pictures by class: %s", query_set, error)
    return out


def when_of(run: Mapping[str, Any]) -> str:
    """Return when the run ended, else when it began, to be read by people."""
    written = str(run.get("ended") or run.get("started") or "")
    return written.replace("T", " ").replace("+00:00", " UTC")


def _resource(name: str) -> str:
    return files("fingerprint.report").joinpath(name).read_text(encoding="utf-8")
