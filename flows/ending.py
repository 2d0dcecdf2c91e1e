"""How a command ends: the exit code of what happened, and the one line that the terminal gets.

In order of precedence: 5 stored bytes changed; 1 internal error; 2 usage; 4 incomplete, run again;
3 too many inputs rejected; 10 done, copies found; 0 done, nothing found.
"""

from __future__ import annotations

import errno

DONE, INTERNAL, USAGE, REJECTED, INCOMPLETE, DAMAGED = 0, 1, 2, 3, 4, 5
# a place that cannot be written or is no folder: the user's to mend
NOT_OURS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


class Terminated(BaseException):
    """SIGTERM arrived: unwind, leave what is done, end with 4."""


def visible(text: str) -> str:
    """Show control characters of a file's name as escapes: a terminal would obey them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an exception and the one line for the terminal."""
    from fingerprint.ledger import Damaged, Incomplete

    while type(error).__name__ == "Stopped" and error.__cause__ is not None:
        error = error.__cause__  # what Prefect was not told
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Damaged):
        return DAMAGED, text
    if isinstance(error, Incomplete):
        return INCOMPLETE, text
    if isinstance(error, Terminated | KeyboardInterrupt) or "TerminationSignal" in str(type(error)):
        return INCOMPLETE, "stopped; what is done is kept, run the same command to go on"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return INCOMPLETE, f"{text}: make room, then run the same command to go on"
    if isinstance(error, ValueError):
        return USAGE, text
    if isinstance(error, OSError) and error.errno in NOT_OURS:
        return USAGE, f"{error.filename or 'a file'}: {error.strerror}; choose another place"
    if hasattr(error, "format_message"):  # typer's own: unknown command, missing argument
        return USAGE, f"{' '.join(error.format_message().split())} See fingerprint --help."
    return INTERNAL, f"internal error: {type(error).__name__}: {text} ({_left(error)})"


def _left(error: BaseException) -> str:
    """Leave where an internal error was raised, without its text, in our log; return a hint."""
    from flows import log, state

    path = state.folder() / "log.jsonl"
    log.leave(path, error)
    return f"where: {path}; --debug shows it here"
