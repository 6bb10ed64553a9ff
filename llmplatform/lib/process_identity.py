"""Which process is which: a pid alone may be somebody else's by now, a pid with its start time is not."""

from __future__ import annotations

import os
import socket
from functools import cache

import psutil

# psutil rounds start times to a clock tick; two readings of one process agree to well under this many seconds.
START_TIME_TOLERANCE = 1.0


def started_at(pid: int) -> float | None:
    """Seconds since the epoch at which ``pid`` started, or None when there is no such running process (zombies count as none)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def is_same(pid: int, started: float) -> bool:
    """Whether the process that had ``pid`` and started at ``started`` still runs."""
    now = started_at(pid)
    return now is not None and abs(now - started) < START_TIME_TOLERANCE


@cache
def _own(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{psutil.Process(pid).create_time():.2f}"


def own_identity() -> str:
    """``host:pid:start time`` of this process, for rows that say who answers for something."""
    return _own(os.getpid())


def is_gone(identity: str) -> bool:
    """Whether a process named by ``own_identity`` on this machine has ended. Unknown (another machine) counts as not gone."""
    host, pid, started = identity.rsplit(":", 2)
    return host == socket.gethostname() and not is_same(int(pid), float(started))
