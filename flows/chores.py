"""Commands that answer at once: look at, pass on, verify what the long ones left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.ending import DAMAGED, DONE, INCOMPLETE, USAGE
from flows.options import Hidden, Json, KeyFile, load
from flows.terminal import logged, say, show


def export(
    corpus: Annotated[Path, typer.Argument()],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    form: Annotated[str, typer.Option("--format", help="png or nifti")] = "png",
    set_name: Annotated[
        str | None, typer.Option("--set", help="Only if the corpus is of this set.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a corpus as 8-bit PNG with slices.tsv, or as NIfTI in HU; both without loss."""
    from fingerprint.corpus import store
    from fingerprint.corpus.export import export_nifti, export_png
    from flows import progress

    ways = {"png": export_png, "nifti": export_nifti}
    if form not in ways:
        raise ValueError(f"--format: png or nifti, got {form!r}")
    opened = store.open_corpus(corpus)
    if set_name not in (None, opened.set_name):
        raise ValueError(f"--set: {corpus} is of the set {opened.set_name}, not {set_name}")
    if out.exists() and any(out.iterdir()) or out.resolve().is_relative_to(corpus.resolve()):
        raise ValueError(f"out: {out} is not empty, or in the corpus; choose another folder")
    with logged(), progress.shown() as watch:
        files = ways[form](opened, out, lambda done, planned: watch("export", done, planned))
    show({"files": files, "out": str(out)}, as_json)
    return DONE


def verify(path: Annotated[Path, typer.Argument()], as_json: Json = False) -> int:
    """Recompute every digest of a corpus or a run; exit 5 if one differs."""
    from fingerprint.verify import verify as problems_of

    problems = list(problems_of(path))
    code = DAMAGED if problems else DONE
    if as_json:
        show({"exit": code, "problems": problems}, as_json)
    else:
        print(
            "\n".join(problems) if problems else f"{path}: every stored byte is as it was written"
        )
    return code


def report(
    run: Annotated[Path, typer.Argument()],
    without_real_images: Annotated[
        bool, typer.Option("--without-real-images", help="The version to pass on.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Build the report of a finished or broken run again."""
    from fingerprint import membership_run, study_run
    from fingerprint import run as runs

    kinds = {study_run: study_run.Study, membership_run: membership_run.Membership}
    kind = next((kind for kind in kinds if (run / kind.DOCUMENT).exists()), runs)
    page, problems = kind.rebuild_report(run, without_real_images=without_real_images)
    for problem in problems:
        say(problem)
    complete = kinds.get(kind, runs.open_run)(run).complete
    code = DAMAGED if problems else DONE if complete else INCOMPLETE
    show({"exit": code, "report": str(page.resolve())}, as_json)
    return code


def locate(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE... TOKEN...")],
    key_file: KeyFile = None,
    participant_from: Hidden = None,
) -> int:
    """Find the file or the patient behind tokens and pseudonyms; writes nothing."""
    from fingerprint.corpus.identity import load_key
    from fingerprint.corpus.locate import locate as find

    folders = [Path(text) for text in sources if Path(text).exists()]
    wanted = [text for text in sources if not Path(text).exists()]
    if not folders or not wanted:
        raise ValueError(f"locate: {'a token' if folders else 'an existing source'} is missing")
    key = load_key(Path(key_file) if key_file else None, create=False)
    found = dict(find(folders, wanted, key, participant_from))
    for name in wanted:
        print(f"{name}: {found.get(name, 'not found')}")
    return DONE if len(found) == len(set(wanted)) else USAGE


def settings(
    file: Annotated[str | None, typer.Option("--settings", help="Values that differ.")] = None,
    as_json: Json = False,
) -> int:
    """Print every knob with its value, as TOML that --settings reads."""
    from flows.knobs import as_toml

    known = load(file, {})
    if as_json:
        show(known.model_dump(mode="json"), as_json)
    else:
        print(as_toml(known), end="")
    return DONE


def doctor(
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove our Prefect home, scratch and orphans.")
    ] = False,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Say what will run here, what will not, and why."""
    from flows import doctor as look

    told = look.cleaned() if clean else look.examined(Path(key_file) if key_file else None)
    show(told, as_json)
    return DONE if told.get("ok", True) else USAGE
