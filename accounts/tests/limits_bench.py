"""Limiters of both kinds behind one face, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from accounts.limits import Limit, LimitExceeded, Standing
from accounts.limits.memory import MemoryLimiter
from accounts.limits.redis_link import Timing
from accounts.limits.shared import RedisLimiter
from tests.redis_server import RedisServer

Result = TypeVar("Result")
PATIENT = Timing(connect=10, answer=10, lease=30, renew=1000)


class Clock:
    def __init__(self) -> None:
        self.milliseconds = 5_000_375

    def __call__(self) -> float:
        return self.milliseconds / 1000

    def advance(self, seconds: float) -> None:
        self.milliseconds += round(1000 * seconds)


class Bench:
    """``admit`` and ``finish`` as a web process would. With Redis there are two such processes, which take turns."""

    def __init__(self, redis: RedisServer | None = None) -> None:
        self.clock = Clock()
        self.ids = (f"r{number}" for number in itertools.count())
        self._runner = asyncio.Runner()
        self.processes: list[MemoryLimiter] | list[RedisLimiter] = (
            [MemoryLimiter(self.clock)] if redis is None else [self._shared(redis), self._shared(redis)]
        )
        self._turns = itertools.cycle(range(len(self.processes)))
        self._admitted_by: dict[str, int] = {}

    def _shared(self, redis: RedisServer) -> RedisLimiter:
        return self.run(_made(redis.url, self.clock))

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(coroutine)

    def admit(self, limits: Sequence[Limit] | Limit, tokens: int = 0) -> str:
        """The id of an admitted request. Raises LimitExceeded."""
        return self.stand(limits, tokens)[0]

    def stand(self, limits: Sequence[Limit] | Limit, tokens: int = 0) -> tuple[str, Standing]:
        request_id, turn = next(self.ids), next(self._turns)
        given = [limits] if isinstance(limits, Limit) else limits
        standing = self.run(self.processes[turn].admit(given, request_id, tokens))
        self._admitted_by[request_id] = turn
        return request_id, standing

    def refusal(self, limits: Sequence[Limit] | Limit, tokens: int = 0) -> LimitExceeded | None:
        try:
            self.admit(limits, tokens)
        except LimitExceeded as refusal:
            return refusal
        return None

    def count(self, limits: Sequence[Limit] | Limit, times: int, tokens: int = 0) -> int:
        """How many of so many requests are admitted."""
        return sum(self.refusal(limits, tokens) is None for _ in range(times))

    def finish(self, request_id: str, tokens: int = 0) -> None:
        process = self.processes[self._admitted_by.get(request_id, 0)]
        self.run(self._finish(process, request_id, tokens))

    async def _finish(self, process: MemoryLimiter | RedisLimiter, request_id: str, tokens: int) -> None:
        process.finished(request_id, tokens)
        if isinstance(process, RedisLimiter):
            await process.renew()  # what was said before is done then

    def wait(self, milliseconds: int) -> None:
        """As the clock moves on, each process tells that it is alive."""
        while milliseconds > 0:
            step = min(milliseconds, 20_000)
            self.clock.milliseconds += step
            milliseconds -= step
            for process in self.processes:
                if isinstance(process, RedisLimiter):
                    self.run(process.renew())

    def close(self) -> None:
        for process in self.processes:
            if isinstance(process, RedisLimiter):
                self.run(process.aclose())
        self._runner.close()


async def _made(url: str, clock: Clock) -> RedisLimiter:
    return RedisLimiter(url, PATIENT, clock=clock, server_clock=clock)
