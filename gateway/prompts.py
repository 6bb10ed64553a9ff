"""A request's prompt as a chain of hashes, in the order in which an engine reads it. Pure.

What comes first in the text that a chat template makes comes first in the chain: tools, the system prompt, then one message after
the other. A long message is hashed at 1, 2, 4, … KiB too, so that two prompts which differ only at the end of one (a document,
and a question about it) are seen to begin alike. Of a very long conversation the beginning is one part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from cluster.prefixes import NOTHING, Prompt
from gateway.endpoints import Endpoint

FIRST_BLOCK = 1024  # bytes
MOST_PARTS = 256  # messages that are parts of their own
STEP = 128  # the others grow by so many at once, so that the chain stays the same for that long
# What is read before the messages and changes everything after it.
BEFORE = ("tools", "chat_template_kwargs", "response_format", "reasoning_effort", "system", "instructions")


def chain(endpoint: Endpoint, body: Mapping[str, Any]) -> Prompt:
    """Nothing for requests whose prompt no cache remembers."""
    if not endpoint.generates:
        return NOTHING
    given = body.get(endpoint.required)
    before = {name: body[name] for name in BEFORE if body.get(name)}
    parts: list[tuple[bytes, bool]] = [(_bytes(before), False)] if before else []
    if isinstance(given, list) and all(isinstance(part, dict) for part in given):
        parts.extend(_messages(given))
    else:
        parts.append((_bytes(given), False))
    return _chain(parts)


def _messages(messages: list[dict[str, Any]]) -> Iterator[tuple[bytes, bool]]:
    together = max(len(messages) - MOST_PARTS, 0) // STEP * STEP
    if together:
        yield b"".join(_message(message) for message in messages[:together]), False
    for message in messages[together:]:
        yield _message(message), message.get("role") == "assistant"


def _message(message: Mapping[str, Any]) -> bytes:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return f"{message.get('role')}\0{content}".encode("utf-8", "surrogatepass")
    return _bytes(message)


def _bytes(value: object) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text.encode("utf-8", "surrogatepass")


def _chain(parts: Iterable[tuple[bytes, bool]]) -> Prompt:
    running, size = blake2b(digest_size=8), 0
    hashes: list[int] = []
    sizes: list[int] = []
    answers: list[bool] = []
    for part, is_answer in parts:
        for block in _blocks(part):
            running.update(block)
            size += len(block)
            hashes.append(int.from_bytes(running.digest()))
            sizes.append(size)
            answers.append(is_answer)
        running.update(b"\0\0")  # where a part ends matters too
    return Prompt(tuple(hashes), tuple(sizes), tuple(answers))


def _blocks(part: bytes) -> Iterator[bytes]:
    """The last one is what is left, which may be all."""
    begin, end = 0, FIRST_BLOCK
    while end < len(part):
        yield part[begin:end]
        begin, end = end, 2 * end
    yield part[begin:]
