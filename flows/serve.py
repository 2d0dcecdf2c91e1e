"""The child of `flows/server.py`: the Prefect API on a socket that its parent opened.

The socket's descriptor is the one argument. The standard input is a pipe whose other end only the
parent holds; when it closes, this process ends at once.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

import uvicorn


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    config = uvicorn.Config(
        "prefect.server.api.server:create_app", factory=True, log_level="critical", lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
