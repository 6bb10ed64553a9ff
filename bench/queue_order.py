#!/usr/bin/env python3
"""How long a single request waits behind tenants that have thousands, and what the fair queue's operations take.

    python bench/queue_order.py

First the turns that others get before a single request does: the most over many moments at which it comes, in our queue and in
deficit round robin with quanta from the cheapest to the dearest request. Then microseconds for each operation with 10,000
requests waiting, of 1, 100 and 10,000 tenants.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gateway.queue import FairQueue  # noqa: E402

CHEAP, MIDDLE, DEAR = 10, 400, 8000  # tokens
IN_LINE = 20_000
MOMENTS = 150  # turns before the single request comes, at most
WAITING = 10_000
ROUNDS = 200


class Queue(Protocol):
    def push(self, entry: str, tenant: int, cost: int) -> None: ...
    def pop(self) -> str: ...


class Ours:
    def __init__(self) -> None:
        self._queue: FairQueue[str] = FairQueue(10**6, 10**9, 60)

    def push(self, entry: str, tenant: int, cost: int) -> None:
        self._queue.push(entry, tenant, 0, cost=cost)

    def pop(self) -> str:
        return self._queue.pop(0, lambda _entry: True) or ""


class DeficitRoundRobin:
    """Shreedhar and Varghese 1995, figures 2 to 4."""

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._lines: dict[int, deque[tuple[str, int]]] = {}
        self._active: deque[int] = deque()
        self._deficit: dict[int, int] = {}
        self._visited = False

    def push(self, entry: str, tenant: int, cost: int) -> None:
        if tenant not in self._lines:
            self._lines[tenant] = deque()
            self._active.append(tenant)
            self._deficit[tenant] = 0
        self._lines[tenant].append((entry, cost))

    def pop(self) -> str:
        while True:
            tenant = self._active[0]
            line = self._lines[tenant]
            if not self._visited:
                self._deficit[tenant] += self._quantum
                self._visited = True
            if line[0][1] <= self._deficit[tenant]:
                entry, cost = line.popleft()
                self._deficit[tenant] -= cost
                if not line:
                    self._active.popleft()
                    del self._lines[tenant]
                    self._visited = False
                return entry
            self._active.rotate(-1)
            self._visited = False


def turns_before(queue: Queue, tenants: int, cost: int, single: int, moment: int) -> int:
    """Until the second of two single requests, one after the other, has its turn."""
    for number in range(IN_LINE):
        queue.push(f"line {number}", number % tenants, cost)
    for _ in range(moment):
        queue.pop()
    queue.push("first", -1, single)
    while queue.pop() != "first":
        pass
    queue.push("second", -1, single)
    return next(turn for turn in itertools.count() if queue.pop() == "second")


def most_turns(make: Callable[[], Queue], tenants: int, cost: int, single: int) -> int:
    return max(turns_before(make(), tenants, cost, single, moment) for moment in range(0, MOMENTS, 7))


def show_turns() -> None:
    queues: dict[str, Callable[[], Queue]] = {"ours": Ours}
    for quantum in (CHEAP, MIDDLE, DEAR):
        queues[f"deficit round robin, quantum {quantum}"] = lambda quantum=quantum: DeficitRoundRobin(quantum)
    cases = [(tenants, cost, single) for tenants in (1, 10) for cost, single in ((CHEAP, DEAR), (DEAR, CHEAP))]
    print("| turns before a single request |" + "".join(f" {n} × {cost}, then {one} |" for n, cost, one in cases))
    print("|---|" + "---|" * len(cases))
    for name, make in queues.items():
        print(f"| {name} |" + "".join(f" {most_turns(make, *case)} |" for case in cases))


def micros(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(ROUNDS):
        function()
    return (time.perf_counter() - began) / ROUNDS * 1e6


def show_costs() -> None:
    print(f"\n| microseconds, {WAITING} waiting | push | position | pop | pop past 100 | remove |")
    print("|---|---|---|---|---|---|")
    for tenants in (1, 100, WAITING):
        print(f"| {tenants} tenants |" + "".join(f" {figure:.1f} |" for figure in costs(tenants)))


def costs(tenants: int) -> list[float]:
    queue: FairQueue[int] = FairQueue(10**6, 10**9, 60)
    numbers, asked = itertools.count(), itertools.count(WAITING // 2)
    leaving, seen = itertools.count(WAITING // 3), itertools.count()

    def push() -> None:
        number = next(numbers)
        queue.push(number, number % tenants, 0, cost=100 + number % 7)

    for _ in range(WAITING):
        push()
    return [
        micros(push),
        micros(lambda: queue.position(next(asked), 0)),
        micros(lambda: queue.pop(0, lambda _entry: True)),
        micros(lambda: queue.pop(0, lambda _entry: next(seen) % 101 == 100)),
        micros(lambda: queue.remove(next(leaving))),
    ]


if __name__ == "__main__":
    show_turns()
    show_costs()
