"""The command line: ``fingerprint --help``. Imports are late, so that help answers at once.

Exit codes, in order of precedence: 5 stored bytes changed; 1 internal error; 2 usage; 4 incomplete,
run again; 3 too many inputs rejected; 10 done, copies found; 0 done, nothing found.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.ending import (
    DAMAGED,
    DONE,
    INCOMPLETE,
    INTERNAL,
    REJECTED,
    USAGE,
    Terminated,
    explain,
    visible,
)

HARD_STOP_S = 25.0  # after SIGTERM: clusters kill what is left 30 s later
SHOWN_REJECTED = 20

app = typer.Typer(
    help="Does a synthetic CT slice show one of your patients?",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Cluster = Annotated[
    str, typer.Option(help="local, cuda, threads, serial, tls://host:port, or a scheduler.json")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and how long.")]
Plain = Annotated[bool, typer.Option("--plain", help="Without Prefect.")]
SettingsFile = Annotated[
    str | None, typer.Option("--settings", help="TOML, as `fingerprint settings` prints it.")
]
KeyFile = Annotated[
    str | None, typer.Option("--key-file", help="Key of the pseudonyms.", metavar="FILE")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")]
Orient = Annotated[
    str | None, typer.Option(help="How generated images are turned: as-is, flip-x, turn-90, ...")
]
Hidden = Annotated[str | None, typer.Option(hidden=True)]


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for patients, images and the report.")] = Path(
        "fingerprint-demo"
    ),
    cluster: Cluster = "local",
    as_json: Json = False,
) -> int:
    """Make forty synthetic patients, plant copies, audit; exit 0 if all are found."""
    from flows.demo import run_demo

    with _long():
        told = run_demo(out, cluster=cluster)
    _print(told, as_json)
    return DONE if told["passed"] else INTERNAL


@app.command()
def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files or folders.")],
    out: Annotated[str, typer.Option(help="The corpus to make or to add to.")],
    set_name: Annotated[str, typer.Option("--set", help="real, generated or control")] = "real",
    participants: Annotated[
        str | None, typer.Option(help="participants.tsv", metavar="TSV")
    ] = None,
    orient: Orient = None,
    replace: Annotated[bool, typer.Option("--replace", help="Rebuild from changed files.")] = False,
    cluster: Cluster = "local",
    dry_run: DryRun = False,
    plain: Plain = False,
    settings: SettingsFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
    window: Hidden = None,
    require: Hidden = None,
    hu: Annotated[bool, typer.Option("--hu", hidden=True)] = False,
    value_range: Annotated[str | None, typer.Option("--range", hidden=True)] = None,
    participant_from: Hidden = None,
) -> int:
    """Turn files into a sealed corpus; on the same source again, it does nothing."""
    knobs = _knobs(
        orient=orient,
        window_hu=window,
        require=require,
        hu=hu or None,
        range=value_range,
        participant_from=participant_from,
    )
    if dry_run:
        from flows import forecast, words

        told = forecast.of_ingest(sources, _load(settings, knobs), cluster)
        _print(told if as_json else words.readable(told), as_json)
        return DONE
    request = {
        "sources": sources,
        "out": out,
        "set_name": set_name,
        "participants": participants,
        "replace": replace,
        "settings_file": settings,
        "knobs": knobs,
        "key_file": key_file,
    }
    with _long():
        done = _run("ingest", "ingest_files", request, cluster, plain)
    _rejected(done.rejected, f"{out}/rejections.tsv")
    code = _refused(done.refused) or DONE
    _print({"exit": code, "corpus": str(done.corpus.path), **done.corpus.summary}, as_json)
    return code


@app.command()
def audit(
    real: Annotated[str, typer.Argument(help="Training slices: corpus or folder.")],
    generated: Annotated[str, typer.Argument(help="Generated slices: corpus or folder.")],
    out: Annotated[str, typer.Argument(help="The folder of this run.")],
    controls: Annotated[
        str | None, typer.Option(help="Slices of other patients, never trained on.")
    ] = None,
    orient: Orient = None,
    sample: Annotated[int | None, typer.Option(help="Draw so many generated images.")] = None,
    drop: Annotated[
        str | None,
        typer.Option(help="Judge what is left without the images that this drop.tsv names."),
    ] = None,
    drop_leaking: Annotated[
        bool, typer.Option("--drop-leaking", help="Leave out controls that are real patients.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Reuse the shards of the run in OUT, keep its report.")
    ] = False,
    cluster: Cluster = "local",
    dry_run: DryRun = False,
    plain: Plain = False,
    settings: SettingsFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
    window: Hidden = None,
    require: Hidden = None,
    hu: Annotated[bool, typer.Option("--hu", hidden=True)] = False,
    value_range: Annotated[str | None, typer.Option("--range", hidden=True)] = None,
    participant_from: Hidden = None,
    keep_matrix: Annotated[bool, typer.Option("--keep-matrix", hidden=True)] = False,
    no_pose: Annotated[bool, typer.Option("--no-pose", hidden=True)] = False,
    seed: Annotated[int | None, typer.Option(hidden=True)] = None,
    image: Hidden = None,
    mirror: Annotated[bool, typer.Option("--mirror", hidden=True)] = False,
    engine: Hidden = None,
) -> int:
    """Compare every generated image with every real slice, and write the report.

    With --dry-run, a whole number in place of a corpus plans for so many slices.
    """
    knobs = _knobs(
        orient=orient,
        sample=sample,
        seed=seed,
        image=image,
        mirror=mirror or None,
        keep_matrix=keep_matrix or None,
        pose=False if no_pose else None,
        engine=engine,
        drop_leaking=drop_leaking or None,
        withhold=_named(drop) if drop else None,
        window_hu=window,
        require=require,
        hu=hu or None,
        range=value_range,
        participant_from=participant_from,
    )
    from flows import forecast, words

    if dry_run:
        known = _load(settings, knobs)
        plan = forecast.of_audit(real, generated, controls, known, cluster=cluster)
        _print(plan if as_json else words.readable(plan), as_json)
        return DONE
    forecast.refuse_numbers(real, generated, controls)
    request = {
        "real": real,
        "generated": generated,
        "out": out,
        "controls": controls,
        "update": update,
        "settings_file": settings,
        "knobs": knobs,
        "key_file": key_file,
    }
    with _long():
        done = _run("audit", "audit_sets", request, cluster, plain)
    code = _refused(done.refused) or done.run.exit_code
    findings = done.run.findings
    told = {"exit": code, "report": str(done.run.report.resolve())}
    if as_json:
        _print(told | {"findings": findings}, as_json)
    else:
        from flows.chain import FIRST_PAGE

        _print(told | {name: findings.get(name) for name in FIRST_PAGE}, as_json)
    return code


@app.command()
def study(
    corpus: Annotated[str, typer.Argument(help="Slices of many patients: corpus or folder.")],
    out: Annotated[str, typer.Argument(help="The folder of this study.")],
    sizes: Annotated[
        str | None, typer.Option(help="Slices in each training set: 6,60,600.")
    ] = None,
    px: Annotated[int | None, typer.Option(help="Side of the images trained on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each training.")] = None,
    generated: Annotated[
        str | None,
        typer.Option(help="Images of your own generators, a folder for each size.", metavar="DIR"),
    ] = None,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Make sets smaller where slices are few.")
    ] = False,
    only_cohorts: Annotated[
        bool, typer.Option("--only-cohorts", help="Choose the training sets and stop.")
    ] = False,
    cluster: Cluster = "local",
    dry_run: DryRun = False,
    plain: Plain = False,
    settings: SettingsFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
    runs: Annotated[int | None, typer.Option(hidden=True)] = None,
    generator: Hidden = None,
    seed: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """Train generators on growing sets of a corpus, and audit what they make (paper 000)."""
    knobs = _knobs(
        sizes=sizes,
        train_px=px,
        train_steps=steps,
        shrink=shrink or None,
        runs=runs,
        generator=generator,
        seed=seed,
    )
    if dry_run:
        from flows import planned, words

        plan = planned.of_study(corpus, _load(settings, knobs), generated is not None, cluster)
        _print(plan if as_json else words.readable(plan), as_json)
        return DONE
    request = {
        "corpus": corpus,
        "out": out,
        "generated": generated,
        "only_cohorts": only_cohorts,
        "settings_file": settings,
        "knobs": knobs,
        "key_file": key_file,
    }
    with _long():
        done = _run("study", "study_corpus", request, cluster, plain)
    from flows.chain import told_of

    code = _refused(done.refused) or (DONE if only_cohorts else done.study.exit_code)
    _print({"exit": code, **told_of(done)}, as_json)
    return code


@app.command()
def membership(
    dev: Annotated[str, typer.Argument(help="generated/, real_used/, real_not_used/; or tasks.")],
    test: Annotated[str, typer.Argument(help="generated/, real_unknown/; labelled or not.")],
    out: Annotated[str, typer.Argument(help="The folder of this run.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="similarity, embedding, texture, density, vcmi, "
            "calibrated; again for more. All by default."
        ),
    ] = None,
    header: Annotated[bool, typer.Option("--header", help="Submissions with a header.")] = False,
    extension: Annotated[
        bool, typer.Option("--extension", help="Submissions with whole file names.")
    ] = False,
    cluster: Cluster = "local",
    dry_run: DryRun = False,
    plain: Plain = False,
    settings: SettingsFile = None,
    key_file: KeyFile = None,
    as_json: Json = False,
    no_pose: Annotated[bool, typer.Option("--no-pose", hidden=True)] = False,
    seed: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """Was this real slice used for training? Folders of ImageCLEF in, metrics and answers out."""
    knobs = _knobs(
        methods=tuple(method) if method else None,
        submission_header=header or None,
        submission_extension=extension or None,
        pose=False if no_pose else None,
        seed=seed,
    )
    if dry_run:
        from flows import asked, words

        plan = asked.of_membership(dev, test, _load(settings, knobs), cluster)
        _print(plan if as_json else words.readable(plan), as_json)
        return DONE
    request = {
        "dev": dev,
        "test": test,
        "out": out,
        "settings_file": settings,
        "knobs": knobs,
        "key_file": key_file,
    }
    with _long():
        done = _run("membership", "membership_of", request, cluster, plain)
    _rejected(done.rejected, f"{out}/corpora")
    from flows.asked import told_of

    code = _refused(done.refused) or done.run.exit_code
    _print({"exit": code, **told_of(done.run)}, as_json)
    return code


@app.command()
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
    with _long(), progress.shown() as watch:
        files = ways[form](opened, out, lambda done, planned: watch("export", done, planned))
    _print({"files": files, "out": str(out)}, as_json)
    return DONE


@app.command()
def verify(path: Annotated[Path, typer.Argument()], as_json: Json = False) -> int:
    """Recompute every digest of a corpus or a run; exit 5 if one differs."""
    from fingerprint.verify import verify as problems_of

    problems = list(problems_of(path))
    code = DAMAGED if problems else DONE
    if as_json:
        _print({"exit": code, "problems": problems}, as_json)
    else:
        print(
            "\n".join(problems) if problems else f"{path}: every stored byte is as it was written"
        )
    return code


@app.command()
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
        _say(problem)
    complete = kinds.get(kind, runs.open_run)(run).complete
    code = DAMAGED if problems else DONE if complete else INCOMPLETE
    _print({"exit": code, "report": str(page.resolve())}, as_json)
    return code


@app.command()
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


@app.command()
def settings(
    file: Annotated[str | None, typer.Option("--settings", help="Values that differ.")] = None,
    as_json: Json = False,
) -> int:
    """Print every knob with its value, as TOML that --settings reads."""
    from flows.knobs import as_toml

    known = _load(file, {})
    if as_json:
        _print(known.model_dump(mode="json"), as_json)
    else:
        print(as_toml(known), end="")
    return DONE


@app.command()
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
    _print(told, as_json)
    return DONE if told.get("ok", True) else USAGE


# -- how a command runs


def _run(flow: str, plain_name: str, request: dict[str, Any], cluster: str, plain: bool) -> Any:
    """Run a chain, under Prefect or without it; both give what the chain gives."""
    if plain:
        from flows import chain, progress

        with progress.shown() as watch:
            return getattr(chain, plain_name)(**request, how=chain.How(cluster, watch))
    from importlib import import_module

    from flows import server

    with server.running() as ready:
        run = getattr(import_module(f"flows.{flow}"), flow)  # while the server starts
        ready()
        from flows import tell

        return tell.outcome(run, request | {"cluster": cluster})


def _named(drop: str) -> list[str]:
    """Return the generated images that a drop.tsv names."""
    from fingerprint.search.matches import withheld_by

    return withheld_by(Path(drop))


def _knobs(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _load(file: str | None, knobs: dict[str, Any]) -> Any:
    from fingerprint.settings import load

    return load(Path(file) if file else None, **knobs)


@contextmanager
def _long() -> Iterator[None]:
    """Log to the terminal while a long command runs: all where no bars are shown."""
    import logging

    from flows import log

    with log.to_terminal(logging.WARNING if sys.stderr.isatty() else logging.INFO):
        yield


# -- what is printed, and how a command ends


def _say(line: str) -> None:
    print(f"fingerprint: {visible(line)}", file=sys.stderr)


def _print(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(told, default=str))
        return
    width = max(map(len, told), default=0)
    for name, value in told.items():
        print(f"{name:<{width}}  {'not run' if value is None else visible(str(value))}")


def _rejected(paths: Sequence[tuple[Path, str, str]], where: str) -> None:
    for path, code, detail in paths[:SHOWN_REJECTED]:
        _say(f"rejected {path}: {code} {detail}".rstrip())
    if len(paths) > SHOWN_REJECTED:
        _say(f"and {len(paths) - SHOWN_REJECTED} more: {where}")


def _refused(why: str) -> int:
    if why:
        _say(why)
    return REJECTED if why else DONE


def main() -> None:
    """Run the command line and end the process with its exit code."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the outcome stands
    sys.exit(code)


def _terminate(number: int, frame: object) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)
    timer = threading.Timer(HARD_STOP_S, os._exit, (INCOMPLETE,))
    timer.daemon = True
    timer.start()
    raise Terminated


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; anything that goes wrong is one line."""
    debug = "--debug" in argv
    try:
        asked = [text for text in argv if text != "--debug"]
        return app(asked or ["--help"], standalone_mode=False) or DONE
    except BaseException as error:
        if debug:
            raise
        code, line = explain(error)
        _say(line)
        if "--json" in argv:
            print(json.dumps({"exit": code, "error": line}))
        return code
