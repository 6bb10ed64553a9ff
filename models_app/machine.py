"""What this machine has to give: memory (a container's limit included) and cores."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 60


def available_memory() -> int:
    """Bytes a new process can use without swapping."""
    return max(0, min(psutil.virtual_memory().available, _left_in_cgroup()))


def physical_cores() -> int:
    """Cores this process may run on; threads of one core share what a model needs, so only whole cores count."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def _left_in_cgroup() -> int:
    """What the innermost limited control group leaves (v2, then v1); no limit counts as endless."""
    v1 = CGROUP / "memory"
    return min(
        [_left(folder, "memory.max", "memory.current", "inactive_file") for folder in _own_v2_folders()]
        + [_left(v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")]
    )


def _own_v2_folders() -> list[Path]:
    try:
        line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [CGROUP]
    inner = CGROUP / line[3:].lstrip("/")
    return [inner, *(parent for parent in inner.parents if parent.is_relative_to(CGROUP))]


def _left(folder: Path, limit_file: str, used_file: str, cache_key: str) -> int:
    try:
        limit = int((folder / limit_file).read_text())
        if limit >= NO_LIMIT:
            return NO_LIMIT
        used = int((folder / used_file).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or "max"
        return NO_LIMIT
    # File pages not used lately are given back when memory is wanted.
    return limit - used + int(statistics.get(cache_key, 0))
