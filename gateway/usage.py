"""Learning what an answer cost from the bytes that pass: counting while they pass, parsing only the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# The figures stand in the last event; behind it come a terminator and, for "responses", at most what fits in here.
TAIL_BYTES = 16 * 1024
HEAD_BYTES = 1024
TIMINGS, USAGE = b'"timings":', b'"usage":'
PROGRESS = b'"prompt_progress":'  # in events that carry no token
EVENT_END, DONE = b"\n\n", b"data: [DONE]"
TELLING_PROMPT = 16  # tokens
_decoder = json.JSONDecoder()


@dataclass(slots=True)
class TokenCount:
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    tokens_per_second: float | None = None
    prompt_per_second: float | None = None  # only where enough was read to tell


def read_figures(data: bytes) -> TokenCount | None:
    """The engine's own figures out of the end of an answer, streamed or not. None when it gave none.

    The markers cannot come from the text of an answer: inside a JSON string their quotes would be escaped.
    """
    if (timings := _object_at(data, data.rfind(TIMINGS), TIMINGS)) is not None:
        return _from_timings(timings)
    usage = _object_at(data, data.rfind(USAGE), USAGE)
    return _from_usage(usage) if usage is not None else None


def total(counts: Sequence[TokenCount], prompts: int) -> TokenCount:
    """Of several answers to so many prompts. Answers to the same one share it: it was read once."""
    each = max(1, len(counts) // prompts)
    return TokenCount(
        prompt=sum(count.prompt for count in counts) // each,
        cached=sum(count.cached for count in counts) // each,
        completion=sum(count.completion for count in counts),
    )


def _object_at(data: bytes, at: int, marker: bytes) -> dict[str, Any] | None:
    if at < 0:
        return None
    try:
        found, _end = _decoder.raw_decode(data[at + len(marker) :].decode("utf-8", "replace").lstrip())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _number(figures: dict[str, Any], *names: str) -> int:
    for name in names:
        value = figures.get(name)
        if isinstance(value, (int, float)) and value >= 0:
            return int(value)
    return 0


def _from_timings(timings: dict[str, Any]) -> TokenCount:
    cached = _number(timings, "cache_n")
    read = _number(timings, "prompt_n")
    return TokenCount(
        prompt=cached + read,
        cached=cached,
        completion=_number(timings, "predicted_n"),
        tokens_per_second=_speed(timings, "predicted_per_second"),
        prompt_per_second=_speed(timings, "prompt_per_second") if read >= TELLING_PROMPT else None,
    )


def _speed(timings: dict[str, Any], name: str) -> float | None:
    value = timings.get(name)
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e9 else None


def _from_usage(usage: dict[str, Any]) -> TokenCount:
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    # Anthropic's input_tokens leaves out what came from the cache and tells it separately.
    apart = _number(usage, "cache_read_input_tokens")
    return TokenCount(
        prompt=_number(usage, "prompt_tokens", "input_tokens", "total_tokens") + apart,
        cached=apart or (_number(details, "cached_tokens") if isinstance(details, dict) else 0),
        completion=_number(usage, "completion_tokens", "output_tokens"),
    )


class StreamMeter:
    """Counts the tokens of a stream as it passes and keeps its end.

    ``piece`` stands in every event that carries a token, unless ``bare`` does too; ``finish`` in the one that ends an answer,
    which tells more than the socket: what comes after it are figures. All have quotes that are escaped inside a
    JSON string, so that an answer's text cannot be taken for them.
    """

    __slots__ = (
        "_answers", "_bare", "_ends", "_finish", "_finished", "_first", "_piece", "_prompts", "_tail", "delivered",
    )  # fmt: skip

    def __init__(
        self,
        piece: bytes,
        bare: bytes = b"",
        answers: int = 1,
        prompts: int = 1,
        finish: bytes = b'"finish_reason":"',
    ) -> None:
        self.delivered = self._finished = 0
        self._finish = finish
        self._piece, self._bare, self._answers, self._prompts = piece, bare, answers, prompts
        self._ends: list[TokenCount] = []
        self._first = b""
        self._tail = b"\n"

    def feed(self, events: bytes) -> None:
        """Whole ones."""
        self.delivered += events.count(self._piece) - (events.count(self._bare) if self._bare else 0)
        self._finished += events.count(self._finish)
        if self._answers > 1 and TIMINGS in events:
            self._note_ends(events)
        if len(self._first) < HEAD_BYTES:
            self._first += events[:HEAD_BYTES]
        self._tail = events[-TAIL_BYTES:] if len(events) >= TAIL_BYTES else (self._tail + events)[-TAIL_BYTES:]

    def _note_ends(self, events: bytes) -> None:
        """The figures of each of several answers, at its end. (``timings_per_token`` has some in every event.)"""
        for event in events.split(EVENT_END):
            if self._piece not in event and (figures := read_figures(event)) is not None:
                self._ends.append(figures)

    def figures(self) -> TokenCount | None:
        """The engine's figures; with Anthropic's protocol the prompt's stand in the first event."""
        last = read_figures(self._tail)
        if last is not None and not last.prompt:
            begun = _object_at(self._first, self._first.find(USAGE), USAGE)
            if begun is not None:
                first = _from_usage(begun)
                last.prompt, last.cached = first.prompt, first.cached
        if last is not None and self._answers > 1:
            last.completion = max(last.completion, self.delivered)
            return total(self._ends, self._prompts) if len(self._ends) == self._answers else last
        return last

    @property
    def ended(self) -> bool:
        """Whether the engine said that every answer is complete (and not that it failed)."""
        return (
            self._finished >= self._answers or b"\ndata: [DONE]" in self._tail or b"\nevent: message_stop" in self._tail
        )

    @property
    def closed(self) -> bool:
        """Whether nothing can follow any more."""
        return b"\ndata: [DONE]" in self._tail
