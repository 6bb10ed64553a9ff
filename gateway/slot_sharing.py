"""Several web processes in front of the same replicas: how many slots the others have taken, told through Redis.

An approximation, on purpose: ``EVERY`` so many seconds each process says what it has and hears what the others have. Two that
take the same slot within that time have one request too many between them, which waits in the engine. A lock for each request
would cost every one a round trip. Lines are each process's own, and so are turns of tenants.

While Redis is away, each process knows of its own only, as without Redis.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterable

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.slots import ModelPool

logger = logging.getLogger(__name__)

EVERY = 0.5
LAPSES = 3  # seconds after which a process that says nothing any more has none
TIMEOUT = 0.5
PREFIX = "llm:slots:"
MOST_PROCESSES = 1000


class SlotSharing:
    """``pools`` gives those of this process. ``run`` is a task as long as the process."""

    def __init__(self, url: str, pools: Callable[[], Iterable[ModelPool]]) -> None:
        self._key = f"{PREFIX}{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._pools = pools
        self._client = Redis.from_url(
            url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )
        self._away = False

    async def run(self) -> None:
        while True:
            try:
                self._take_over(await self._exchanged())
                self._is_away(None)
            except (RedisError, OSError) as error:
                self._take_over(Counter())
                self._is_away(error)
            except Exception:  # a loop's edge: what another process says may be anything
                logger.exception("slots could not be shared")
                self._take_over(Counter())
            await asyncio.sleep(EVERY)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _exchanged(self) -> Counter[int]:
        """Says what this process has; what the others have, by replica."""
        own = {
            replica.view.id: replica.busy
            for pool in self._pools()
            for replica in pool.replicas.values()
            if replica.busy
        }
        await self._client.set(self._key, json.dumps(own), ex=LAPSES)
        others = [key async for key in self._client.scan_iter(match=PREFIX + "*", count=MOST_PROCESSES)]
        told = await self._client.mget([key for key in others if key.decode() != self._key]) if len(others) > 1 else []
        total: Counter[int] = Counter()
        for text in told:
            if text is not None:
                total.update({int(number): int(busy) for number, busy in json.loads(text).items()})
        return total

    def _take_over(self, elsewhere: Counter[int]) -> None:
        for pool in self._pools():
            pool.taken_elsewhere(elsewhere)

    def _is_away(self, error: Exception | None) -> None:
        if (error is not None) == self._away:
            return
        self._away = error is not None
        if error is not None:
            logger.warning("Redis is away: slots that other web processes have taken are not known: %r", error)
        else:
            logger.warning("Redis is back: slots are shared with other web processes again")
