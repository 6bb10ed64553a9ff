"""What a replica's slots hold and lend, and who holds what."""

from __future__ import annotations

from itertools import accumulate

import pytest

from cluster.fleet import Choice, Fleet
from cluster.members import MOST_WAITED_FOR, Held, Member, Taken
from cluster.prefixes import NOTHING, Prompt


def prompt(*parts: str) -> Prompt:
    """A capital is a hundred bytes, any other part ten."""
    wholes = list(accumulate(parts))
    sizes = accumulate(100 if part.isupper() else 10 for part in parts)
    return Prompt(tuple(map(hash, wholes)), tuple(sizes), (False,) * len(parts))


class Asked:
    """One replica that is asked one after the other, or at once."""

    def __init__(self, slots: int) -> None:
        self.fleet = Fleet()
        self.member: Member = self.fleet.put(1, slots)

    def begin(self, *parts: str) -> Taken:
        return self.fleet.take(Choice(self.member, 0.0), 0.0, prompt(*parts))

    def end(self, taken: Taken, *, was_read: bool = True) -> None:
        self.fleet.give_back(taken, 1.0, was_read=was_read)

    def ask(self, *parts: str) -> None:
        self.end(self.begin(*parts))

    def lends(self, *parts: str) -> int:
        asked = prompt(*parts)
        return self.member.lends(asked, self.fleet.prefixes.matches(asked).get(self.member.memory, 0))


def test_what_one_slot_holds_is_lent_once() -> None:
    asked = Asked(slots=4)
    asked.ask("S", "q")
    assert asked.lends("S", "r") == 100
    first = asked.begin("S", "r")
    assert asked.lends("S", "t") == 0
    second = asked.begin("S", "t")  # which reads all of it, and has it then
    asked.end(second)
    assert asked.lends("S", "u") == 100
    asked.end(first)
    third = asked.begin("S", "v")
    assert asked.lends("S", "w") == 100
    asked.end(third)


def test_a_conversation_is_lent_though_others_that_begin_alike_are_under_way() -> None:
    asked = Asked(slots=4)
    first, second = asked.begin("S", "A"), asked.begin("S", "B")
    asked.end(first)
    asked.end(second)
    going_on = asked.begin("S", "A", "a")
    assert asked.lends("S", "B", "b") == 200
    asked.end(going_on)
    assert asked.lends("S", "A", "a", "c") == 210


def test_of_a_few_bytes_nobody_has_to_know_who_holds_them() -> None:
    asked = Asked(slots=2)
    asked.ask("q")
    under_way = asked.begin("q")
    assert not asked.member.idle
    assert not asked.fleet._held
    asked.end(under_way)


def test_what_was_taken_along_and_not_read_to_the_end_is_still_there() -> None:
    asked = Asked(slots=1)
    asked.ask("S", "q")
    asked.end(asked.begin("S", "r"), was_read=False)
    with_it = asked.begin("S", "t")
    assert with_it.text == prompt("S", "q")


def test_of_what_is_displaced_a_copy_is_kept() -> None:
    asked = Asked(slots=2)
    asked.ask("S", "A", "B", "C")
    branch = asked.begin("S", "d")  # most of its prompt is in the slot, and a quarter of what is there would be left
    assert asked.lends("S", "E") == 100
    asked.end(branch)
    going_on = asked.begin("S", "A", "B", "C", "d")
    assert asked.lends("S", "A", "B", "F") == 100  # of the branch
    asked.end(going_on)


def test_what_idle_slots_hold_is_in_the_host_cache_too_once_another_request_began() -> None:
    asked = Asked(slots=3)
    asked.ask("S", "q")
    other = asked.begin("T")
    assert asked.member.idle == asked.member.host == [prompt("S", "q")]
    first = asked.begin("S", "r")
    assert asked.lends("S", "t") == 100
    second = asked.begin("S", "t")
    assert asked.lends("S", "u") == 0
    for taken in (other, first, second):
        asked.end(taken)


def test_the_same_question_twice_at_once_is_read_twice() -> None:
    asked = Asked(slots=2)
    asked.ask("S")
    again = asked.begin("S")
    answered = prompt("S", "a", "q")
    going_on = Prompt(answered.hashes, answered.sizes, (False, True, False))
    assert asked.fleet.prefixes.matches(going_on) == {asked.member.memory: 110}
    assert asked.member.lends(going_on, 110) == 0
    asked.end(again)
    assert asked.member.lends(going_on, 110) == 110


def test_another_process_has_none_of_it_and_what_the_old_one_did_is_not_remembered() -> None:
    asked = Asked(slots=2)
    asked.ask("S", "q")
    under_way = asked.begin("T", "q")
    asked.fleet.forget(asked.member)
    asked.end(under_way)
    assert not asked.member.idle
    assert not asked.member.host
    assert asked.lends("T", "q") == 0


@pytest.mark.parametrize("slots", [1, 3])
def test_no_more_is_known_than_slots_and_host_cache_may_hold(slots: int) -> None:
    asked = Asked(slots)
    for number in range(20):
        asked.ask(f"system {number}", "q")
        together = [asked.begin("S", str(one)) for one in range(slots)]
        assert len(asked.member.idle) == 0
        for taken in together:
            asked.end(taken)
        assert len(asked.member.idle) <= slots
        assert len(asked.member.host) <= slots
        assert asked.member.published <= {id(text) for text in asked.member.idle}


def held_by(*prompts: tuple[str, ...]) -> tuple[Held, list[Taken]]:
    member, held = Fleet().put(1, 4), Held()
    takens = [Taken(member, prompt(*parts), 0, 0, 0, 0) for parts in prompts]
    for taken in takens:
        held.add(taken)
    return held, takens


def test_with_fewer_slots_less_is_known() -> None:
    asked = Asked(slots=3)
    for taken in [asked.begin("S", str(number)) for number in range(3)]:
        asked.end(taken)
    asked.ask("S", "q")  # what the two others hold is copied
    asked.fleet.put(1, 1)
    asked.ask("T")
    assert len(asked.member.idle) == 1
    assert asked.member.published <= {id(text) for text in asked.member.idle}


def test_who_holds_most_is_found_until_it_is_over() -> None:
    held, takens = held_by(("S", "A"), ("S", "B"), ("S", "A", "a"))
    place, holders = held.most_of(prompt("S", "A", "b"), 0)
    assert (place, list(holders)) == (1, [takens[0], takens[2]])
    place, holders = held.most_of(prompt("S", "C"), 0)
    assert (place, list(holders)) == (0, takens)
    assert list(held.most_of(prompt("S", "C"), 100)[1]) == []  # no more than is known already
    assert list(held.most_of(NOTHING, 0)[1]) == []
    held.discard(takens[2])
    held.discard(takens[2])
    held.discard(takens[0])
    place, holders = held.most_of(prompt("S", "A", "b"), 0)
    assert (place, list(holders)) == (0, [takens[1]])
    held.discard(takens[1])
    assert not held


def test_what_others_waited_counts_until_there_is_a_new_copy() -> None:
    held = Held()
    system, digest = prompt("S", "A").hashes
    for _ in range(2):
        held.add_wait(system, 3.0)
    held.add_wait(digest, 1.0)
    held.is_read_again(prompt("S", "C"), cached=100)  # with what a slot had of it
    assert (held.waited(system), held.waited(digest)) == (6, 1)
    held.is_read_again(prompt("S", "C"), cached=0)
    assert (held.waited(system), held.waited(digest)) == (0, 1)


def test_waits_for_many_prompts_take_no_more_room() -> None:
    held = Held()
    for number in range(2 * MOST_WAITED_FOR):
        held.add_wait(number, 1.0)
        held.add_wait(-1, 1.0)
    assert held.waited(-1) == 2 * MOST_WAITED_FOR
    assert sum(held.waited(number) > 0 for number in range(2 * MOST_WAITED_FOR)) == MOST_WAITED_FOR - 1


def test_texts_with_different_answers_are_not_taken_for_one() -> None:
    asked = Asked(slots=2)
    texts = []
    for answer in ("a", "A"):
        made = prompt("S", "q", answer, "r")
        texts.append(Prompt(made.hashes, made.sizes, (False, False, True, False)))
    for text in texts:
        asked.member._publish(text)
        asked.member._publish(text)
    assert asked.member.host == texts
    asked.member._publish(prompt("S", "q", "a", "r", "T"))
    assert asked.member.host == [texts[1], prompt("S", "q", "a", "r", "T")]


def test_without_a_host_cache_what_is_displaced_is_gone() -> None:
    asked = Asked(slots=3)
    asked.fleet.put(1, 3, has_host_cache=False)
    asked.ask("S", "q")
    asked.begin("T")
    asked.begin("S", "r")
    assert asked.lends("S", "t") == 0
    assert asked.member.host == []


@pytest.mark.parametrize("has_host_cache", [True, False])
def test_without_a_host_cache_a_slot_that_holds_little_is_taken_for_that(has_host_cache: bool) -> None:
    asked = Asked(slots=2)
    asked.fleet.put(1, 2, has_host_cache=has_host_cache)
    asked.ask("S", "A", "B")
    asked.begin("S", "C", "D", "E")
    assert (asked.member.idle == []) != has_host_cache


def test_where_a_slot_has_enough_the_host_cache_keeps_what_it_has() -> None:
    asked = Asked(slots=3)
    asked.ask("S", "A", "B")
    asked.ask("T")
    asked.ask("S", "A", "b")  # in the slot of the first
    assert prompt("S", "A", "B") in asked.member.host
    going_on = asked.begin("S", "A", "c")
    assert going_on.text == prompt("S", "A", "b")
    assert asked.lends("S", "A", "B", "d") == 300
