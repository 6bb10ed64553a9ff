"""What is limited, and how a caller is told where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

What = Literal["requests", "tokens", "concurrent"]

WINDOW_SECONDS = 60
CONCURRENT_RETRY_SECONDS = 1.0  # nobody knows when the next place comes free


@dataclass(frozen=True, slots=True)
class Limit:
    """What one subject may use: ``key:12``, ``user:3``, ``group:2``, ``model:NAME``. 0 is no limit."""

    subject: str
    requests: int = 0  # within any minute
    tokens: int = 0  # within any minute
    concurrent: int = 0

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens or self.concurrent)


class Used(NamedTuple):
    """What a subject has used of its window. ``empty_in``: seconds until nothing of that counts any more."""

    requests: int
    tokens: int
    empty_in: float


class Left(NamedTuple):
    """Of one kind, under the limit that leaves the least."""

    limit: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The tightest of the limits that apply; None where none does."""

    requests: Left | None = None
    tokens: Left | None = None

    def headers(self) -> dict[str, str]:
        """``x-ratelimit-*`` as OpenAI writes them: the reset is when the window would be as if never used."""
        headers: dict[str, str] = {}
        for name, left in (("requests", self.requests), ("tokens", self.tokens)):
            if left is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(left.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(left.remaining)
                headers[f"x-ratelimit-reset-{name}"] = duration(left.reset)
        return headers


UNLIMITED = Standing()


class LimitExceeded(Exception):
    """One of the limits holds the request back; nothing of it was counted.

    Of several, the one that holds it back longest. ``retry_after``: whole seconds after which it would be admitted if
    nothing else came (a guess for ``concurrent``).
    """

    def __init__(self, limit: Limit, what: What, wait: float, standing: Standing) -> None:
        super().__init__(f"{limit.subject}: {what}")
        self.subject = limit.subject
        self.what: What = what
        self.limit: int = getattr(limit, what)
        self.retry_after = max(1, math.ceil(wait))
        self.standing = standing


def applying(limits: Sequence[Limit]) -> Sequence[Limit]:
    """Those that limit anything, each subject once: of two limits for one subject the tighter numbers hold."""
    kept = [limit for limit in limits if limit]
    if len({limit.subject for limit in kept}) == len(kept):
        return kept
    merged: dict[str, Limit] = {}
    for limit in kept:
        before = merged.get(limit.subject)
        merged[limit.subject] = limit if before is None else _tighter(before, limit)
    return list(merged.values())


def _tighter(one: Limit, other: Limit) -> Limit:
    return Limit(
        one.subject,
        _least(one.requests, other.requests),
        _least(one.tokens, other.tokens),
        _least(one.concurrent, other.concurrent),
    )


def _least(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


def standing(limits: Iterable[Limit], used: Iterable[Used]) -> Standing:
    requests: Left | None = None
    tokens: Left | None = None
    for limit, (requests_used, tokens_used, empty_in) in zip(limits, used, strict=True):
        if limit.requests:
            left = max(0, limit.requests - requests_used)
            if requests is None or left < requests.remaining:
                requests = Left(limit.requests, left, empty_in if requests_used else 0)
        if limit.tokens:
            left = max(0, limit.tokens - tokens_used)
            if tokens is None or left < tokens.remaining:
                tokens = Left(limit.tokens, left, empty_in if tokens_used else 0)
    return Standing(requests, tokens)


def duration(seconds: float) -> str:
    """As Go writes one: ``120ms``, ``6s``, ``1m0s``. From a second on rounded up to whole ones."""
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{min(999, math.ceil(1000 * seconds))}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
