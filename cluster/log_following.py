"""``follow=1``: a log as server-sent events, for as long as the client stays.

No thread works for a client: an asynchronous iterator looks twice a second, and the look itself is one short read in
the shared pool. (Django keeps the request's own thread, idle, until the answer ends; nobody else waits for that one.)
The number of followers is bounded, and so is the time one may stay; browsers reconnect by themselves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakSet

from django.db import connection
from django.http import StreamingHttpResponse
from django.utils.translation import gettext as _

from cluster.log_reading import Follower
from llmplatform.lib.errors import ApiError

POLL_SECONDS = 0.5
KEEPALIVE_SECONDS = 15.0  # a comment, so that a client that went away without a word is noticed
MAX_SECONDS = 3600.0
MAX_FOLLOWERS = 50

Entry = dict[str, Any]
Show = Callable[[bytes], Entry | None]  # the entry of a line, or None when it is not asked for


def event(entry: Entry) -> bytes:
    return b"data: " + json.dumps(entry, ensure_ascii=False, default=str).encode() + b"\n\n"


class Events:
    """The body of one follower's answer. An iterator with ``close`` instead of a generator: Django closes it in any case,
    also when the client went away before the first piece."""

    following: ClassVar[WeakSet[Events]] = WeakSet()

    def __init__(self, follower: Follower, first: list[Entry], show: Show) -> None:
        self._follower = follower
        self._first: list[Entry] | None = first
        self._show = show
        self._spoken = time.monotonic()
        self._until = self._spoken + MAX_SECONDS
        self.following.add(self)

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return b": following\n\n" + b"".join(map(event, first))
        while time.monotonic() < self._until:
            lines = await asyncio.to_thread(self._follower.read)
            entries = [entry for line in lines if (entry := self._show(line)) is not None]
            if entries or time.monotonic() - self._spoken > KEEPALIVE_SECONDS:
                self._spoken = time.monotonic()
                return b"".join(map(event, entries)) or b": still here\n\n"
            if not lines:
                await asyncio.sleep(POLL_SECONDS)
        raise StopAsyncIteration

    def close(self) -> None:
        self._until = 0.0
        self.following.discard(self)
        self._follower.close()


def follow(path: Path, before: Callable[[int], list[Entry]], show: Show) -> StreamingHttpResponse:
    """``before(position)`` gives the entries up to where following starts, so that none is missed and none comes twice."""
    if len(Events.following) >= MAX_FOLLOWERS:
        raise ApiError("overloaded", _("Too many people follow logs just now."), 503, retry_after=30)
    follower = Follower(path)
    first = before(follower.start)
    if not connection.in_atomic_block:
        connection.close()  # not kept open for an hour
    response = StreamingHttpResponse(Events(follower, first, show), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    response["Content-Encoding"] = "identity"  # compressed, events would wait for each other
    return response
