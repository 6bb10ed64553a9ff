"""Whatever comes in whatever order: never more than the limit within any 60 seconds, never held back by what is over 61 old."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.limits import Limit, LimitExceeded
from accounts.tests.limits_bench import Bench
from tests.redis_server import RedisServer, running_redis

SUBJECTS = ("key:1", "user:1", "model:m")
numbers = st.sampled_from([0, 0, 1, 2, 3, 7])
limits = st.lists(st.sampled_from(SUBJECTS), unique=True, min_size=1).flatmap(
    lambda names: st.tuples(
        *(st.builds(Limit, st.just(name), numbers, numbers.map(_times_ten), numbers) for name in names)
    )
)
# Much happens within a second, at its edges, and about a minute later.
pauses = st.sampled_from(
    [0, 1, 499, 500, 999, 1000, 1001, 20_000, 58_999, 59_000, 59_999, 60_000, 60_001, 61_000, 61_001]
)
tokens = st.integers(0, 90)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), limits, tokens),
        st.tuples(st.just("again"), st.just(()), tokens),
        st.tuples(st.just("finish"), st.integers(0, 20), tokens),
        st.tuples(st.just("wait"), pauses, st.just(0)),
    ),
    max_size=40,
)


def _times_ten(number: int) -> int:
    return 10 * number


@dataclass
class Event:
    at: int
    requests: int
    tokens: int


@dataclass
class Running:
    limits: Sequence[Limit]
    events: list[Event]


@dataclass
class Exact:
    """Every request by itself, at its millisecond."""

    events: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    running: dict[str, Running] = field(default_factory=dict)

    def exceeded(self, limits: Sequence[Limit], tokens: int, now: int, window: int) -> set[tuple[str, str]]:
        """Which numbers of which limits another request would exceed, counting what is at most ``window`` ms old."""
        found = set()
        for limit in limits:
            known = [event for event in self.events[limit.subject] if event.at >= now - window]
            at_once = sum(limit.subject in [each.subject for each in run.limits] for run in self.running.values())
            if limit.requests and sum(event.requests for event in known) + 1 > limit.requests:
                found.add((limit.subject, "requests"))
            if limit.tokens and sum(event.tokens for event in known) + min(tokens, limit.tokens) > limit.tokens:
                found.add((limit.subject, "tokens"))
            if limit.concurrent and at_once + 1 > limit.concurrent:
                found.add((limit.subject, "concurrent"))
        return found

    def admit(self, request_id: str, limits: Sequence[Limit], tokens: int, now: int) -> None:
        events = [Event(now, 1, min(tokens, limit.tokens)) for limit in limits]
        for limit, event in zip(limits, events, strict=True):
            self.events[limit.subject].append(event)
        self.running[request_id] = Running(limits, events)

    def finish(self, request_id: str, tokens: int, now: int) -> None:
        run = self.running.pop(request_id)
        for limit, event in zip(run.limits, run.events, strict=True):
            if limit.tokens and tokens > event.tokens:
                self.events[limit.subject].append(Event(now, 0, tokens - event.tokens))
            elif limit.tokens:
                event.tokens = tokens


def live_through(bench: Bench, told: list[tuple]) -> None:
    exact, last = Exact(), (Limit("key:1", requests=1),)
    for what, value, tokens in told:
        if what == "wait":
            bench.wait(value)
        elif what == "finish":
            if exact.running:
                request_id = list(exact.running)[value % len(exact.running)]
                bench.finish(request_id, tokens)
                exact.finish(request_id, tokens, bench.clock.milliseconds)
        else:
            last = tuple(limit for limit in value if limit) or last
            ask(bench, exact, last, tokens)


def ask(bench: Bench, exact: Exact, limits: Sequence[Limit], tokens: int) -> None:
    now = bench.clock.milliseconds
    try:
        request_id = bench.admit(limits, tokens)
    except LimitExceeded as refused:
        check_refusal(exact, limits, tokens, now, refused)
    else:
        assert not exact.exceeded(limits, tokens, now, 60_000)
        exact.admit(request_id, limits, tokens, now)


def check_refusal(exact: Exact, limits: Sequence[Limit], tokens: int, now: int, refusal: LimitExceeded) -> None:
    # What is a whole sub-bucket more than a minute old holds nobody back.
    assert (refusal.subject, refusal.what) in exact.exceeded(limits, tokens, now, 60_999)
    if refusal.what != "concurrent":
        over = (refusal.subject, refusal.what)
        later = now + 1000 * refusal.retry_after
        assert over not in exact.exceeded(limits, tokens, later, 60_000)
        assert refusal.retry_after < 3 or over in exact.exceeded(limits, tokens, later - 2000, 60_000)


@given(steps)
@settings(max_examples=500, deadline=None)
def test_in_one_process(told: list[tuple]) -> None:
    bench = Bench()
    try:
        live_through(bench, told)
    finally:
        bench.close()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@given(told=steps)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_in_two_processes_over_redis(redis: RedisServer, told: list[tuple]) -> None:
    redis.ask("FLUSHALL")
    bench = Bench(redis)
    try:
        live_through(bench, told)
    finally:
        bench.close()
