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
from collections.abc import Sequence

import typer

from flows import chores, jobs
from flows.ending import DONE, INCOMPLETE, Terminated, explain
from flows.terminal import say

HARD_STOP_S = 25.0  # after SIGTERM: clusters kill what is left 30 s later

app = typer.Typer(
    help="Does a synthetic CT slice show one of your patients?",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    *(jobs.demo, jobs.ingest, jobs.audit, jobs.study, jobs.membership),
    *(chores.export, chores.verify, chores.report, chores.locate, chores.settings, chores.doctor),
):
    app.command()(command)


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
        say(line)
        if "--json" in argv:
            print(json.dumps({"exit": code, "error": line}))
        return code
