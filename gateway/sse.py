"""Reading server-sent events whose data is JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

LARGEST_EVENT = 16 * 1024 * 1024


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream's ``data`` lines, however the bytes are cut. ``[DONE]`` and comments are left out."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LARGEST_EVENT:
            raise ValueError("an event is too large")
        for line in lines:
            if line.startswith(b"data:") and (event := _parsed(line[5:])) is not None:
                yield event


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(data)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
