"""What the system holds an engine to: the processors it may run on, and the memory it may ask for.

Set on the process right after its start, before it has made a thread of its own; whatever it starts inherits both.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Collection, Sequence

import psutil

from models_app import machine
from models_app.memory import MIB
from models_app.memory_plan import Plan

HEAD_ROOM = 1024 * MIB
# Address space counts from the moment it is asked for: a stack for each thread that computes or answers, its size the system's.
PER_PROCESSOR = 2 * 8 * MIB
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|out of memory|insufficient memory|cannot allocate memory|(?:failed|unable) to allocate|MemoryError"
    r"|mem_buffer != NULL",
    re.IGNORECASE,
)


def memory_bound(plan: Plan, measured: int, times: int, gpu_layers: int) -> int:
    """Bytes of memory of its own (the mapped model does not count) that an engine may ask for; 0: no bound.

    ``times``: the setting; wide on purpose, for what it stops is an engine that would take the machine down, not one whose plan
    was inexact. ``measured``: the most that was seen of such a replica. Drivers of graphics cards ask for addresses by the
    terabyte.
    """
    if not times or gpu_layers:
        return 0
    planned = own_memory(plan)
    return max(times * planned, planned + HEAD_ROOM, measured + HEAD_ROOM) + PER_PROCESSOR * machine.logical_cores()


def own_memory(plan: Plan) -> int:
    """Bytes that are planned beside the mapped model; projector and adapters are read into memory."""
    need = plan.need
    return need.most - (need.weights - need.mapped) + plan.load.projector + plan.load.adapters


def apply(pid: int, cpus: Collection[int] = (), memory: int = 0) -> None:
    """An engine that has ended already, or a system that has no such thing (macOS has neither, Windows only the first), is no
    error."""
    with contextlib.suppress(psutil.Error, OSError):
        if cpus and hasattr(psutil.Process, "cpu_affinity"):
            psutil.Process(pid).cpu_affinity(sorted(cpus))
    with contextlib.suppress(OSError):
        if memory and sys.platform == "linux":
            import resource

            hard = resource.prlimit(pid, resource.RLIMIT_DATA)[1]
            most = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
            resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))


def bound_of(pid: int) -> int:
    """Bytes that a running engine may ask for; 0: no bound, or not told."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(OSError):
            soft = resource.prlimit(pid, resource.RLIMIT_DATA)[0]
            return 0 if soft == resource.RLIM_INFINITY else soft
    return 0


def wanted_more(log: Sequence[str]) -> str:
    """The line of an engine's log that says that it was refused memory; "" when none does."""
    return next((line.strip() for line in log if OUT_OF_MEMORY.search(line)), "")
