from __future__ import annotations

from collections import Counter

import pytest

from cluster.balancer import CHOOSERS, Candidate, Policy, Request, by_cost, by_hash, least_busy, round_robin, seconds

ASK = Request(prompt=1000, answer=100, key=7)


def candidate(number: int, **fields) -> Candidate:
    return Candidate(number, **{"slots": 2, "reading": 100.0, "writing": 20.0, **fields})


def test_cost_is_waiting_reading_twice_and_writing_in_seconds():
    """What is read has to be read again: either this or what it displaces."""
    assert seconds(candidate(1), ASK) == 2 * 10 + 5
    assert seconds(candidate(1, cached=900.0), ASK) == 2 * 1 + 5
    assert seconds(candidate(1, cached=2000.0), ASK) == 5
    assert seconds(candidate(1, busy=1, slots=1, wait=3.0, reading=200.0, writing=10.0), ASK) == 3 + 2 * 5 + 10
    assert seconds(candidate(1, unread=500.0), ASK) == 5 + 2 * 10 + 5


def test_what_is_displaced_counts_the_more_the_younger_it_is():
    assert seconds(candidate(1, reads_of_late=0.0), ASK) == 10 + 5
    assert seconds(candidate(1, reads_of_late=3.0), ASK) == 4 * 10 + 5
    assert seconds(candidate(1, reads_of_late=3.0, cached=1000.0), ASK) == 5


def test_what_others_lose_counts_as_well():
    alone = candidate(1, slots=4, writing=20.0)
    beside = candidate(2, slots=4, busy=2, writing=10.0, others_writing=12.5)
    slower = 0.5 * (100 / 10 - 100 / 12.5)  # for as long as both last
    assert seconds(alone, ASK) == 2 * 10 + 5
    assert seconds(beside, ASK) == 2 * 10 + (10 - slower) + 2 * (10 + slower)
    quicker_with_more = candidate(3, slots=4, busy=1, writing=20.0, others_writing=19.0)  # by chance
    assert seconds(quicker_with_more, ASK) == 2 * 10 + 5 + 10


def chosen(candidates, request=ASK, cursor=0) -> int:
    found = by_cost(candidates, request, cursor)
    assert found is not None
    return found.id


def test_whoever_remembers_the_conversation_gets_its_next_turn():
    assert chosen([candidate(1), candidate(2, cached=900.0), candidate(3)]) == 2


def test_waiting_for_it_is_right_as_long_as_reading_again_takes_longer():
    others = [candidate(1), candidate(3)]
    assert chosen([*others, candidate(2, cached=900.0, busy=2, wait=17.0)]) == 2
    assert chosen([*others, candidate(2, cached=900.0, busy=2, wait=19.0)]) in (1, 3)


def test_what_it_reads_for_others_before_counts():
    """A shared system prompt is remembered by all; then it counts who reads what else."""
    reads = candidate(1, cached=900.0, busy=1, unread=1000.0, others_writing=20.0)
    assert chosen([reads, candidate(2, cached=900.0, busy=1, others_writing=20.0)]) == 2
    assert chosen([reads, candidate(2)]) == 1  # the ten seconds are less than those that reading everything takes twice
    reads.unread = 2000.0
    assert chosen([reads, candidate(2)]) == 2


def test_a_short_prefix_does_not_hold_what_another_can_do_sooner():
    busy = candidate(1, cached=50.0, busy=1, writing=10.0)
    assert chosen([busy, candidate(2)]) == 2


def test_a_quicker_machine_gets_more():
    assert chosen([candidate(1), candidate(2, reading=300.0, writing=40.0)]) == 2
    assert chosen([candidate(1), candidate(2, reading=300.0, writing=5.0)]) == 1


def test_equals_take_turns():
    for policy in (Policy.COST, Policy.LEAST_BUSY, Policy.ROUND_ROBIN):
        choose = CHOOSERS[policy]
        turns = Counter(choose([candidate(number) for number in range(3)], ASK, cursor).id for cursor in range(30))
        assert turns == {0: 10, 1: 10, 2: 10}, policy


def test_who_would_be_chosen_is_asked_whether_it_has_less():
    asked = []

    def has_less(candidate: Candidate) -> bool:
        asked.append(candidate.id)
        candidate.cached -= 400 if candidate.id == 1 else 0
        return candidate.id == 1

    candidates = [Candidate(number, 2, cached=500 - 100 * number, reading=100) for number in range(1, 4)]
    chosen = by_cost(candidates, Request(1000, 100), 0, has_less)
    assert (chosen.id, asked) == (2, [1, 2])


def test_nobody_is_chosen_among_none():
    assert [choose([], ASK, 3) for choose in CHOOSERS.values()] == [None] * len(Policy)
    full = [candidate(1, busy=2, wait=1.0), candidate(2, slots=0)]
    for choose in (least_busy, round_robin, by_hash):
        assert choose(full, ASK, 0) is None


def test_least_busy_is_relative_to_slots():
    assert least_busy([candidate(1, busy=1), candidate(2, slots=8, busy=2)], ASK, 0).id == 2


@pytest.mark.parametrize("busy", [0, 1])
def test_round_robin_passes_over_the_full(busy):
    candidates = [candidate(0), candidate(1, busy=2), candidate(2, busy=busy)]
    assert [round_robin(candidates, ASK, cursor).id for cursor in range(6)] == [0, 2, 2, 0, 2, 2]


def test_a_conversation_stays_with_its_hash_within_bounds():
    candidates = [candidate(number, slots=4) for number in range(8)]
    homes = {key: by_hash(candidates, Request(key=key), 0).id for key in range(200)}
    assert len(set(homes.values())) == 8
    assert homes == {key: by_hash(candidates[::-1], Request(key=key), 5).id for key in range(200)}
    without = [one for one in candidates if one.id != 3]
    moved = {key for key in homes if by_hash(without, Request(key=key), 0).id != homes[key]}
    assert moved == {key for key, home in homes.items() if home == 3}
    crowded = [candidate(number, slots=4, busy=3 * (number == homes[0])) for number in range(8)]
    assert by_hash(crowded, Request(key=0), 0).id != homes[0]
