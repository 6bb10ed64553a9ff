"""Sees to it that nobody goes on listening who may no longer be here: one task for all sockets of this process.

Every ``LOOK_EVERY`` seconds it asks, for all of them at once, whether anything has changed about those who listen, and has each
socket looked at about which something has. A socket seen for the first time is looked at too: it was let in by what the process
remembered, which may be older than its first mark. What ends by its time alone (a token) is the socket's own affair.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from channels.db import database_sync_to_async

from accounts import callers
from accounts.standing import Mark, Presence, marks_of

logger = logging.getLogger(__name__)

LOOK_EVERY = 2.0  # seconds; a new password ends sockets within 5


class Listener(Protocol):
    def presence(self) -> Presence | None:
        """Who listens; None before they have said so."""

    async def look_again(self) -> None:
        """Ends by itself if its caller may no longer be here."""


class Lookout:
    """Used from one event loop at a time. The task ends when nobody is left."""

    def __init__(self) -> None:
        self._seen: dict[Listener, tuple[Presence, Mark] | None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, listener: Listener) -> None:
        self._seen[listener] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_on())

    def remove(self, listener: Listener) -> None:
        self._seen.pop(listener, None)

    async def _look_on(self) -> None:
        while self._seen:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except Exception:  # the loop's edge: without this task nobody would be looked at any more
                logger.exception("those who listen could not be looked at")

    async def look(self) -> None:
        here = {listener: presence for listener in self._seen if (presence := listener.presence()) is not None}
        marks = await database_sync_to_async(marks_of)(set(here.values()))
        found = {listener: (presence, marks[presence]) for listener, presence in here.items()}
        changed = [listener for listener in found if self._seen.get(listener) != found[listener]]
        # The new ones last: there may be a thousand of them after a restart.
        for listener in sorted(changed, key=lambda one: self._seen.get(one) is None):
            await self._look_at(listener, found[listener])

    async def _look_at(self, listener: Listener, found: tuple[Presence, Mark]) -> None:
        if listener not in self._seen:
            return  # gone meanwhile
        presence, _mark = found
        callers.forget(presence.user_id)  # or what is remembered would let them in once more
        try:
            await listener.look_again()
        except Exception:  # one that goes wrong must not keep the others from being looked at; it is tried again
            logger.exception("a listener could not be looked at")
            return
        if listener in self._seen:
            self._seen[listener] = found


lookout = Lookout()
