"""Stores answers as they grow: whatever waits is written in one transaction, so 200 people chatting cost one write at a time."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError

from chat import services
from chat.services import Snapshot

logger = logging.getLogger(__name__)
# Seconds between attempts while the database is away, doubled each time.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 10.0

_Waiting = dict[UUID, tuple[Snapshot, list["asyncio.Future[bool]"]]]


class Saver:
    """``save`` returns once the snapshot, or a newer one of the same message, is stored. Used from one event loop at a time."""

    def __init__(self) -> None:
        self._waiting: _Waiting = {}
        self._writer: asyncio.Task[None] | None = None

    async def save(self, snapshot: Snapshot) -> bool:
        """False: the message is no longer there to be written to, or nothing that the database takes. While the database is away
        this waits: what is newer replaces what is older, so no more waits than there are answers."""
        stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        _older, others = self._waiting.get(snapshot.message, (snapshot, []))
        self._waiting[snapshot.message] = snapshot, [*others, stored]
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await stored

    async def _write(self) -> None:
        pause = FIRST_PAUSE
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                await self._store(batch)
                pause = FIRST_PAUSE
            except (OperationalError, InterfaceError):
                logger.exception("answers wait for the database", extra={"answers": len(batch)})
                self._put_back(batch)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _store(self, batch: _Waiting) -> None:
        """Raises what says that the database is away. One answer it will not take does not spoil the others."""
        try:
            gone = await _saved([snapshot for snapshot, _futures in batch.values()])
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # the edge of the loop: whoever waits must hear
            if len(batch) > 1:
                for message, waiting in batch.items():
                    await self._store({message: waiting})
                return
            logger.exception("an answer cannot be stored")
            gone = set(batch)
        for snapshot, futures in batch.values():
            for future in futures:
                if not future.done():
                    future.set_result(snapshot.message not in gone)

    def _put_back(self, batch: _Waiting) -> None:
        for message, (snapshot, futures) in batch.items():
            newer, more = self._waiting.get(message, (snapshot, []))
            self._waiting[message] = newer, [*futures, *more]


async def _saved(snapshots: list[Snapshot]) -> set[UUID]:
    gone: set[UUID] = await database_sync_to_async(services.save_many)(snapshots)
    return gone


saver = Saver()
