"""The first event of Anthropic's streams, where llama-server leaves it out.

It does when the first letter of an answer takes several tokens, as many an emoji does. Official clients fail without it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway import upstream
from gateway.upstream import ReplicaFailed

if TYPE_CHECKING:
    from gateway.exchange import Exchange

SECOND_EVENT = b"event: content_block_start"
COUNT_SECONDS = 2.0


def is_missing(first: bytes) -> bool:
    """Whether a stream with these first bytes is one without it."""
    while first.startswith(b":"):  # a ping
        first = first.partition(b"\n\n")[2]
    return first.startswith(SECOND_EVENT)


async def event(exchange: Exchange) -> bytes:
    """As the engine would have said it, but for what came out of its cache."""
    usage = {"cache_read_input_tokens": 0, "input_tokens": await _prompt_tokens(exchange), "output_tokens": 0}
    message: dict[str, Any] = {"id": f"msg_{exchange.request.request_id}", "type": "message", "role": "assistant"}
    message |= {"content": [], "model": exchange.pool.view.name, "stop_reason": None, "stop_sequence": None}
    told = {"type": "message_start", "message": {**message, "usage": usage}}
    return b"event: message_start\ndata: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


async def _prompt_tokens(exchange: Exchange) -> int:
    answer = None
    if exchange.lease is not None:
        with suppress(ReplicaFailed):
            path = exchange.endpoint.count_path
            answer = await upstream.ask(exchange.lease.replica.view, path, exchange.raw, COUNT_SECONDS)
    count = answer.get("input_tokens") if answer else None
    return count if isinstance(count, int) else 0
