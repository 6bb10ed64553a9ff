"""Which cores each replica gets, over a plain description of a machine. Pure.

Replicas get cores of their own while there are enough, all of one NUMA node when their share fits in one; more replicas than
cores share them evenly. What the settings of a model say comes first, the others share the rest. Nobody is moved: a replica
keeps its threads as long as it runs, and its memory lies where it started.

How narrowly they are bound: exactly where the settings name cores; else to whole NUMA nodes, not at all on a machine with one.
The system moves threads away from cores that other programs want, and a thread that may not be moved holds up all others of its
replica: bench/placement.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

MOST_CPUS = 4096
T = TypeVar("T")
RANGES = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", re.ASCII)
OWN_MODEL = 0.5  # what a core counts that a replica of the same model has: the new one replaces it as a rule


@dataclass(frozen=True)
class Core:
    """A physical core: the numbers of its processors (more than one with hyperthreads) that this service may use."""

    node: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Machine:
    """``limit``: as many cores' time a container may use, whichever they are."""

    cores: tuple[Core, ...]
    limit: int = MOST_CPUS

    @property
    def usable(self) -> tuple[Core, ...]:
        return self.cores[: max(1, self.limit)]

    @property
    def nodes(self) -> int:
        return len({core.node for core in self.cores})

    @property
    def cpus(self) -> frozenset[int]:
        return frozenset(chain.from_iterable(core.cpus for core in self.cores))


@dataclass(frozen=True)
class Need:
    """What the settings of a model say about the cores of each of its replicas."""

    model: str
    cores: frozenset[int] | None = None  # processors, for all replicas of the model together
    threads: int | None = None
    numa: bool = False  # the engine itself binds its threads


@dataclass(frozen=True)
class Place:
    model: str
    cores: tuple[Core, ...]
    bound: frozenset[int] | None = None  # processors it may run on; None: all

    @property
    def threads(self) -> int:
        return len(self.cores)


class CoresMissing(Exception):
    """The settings name processors that this service may not use."""


def parse_cores(text: str) -> frozenset[int]:
    """Processors of "0-7,16-23". Raises ValueError."""
    compact = text.replace(" ", "")
    if not RANGES.fullmatch(compact):
        raise ValueError(text)
    found: set[int] = set()
    for part in compact.split(","):
        first, _dash, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high or high >= MOST_CPUS:
            raise ValueError(text)
        found.update(range(low, high + 1))
    return frozenset(found)


def ranges(cpus: Iterable[int]) -> str:
    """The other way round."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def place(machine: Machine, need: Need, expected: Sequence[Need], held: Mapping[int, Place]) -> Place:
    """The place of a replica that starts now, beside those that ``held`` tells of. ``expected``: all that should run, this one
    among them. Raises CoresMissing."""
    others = [other for other in expected if other == need or other.cores is None or other.cores <= machine.cpus]
    everyone = (
        others if need in others else [*others, need]
    )  # cores that are not there keep their own model only from starting
    planned = plan(machine, everyone)
    users: dict[Core, float] = {}
    for other in held.values():
        for core in other.cores:
            users[core] = users.get(core, 0) + (OWN_MODEL if other.model == need.model else 1)
    open_places = [found for found, wish in zip(planned, everyone, strict=True) if wish == need]
    return min(open_places, key=lambda one: sum(users.get(core, 0) for core in one.cores) / max(1, one.threads))


def plan(machine: Machine, needs: Sequence[Need]) -> list[Place]:
    """A place for each, as if all started together. Raises CoresMissing."""
    places: dict[int, Place] = {}
    for named in {need.cores for need in needs if need.cores is not None}:
        members = [index for index, need in enumerate(needs) if need.cores == named]
        blocks = deal(_named(machine, named), len(members))
        places |= {index: _exactly(needs[index].model, block) for index, block in zip(members, blocks, strict=True)}
    taken = {core.cpus[0] for one in places.values() for core in one.cores}
    rest = [core for core in machine.usable if core.cpus[0] not in taken] or list(machine.usable)
    free = list(rest)
    fixed = [index for index, need in enumerate(needs) if need.cores is None and need.threads is not None]
    for index in sorted(fixed, key=lambda index: -(needs[index].threads or 0)):
        block = _block(free, rest, needs[index].threads or 1)
        free = [core for core in free if core not in block]
        places[index] = _place(machine, needs[index], block)
    shared = [index for index, need in enumerate(needs) if need.cores is None and need.threads is None]
    # Where those with a set number of threads leave too little, all share all.
    blocks = deal(free, len(shared)) if len(free) >= len(shared) else deal(rest, len(shared) + len(fixed))
    places |= {index: _place(machine, needs[index], block) for index, block in zip(shared, blocks, strict=False)}
    return [places[index] for index in range(len(needs))]


def deal(cores: Sequence[Core], count: int) -> list[tuple[Core, ...]]:
    """``cores`` in ``count`` blocks of about the same size."""
    if count > len(cores):
        return [(cores[index % len(cores)],) for index in range(count)]
    nodes = _by_node(cores)
    if count and len(cores) / count > max(len(node) for node in nodes):  # a share fits in no node: as few as can be
        return [tuple(chain.from_iterable(chunk)) for chunk in _chunks(nodes, count)]
    counts = [0] * len(nodes)
    for _ in range(count):
        emptiest = max(range(len(nodes)), key=lambda index: (len(nodes[index]) // (counts[index] + 1), -counts[index]))
        counts[emptiest] += 1
    return [tuple(block) for node, own in zip(nodes, counts, strict=True) for block in _chunks(node, own)]


def _chunks(items: Sequence[T], count: int) -> list[Sequence[T]]:
    return [items[len(items) * part // count : len(items) * (part + 1) // count] for part in range(count)]


def _by_node(cores: Iterable[Core]) -> list[list[Core]]:
    nodes: dict[int, list[Core]] = {}
    for core in cores:
        nodes.setdefault(core.node, []).append(core)
    return [nodes[number] for number in sorted(nodes)]


def _named(machine: Machine, cpus: frozenset[int]) -> list[Core]:
    if not cpus <= machine.cpus:
        raise CoresMissing
    kept = (replace(core, cpus=tuple(cpu for cpu in core.cpus if cpu in cpus)) for core in machine.cores)
    return [core for core in kept if core.cpus]


def _block(free: list[Core], rest: list[Core], threads: int) -> tuple[Core, ...]:
    """So many cores: free ones of the node where they fit most closely, else of the one with the most, else any."""
    nodes = _by_node(free)
    fitting = [node for node in nodes if len(node) >= threads]
    if fitting:
        return tuple(min(fitting, key=len)[:threads])
    scattered = sorted(nodes, key=len, reverse=True)
    if len(free) >= threads:
        return tuple(list(chain.from_iterable(scattered))[:threads])
    taken = [core for core in rest if core not in free]
    return tuple([*free, *taken][:threads])


def _exactly(model: str, cores: tuple[Core, ...]) -> Place:
    return Place(model, cores, frozenset(chain.from_iterable(core.cpus for core in cores)))


def _place(machine: Machine, need: Need, cores: tuple[Core, ...]) -> Place:
    """Not bound under a limit of time: which cores are free then, other containers decide."""
    nodes = {core.node for core in cores}
    if machine.limit < len(machine.cores) or len(nodes) == machine.nodes or need.numa:
        return Place(need.model, cores)
    return Place(need.model, cores, frozenset(cpu for core in machine.cores if core.node in nodes for cpu in core.cpus))
