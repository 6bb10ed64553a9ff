"""Stores answers as they grow: whatever waits is written in one transaction, so 200 people chatting cost one write at a time."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import Error as DatabaseError

from chat import services
from chat.services import Snapshot

logger = logging.getLogger(__name__)
ATTEMPTS = 3
BETWEEN_ATTEMPTS = 1.0  # seconds

_Waiting = dict[UUID, tuple[Snapshot, list["asyncio.Future[bool]"]]]


class Saver:
    """``save`` returns once the snapshot, or a newer one of the same message, is stored. Used from one event loop at a time."""

    def __init__(self) -> None:
        self._waiting: _Waiting = {}
        self._writer: asyncio.Task[None] | None = None

    async def save(self, snapshot: Snapshot) -> bool:
        """False: the message is no longer there to be written to. Without a database that works it is told and given up."""
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        _older, others = self._waiting.get(snapshot.message, (snapshot, []))
        self._waiting[snapshot.message] = snapshot, [*others, stored]
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await stored

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                gone = await _stored([snapshot for snapshot, _futures in batch.values()])
            except Exception:  # the edge of the loop: whoever waits must hear, and the next batch may be fine
                logger.exception("answers were lost", extra={"answers": len(batch)})
                gone = set()
            for snapshot, futures in batch.values():
                for future in futures:
                    if not future.done():
                        future.set_result(snapshot.message not in gone)


async def _stored(snapshots: list[Snapshot]) -> set[UUID]:
    for attempt in range(ATTEMPTS):
        try:
            gone: set[UUID] = await database_sync_to_async(services.save_many)(snapshots)
            return gone
        except DatabaseError:
            logger.exception("answers could not be stored", extra={"attempt": attempt + 1, "answers": len(snapshots)})
        await asyncio.sleep(BETWEEN_ATTEMPTS)
    return set()


saver = Saver()
