"""Tells a llama-server that works from one that only says so: it answers ``/health`` and writes nothing. Pure.

It is stuck when it has requests, and neither its counters move nor does it use its processor; or when it uses the processor for
very long and the counters stand still (a long prompt on a slow machine is read in batches, each of which moves them).
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_USE = 0.05  # of one core; a server that waits uses less than a hundredth


@dataclass(frozen=True)
class Look:
    """What is seen of a server at a moment. Seconds; ``counter`` only ever grows while it works."""

    at: float
    busy: bool
    counter: float
    processor: float


class Liveness:
    def __init__(self, idle_limit: float, working_limit: float) -> None:
        """Seconds without progress: when it does not compute, and when it does."""
        self._idle_limit, self._working_limit = idle_limit, working_limit
        self._moved: Look | None = None  # the last look that showed progress
        self._used: Look | None = None  # and the last that showed it computing

    def is_stuck(self, look: Look) -> bool:
        if self._moved is None or self._used is None or not look.busy or look.counter != self._moved.counter:
            self._moved = self._used = look
            return False
        since = look.at - self._used.at
        if look.processor - self._used.processor >= LEAST_USE * since:
            self._used = look
        return look.at - self._used.at >= self._idle_limit or look.at - self._moved.at >= self._working_limit
