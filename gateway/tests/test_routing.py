"""What the router makes of failures, and what it learns from answers."""

from __future__ import annotations

import pytest

from cluster.balancer import Policy, Request
from cluster.prefixes import Prompt
from gateway import routing
from gateway.routing import Placement, Router
from gateway.usage import TokenCount
from models_app.selectors import ReplicaView
from models_app.states import State

ASK = Request(prompt=1000, answer=100)
OTHERS = frozenset[int]()


class Clock:
    now = 100.0


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(routing, "monotonic", lambda: clock.now)
    return clock


def router(count: int, slots: int = 1) -> Router:
    made = Router(Policy.COST, 1000)
    views = [ReplicaView(n, "m", n, "here", "http://127.0.0.1:1", "k", slots, None, State.READY) for n in range(count)]
    made.update(views, 0.0)
    return made


def place(made: Router, number: int, prompt: str = "a") -> Placement:
    made_of = Prompt((hash(prompt),), (4000,), (False,))
    choice = made.choice(made_of, ASK, frozenset(made.replicas) - {number})
    assert choice is not None
    return made.place(choice, made_of)


def test_the_slot_of_one_that_rests_is_offered_to_nobody(clock):
    made = router(2)
    place(made, 0)
    assert made.has_free_slot
    made.failed(made.replicas[1], aside=False)
    assert (made.has_free_slot, made.will_have_free_slot) == (False, True)
    choice = made.choice(Prompt(), ASK, OTHERS)
    assert choice is not None
    assert choice.member.id == 0
    clock.now += 2
    assert made.has_free_slot


def test_streams_that_began_before_it_failed_keep_it_from_nobody(clock):
    made = router(2, slots=3)
    streams = [place(made, 0) for _ in range(2)]
    made.failed(made.replicas[0], aside=False)
    clock.now += 1.5
    place(made, 0)  # it has rested, and this one tries it
    assert made._resting(clock.now) == {0}
    for placement in streams:
        made.give_back(placement)
    assert made._resting(clock.now) == {0}


def test_a_replica_that_has_gone_leaves_nothing_behind(clock):
    made = router(2)
    gone = made.replicas[1]
    made.failed(gone, aside=False)
    made.update([made.replicas[0].view], clock.now)
    made.failed(gone, aside=True)  # its last stream breaks off
    assert made._ailing == set()
    assert list(made.fleet._by_memory.values()) == [made.replicas[0].member]


def test_where_all_rest_a_try_is_better_than_none(clock):
    made = router(2)
    for replica in made.replicas.values():
        made.failed(replica, aside=False)
    assert made.has_free_slot
    assert made.choice(Prompt(), ASK, OTHERS) is not None
    assert made.choice(Prompt(), ASK, frozenset({0, 1})) is None


def test_those_it_excludes_and_those_that_rest_are_no_choice_in_a_large_fleet_either(clock):
    made = router(200)
    for number in range(100):
        made.failed(made.replicas[number], aside=False)
    for _ in range(50):
        choice = made.choice(Prompt(), ASK, frozenset(range(100, 150)))
        assert choice is not None
        assert choice.member.id >= 150


def answer(read: int, seconds: float, written: int = 100, wrote: float = 5.0) -> TokenCount:
    return TokenCount(read, 0, written, tokens_per_second=written / wrote, prompt_per_second=read / seconds)


def test_what_was_read_for_others_before_is_no_slowness(clock):
    made = router(1, slots=2)
    first, second = place(made, 0, "a"), place(made, 0, "b")
    assert (first.unread, second.unread) == (0, 1000)
    for placement, seconds in ((first, 10), (second, 20)):
        clock.now = 100.0 + seconds
        made.has_read(placement)
    clock.now = 130.0
    for placement, seconds in ((first, 10), (second, 20)):
        made.give_back(placement)
        made.learn(placement, answer(1000, seconds))
    assert made.replicas[0].member.speeds.reading == pytest.approx(100)


def test_what_others_read_meanwhile_is_no_slowness_of_writing(clock):
    made = router(1, slots=2)
    first = place(made, 0, "a")
    made.has_read(first)
    second = place(made, 0, "b")
    clock.now += 10  # the second one's prompt is read
    made.has_read(second)
    clock.now += 10
    for placement, wrote in ((first, 20), (second, 10)):
        made.give_back(placement)
        made.learn(placement, answer(1000, 10, 100, wrote))
    assert (first.at_work, second.at_work) == (2, 2)
    assert made.replicas[0].member.speeds.writing(2) == pytest.approx(10)


def test_a_replica_whose_request_has_left_has_nothing_to_read_any_more(clock):
    made = router(1, slots=2)
    first = place(made, 0)
    assert made.replicas[0].member.unread(clock.now) == 1000
    made.give_back(first)
    assert made.replicas[0].member.unread(clock.now) == 0
    assert made.choice(first.taken.prompt, ASK, OTHERS).cached == 0
