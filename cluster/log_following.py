"""``follow=1``: a log as server-sent events, for as long as the client stays.

No thread waits for a client: an asynchronous generator looks twice a second, and the look itself is one short read in
the shared pool. The number of followers is bounded, and so is the time one may stay; browsers reconnect by themselves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from django.db import connection
from django.http import StreamingHttpResponse
from django.utils.translation import gettext as _

from cluster.log_reading import Follower
from llmplatform.lib.api.errors import ApiError

POLL_SECONDS = 0.5
KEEPALIVE_SECONDS = 15.0  # a comment, so that a client that went away without a word is noticed
MAX_SECONDS = 3600.0
MAX_FOLLOWERS = 50

_following: set[Follower] = set()

Entry = dict[str, Any]
Show = Callable[[bytes], Entry | None]  # the entry of a line, or None when it is not asked for


def event(entry: Entry) -> bytes:
    return b"data: " + json.dumps(entry, ensure_ascii=False, default=str).encode() + b"\n\n"


def follow(path: Path, before: Callable[[int], list[Entry]], show: Show) -> StreamingHttpResponse:
    """``before(position)`` gives the entries up to where following starts, so that none is missed and none comes twice."""
    if len(_following) >= MAX_FOLLOWERS:
        raise ApiError("overloaded", _("Too many people follow logs just now."), 503, retry_after=30)
    follower = Follower(path)
    first = before(follower.start)
    if not connection.in_atomic_block:
        connection.close()  # not kept open for an hour
    response = StreamingHttpResponse(_events(follower, first, show), content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    response["Content-Encoding"] = "identity"  # compressed, events would wait for each other
    return response


async def _events(follower: Follower, first: list[Entry], show: Show) -> AsyncIterator[bytes]:
    _following.add(follower)
    try:
        yield b": following\n\n" + b"".join(event(entry) for entry in first)
        until = time.monotonic() + MAX_SECONDS
        spoken = time.monotonic()
        while time.monotonic() < until:
            lines = await asyncio.to_thread(follower.read)
            entries = [entry for line in lines if (entry := show(line)) is not None]
            if entries or time.monotonic() - spoken > KEEPALIVE_SECONDS:
                spoken = time.monotonic()
                yield b"".join(event(entry) for entry in entries) or b": still here\n\n"
            if not lines:
                await asyncio.sleep(POLL_SECONDS)
    finally:
        _following.discard(follower)
        follower.close()
