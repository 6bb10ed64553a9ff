"""What this machine has to give: memory (a container's limit included), and what its processor is."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
NO_LIMIT = 1 << 60
MIB = 1024 * 1024
LOW_SHARE, LOW_LEAST, LOW_MOST = 0.03, 256 * MIB, 1024 * MIB


def available_memory() -> int:
    """Bytes a new process can use without swapping."""
    return max(0, min(psutil.virtual_memory().available, _left_in_cgroup()))


def total_memory() -> int:
    """Bytes that there are, or that the control group allows."""
    groups = [*((folder, "memory.max") for folder in cgroup_folders()), (CGROUP / "memory", "memory.limit_in_bytes")]
    return min(psutil.virtual_memory().total, *(_limit(folder, file) for folder, file in groups))


def low_mark() -> int:
    """Bytes that should always be free: a start leaves so much, and when there is less, a replica makes room."""
    return max(LOW_LEAST, min(LOW_MOST, int(LOW_SHARE * total_memory())))


def _limit(folder: Path, file: str) -> int:
    try:
        return int((folder / file).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return NO_LIMIT


@cache
def repacked_formats() -> frozenset[str]:
    """Formats of which llama.cpp's kernels for this processor hold a copy in another order (ggml-cpu, ``repack.cpp``)."""
    flags = _processor_flags()
    if "avx512f" in flags and "avx2" in flags:
        return frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"})
    if "avx2" in flags:
        return frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
    if "asimddp" in flags or (platform.machine() == "arm64" and sys.platform == "darwin"):
        return frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "MXFP4"})
    return frozenset()


def _processor_flags() -> frozenset[str]:
    """Of the first core. Linux only; where they are not told, an x86-64 processor counts as one of the last ten years."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset({"avx2"} if platform.machine().lower() in {"x86_64", "amd64"} else ())
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(found.partition(":")[2].split())


def _left_in_cgroup() -> int:
    """What the innermost limited control group leaves (v2, then v1); no limit counts as endless."""
    v1 = CGROUP / "memory"
    return min(
        [_left(folder, "memory.max", "memory.current", "inactive_file") for folder in cgroup_folders()]
        + [_left(v1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")]
    )


def cgroup_folders() -> list[Path]:
    """Of this process (v2), the innermost first."""
    try:
        line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return [CGROUP]
    inner = CGROUP / line[3:].lstrip("/")
    return [inner, *(parent for parent in inner.parents if parent.is_relative_to(CGROUP))]


def _left(folder: Path, limit_file: str, used_file: str, cache_key: str) -> int:
    limit = _limit(folder, limit_file)
    if limit >= NO_LIMIT:
        return NO_LIMIT
    try:
        used = int((folder / used_file).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or "max"
        return NO_LIMIT
    # File pages not used lately are given back when memory is wanted.
    return limit - used + int(statistics.get(cache_key, 0))


def processor_name() -> str:
    """As the system names it; the kind of machine where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def logical_cores() -> int:
    """With those that share a physical one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
