"""What the supervisor does besides: the heartbeat of this machine, the memory models take, what is due in accounts, logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from asgiref.sync import sync_to_async

from accounts import sweeps
from cluster.probe import check_joined_nodes
from cluster.services import heartbeat_this_machine, register_this_machine
from models_app import memory_learning, process
from models_app.replica_runner import ReplicaRunner

HEARTBEAT = 5.0
CLEAN_UP = 60.0
CLEAN_UP_ON = 5.0  # when there was more to do than one call does: the beginning of a month for thousands of people


class Housekeeping:
    def __init__(self) -> None:
        self._node = ""
        self._heartbeat = self._clean_up = float("-inf")
        self._probing: asyncio.Task[None] | None = None
        self.learned: dict[str, int] = {}  # memory by what was started

    async def node(self) -> str:
        """The name of this machine."""
        if not self._node:
            self._node = (await sync_to_async(register_this_machine)()).name
        return self._node

    async def recall(self) -> None:
        """What earlier supervisors have measured. Raises what the database raises."""
        self.learned.update(await sync_to_async(memory_learning.learned)())

    async def step(self, runners: Iterable[ReplicaRunner]) -> None:
        """What is due. Raises what the database raises."""
        now = time.monotonic()
        if now - self._heartbeat >= HEARTBEAT:
            self._heartbeat = now
            await sync_to_async(heartbeat_this_machine)()
            await self._measure()
            self._look_at_joined_machines()
        if now - self._clean_up >= CLEAN_UP:
            self._clean_up = now
            if await sync_to_async(sweeps.run)():
                self._clean_up -= CLEAN_UP - CLEAN_UP_ON
            for runner in runners:
                await asyncio.to_thread(process.shorten_log, runner.log)

    async def _measure(self) -> None:
        await sync_to_async(memory_learning.measure)(await self.node(), self.learned)

    def _look_at_joined_machines(self) -> None:
        """On the side: one that is down takes seconds to say so, and our own replicas must not wait for that."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(check_joined_nodes(), name="joined machines")
