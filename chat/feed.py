"""What one socket gets to hear: it follows conversations and sends what is new, about thirty times a second at most."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from uuid import UUID

from chat.live import Cursor, Event, Live, Recording

# Seconds between two rounds: deltas that arrive in between become one.
ROUND = 0.03
MOST_CONVERSATIONS = 50  # that one socket follows; the one it asked for longest ago goes first
MOST_WAITING = 200  # events that belong to no recording


class Overflow(Exception):
    """The socket does not take what it asked for."""


class Feed:
    """A :class:`chat.live.Follower`. One task sends, so the order of events is the order they have here."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._news = asyncio.Event()
        self._told: deque[Event] = deque()
        self._overflown = False
        self._followed: dict[UUID, tuple[Recording, Cursor]] = {}
        self._conversations: dict[UUID, None] = {}  # in the order they were asked for

    # -- Follower ------------------------------------------------------------------------------------------------------
    def wake(self) -> None:
        self._news.set()

    def tell(self, event: Event) -> None:
        if len(self._told) >= MOST_WAITING:
            self._overflown = True
        else:
            self._told.append(event)
        self.wake()

    def follow(self, recording: Recording, cursor: Cursor) -> None:
        """From ``cursor`` on, wherever it was before."""
        self._followed[recording.message] = recording, cursor
        self.wake()

    # -- the socket's side ---------------------------------------------------------------------------------------------
    def is_following(self, message: UUID) -> bool:
        return message in self._followed

    def subscribe(self, conversation: UUID) -> None:
        self._conversations.pop(conversation, None)
        self._conversations[conversation] = None
        self._live.subscribe(conversation, self)
        while len(self._conversations) > MOST_CONVERSATIONS:
            self._unsubscribe(next(iter(self._conversations)))

    def close(self) -> None:
        for conversation in list(self._conversations):
            self._unsubscribe(conversation)

    def _unsubscribe(self, conversation: UUID) -> None:
        del self._conversations[conversation]
        self._live.unsubscribe(conversation, self)
        for message in [
            key for key, (recording, _) in self._followed.items() if recording.conversation == conversation
        ]:
            del self._followed[message]

    async def send_all(self, send: Callable[[Event], Awaitable[None]]) -> None:
        """Until cancelled. Raises Overflow."""
        while True:
            await self._news.wait()
            self._news.clear()
            for event in self._events():
                await send(event)
            if self._overflown:
                raise Overflow
            await asyncio.sleep(ROUND)

    def _events(self) -> Iterator[Event]:
        while self._told:
            yield self._told.popleft()
        for message, (recording, cursor) in list(self._followed.items()):
            yield from recording.events_after(cursor)
            if cursor.ended and self._followed.get(message, (None, None))[1] is cursor:
                del self._followed[message]
