"""Several web processes in front of one replica."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from gateway.tests.conftest import Service, until, web
from tests.redis_server import RedisServer, running_redis

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def two(running: Service, redis: RedisServer) -> Iterator[list[Service]]:
    with web(running.home, "one", REDIS_URL=redis.url) as one, web(running.home, "other", REDIS_URL=redis.url) as other:
        yield [replace(running, url=one.url), replace(running, url=other.url)]


def ask(service: Service, **fields: object) -> int:
    body = {"model": "narrow", "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    with service.http() as http:
        return http.post("/v1/chat/completions", json=body).status_code


def both_ask(service: Service, two: list[Service], told: int) -> tuple[int, int]:
    """One takes the only slot, and the other asks once it was told so: how many the engine has then, and how many wait there."""
    standin, (one, other) = service.standins["narrow"], two
    standin.tell(chunks=1000, token_seconds=0.02)
    before = len(standin.seen())
    first = threading.Thread(target=ask, args=(one,), kwargs={"max_tokens": 80})
    first.start()
    until(lambda: one.metric("llm_slots_busy") == 1 and other.metric("llm_slots_busy_elsewhere") == told)
    second = threading.Thread(target=ask, args=(other,), kwargs={"max_tokens": 1})
    second.start()
    until(lambda: other.metric("llm_requests_under_way") == 1)
    until(lambda: other.metric("llm_requests_queued") == 1 or len(standin.seen()) == before + 2)
    found = len(standin.seen()) - before, int(other.metric("llm_requests_queued"))
    for thread in (first, second):
        thread.join()
    assert len(standin.seen()) == before + 2
    return found


def test_a_slot_whose_client_left_is_free_though_another_process_has_one_of_the_same_engine(
    service: Service, two: list[Service]
) -> None:
    """The engine tells how many it has of all together."""
    standin, (one, other) = service.standins["alpha"], two
    assert [ask(process) for process in two] == [200, 200]
    standin.tell(chunks=1000, token_seconds=0.08)
    long = threading.Thread(target=ask, args=(other,), kwargs={"model": "alpha", "max_tokens": 60})
    long.start()
    until(lambda: one.metric("llm_slots_busy_elsewhere") == 1)
    standin.tell(first_token_seconds=60)
    body = {"model": "alpha", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with one.http() as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=0.5)
    until(lambda: one.metric("llm_slots_busy") == 0)
    assert other.metric("llm_slots_busy") == 1
    standin.tell(first_token_seconds=0)
    long.join()


def test_a_slot_that_one_has_taken_is_taken_for_the_other(
    service: Service, two: list[Service], redis: RedisServer
) -> None:
    for process in two:
        assert ask(process) == 200  # it knows the models now, and tells of itself
    assert both_ask(service, two, told=1) == (1, 1)
    redis.kill()
    assert both_ask(service, two, told=0) == (2, 0)  # each knows of its own only: the second one waits in the engine
