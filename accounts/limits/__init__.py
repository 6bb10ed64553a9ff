"""Requests and tokens per minute and concurrent requests, for any number of subjects at once, all or nothing.

MemoryLimiter     counts in this process
RedisLimiter      counts in Redis for several web processes, and in this one while Redis is away
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from django.conf import settings

from accounts.limits.memory import MemoryLimiter
from accounts.limits.terms import UNLIMITED, Limit, LimitExceeded, Standing

if TYPE_CHECKING:
    from accounts.limits.shared import RedisLimiter

__all__ = ["UNLIMITED", "Limit", "LimitExceeded", "Limiter", "Standing", "limiter"]


class Limiter(Protocol):
    async def admit(self, limits: Sequence[Limit], request_id: str, tokens: int) -> Standing:
        """Counts a request at all its subjects. Raises LimitExceeded; nothing is counted then.

        ``request_id`` is new. ``tokens``: an estimate; more than a limit counts as the limit itself, so that such a request
        can run when nothing else does. Whoever was admitted must call ``finished``.
        """

    def finished(self, request_id: str, tokens: int) -> None:
        """The real number of tokens replaces the estimate, and the concurrent place is free. Returns at once. Does nothing for
        a request that is unknown or finished already."""


_in_process = MemoryLimiter()
_shared: dict[asyncio.AbstractEventLoop, RedisLimiter] = {}


def limiter() -> Limiter:
    """This process's, in Redis where ``REDIS_URL`` is set (then for the running event loop)."""
    if not settings.REDIS_URL:
        return _in_process
    loop = asyncio.get_running_loop()
    found = _shared.get(loop)
    if found is None:
        for closed in [other for other in _shared if other.is_closed()]:
            del _shared[closed]
        shared = import_module("accounts.limits.shared")  # costs 28 MB and a quarter of a second: only where it is used
        found = _shared[loop] = shared.RedisLimiter(settings.REDIS_URL)
    return found
