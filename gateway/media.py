"""Pictures and sounds in a request: what of them may reach an engine, and how much of the context they may take. Pure.

An engine that is given an address fetches it, from wherever it runs: so a request could have it ask the private network. Here
media come with the request or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.utils.translation import gettext_lazy as _

from gateway import errors, pictures

# What a part of a message is called, or a field of it. What an engine makes of a part without a type is its own affair.
WORDS = re.compile(r"image|audio|video|media|multimodal|file|document")
TEXT = frozenset({"text", "input_text", "output_text"})
# What llama-server would fetch, and whatever else is an address; base64 has no colon.
ADDRESS = re.compile(r"\s*(?:http|(?!data:)[a-z][a-z0-9+.\-]*://)", re.IGNORECASE)
FIELDS = ("messages", "input", "prompt", "content")
WITH_PROMPT = "multimodal_data"  # llama-server's own form: a list beside the text of a prompt
# A picture of a few bytes may be as many tokens as the projector makes of any: the largest that are known, and what is usual.
MOST_TOKENS, USUAL_TOKENS = 16_384, 256


@dataclass(frozen=True, slots=True)
class Media:
    """``size``: characters, of base64 for the most part."""

    count: int = 0
    size: int = 0


NONE = Media()


def check(body: Mapping[str, Any]) -> Media:
    """What there is. Raises GatewayError when something is only an address, nothing that an engine may unpack, or too large."""
    count = size = pixels = 0
    for field in FIELDS:
        given = body.get(field)
        if not isinstance(given, list | dict):
            continue
        for part in _parts(given):
            count += 1
            for text in _texts(part):
                size += len(text)
                if ADDRESS.match(text):
                    raise errors.invalid(
                        _(
                            "Pictures and sounds must come with the request, as “data:image/png;base64,…”:"
                            " this service fetches nothing from other addresses."
                        ),
                        field,
                    )
            pixels += sum(pictures.pixels(payload, field) for payload in pictures.payloads(part))
            if pixels > pictures.MOST_PIXELS:
                raise pictures.too_many(pixels, field)
    return Media(count, size) if count else NONE


def _parts(given: Any) -> Iterator[Any]:
    """Whatever is a medium in messages, a message, or its parts. What a message calls itself says nothing of what is in it."""
    for one in given if isinstance(given, list) else [given]:
        if not isinstance(one, dict):
            continue
        kind = one.get("type")
        if isinstance(kind, str) and _names_a_medium(kind):
            yield one
        elif not isinstance(kind, str) or kind not in TEXT:
            for name, value in one.items():
                if _names_a_medium(name):
                    yield from value if isinstance(value, list) else [value]
        if isinstance(one.get("content"), list | dict):
            yield from _parts(one["content"])


@lru_cache(1000)
def _names_a_medium(word: str) -> bool:
    return WORDS.search(word) is not None


def _texts(part: Any) -> Iterator[str]:
    pending = [part]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
