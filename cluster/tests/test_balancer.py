from __future__ import annotations

from collections import Counter

from cluster.balancer import Candidate, choose


def test_the_least_busy_relative_to_slots_is_chosen():
    chosen = choose([Candidate(1, slots=2, busy=1), Candidate(2, slots=8, busy=2)], 0)
    assert chosen is not None
    assert chosen.id == 2


def test_promised_requests_count_as_busy():
    chosen = choose([Candidate(1, slots=4, busy=0, queued=2), Candidate(2, slots=4, busy=1)], 0)
    assert chosen is not None
    assert chosen.id == 2


def test_full_and_draining_ones_are_never_chosen():
    assert (
        choose([Candidate(1, slots=1, busy=1), Candidate(2, slots=4, draining=True), Candidate(3, slots=0)], 0) is None
    )
    assert choose([], 3) is None


def test_equals_take_turns():
    candidates = [Candidate(number, slots=2) for number in range(3)]
    turns = Counter(choose(candidates, cursor).id for cursor in range(30))
    assert turns == {0: 10, 1: 10, 2: 10}


def test_ten_thousand_replicas_fill_evenly():
    busy = [0] * 10_000
    for cursor in range(50):
        chosen = choose([Candidate(number, slots=2, busy=count) for number, count in enumerate(busy)], cursor * 7919)
        busy[chosen.id] += 1
    assert max(busy) == 1
