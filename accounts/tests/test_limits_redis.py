"""Limits of several web processes in one Redis, and what happens when a process or Redis itself goes away."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from accounts import limits
from accounts.limits import Limit, LimitExceeded
from accounts.limits.redis_link import RedisAway, Timing
from accounts.limits.shared import RedisLimiter
from accounts.tests.limits_bench import PATIENT, Clock
from tests.redis_server import RedisServer, running_redis

ROOT = Path(__file__).resolve().parents[2]
QUICK = Timing(connect=2, answer=2, renew=0.1, probe=0.02, longest_probe=0.02)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisServer]:
    server.ask("FLUSHALL")
    yield server
    if server.process is None:
        server.start()
    server.go_on()
    server.ask("CONFIG", "SET", "maxmemory", 0)


@pytest.fixture
async def limiter(redis: RedisServer) -> AsyncIterator[RedisLimiter]:
    made = RedisLimiter(redis.url, QUICK)
    yield made
    await made.aclose()


@pytest.fixture
async def other(redis: RedisServer) -> AsyncIterator[RedisLimiter]:
    """Another process's."""
    made = RedisLimiter(redis.url, QUICK)
    yield made
    await made.aclose()


async def admitted(limiter: RedisLimiter, limit: Limit, name: str, times: int = 1) -> int:
    """How many of so many requests, one after the other; they are called name-0, name-1, …"""
    count = 0
    for number in range(times):
        try:
            await limiter.admit([limit], f"{name}-{number}", 0)
        except LimitExceeded:
            continue
        count += 1
    return count


async def until(condition: Any) -> None:
    """Until the coroutine function or function answers something true."""
    end = time.monotonic() + 30
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert time.monotonic() < end, condition
        await asyncio.sleep(0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- several processes ---------------------------------------------------------------------------------------------------
class Worker:
    def __init__(self, redis: RedisServer) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "accounts.tests.limits_worker", redis.url],
            cwd=ROOT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "llmplatform.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, limit: dict[str, Any], name: str, times: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([limit, name, times]) + "\n")
        self.process.stdin.flush()

    def result(self) -> int:
        assert self.process.stdout is not None
        return int(json.loads(self.process.stdout.readline()))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("limit", [{"requests": 50}, {"tokens": 50}, {"concurrent": 50}])
def test_two_processes_admit_exactly_so_many_between_them(redis: RedisServer, limit: dict[str, int]) -> None:
    workers = [Worker(redis), Worker(redis)]
    try:
        for worker in workers:  # both are there and have asked before
            worker.tell({"subject": "key:0", "requests": 1}, "first", 1)
        assert sorted(worker.result() for worker in workers) == [0, 1]
        for number, worker in enumerate(workers):
            worker.tell({"subject": "key:1", **limit}, f"p{number}", 40)
        results = [worker.result() for worker in workers]
        assert sum(results) == 50
    finally:
        for worker in workers:
            worker.kill()


async def test_places_of_a_killed_process_come_free(redis: RedisServer) -> None:
    ahead, limit = [0], Limit("key:1", concurrent=3)
    other = RedisLimiter(redis.url, PATIENT, server_clock=lambda: time.time() + ahead[0])
    worker = Worker(redis)
    try:
        worker.tell({"subject": "key:1", "concurrent": 3}, "held", 5)
        assert worker.result() == 3
        assert await admitted(other, limit, "too-many", 5) == 0
    finally:
        worker.kill()
    ahead[0] = 31  # seconds after its last sign of life, at least
    assert await admitted(other, limit, "after", 5) == 3
    await other.aclose()


async def test_places_are_kept_while_their_process_lives(redis: RedisServer) -> None:
    clock, limit = Clock(), Limit("key:1", concurrent=1)
    holder = RedisLimiter(redis.url, PATIENT, server_clock=clock)
    asker = RedisLimiter(redis.url, PATIENT, server_clock=clock)
    await holder.admit([limit], "long", 0)
    for _ in range(5):
        clock.advance(29)
        await holder.renew()
    clock.advance(29)
    assert await admitted(asker, limit, "asked", 3) == 0
    clock.advance(2)  # 31 seconds after its last sign of life
    assert await admitted(asker, limit, "asked", 3) == 1
    await holder.aclose()
    await asker.aclose()


async def test_a_client_that_leaves_while_redis_is_asked_holds_no_place(redis: RedisServer) -> None:
    limiter, limit = RedisLimiter(redis.url, PATIENT), Limit("key:1", concurrent=1, tokens=100)
    await limiter.renew()
    redis.pause()
    asked = asyncio.create_task(limiter.admit([limit], "left", 100))
    waiting = asyncio.create_task(limiter.renew())  # goes out after it, and is answered after it
    for _ in range(10):
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    redis.go_on()
    await waiting
    assert await admitted(limiter, limit, "next") == 1
    assert len(redis.ask("ZRANGE", "llm:limits:running:key:1", 0, -1)) == 1
    await limiter.admit([Limit("key:1", tokens=100)], "as many tokens", 100)
    await limiter.aclose()


# -- clocks --------------------------------------------------------------------------------------------------------------
async def test_a_redis_whose_clock_is_turned_back_counts_a_minute_longer_at_most(redis: RedisServer) -> None:
    clock, limit = Clock(), Limit("key:1", requests=3)
    limiter = RedisLimiter(redis.url, PATIENT, server_clock=clock)
    assert await admitted(limiter, limit, "before", 2) == 2
    clock.advance(-3600)
    assert await admitted(limiter, limit, "back", 5) == 1
    clock.advance(59)
    assert await admitted(limiter, limit, "same-minute", 5) == 0
    clock.advance(2)
    assert await admitted(limiter, limit, "next-minute", 5) == 3
    await limiter.aclose()


async def test_a_dead_process_holds_no_place_for_longer_when_the_clock_is_turned_back(redis: RedisServer) -> None:
    clock, limit = Clock(), Limit("key:1", concurrent=1)
    dead = RedisLimiter(redis.url, PATIENT, server_clock=clock)
    limiter = RedisLimiter(redis.url, PATIENT, server_clock=clock)
    await dead.admit([limit], "held", 0)
    clock.advance(-3600)
    assert await admitted(limiter, limit, "asked") == 0
    clock.advance(31)
    assert await admitted(limiter, limit, "asked") == 1
    await dead.aclose()
    await limiter.aclose()


# -- Redis goes away -----------------------------------------------------------------------------------------------------
async def test_without_redis_the_process_counts_alone_and_goes_back_by_itself(
    redis: RedisServer, limiter: RedisLimiter, other: RedisLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit("key:1", requests=4)
    assert await admitted(limiter, limit, "with", 2) == 2
    redis.kill()
    assert await admitted(limiter, limit, "without", 5) == 2  # it has not forgotten its own
    assert limiter.away
    assert await admitted(limiter, Limit("key:2", requests=100), "many", 150) == 100
    assert len(warnings(caplog)) == 1
    assert "Redis" in warnings(caplog)[0]
    redis.start()
    await until(lambda: not limiter.away)
    assert await admitted(limiter, limit, "back", 5) == 0  # what it let through alone still counts
    assert await admitted(limiter, Limit("key:3", requests=4), "shared", 2) == 2
    assert await admitted(other, Limit("key:3", requests=4), "shared-too", 5) == 2
    assert len(warnings(caplog)) == 1


async def test_what_runs_keeps_its_place_when_redis_comes_back_empty(
    redis: RedisServer, limiter: RedisLimiter, other: RedisLimiter
) -> None:
    limit = Limit("key:1", concurrent=2)
    await limiter.admit([limit], "with", 0)
    redis.kill()
    await limiter.admit([limit], "without", 0)
    assert limiter.away
    redis.start()
    await until(lambda: not limiter.away)
    assert await admitted(other, limit, "other", 3) == 0
    limiter.finished("with", 0)
    limiter.finished("without", 0)
    await limiter.renew()
    assert await admitted(other, limit, "other", 3) == 2


async def test_a_place_given_back_while_redis_was_away_is_free_when_it_is_back(
    redis: RedisServer, limiter: RedisLimiter, other: RedisLimiter
) -> None:
    limit = Limit("key:1", concurrent=1)
    await limiter.admit([limit], "with", 0)
    redis.pause()
    await limiter.admit([Limit("key:2", requests=1)], "notices", 0)
    assert limiter.away
    limiter.finished("with", 0)
    redis.go_on()
    await until(lambda: not limiter.away)
    assert await admitted(other, limit, "other", 3) == 1


async def test_a_redis_that_does_not_answer_is_one_that_is_away(
    redis: RedisServer, limiter: RedisLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit("key:1", requests=3)
    assert await admitted(limiter, limit, "with", 1) == 1
    redis.pause()
    assert await admitted(limiter, limit, "without", 5) == 2
    assert limiter.away
    redis.go_on()
    await until(lambda: not limiter.away)
    assert len(warnings(caplog)) == 1


async def test_a_redis_that_takes_no_writes_is_one_that_is_away(
    redis: RedisServer, limiter: RedisLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit("key:1", requests=3)
    assert await admitted(limiter, limit, "with", 1) == 1
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    assert await admitted(limiter, limit, "without", 5) == 2
    with pytest.raises(RedisAway):
        await limiter.renew()
    redis.ask("CONFIG", "SET", "maxmemory", 0)
    await until(lambda: not limiter.away)
    assert len(warnings(caplog)) == 1


async def test_a_redis_that_forgot_the_scripts_gets_them_again(
    redis: RedisServer, limiter: RedisLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    limit = Limit("key:1", requests=3)
    for number in range(3):
        redis.ask("SCRIPT", "FLUSH")
        assert await admitted(limiter, limit, f"again-{number}") == 1
    assert await admitted(limiter, limit, "over") == 0
    assert not limiter.away
    assert warnings(caplog) == []


async def test_an_address_that_is_none_is_told_without_its_password(caplog: pytest.LogCaptureFixture) -> None:
    limiter = RedisLimiter("redis://:geheim@host:geheim/0", QUICK)
    assert await admitted(limiter, Limit("key:1", requests=2), "alone", 5) == 2
    assert len(warnings(caplog)) == 1
    assert "geheim" not in caplog.text
    assert "REDIS_URL" in caplog.text
    await limiter.aclose()


# -- the end -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", range(12))
async def test_it_ends_at_whatever_moment_it_is_told_to(redis: RedisServer, steps: int) -> None:
    """That a cancellation can get lost on its way is Python's, see RedisLink."""
    limiter = RedisLimiter(redis.url, PATIENT)
    await limiter.renew()
    asked = asyncio.create_task(limiter.admit([Limit("key:1", requests=1)], "asked", 0))
    for _ in range(steps):
        await asyncio.sleep(0)
    _done, open_still = await asyncio.wait({asyncio.create_task(limiter.aclose()), asked}, timeout=10)
    assert not open_still
    assert (await asked).headers()


async def test_what_has_ended_counts_alone(redis: RedisServer) -> None:
    limiter = RedisLimiter(redis.url, PATIENT)
    await limiter.renew()
    await limiter.aclose()
    assert await admitted(limiter, Limit("key:1", requests=2), "late", 5) == 2
    limiter.finished("late-0", 0)


# -- the rest ------------------------------------------------------------------------------------------------------------
async def test_without_a_limit_redis_is_not_asked(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    limiter = RedisLimiter(redis.url, QUICK)
    redis.kill()
    standing = await limiter.admit([Limit("key:1")], "free", 100)
    limiter.finished("free", 100)
    assert standing.headers() == {}
    assert not limiter.away
    await limiter.aclose()


async def test_what_nobody_uses_leaves_redis_by_itself(redis: RedisServer, limiter: RedisLimiter) -> None:
    clock = Clock()
    one = RedisLimiter(redis.url, PATIENT, server_clock=clock)
    limit = Limit("key:1", requests=10**6, tokens=10**6, concurrent=10**6)
    sizes = []
    for number in range(200):
        await one.admit([limit], f"r{number}", 10)
        one.finished(f"r{number}", number % 20)
        clock.advance(1)
        sizes.append(redis.ask("HLEN", "llm:limits:window:key:1"))
    assert max(sizes[70:]) == max(sizes[130:]) <= 2 * 61 + 4
    keys = redis.ask("KEYS", "llm:limits:*")
    assert "llm:limits:window:key:1" in keys
    assert all(redis.ask("PTTL", key) > 0 for key in keys)
    await one.aclose()


async def test_the_process_has_one_limiter_as_the_settings_say(settings: Any, redis: RedisServer) -> None:
    settings.REDIS_URL = ""
    assert limits.limiter() is limits.limiter()
    assert not isinstance(limits.limiter(), RedisLimiter)
    settings.REDIS_URL = redis.url
    shared = limits.limiter()
    assert isinstance(shared, RedisLimiter)
    assert limits.limiter() is shared
    assert await admitted(shared, Limit("key:1", requests=2), "shared", 3) == 2
    assert redis.ask("KEYS", "llm:limits:window:*") == ["llm:limits:window:key:1"]
    await shared.aclose()
