"""An asyncio loop whose time is told: nothing is waited for, the next moment at which something happens is now."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping


class _Skipping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will happen")
        self.now += max(timeout, 0.0)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now

    def default_exception_handler(self, context: Mapping[str, object]) -> None:
        raise RuntimeError(context)
