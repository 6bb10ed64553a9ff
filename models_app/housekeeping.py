"""What the supervisor does besides: the heartbeat of this machine, holds of dead processes, logs that grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from asgiref.sync import sync_to_async

from accounts.quota import release_dead_holds
from cluster.services import heartbeat_this_machine, register_this_machine
from models_app import process
from models_app.replica_runner import ReplicaRunner

HEARTBEAT = 5.0
CLEAN_UP = 60.0


class Housekeeping:
    def __init__(self) -> None:
        self._node = ""
        self._heartbeat = self._clean_up = float("-inf")

    async def node(self) -> str:
        """The name of this machine."""
        if not self._node:
            self._node = (await sync_to_async(register_this_machine)()).name
        return self._node

    async def step(self, runners: Iterable[ReplicaRunner]) -> None:
        """What is due. Raises what the database raises."""
        now = time.monotonic()
        if now - self._heartbeat >= HEARTBEAT:
            self._heartbeat = now
            await sync_to_async(heartbeat_this_machine)()
        if now - self._clean_up >= CLEAN_UP:
            self._clean_up = now
            await sync_to_async(release_dead_holds)()
            for runner in runners:
                await asyncio.to_thread(process.shorten_log, runner.log)
