"""Commands that run for long: each a chain of `flows.chain`, under Prefect or without it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.ending import DONE, INTERNAL
from flows.options import (
    Cluster,
    DryRun,
    Hidden,
    Hu,
    Json,
    KeyFile,
    NoPose,
    Number,
    Orient,
    Plain,
    Range,
    SettingsFile,
    knobs,
    load,
)
from flows.terminal import logged, plan, refused, rejected, show

CHAINS = {
    "ingest": "ingest_files",
    "audit": "audit_sets",
    "study": "study_corpus",
    "membership": "membership_of",
}


@dataclass(frozen=True)
class Way:
    """How a chain is run, and with which settings."""

    cluster: str
    plain: bool
    settings_file: str | None
    knobs: dict[str, Any]
    key_file: str | None

    def run(self, name: str, **asked: Any) -> Any:
        """Run a chain, under Prefect or without it; both give what the chain gives."""
        known = ("settings_file", "knobs", "key_file")
        asked |= {one: getattr(self, one) for one in known}
        with logged():
            return (self._plain if self.plain else self._flow)(name, asked)

    def _plain(self, name: str, asked: dict[str, Any]) -> Any:
        from flows import chain, progress

        with progress.shown() as watch:
            return getattr(chain, CHAINS[name])(**asked, how=chain.How(self.cluster, watch))

    def _flow(self, name: str, asked: dict[str, Any]) -> Any:
        from flows import server

        with server.running() as ready:
            run = getattr(import_module(f"flows.{name}"), name)  # while the server starts
            ready()
            from flows import tell

            return tell.outcome(run, asked | {"cluster": self.cluster})


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for patients, images and the report.")] = Path(
        "fingerprint-demo"
    ),
    cluster: Cluster = "local",
    as_json: Json = False,
) -> int:
    """Make forty synthetic patients, plant copies, audit; exit 0 if all are found."""
    from flows.demo import run_demo

    with logged():
        told = run_demo(out, cluster=cluster)
    show(told, as_json)
    return DONE if told["passed"] else INTERNAL


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
    hu: Hu = False,
    value_range: Range = None,
    participant_from: Hidden = None,
) -> int:
    """Turn files into a sealed corpus; on the same source again, it does nothing."""
    given = knobs(
        orient=orient,
        window_hu=window,
        require=require,
        hu=hu or None,
        range=value_range,
        participant_from=participant_from,
    )
    if dry_run:
        from flows import forecast

        return plan(forecast.of_ingest(sources, load(settings, given), cluster), as_json)
    way = Way(cluster, plain, settings, given, key_file)
    done = way.run(
        "ingest",
        sources=sources,
        out=out,
        set_name=set_name,
        participants=participants,
        replace=replace,
    )
    rejected(done.rejected, f"{out}/rejections.tsv")
    code = refused(done.refused) or DONE
    show({"exit": code, "corpus": str(done.corpus.path), **done.corpus.summary}, as_json)
    return code


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
    hu: Hu = False,
    value_range: Range = None,
    participant_from: Hidden = None,
    keep_matrix: Annotated[bool, typer.Option("--keep-matrix", hidden=True)] = False,
    no_pose: NoPose = False,
    seed: Number = None,
    image: Hidden = None,
    mirror: Annotated[bool, typer.Option("--mirror", hidden=True)] = False,
    engine: Hidden = None,
) -> int:
    """Compare every generated image with every real slice, and write the report.

    With --dry-run, a whole number in place of a corpus plans for so many slices.
    """
    given = knobs(
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
    from flows import forecast

    if dry_run:
        known = load(settings, given)
        told = forecast.of_audit(real, generated, controls, known, cluster=cluster)
        return plan(told, as_json)
    forecast.refuse_numbers(real, generated, controls)
    way = Way(cluster, plain, settings, given, key_file)
    done = way.run(
        "audit", real=real, generated=generated, out=out, controls=controls, update=update
    )
    code = refused(done.refused) or done.run.exit_code
    findings = done.run.findings
    told = {"exit": code, "report": str(done.run.report.resolve())}
    if as_json:
        show(told | {"findings": findings}, as_json)
    else:
        from flows.chain import FIRST_PAGE

        show(told | {name: findings.get(name) for name in FIRST_PAGE}, as_json)
    return code


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
    runs: Number = None,
    generator: Hidden = None,
    seed: Number = None,
) -> int:
    """Train generators on growing sets of a corpus, and audit what they make (paper 000)."""
    given = knobs(
        sizes=sizes,
        train_px=px,
        train_steps=steps,
        shrink=shrink or None,
        runs=runs,
        generator=generator,
        seed=seed,
    )
    if dry_run:
        from flows import planned

        known = load(settings, given)
        return plan(planned.of_study(corpus, known, generated is not None, cluster), as_json)
    way = Way(cluster, plain, settings, given, key_file)
    done = way.run("study", corpus=corpus, out=out, generated=generated, only_cohorts=only_cohorts)
    from flows.chain import told_of

    code = refused(done.refused) or (DONE if only_cohorts else done.study.exit_code)
    show({"exit": code, **told_of(done)}, as_json)
    return code


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
    no_pose: NoPose = False,
    seed: Number = None,
) -> int:
    """Was this real slice used for training? Folders of ImageCLEF in, metrics and answers out."""
    given = knobs(
        methods=tuple(method) if method else None,
        submission_header=header or None,
        submission_extension=extension or None,
        pose=False if no_pose else None,
        seed=seed,
    )
    if dry_run:
        from flows import asked

        return plan(asked.of_membership(dev, test, load(settings, given), cluster), as_json)
    way = Way(cluster, plain, settings, given, key_file)
    done = way.run("membership", dev=dev, test=test, out=out)
    rejected(done.rejected, f"{out}/corpora")
    from flows.asked import told_of

    code = refused(done.refused) or done.run.exit_code
    show({"exit": code, **told_of(done.run)}, as_json)
    return code


def _named(drop: str) -> list[str]:
    """Return the generated images that a drop.tsv names."""
    from fingerprint.search.matches import withheld_by

    return withheld_by(Path(drop))
