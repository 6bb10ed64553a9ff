"""What limits admit, refuse and tell, the same in one process and over a real Redis."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from accounts.limits import UNLIMITED, Limit, LimitExceeded
from accounts.limits.memory import MemoryLimiter
from accounts.limits.terms import duration
from accounts.tests.limits_bench import Bench
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    redis: RedisServer | None = None
    if request.param == "redis":
        redis = request.getfixturevalue("redis")
        redis.ask("FLUSHALL")
    made = Bench(redis)
    yield made
    made.close()


def refused(bench: Bench, limits: Limit | list[Limit], tokens: int = 0) -> LimitExceeded:
    refusal = bench.refusal(limits, tokens)
    assert refusal is not None
    return refusal


def test_so_many_requests_in_a_minute_and_then_the_next_minute(bench: Bench) -> None:
    limit = Limit("key:1", requests=3)
    assert bench.count(limit, 5) == 3
    bench.clock.advance(59.9)
    assert bench.count(limit, 1) == 0
    bench.clock.advance(1.1)
    assert bench.count(limit, 5) == 3


def test_the_window_slides(bench: Bench) -> None:
    limit = Limit("key:1", requests=2)
    bench.admit(limit)
    bench.clock.advance(50)
    bench.admit(limit)
    bench.clock.advance(11)  # the first is over a minute ago, the second is not
    assert bench.count(limit, 5) == 1
    bench.clock.advance(50)
    assert bench.count(limit, 5) == 1


def test_the_refusal_says_what_when_and_for_whom(bench: Bench) -> None:
    limits = [Limit("key:1", requests=9), Limit("group:2", requests=2), Limit("user:3", requests=5)]
    assert bench.count(limits, 2) == 2
    bench.clock.advance(20.5)
    refusal = refused(bench, limits)
    assert (refusal.subject, refusal.what, refusal.limit) == ("group:2", "requests", 2)
    assert refusal.retry_after == 41  # the clock began in the middle of a second, the whole of that second counts
    bench.clock.advance(refusal.retry_after)
    assert bench.count(limits, 1) == 1


def test_of_several_reasons_the_one_that_holds_back_longest_is_told(bench: Bench) -> None:
    slow, quick = Limit("key:1", requests=1), Limit("user:1", concurrent=1)
    bench.admit([quick, slow])
    assert refused(bench, [quick, slow]).what == "requests"
    assert refused(bench, [slow, quick]).what == "requests"


def test_all_or_nothing(bench: Bench) -> None:
    """What one subject refuses is not counted at the others."""
    free, full = Limit("key:1", requests=3, tokens=100, concurrent=3), Limit("model:m", requests=1)
    bench.admit(full)
    assert bench.count([free, full], 10, tokens=50) == 0
    assert bench.count(free, 10, tokens=30) == 3


def test_tokens_in_a_minute(bench: Bench) -> None:
    limit = Limit("user:1", tokens=100)
    bench.admit(limit, 60)
    refusal = refused(bench, limit, 41)
    assert (refusal.subject, refusal.what, refusal.limit) == ("user:1", "tokens", 100)
    bench.admit(limit, 40)
    bench.clock.advance(61)
    bench.admit(limit, 100)


def test_a_refusal_of_tokens_waits_for_as_many_as_are_needed(bench: Bench) -> None:
    limit = Limit("user:1", tokens=100)
    for _ in range(4):
        bench.admit(limit, 25)
        bench.clock.advance(10)
    assert refused(bench, limit, 20).retry_after == 21
    assert refused(bench, limit, 30).retry_after == 31
    assert refused(bench, limit, 1000).retry_after == 51


def test_an_estimate_above_the_limit_runs_in_an_empty_window_only(bench: Bench) -> None:
    limit = Limit("user:1", tokens=100)
    bench.admit(limit, 1)
    assert bench.count(limit, 1, tokens=10**9) == 0
    bench.clock.advance(61)
    bench.admit(limit, 10**9)
    assert bench.count(limit, 1, tokens=1) == 0


def test_what_was_not_used_of_the_estimate_comes_back(bench: Bench) -> None:
    limit = Limit("user:1", tokens=100)
    request = bench.admit(limit, 90)
    bench.finish(request, 30)
    assert bench.count(limit, 1, tokens=71) == 0
    assert bench.count(limit, 1, tokens=70) == 1


def test_what_was_used_beyond_the_estimate_counts_from_then_on(bench: Bench) -> None:
    limit = Limit("user:1", tokens=100)
    request = bench.admit(limit, 10)
    bench.clock.advance(90)
    bench.finish(request, 150)
    bench.clock.advance(59)
    assert bench.count(limit, 1, tokens=1) == 0
    bench.clock.advance(2)
    assert bench.count(limit, 1, tokens=100) == 1


def test_an_estimate_of_a_minute_ago_has_nothing_to_give_back(bench: Bench) -> None:
    limit = Limit("user:1", tokens=100)
    request = bench.admit(limit, 90)
    bench.clock.advance(61)
    bench.admit(limit, 100)
    bench.finish(request, 0)
    assert bench.count(limit, 1, tokens=1) == 0


def test_concurrent_places_come_free_when_a_request_is_finished(bench: Bench) -> None:
    limit = Limit("key:1", concurrent=2)
    first, _second = bench.admit(limit), bench.admit(limit)
    refusal = refused(bench, limit)
    assert (refusal.what, refusal.limit, refusal.retry_after) == ("concurrent", 2, 1)
    bench.clock.advance(20)
    assert bench.count(limit, 1) == 0
    bench.finish(first)
    assert bench.count(limit, 5) == 1


def test_finishing_twice_or_what_nobody_knows_does_nothing(bench: Bench) -> None:
    limit = Limit("key:1", tokens=100, concurrent=2)
    first, _second = bench.admit(limit, 40), bench.admit(limit, 40)
    for _ in range(3):
        bench.finish(first, 30)
        bench.finish("unknown", 0)
    assert bench.count(limit, 5, tokens=1) == 1
    assert refused(bench, Limit("key:1", tokens=100), 30).what == "tokens"  # 30 + 40 + 1 are used
    assert bench.count(Limit("key:1", tokens=100), 1, tokens=29) == 1


def test_a_changed_limit_holds_from_the_next_request(bench: Bench) -> None:
    assert bench.count(Limit("key:1", requests=2), 5) == 2
    assert bench.count(Limit("key:1", requests=4), 5) == 2
    assert bench.count(Limit("key:1", requests=3), 5) == 0
    assert bench.count(Limit("key:1"), 5) == 5


def test_no_limit_asks_nobody(bench: Bench) -> None:
    request, standing = bench.stand([Limit("key:1"), Limit("model:m")], 10**9)
    assert standing is UNLIMITED
    assert standing.headers() == {}
    bench.finish(request, 10**9)


def test_two_limits_of_one_subject_count_once(bench: Bench) -> None:
    """A user's own limit and the group's for each member: the tighter numbers hold."""
    both = [Limit("user:1", requests=3), Limit("user:1", requests=5, tokens=10)]
    assert bench.count(both, 5, tokens=2) == 3
    bench.clock.advance(61)
    assert bench.count(both, 5, tokens=5) == 2


def test_the_headers_are_those_of_the_tightest_limit(bench: Bench) -> None:
    limits = [Limit("key:1", requests=10, tokens=1000), Limit("user:1", requests=5), Limit("model:m", tokens=5000)]
    _request, standing = bench.stand(limits, 300)
    assert standing.headers() == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "700",
        "x-ratelimit-reset-tokens": "1m1s",
    }
    assert bench.count(limits, 10) == 4
    bench.clock.advance(60.5)
    headers = refused(bench, limits).standing.headers()
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-remaining-tokens"] == "700"
    assert headers["x-ratelimit-reset-requests"] == "125ms"


def test_only_what_is_limited_has_headers(bench: Bench) -> None:
    _request, standing = bench.stand(Limit("key:1", requests=10, concurrent=3))
    assert sorted(standing.headers()) == [f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")]
    _request, standing = bench.stand(Limit("key:2", concurrent=3))
    assert standing.headers() == {}


def test_a_subject_used_for_hours_needs_no_more_room_than_after_a_minute() -> None:
    bench, limit = Bench(), Limit("key:1", requests=10**6, tokens=10**6)
    sizes = []
    for _ in range(3):
        for _ in range(200):
            bench.finish(bench.admit(limit, 10), 5)
            bench.finish(bench.admit(limit, 10), 15)
            bench.clock.advance(1)
        sizes.append(len(pickle.dumps(bench.processes[0])))
    assert max(sizes[1:]) < 1.1 * sizes[0]
    bench.close()


def test_idle_subjects_are_forgotten_but_not_while_a_request_runs() -> None:
    bench = Bench()
    (process,) = bench.processes
    assert isinstance(process, MemoryLimiter)
    long_one = bench.admit(Limit("key:long", concurrent=1))
    for number in range(100):
        bench.finish(bench.admit([Limit(f"key:{number}", requests=5), Limit(f"user:{number}", tokens=5)], 1), 1)
    assert process.subjects_known == 201
    bench.clock.advance(62)
    for _ in range(300):
        bench.finish(bench.admit(Limit("key:0", requests=10**6)))
    assert process.subjects_known == 2
    assert bench.count(Limit("key:long", concurrent=1), 1) == 0
    bench.finish(long_one)
    assert bench.count(Limit("key:long", concurrent=1), 1) == 1
    bench.close()


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (-3, "0s"),
        (0.0004, "1ms"),
        (0.12, "120ms"),
        (0.9999, "999ms"),
        (5.2, "6s"),
        (60, "1m0s"),
        (360.2, "6m1s"),
    ],
)
def test_durations_as_openai_writes_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written
