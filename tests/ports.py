"""Ports for the servers that tests and benches start."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import filelock

# Below the ports that Linux gives to outgoing connections and to servers that ask for any (32768 and up): nobody who does not
# name a port of ours gets one, however long it takes until our server binds it.
FIRST, LAST = 16_000, 32_000
ROOM = 16  # A service's models take the ports after the one that it was given.
_NEXT = Path(tempfile.gettempdir()) / f"llm-platform-test-ports-{os.getuid()}"


def free_port() -> int:
    """A port that nobody listens on, with ``ROOM - 1`` such after it.

    They are given in turn to all processes of this user, so that tests which run at the same time never share one.
    """
    while True:
        port = _next_in_turn()
        if all(_is_free(port + offset) for offset in range(ROOM)):
            return port


def _next_in_turn() -> int:
    with filelock.FileLock(f"{_NEXT}.lock"):
        written = _NEXT.read_text() if _NEXT.exists() else ""
        port = int(written) if written.isdigit() else FIRST
        _NEXT.write_text(str(port + ROOM if port + 2 * ROOM <= LAST else FIRST))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
