"""Server-sent events as they come off the wire: bytes in any cuts go in, the data of whole events come out."""

from __future__ import annotations

LONGEST_EVENT = 4 * 1024 * 1024  # bytes; an upstream that never ends an event must not fill our memory


class EventTooLong(Exception):
    """The upstream sends something that is no event stream."""


class EventParser:
    """Holds the unfinished event between two calls. Works on bytes, so that a cut inside a character does no harm."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that ``chunk`` completes, in order."""
        self._line += chunk
        if len(self._line) + sum(map(len, self._data)) > LONGEST_EVENT:
            raise EventTooLong
        *lines, rest = self._line.split(b"\n")
        self._line = rest
        return [data for line in lines if (data := self._take_line(bytes(line.removesuffix(b"\r")))) is not None]

    def _take_line(self, line: bytes) -> str | None:
        """The event's data when ``line`` is the empty one that ends it. Comments and other fields mean nothing to us."""
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            data = b"\n".join(self._data).decode("utf-8", "replace")
            self._data.clear()
            return data
        return None
