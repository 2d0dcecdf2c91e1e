"""A Prefect server for one command: a child on loopback that dies with its parent.

Where ``PREFECT_API_URL`` names a server, that one is used and none is started. This module does not
import Prefect, so that its environment is set before anyone does:

    with running() as ready:     # the child starts
        from flows import ...    # Prefect is imported meanwhile
        ready()                  # and now it answers

The child (`flows/serve.py`) watches a pipe that only its parent holds open. However that one ends,
kill -9 included, the pipe closes and the child goes. A parent-death signal would follow the thread
that started the child, and exists on Linux alone.
"""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows import state

START_S = 60.0
GRACE_S = 10.0  # to unwind after the server died
STOP_S = 10.0

PRIVATE = {
    # nothing leaves the machine, no log line and no pickle goes into a database
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    # a forgotten address is an error, not one more server
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
}
QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # it prints what every library says
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
}

Ready = Callable[[], None]


@contextmanager
def running(timeout_s: float = START_S) -> Iterator[Ready]:
    """Start a child server unless one is named; the context yields what waits until it answers.

    Raises
    ------
    RuntimeError
        From the call that waits: the server ended, or did not answer in time.
    """
    os.environ.update(PRIVATE)
    if os.environ.get("PREFECT_API_URL"):
        yield lambda: None
        return
    with ExitStack() as stack:
        home, handle = _home(stack)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        stack.enter_context(_environment(home, port))
        child = _start(listener, handle)
        stopping = threading.Event()
        stack.callback(_stop, child)
        stack.callback(stopping.set)
        threading.Thread(target=_mourn, args=(child, stopping), daemon=True).start()
        yield lambda: _wait(child, port, timeout_s, home)


def _home(stack: ExitStack) -> tuple[Path, int | None]:
    """Return the Prefect home of ours and its lock, or a temporary one where a run holds it."""
    home = state.folder("prefect")
    handle = state.lock(home / state.LOCK)
    if handle is None:  # two servers on one database would wait for each other
        return stack.enter_context(state.scratch()), None
    stack.callback(os.close, handle)
    return home, handle


@contextmanager
def _environment(home: Path, port: int) -> Iterator[None]:
    """Name the server, and a password of this run, to Prefect in this process."""
    password = f"fingerprint:{secrets.token_urlsafe(16)}"  # other users reach loopback, too
    ours = QUIET | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1"))),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(listener: socket.socket, handle: int | None) -> subprocess.Popen[bytes]:
    # the child inherits the lock, so that nobody opens its database before it is gone
    keep = [listener.fileno(), *([handle] if handle is not None else [])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.serve", str(listener.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=keep,
        umask=0o077,
        start_new_session=True,  # Ctrl-C is for the command, which then stops its server
    )


def _mourn(child: subprocess.Popen[bytes], stopping: threading.Event) -> None:
    """End this command if its server dies: Prefect's client would wait for it for minutes."""
    while child.poll() is None:
        if stopping.wait(0.5):
            return
    if stopping.is_set():
        return
    print("fingerprint: the Prefect server ended; run the command again", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
    if not stopping.wait(GRACE_S):
        os._exit(4)  # what is done is in the ledger; workers die with their parent


def _wait(child: subprocess.Popen[bytes], port: int, timeout_s: float, home: Path) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if child.poll() is not None:
            raise RuntimeError(
                f"Prefect server: ended with code {child.returncode} while starting (home {home}); "
                "try again with --plain"
            )
        if _answers(port):
            return
        time.sleep(0.05)
    raise RuntimeError(
        f"Prefect server: no answer within {timeout_s:g} s (home {home}); try again with --plain"
    )


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Let the server write down what it still holds, then make sure that it is gone."""
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdin is not None:
        child.stdin.close()
