"""Which process is which: a pid alone may be somebody else's by now, a pid with its start time is not.

The start time is not one of the wall clock, which is set right or turned back while processes run: on Linux it is what the kernel
counts from the machine's start, made different for each start of the machine. It serves comparison only.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

import psutil

# Start times are rounded to a clock tick; two readings of one process agree to well under this many seconds.
START_TIME_TOLERANCE = 1.0


def started_at(pid: int) -> float | None:
    """When ``pid`` started, in seconds, or None when there is no such running process (zombies count as none)."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else start_time_of(process)
    except (psutil.Error, OSError):
        return None


def start_time_of(process: psutil.Process) -> float:
    """Raises psutil.Error or OSError when it has gone meanwhile."""
    if not psutil.LINUX:
        return process.create_time()
    # proc(5): the program's name may hold anything, so fields are counted from behind it; field 22 is the start time.
    ticks = int(Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return _this_boot() + ticks / os.sysconf("SC_CLK_TCK")


@cache
def _this_boot() -> int:
    return int(Path("/proc/sys/kernel/random/boot_id").read_text()[:8], 16)


def is_same(pid: int, started: float) -> bool:
    """Whether the process that had ``pid`` and started at ``started`` still runs."""
    now = started_at(pid)
    return now is not None and abs(now - started) < START_TIME_TOLERANCE


@cache
def _own(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{start_time_of(psutil.Process(pid)):.2f}"


def own_identity() -> str:
    """``host:pid:start time`` of this process, for rows that say who answers for something."""
    return _own(os.getpid())


def is_from_here(identity: str) -> bool:
    """Whether it names a process of this machine, as the machine is called now."""
    return identity.rsplit(":", 2)[0] == socket.gethostname()


def is_gone(identity: str) -> bool:
    """Whether a process named by ``own_identity`` on this machine has ended. Unknown (another machine) counts as not gone."""
    _host, pid, started = identity.rsplit(":", 2)
    return is_from_here(identity) and not is_same(int(pid), float(started))
