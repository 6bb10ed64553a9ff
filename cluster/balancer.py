"""Which replica gets a request. Pure: no database, no I/O, no clock, so that a simulation can drive it with 10,000 replicas.

The rule is least busy relative to slots: (busy + queued) / slots, smallest first. Among equals the caller's cursor
decides, which the caller raises by one a request, so that equal replicas take turns. A replica that is draining or has
no free slot is never chosen: the caller's fair queue, not the replica's, is where requests wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One replica as the caller sees it now. ``queued``: requests promised to it that have not begun."""

    id: int
    slots: int
    busy: int = 0
    queued: int = 0
    draining: bool = False

    @property
    def free(self) -> int:
        """How many more requests it may take."""
        return 0 if self.draining else max(0, self.slots - self.busy - self.queued)

    @property
    def load(self) -> float:
        return (self.busy + self.queued) / self.slots if self.slots > 0 else float("inf")


def choose(candidates: Sequence[Candidate], cursor: int) -> Candidate | None:
    """The candidate for the next request, or None while every one is full or draining."""
    least = float("inf")
    equals: list[Candidate] = []
    for candidate in candidates:
        if not candidate.free:
            continue
        load = candidate.load
        if load < least:
            least, equals = load, [candidate]
        elif load == least:
            equals.append(candidate)
    return equals[cursor % len(equals)] if equals else None
