"""What several commands ask for in the same words; the rare ones are not in ``--help``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
Number = Annotated[int | None, typer.Option(hidden=True)]
Hu = Annotated[bool, typer.Option("--hu", hidden=True)]
Range = Annotated[str | None, typer.Option("--range", hidden=True)]
NoPose = Annotated[bool, typer.Option("--no-pose", hidden=True)]


def knobs(**flags: Any) -> dict[str, Any]:
    """Return the settings that were given, those that are not None."""
    return {name: value for name, value in flags.items() if value is not None}


def load(file: str | None, given: dict[str, Any]) -> Any:
    """Return the settings of a file, of the environment, and those given."""
    from fingerprint.settings import load as settings

    return settings(Path(file) if file else None, **given)
