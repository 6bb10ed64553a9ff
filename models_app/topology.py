"""The cores of this machine: which processors share one, in which NUMA node it lies, and which of them this service may use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from models_app import machine
from models_app.placement import MOST_CPUS, Core, Machine, Place, parse_cores

SYSTEM = Path("/sys/devices/system")


def physical_cores() -> int:
    """Cores this service may use; threads of one core share what a model needs, so only whole cores count."""
    return len(read().usable)


def read(system: Path = SYSTEM, allowed: Iterable[int] | None = None) -> Machine:
    """Takes milliseconds. Where the system does not tell (Windows, macOS), one node."""
    cpus = sorted(_allowed() if allowed is None else allowed)
    nodes = _nodes(system)
    groups: dict[tuple[int, ...], list[int]] = {}
    for cpu in cpus:
        groups.setdefault(_siblings(system, cpu), []).append(cpu)
    cores = [Core(nodes.get(group[0], 0), tuple(group)) for group in groups.values()]
    if not nodes and not (system / "cpu").exists():
        cores = _without_sys(cpus)
    cores.sort(key=lambda core: (core.node, core.cpus))
    return Machine(tuple(cores), _limit())


def place_of(pid: int, model: str, held: Mapping[int, Place]) -> Place:
    """Of a replica that runs already: cores it may use that no other one has, as many as it has threads."""
    there = read()
    try:
        member = psutil.Process(pid)
        argv, cpus = member.cmdline(), frozenset(_allowed(pid))
        threads = int(argv[argv.index("--threads") + 1])
    except (psutil.Error, ValueError, IndexError):  # it has just ended, or is no program of ours
        return Place(model, ())
    taken = {core for place in held.values() for core in place.cores}
    own = sorted((core for core in there.cores if cpus.intersection(core.cpus)), key=lambda core: core in taken)
    return Place(model, tuple(own[:threads]), None if cpus >= there.cpus else cpus)


def _allowed(pid: int | None = None) -> Iterable[int]:
    """Raises psutil.Error."""
    member = psutil.Process(pid)
    return member.cpu_affinity() if hasattr(member, "cpu_affinity") else range(os.cpu_count() or 1)


def _nodes(system: Path) -> dict[int, int]:
    found = {}
    for folder in (system / "node").glob("node[0-9]*"):
        for cpu in _list(folder / "cpulist"):
            found[cpu] = int(folder.name[4:])
    return found


def _siblings(system: Path, cpu: int) -> tuple[int, ...]:
    return tuple(sorted(_list(system / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list"))) or (cpu,)


def _list(path: Path) -> frozenset[int]:
    try:
        return parse_cores(path.read_text().strip())
    except (OSError, ValueError):  # no such file, or a node without processors
        return frozenset()


def _without_sys(cpus: list[int]) -> list[Core]:
    count = max(1, min(psutil.cpu_count(logical=False) or len(cpus), len(cpus)))
    return [Core(0, tuple(cpus[number::count])) for number in range(count)]


def _limit() -> int:
    """Whole cores' time that the innermost limited control group gives (v2, then v1)."""
    found = [_quota(folder, "cpu.max") for folder in machine.cgroup_folders()]
    return int(max(1, min([*found, _quota_v1(machine.CGROUP / "cpu")])))


def _quota(folder: Path, file: str) -> float:
    try:
        quota, period = (folder / file).read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return MOST_CPUS


def _quota_v1(folder: Path) -> float:
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return quota / period if quota > 0 else MOST_CPUS
    except (OSError, ValueError, ZeroDivisionError):
        return MOST_CPUS
