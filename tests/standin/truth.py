"""Reading what stand-ins noted in their journal: what each request really got."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Attempt:
    """What one stand-in did for a request. ``end``: done or closed; empty while it runs, or when the process was killed."""

    prompt: int = 0
    answer: int = 0
    made: int = 0
    end: str = ""


Truth = dict[str, list[Attempt]]


def mark(name: str) -> str:
    """To be written into the prompt."""
    return f"[mark:{name}]"


def read(path: Path) -> Truth:
    """By mark, in the order in which they came."""
    found: dict[str, dict[str, Attempt]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        told = json.loads(line)
        attempt = found.setdefault(told["mark"], {}).setdefault(told["attempt"], Attempt())
        attempt.prompt = max(attempt.prompt, told.get("prompt", 0))
        attempt.answer += told.get("answer", 0)
        attempt.made += told.get("made", 0)
        attempt.end = told.get("end", attempt.end)
    return {name: list(attempts.values()) for name, attempts in found.items()}
