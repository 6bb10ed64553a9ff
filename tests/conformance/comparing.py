"""Two answers to one request, made comparable: what may differ, and nothing else, is taken out of them.

DRAWN     names drawn anew for each answer: each becomes a number, the same name the same number
MEASURED  times: only that they are there counts
PLACE     which slot answered
COMMENTS  lines of a stream that say nothing (an engine's pings, the gateway's word of waiting)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

DRAWN = frozenset({"id", "item_id", "call_id", "tool_call_id", "response_id"})
MEASURED = frozenset({"created", "created_at", "completed_at", "time_ms"})
PLACE = frozenset({"id_slot"})
COUNTED = frozenset(
    {"cache_n", "prompt_n", "predicted_n", "draft_n", "draft_n_accepted"}
)  # of "timings", the rest is measured
COMMENT = ":"
# What clients look at, and both say.
HEADERS = ("content-type",)


@dataclass
class Told:
    """What an answer says: its status, headers that count, and its body or its events, each with its name."""

    status: int
    headers: dict[str, str]
    body: Any


def told_by(answer: httpx.Response) -> Told:
    """An answer in a comparable form."""
    headers = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    streams = headers.get("content-type", "").startswith("text/event-stream")
    body = events_of(answer.text) if streams else answer.json()
    return Told(answer.status_code, headers, _Neutral().of(body))


def events_of(text: str) -> list[tuple[str, Any]]:
    """Of a stream: name and data of each event, in their order."""
    assert text.endswith("\n\n"), f"the last event has no end: {text[-200:]!r}"
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith(COMMENT)]
        fields = dict(line.split(": ", 1) for line in lines)
        assert set(fields) <= {"event", "data"}, block
        if fields:
            data = fields["data"]
            found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


class _Neutral:
    def __init__(self) -> None:
        self._drawn: dict[str, int] = {}

    def of(self, value: Any, name: str = "") -> Any:
        if name in DRAWN and isinstance(value, str):
            return f"drawn {self._drawn.setdefault(value, len(self._drawn))}"
        if name in MEASURED or name in PLACE:
            return type(value).__name__
        if name == "timings" and isinstance(value, dict):
            return {key: part if key in COUNTED else "measured" for key, part in value.items()}
        if isinstance(value, dict):
            return {key: self.of(part, key) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(part, name) for part in value]
        return value


def refusal_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and message of an error, in whichever protocol it is told."""
    error = answer.json()["error"]
    return answer.status_code, error["message"]
