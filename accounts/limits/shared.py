"""Limits shared by several web processes, in Redis.

Each process counts its own requests as well. That decides alone while Redis is away, and has a say in the minute after: so even
then no process lets more through than the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple

from accounts.limits.memory import MemoryLimiter
from accounts.limits.redis_link import ADMIT, FINISH, RENEW, Call, RedisAway, RedisLink, Timing
from accounts.limits.terms import UNLIMITED, WINDOW_SECONDS, Limit, LimitExceeded, Standing, Used, applying, standing

PREFIX = "llm:limits"
RENEWED_AT_ONCE = 500  # Redis does nothing else meanwhile


class _UnderWay(NamedTuple):
    limits: Sequence[Limit]
    tokens: int
    second: int | None  # in which Redis counted it; None: it was away


class RedisLimiter:
    """Belongs to one event loop. ``server_clock`` takes the place of Redis's own."""

    def __init__(
        self,
        url: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = monotonic,
        server_clock: Callable[[], float] | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._server_clock = server_clock
        self._clock = clock
        self._own = MemoryLimiter(clock)
        self._own_say_until = 0.0
        self._under_way: dict[str, _UnderWay] = {}
        self._link = RedisLink(url, self._timing, self._renewals)
        self._alive_key = f"{PREFIX}:process:{token_hex(8)}"

    @property
    def away(self) -> bool:
        """Whether Redis is."""
        return self._link.away

    async def admit(self, limits: Sequence[Limit], request_id: str, tokens: int) -> Standing:
        limits = applying(limits)
        if not limits:
            return UNLIMITED
        if self._clock() < self._own_say_until:
            self._own.check(limits, tokens)  # Redis does not know of the last minute's requests
        try:
            answer = await self._link.ask(
                self._admit(limits, request_id, tokens), partial(self._undo, limits, request_id, tokens)
            )
        except RedisAway:
            return self._admit_alone(limits, request_id, tokens)
        stands = _standing(limits, answer)
        self._own.count(limits, request_id, tokens)
        self._under_way[request_id] = _UnderWay(limits, tokens, answer[1])
        return stands

    def _admit_alone(self, limits: Sequence[Limit], request_id: str, tokens: int) -> Standing:
        stands = self._own.admit_now(limits, request_id, tokens)
        self._own_say_until = self._clock() + WINDOW_SECONDS + 1
        self._under_way[request_id] = _UnderWay(limits, tokens, None)
        return stands

    def finished(self, request_id: str, tokens: int) -> None:
        self._own.finished(request_id, tokens)
        was = self._under_way.pop(request_id, None)
        if was is not None and not (was.second is None and self._link.away):
            self._link.post(self._finish(was, request_id, tokens))

    async def renew(self) -> None:
        """Tells Redis that what runs here still runs, and that everything before was said. Raises RedisAway."""
        for call in self._renewals():
            await self._link.ask(call)

    async def aclose(self) -> None:
        await self._link.aclose()

    # -- what Redis is told ------------------------------------------------------------------------------------------------
    def _now(self) -> int | str:
        return "" if self._server_clock is None else int(1000 * self._server_clock())

    def _lease(self) -> int:
        return round(1000 * self._timing.lease)

    def _admit(self, limits: Sequence[Limit], request_id: str, tokens: int) -> Call:
        arguments: list[int | str] = [self._now(), self._lease(), request_id, tokens]
        for limit in limits:
            arguments += (limit.requests, limit.tokens, limit.concurrent)
        return Call(ADMIT, _keys(limits), arguments)

    def _finish(self, was: _UnderWay, request_id: str, tokens: int) -> Call:
        arguments: list[int | str] = [self._now(), request_id]
        for limit in was.limits:
            estimate = 0 if was.second is None else min(was.tokens, limit.tokens)
            arguments += (was.second or 0, estimate, tokens if limit.tokens else 0)
        return Call(FINISH, _keys(was.limits), arguments)

    def _undo(self, limits: Sequence[Limit], request_id: str, tokens: int, answer: list[Any]) -> None:
        """The client left while Redis was asked."""
        if not answer[0]:
            self._link.post(self._finish(_UnderWay(limits, tokens, answer[1]), request_id, 0))

    def _renewals(self) -> list[Call]:
        places = [(self._alive_key, "alive")]
        for request_id, was in self._under_way.items():
            places += [(_places_key(limit), request_id) for limit in was.limits]
        now, lease = self._now(), self._lease()
        parts = [places[first : first + RENEWED_AT_ONCE] for first in range(0, len(places), RENEWED_AT_ONCE)]
        return [Call(RENEW, [key for key, _id in part], [now, lease, *(name for _key, name in part)]) for part in parts]


def _window_key(limit: Limit) -> str:
    return f"{PREFIX}:window:{limit.subject}"


def _places_key(limit: Limit) -> str:
    return f"{PREFIX}:running:{limit.subject}"


def _keys(limits: Sequence[Limit]) -> list[str]:
    return [key for limit in limits for key in (_window_key(limit), _places_key(limit))]


def _standing(limits: Sequence[Limit], answer: list[Any]) -> Standing:
    """Raises LimitExceeded."""
    figures = answer[3:] if answer[0] else answer[2:]
    used = [Used(figures[at], figures[at + 1], figures[at + 2] / 1000) for at in range(0, len(figures), 3)]
    stands = standing(limits, used)
    if answer[0]:
        raise LimitExceeded(limits[answer[0] - 1], answer[1], answer[2] / 1000, stands)
    return stands
