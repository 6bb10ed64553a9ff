"""Several web processes in front of one replica."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.tests.conftest import Service, hold, until, web
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
    standin.tell(first_token_seconds=60)
    before = len(standin.seen())
    with hold(one):
        until(lambda: len(standin.seen()) == before + 1)
        until(lambda: one.metric("llm_slots_busy") == 1 and other.metric("llm_slots_busy_elsewhere") == told)
        standin.tell(first_token_seconds=0)
        second = threading.Thread(target=ask, args=(other,))
        second.start()
        until(lambda: other.metric("llm_requests_queued") == 1 or len(standin.seen()) == before + 2)
        found = len(standin.seen()) - before, int(other.metric("llm_requests_queued"))
    second.join()
    assert len(standin.seen()) == before + 2
    return found


def test_a_slot_whose_client_left_is_free_though_another_process_has_one_of_the_same_engine(
    service: Service, two: list[Service]
) -> None:
    """The engine tells how many it has of all together."""
    standin, (one, other) = service.standins["alpha"], two
    assert [ask(process) for process in two] == [200, 200]
    standin.tell(first_token_seconds=60)
    with hold(other, "alpha"):
        until(lambda: one.metric("llm_slots_busy_elsewhere") == 1)
        with hold(one, "alpha"):
            until(lambda: one.metric("llm_slots_busy") == 1)
        until(lambda: one.metric("llm_slots_busy") == 0)
        assert other.metric("llm_slots_busy") == 1


def test_a_slot_that_one_has_taken_is_taken_for_the_other(
    service: Service, two: list[Service], redis: RedisServer
) -> None:
    for process in two:
        assert ask(process) == 200  # it knows the models now, and tells of itself
    assert both_ask(service, two, told=1) == (1, 1)
    redis.kill()
    assert both_ask(service, two, told=0) == (2, 0)  # each knows of its own only: the second one waits in the engine
