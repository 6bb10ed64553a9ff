from __future__ import annotations

from itertools import accumulate

from cluster.prefixes import MOST_HOLDERS, NOTHING, Prefixes, Prompt


def prompt(*parts: str, answers: tuple[int, ...] = ()) -> Prompt:
    """Each part is ten bytes long."""
    hashes = tuple(hash(whole) for whole in accumulate(parts, lambda a, b: f"{a}|{b}"))
    sizes = tuple(10 * number for number in range(1, len(parts) + 1))
    return Prompt(hashes, sizes, tuple(number in answers for number in range(len(parts))))


def test_the_longest_common_beginning_counts():
    prefixes = Prefixes(1000)
    prefixes.remember(prompt("system", "a", "b"), 1)
    prefixes.remember(prompt("system", "x"), 2)
    assert prefixes.matches(prompt("system", "a", "b", "c")) == {1: 30, 2: 10}
    assert prefixes.matches(prompt("system", "x", "b")) == {1: 10, 2: 20}
    assert prefixes.matches(prompt("other")) == {}
    assert prefixes.matches(prompt("a", "b")) == {}  # it is the beginning that counts


def test_conversations_with_one_first_message_are_told_apart():
    """A key of the first message alone would send them all to one replica (SGLang #26263)."""
    prefixes = Prefixes(1000)
    prefixes.remember(prompt("system", "hello", "I am Ann"), 1)
    prefixes.remember(prompt("system", "hello", "I am Bob"), 2)
    assert prefixes.matches(prompt("system", "hello", "I am Bob", "more")) == {2: 30, 1: 20}


def test_whoever_was_asked_has_written_the_answer_too():
    prefixes = Prefixes(1000)
    prefixes.remember(prompt("q1"), 1)
    assert prefixes.matches(prompt("q1", "a1", "q2", answers=(1,))) == {1: 20}
    assert prefixes.matches(prompt("q1", "q2")) == {1: 10}


def test_two_prompts_have_in_common_what_both_begin_with():
    read = prompt("system", "q1")
    assert read.common(prompt("system", "q1", "a1", "q2", answers=(2,))) == 30  # it has written that answer
    assert read.common(prompt("system", "q2")) == 10
    assert read.common(prompt("other", "q1")) == 0
    assert read.common(NOTHING) == NOTHING.common(read) == 0
    assert prompt("system", "q1", "a1", "q2").common(read) == 20


def test_how_much_one_has_tells_to_where_it_has_read():
    asked = prompt("system", "q1", "a1", "q2", "a2", "q3", answers=(2, 4))
    for place in range(len(asked.hashes)):
        found = asked.place_of(asked.read_to(place))
        assert asked.read_to(found) == asked.read_to(place)
        assert prompt("system", "q1", "a1", "q2", "a2", "q3"[:2]).begins_as(asked, found)
        whole = ("system", "q1", "a1", "q2", "a2", "q3")
        assert not prompt(*whole[:found]).begins_as(asked, found)


def test_memory_has_a_hard_limit_and_keeps_what_is_used():
    prefixes = Prefixes(200)
    kept = prompt("kept", "a")
    for number in range(1000):
        prefixes.remember(prompt(f"other {number}"), 3)
        if number % 20 == 0:
            prefixes.remember(kept, 1)
        assert len(prefixes) <= 200
    assert prefixes.matches(kept) == {1: 20}
    assert prefixes.matches(prompt("other 5")) == {}
    assert prefixes.matches(prompt("other 999")) == {3: 10}


def test_the_same_again_takes_no_room():
    prefixes = Prefixes(1000)
    for _ in range(500):
        prefixes.remember(prompt("a", "b"), 1)
    assert len(prefixes) == 2


def test_of_what_everybody_has_only_those_are_looked_at_who_are_named():
    prefixes = Prefixes(10_000)
    for replica in range(2 * MOST_HOLDERS):
        prefixes.remember(prompt("system"), replica)
    prefixes.remember(prompt("system", "a"), 5)
    assert prefixes.matches(prompt("system", "a", "b"), [7, 8]) == {5: 20, 7: 10, 8: 10}
