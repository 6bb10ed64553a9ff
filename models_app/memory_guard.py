"""Before the kernel ends a process of its choice for want of memory, the largest replica that nobody uses makes room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from models_app import health, machine
from models_app.replica_runner import ReplicaRunner

logger = logging.getLogger(__name__)
MIB = 1024 * 1024
EVERY = 2.0


class MemoryGuard:
    def __init__(self) -> None:
        self._looked = float("-inf")
        self._going: ReplicaRunner | None = None

    async def step(self, runners: Iterable[ReplicaRunner]) -> None:
        if time.monotonic() - self._looked < EVERY:
            return
        self._looked = time.monotonic()
        if self._going is not None and self._going.engine is not None:
            return  # what it has is not free yet
        self._going = None
        available, least = await asyncio.to_thread(machine.available_memory), machine.low_mark()
        if available >= least:
            return
        serving = [runner for runner in runners if runner.is_ready]
        for runner in sorted(serving, key=lambda runner: runner.own_memory(), reverse=True):
            if await _is_idle(runner):
                logger.warning("%s: makes room, for %d MB of memory are left", runner, available // MIB)
                runner.make_room(available, least)
                self._going = runner
                return


async def _is_idle(runner: ReplicaRunner) -> bool:
    engine = runner.engine
    if engine is None:
        return False
    return await health.requests_under_way(runner.shared.client, engine.base_url, engine.key) == 0
