"""What a process remembers for some seconds of what the database said."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
State = TypeVar("State")

STATES_KEPT = 10_000


class Remembered(Generic[Key, State]):
    """States, for ``seconds`` after they were read, at most ``STATES_KEPT`` of them (the longest known goes first)."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._states: dict[Key, tuple[float, State]] = {}
        self._lock = threading.Lock()

    def get(self, name: Key) -> State | None:
        known = self._states.get(name)
        return known[1] if known is not None and time.monotonic() - known[0] < self._seconds else None

    def put(self, name: Key, state: State, read_at: float) -> None:
        """``read_at``: by ``time.monotonic``, before the database was asked."""
        with self._lock:
            self._states.pop(name, None)
            self._states[name] = read_at, state
            while len(self._states) > STATES_KEPT:
                del self._states[next(iter(self._states))]

    def forget(self, name: Key) -> None:
        with self._lock:
            self._states.pop(name, None)

    def clear(self) -> None:
        with self._lock:
            self._states.clear()
