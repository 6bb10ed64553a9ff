"""The events of an engine's stream: only whole ones reach a client, and none in which the engine says that it failed. Pure.

So an answer can be gone on with, or ended with an error that the client's program can read, wherever its engine breaks off.
"""

from __future__ import annotations

from gateway import upstream
from gateway.errors import GatewayError
from gateway.upstream import ReplicaFailed
from gateway.usage import DONE, EVENT_END

# The last event of a responses stream has the whole answer once more.
LONGEST = 4 * 1024 * 1024
BEGUN, ENDED = b"data: {", b"}"
NO_DATA = (b":", b"id:", b"retry:")
LAST = DONE + EVENT_END


class WholeEvents:
    """Puts together what came in pieces."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = b""

    def feed(self, chunk: bytes) -> bytes:
        """Those that are complete. Raises ReplicaFailed when one does not end."""
        if not self._half and chunk.endswith(EVENT_END):
            return chunk
        events, end, self._half = (self._half + chunk).rpartition(EVENT_END)
        if len(self._half) > LONGEST:
            raise ReplicaFailed("an event without an end")
        return events + end


def until_failure(events: bytes) -> tuple[bytes, GatewayError | ReplicaFailed | None]:
    """Those before the one in which the engine says that it failed, or that no client can read; and what is wrong then."""
    if upstream.TOLD_ERROR not in events and upstream.ERROR_EVENT not in events and _look_like_events(events):
        return events, None
    before = b""
    for event in events.split(EVENT_END):
        error = upstream.error_told(event)
        if error is None and not _is_event(event):
            error = ReplicaFailed("what is no event")
        if error is not None:
            return before, error
        before += event + EVENT_END if event else b""
    return before, None


def _look_like_events(events: bytes) -> bool:
    """In no time, and true of nearly all. What is between the braces is not read."""
    count = events.count(EVENT_END) - events.endswith(LAST)
    begun = events.startswith(BEGUN) + events.count(b"\n" + BEGUN)
    return begun == count == events.count(ENDED + EVENT_END)


def _is_event(event: bytes) -> bool:
    """Of several, what stands between them too."""
    if not event or event == DONE or event.startswith(NO_DATA):
        return True
    named = event.startswith(upstream.EVENT_FIELDS) and b"\n" + BEGUN in event
    return (named or event.startswith(BEGUN)) and event.endswith(ENDED)
