"""What this machine and our processes use, measured without waiting.

Per cent of CPU needs two readings. The meter keeps the last one, so nobody waits: the first answer is the mean since the
machine (or process) started, later ones are since the reading before, at least half a second ago.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings

from llmplatform.lib import process_identity

WINDOW = 0.5  # seconds between two readings that are worth comparing
CGROUP_ROOT = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number near 2^63


@dataclass
class _Reading:
    at: float
    used: float
    percent: float


class CpuMeter:
    """Per cent from a growing number of used CPU seconds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: dict[object, _Reading] = {}

    def percent(self, key: object, now: float, used: float, started: float) -> float:
        with self._lock:
            last = self._readings.get(key)
            if last is not None and now - last.at < WINDOW:
                return last.percent
            at, base = (last.at, last.used) if last is not None else (started, 0.0)
            percent = round(max(0.0, 100 * (used - base) / max(now - at, 0.001)), 1)
            self._readings[key] = _Reading(now, used, percent)
            return percent

    def forget_all_but(self, keys: Iterable[object]) -> None:
        """Drops readings of processes that are gone."""
        kept = set(keys)
        with self._lock:
            for key in [key for key in self._readings if key != "machine" and key not in kept]:
                del self._readings[key]


_meter = CpuMeter()


def host_name() -> str:
    return socket.gethostname()


def cpu_figures() -> dict[str, Any]:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # guest time is counted within user time
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    cores = psutil.cpu_count() or 1
    used = _meter.percent("machine", time.time(), (total - idle) / cores, psutil.boot_time())
    return {
        "percent": min(100.0, used),
        "cores": {"logical": cores, "physical": psutil.cpu_count(logical=False) or cores, "usable": _usable_cores()},
    }


def _usable_cores() -> int:
    """Cores this process may run on (taskset, containers)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
        number = int(text)
    except (OSError, ValueError):  # absent, unreadable, or "max"
        return None
    return number if 0 <= number < UNLIMITED else None


def _cgroup_folders() -> list[Path]:
    """The folders whose memory limits bind this process, innermost first (cgroup v2, else v1's memory controller)."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            root = CGROUP_ROOT if controllers == "" else CGROUP_ROOT / "memory"
            inner = root / path.lstrip("/")
            above = [folder for folder in inner.parents if folder == root or root in folder.parents]
            return [inner, *above]
    return []


def memory_limit() -> int | None:
    """The smallest memory limit that containers or services set for this process, in bytes; None when there is none."""
    limits = [
        limit
        for folder in _cgroup_folders()
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _read_number(folder / name)) is not None
    ]
    return min(limits, default=None)


def memory_figures() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    limit = memory_limit()
    return {
        "total": memory.total,
        "available": memory.available,
        "used": memory.total - memory.available,
        "percent": memory.percent,
        # set only when it is tighter than the machine
        "limit": limit if limit is not None and limit < memory.total else None,
    }


def swap_figures() -> dict[str, Any]:
    swap = psutil.swap_memory()
    return {"total": swap.total, "used": swap.used, "percent": swap.percent}


def disk_figures() -> dict[str, dict[str, Any]]:
    """Space where the database and logs are (``home``) and where the models are."""
    return {name: _disk(path) for name, path in (("home", settings.HOME_DIR), ("models", settings.MODELS_PATH))}


def _disk(path: Path) -> dict[str, Any]:
    existing = next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return {"total": 0, "used": 0, "free": 0, "percent": 0.0}
    # of what we could use: file systems keep some for root
    reachable = usage.used + usage.free
    percent = round(100 * usage.used / reachable, 1) if reachable else 0.0
    return {"total": usage.total, "used": usage.used, "free": usage.free, "percent": percent}


def own_processes(engines: Iterable[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Resident memory and CPU of serve, its children, and the engines given as ``{name, pid, started}``."""
    found: dict[int, dict[str, Any]] = {}
    for name, process in _service_processes():
        if (figures := _process_figures(name, process)) is not None:
            found.setdefault(process.pid, figures)
    for engine in engines:
        if process_identity.is_same(engine["pid"], engine["started"]):
            figures = _process_figures(engine["name"], psutil.Process(engine["pid"]))
            if figures is not None:
                found[engine["pid"]] = figures
    _meter.forget_all_but((pid, figures["started"]) for pid, figures in found.items())
    return list(found.values())


def _service_processes() -> list[tuple[str, psutil.Process]]:
    """serve as run/serve.json names it, its children, and in any case this process."""
    here = (os.environ.get("LLM_PROCESS", "command"), psutil.Process())
    serve = _serve_process()
    if serve is None:
        return [here]
    try:
        children = [(_process_name(child), child) for child in serve.children()]
    except psutil.Error:
        children = []
    return [("serve", serve), *children, here]


def _serve_process() -> psutil.Process | None:
    try:
        pid = json.loads((settings.RUN_DIR / "serve.json").read_text(encoding="utf-8"))["pid"]
        return psutil.Process(pid)
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def _process_name(process: psutil.Process) -> str:
    try:
        return process.environ().get("LLM_PROCESS", "child")
    except (psutil.Error, OSError):
        return "child"


def _process_figures(name: str, process: psutil.Process) -> dict[str, Any] | None:
    try:
        with process.oneshot():
            started = process.create_time()
            times = process.cpu_times()
            used = times.user + times.system
            return {
                "name": name,
                "pid": process.pid,
                "rss": process.memory_info().rss,
                "cpu_percent": _meter.percent((process.pid, started), time.time(), used, started),
                "threads": process.num_threads(),
                "started": started,
            }
    except psutil.Error:
        return None


def system_figures(engines: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Everything about this machine in plain JSON values; takes a few milliseconds and never waits."""
    return {
        "hostname": host_name(),
        "cpu": cpu_figures(),
        "load": [round(value, 2) for value in psutil.getloadavg()],
        "memory": memory_figures(),
        "swap": swap_figures(),
        "disk": disk_figures(),
        "uptime_seconds": int(time.time() - psutil.boot_time()),
        "processes": own_processes(engines),
    }
