"""The fair queue: order, limits, leaving, positions."""

import random

import pytest

from gateway.queue import FairQueue, QueueFull, estimated_wait


def always(_entry) -> bool:
    return True


def drained(queue: FairQueue) -> list:
    order = []
    while queue:
        order.append(queue.pop(always))
    return order


def test_users_take_turns_whatever_the_length_of_their_lines() -> None:
    queue = FairQueue(2000)
    for number in range(1000):
        queue.push("many", f"many{number}")
    queue.push("one", "one0")
    assert drained(queue)[:3] == ["many0", "one0", "many1"]


def test_a_user_who_was_served_goes_to_the_end_of_the_ring() -> None:
    queue = FairQueue(10)
    for user in ("a", "b", "c"):
        queue.push(user, user + "0")
    assert queue.pop(always) == "a0"
    queue.push("a", "a1")
    assert drained(queue) == ["b0", "c0", "a1"]


def test_the_queue_is_bounded_but_takes_back_what_it_gave() -> None:
    queue = FairQueue(1)
    queue.push("a", "a0")
    with pytest.raises(QueueFull):
        queue.push("b", "b0")
    queue.push_returned("r0")
    assert drained(queue) == ["r0", "a0"]


def test_a_returned_entry_that_cannot_use_what_is_free_is_passed_over() -> None:
    queue = FairQueue(5)
    queue.push_returned("picky")
    queue.push("a", "a0")
    assert queue.pop(lambda entry: entry != "picky") == "a0"
    assert queue.pop(lambda entry: entry != "picky") is None
    assert queue.pop(always) == "picky"


def test_leaving_twice_or_after_being_served_changes_nothing() -> None:
    queue = FairQueue(5)
    queue.push("a", "a0")
    queue.push("b", "b0")
    queue.remove("a", "a0")
    queue.remove("a", "a0")
    assert len(queue) == 1
    assert drained(queue) == ["b0"]
    queue.remove("b", "b0")
    assert len(queue) == 0


def test_positions_are_the_order_in_which_entries_are_served() -> None:
    generator = random.Random(7)
    for _round in range(200):
        queue, waiting = FairQueue(100), []
        for number in range(generator.randrange(1, 25)):
            user = generator.choice("abcd")
            if generator.random() < 0.2:
                queue.push_returned((user, number))
            else:
                queue.push(user, (user, number))
            waiting.append((user, number))
            if generator.random() < 0.2:
                waiting.remove(queue.pop(always))
        told = {entry: queue.position(entry[0], entry) for entry in waiting}
        assert list(queue) == sorted(waiting, key=told.get)
        order = drained(queue)
        assert [told[entry] for entry in order] == list(range(1, len(order) + 1))


def test_who_does_not_wait_has_no_position() -> None:
    assert FairQueue(1).position("a", "a0") == 0


def test_the_estimate_grows_with_the_position_and_falls_with_slots() -> None:
    assert estimated_wait(4, 2, 3.0) == 6.0
    assert estimated_wait(1, 0, 3.0) == 3.0
