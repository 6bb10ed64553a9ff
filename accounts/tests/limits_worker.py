"""One of several web processes with limits in a real Redis: reads one JSON command a line, answers with one JSON line."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from accounts.limits import Limit, LimitExceeded
from accounts.limits.redis_link import Timing
from accounts.limits.shared import RedisLimiter


async def admitted(limiter: RedisLimiter, limit: dict[str, Any], name: str, times: int) -> int:
    """How many of so many requests at once are admitted. They stay under way."""

    async def one(number: int) -> bool:
        try:
            await limiter.admit([Limit(**limit)], f"{name}-{number}", 1)
        except LimitExceeded:
            return False
        return True

    return sum(await asyncio.gather(*(one(number) for number in range(times))))


async def main(url: str) -> None:
    limiter = RedisLimiter(url, Timing(connect=10, answer=10))
    while line := await asyncio.to_thread(sys.stdin.readline):
        sys.stdout.write(json.dumps(await admitted(limiter, *json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
