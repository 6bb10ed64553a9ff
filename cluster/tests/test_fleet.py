from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from cluster.balancer import Policy, Request
from cluster.fleet import ALL, Choice, Fleet
from cluster.members import Taken
from cluster.prefixes import NOTHING, Prompt

ASK = Request(prompt=1000, answer=100)
OTHER = Prompt((99,), (4000,), (False,))


def fleet(count: int, slots: int = 2, policy: Policy = Policy.COST) -> Fleet:
    made = Fleet(policy)
    for number in range(count):
        made.put(number, slots)
    return made


def conversation(number: int, turns: int = 1) -> Prompt:
    hashes = tuple(hash((number, turn)) for turn in range(turns))
    return Prompt(hashes, tuple(4000 * (turn + 1) for turn in range(turns)), (False,) * turns)


def ask(routed: Fleet, prompt: Prompt, now: float = 0.0) -> int:
    """One request from its beginning to its end."""
    choice = routed.choose(ASK, now, prompt)
    assert choice is not None
    routed.give_back(routed.take(Choice(choice.member, choice.cached), now, prompt), now + 1)
    return choice.member.id


@pytest.mark.parametrize("count", [4, ALL + 40])
def test_a_conversation_comes_back(count: int) -> None:
    routed = fleet(count)
    homes = {number: ask(routed, conversation(number)) for number in range(30)}
    assert len(set(homes.values())) > min(count, 30) / 2
    for turns in range(2, 5):
        assert {number: ask(routed, conversation(number, turns)) for number in range(30)} == homes


@pytest.mark.parametrize("count", [8, 1000])
def test_requests_one_after_the_other_do_not_all_go_to_the_first(count: int) -> None:
    """SGLang #32983."""
    routed = fleet(count)
    turns = Counter(ask(routed, conversation(number)) for number in range(16 * 20))
    assert max(turns.values()) < 16 * 20 / min(count, 16) + 20


@pytest.mark.parametrize("count", [8, 100])
def test_one_that_is_a_bit_faster_does_not_take_in_all_conversations(count: int) -> None:
    """Its cache would forget them, while those of the others are empty."""
    routed = fleet(count)
    for member in routed.members.values():
        for _ in range(20):
            member.speeds.read(120 if member.id == 3 else 100, 1)
    homes = Counter()
    for number in range(50 * count):
        now = 20.0 * number
        choice = routed.choose(ASK, now, conversation(number))
        routed.give_back(routed.take(choice, now), now + 20.0)
        homes[choice.member.id] += 1
    assert len(homes) == count
    assert 50 < homes[3] < 150


@pytest.mark.parametrize("count", [10, 1000])
def test_a_burst_fills_all_evenly(count: int) -> None:
    routed = fleet(count)
    for number in range(count):
        choice = routed.choose(ASK, 0.0, conversation(number))
        routed.take(choice, 0.0)
    assert {member.busy for member in routed.members.values()} == {1}


def test_a_new_replica_with_an_empty_cache_does_not_get_everything() -> None:
    """SGLang #14305."""
    routed = fleet(3)
    homes = {number: ask(routed, conversation(number)) for number in range(12)}
    routed.put(3, 2)
    again = {number: ask(routed, conversation(number, 2)) for number in range(12)}
    assert again == homes


def test_a_hot_prefix_gets_a_second_home_when_waiting_costs_more() -> None:
    routed = fleet(2, slots=1)
    for duration in (1.0, 30.0):
        routed.durations.see(duration)
    home = routed.members[ask(routed, OTHER)]
    routed.take(Choice(home, 1.0), 0.0)
    # It has been busy for long, and will be for longer than reading everything again takes. The other one has nothing to lose.
    choice = routed.choose(ASK, 25.0 - 1e-6, OTHER)
    assert choice.member is home  # about five seconds yet, for ten of reading
    choice = routed.choose(ASK, 60.0, OTHER)
    assert choice.member is not home
    # Whoever waits already makes it longer.
    home.promised = 2
    assert routed.choose(ASK, 25.0, OTHER).member is not home


def test_who_has_much_to_read_yet_gets_the_next_one_later() -> None:
    routed = fleet(2)
    first = routed.choose(ASK, 0.0, OTHER).member
    other = routed.members[1 - first.id]
    taken = routed.take(Choice(first, 0.0, reads=2000), 0.0)
    routed.take(Choice(other, 0.0, reads=1000), 0.0)
    assert (first.unread(0.0), first.unread(5.0), first.unread(30.0)) == (2000, 1500, 0)
    assert {routed.choose(ASK, 0.0).member for _ in range(4)} == {other}
    routed.has_read(taken, 1.0)
    assert first.unread(1.0) == 0
    assert {routed.choose(ASK, 1.0).member for _ in range(4)} == {first}


def test_seconds_of_reading_and_of_slots_are_added_up() -> None:
    routed = fleet(1)
    [member] = routed.members.values()
    first = routed.take(Choice(member, 0.0, reads=500), 0.0)
    routed.take(Choice(member, 0.0, reads=1000), 0.0)
    routed.has_read(first, 4.0)  # sooner than thought
    assert (member.reading_seconds, member.busy_seconds) == (4, 8)
    assert member.unread(4.0) == 1000
    routed.give_back(first, 20.0)  # later than thought
    assert (member.reading_seconds, member.busy_seconds) == (14, 40)


def test_how_long_the_machine_runs_says_nothing_of_a_replica() -> None:
    scores = []
    for now in (0.0, 1e6):
        routed = fleet(ALL + 10)
        routed.take(Choice(routed.members[0], 0.0, reads=200.0), now)
        scores.append(routed.members[0].score)
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.parametrize("speed", [20, 500])
def test_what_is_learnt_of_all_reaches_those_that_nobody_was_sent_to(speed: int) -> None:
    routed = fleet(ALL + 100)
    homes = set()
    for number in range(2000):
        member = routed.members[ask(routed, conversation(number))]
        member.speeds.read(10 * speed, 10)
        homes.add(member.id)
    assert len(homes) == len(routed.members)


def test_those_that_are_closed_are_not_chosen_and_those_excluded_neither() -> None:
    routed = fleet(3)
    routed.open(routed.members[0], False)
    assert {routed.choose(ASK, 0.0).member.id for _ in range(10)} == {1, 2}
    assert {routed.choose(ASK, 0.0, refused={0, 1}).member.id for _ in range(3)} == {2}
    assert routed.choose(ASK, 0.0, refused={0, 1, 2}) is None
    routed.open(routed.members[0], True)
    assert {routed.choose(ASK, 0.0).member.id for _ in range(9)} == {0, 1, 2}


def test_a_process_that_was_replaced_remembers_nothing() -> None:
    routed = fleet(2)
    home = routed.members[ask(routed, OTHER)]
    assert routed.choose(ASK, 0.0, OTHER).cached == 1
    routed.forget(home)
    assert routed.choose(ASK, 0.0, OTHER).cached == 0


def test_what_is_being_read_is_not_remembered_yet() -> None:
    """No slot lends another what it holds: the second of a burst would read everything again, beside the first."""
    routed = fleet(2)
    first = routed.choose(ASK, 0.0, OTHER)
    routed.take(first, 0.0)
    assert routed.choose(ASK, 0.0, OTHER).member is not first.member


def hold(routed: Fleet, number: int, prompt: Prompt, lasts: float) -> Taken:
    """That replica reads and answers it until then."""
    return routed.take(Choice(routed.members[number], 0.0, lasts=lasts), 0.0, prompt)


def test_what_is_held_is_waited_for_as_long_as_that_costs_less_than_reading_it() -> None:
    """Reading takes ten seconds."""
    routed = fleet(2)
    hold(routed, 0, OTHER, lasts=4.0)
    choice = routed.choose(ASK, 0.0, OTHER)
    assert (choice.member.id, choice.is_free, choice.cached) == (0, False, 1.0)
    assert routed.choose(ASK, 0.0, conversation(1)).is_free  # another prompt
    assert routed.choose(ASK, 0.0, OTHER, waited=None).is_free
    assert routed.choose(ASK, 0.0, OTHER, refused={0}).is_free
    routed.open(routed.members[0], False)
    assert routed.choose(ASK, 0.0, OTHER).is_free
    routed.open(routed.members[0], True)
    routed.members[0].promised = 1  # whoever waits already has it before
    assert routed.choose(ASK, 0.0, OTHER).is_free
    routed.members[0].promised = 0
    hold(routed, 1, OTHER, lasts=2.0)
    assert routed.choose(ASK, 0.0, OTHER).member.id == 1
    routed.forget(routed.members[1])  # its process is another one
    assert routed.choose(ASK, 0.0, OTHER).member.id == 0


@pytest.mark.parametrize("parts", [1, 2])
def test_prompts_of_no_bytes_are_prompts(parts: int) -> None:
    routed = fleet(2)
    empty = Prompt(tuple(range(parts)), (0,) * parts, (False, True)[:parts])
    for _ in range(3):
        hold(routed, 0, empty, lasts=9.0)
        assert routed.choose(ASK, 0.0, empty).is_free
        ask(routed, empty)
        ask(routed, OTHER)


def test_a_copy_more_of_what_several_want_takes_nothing_away() -> None:
    """That what is read displaces as much counts elsewhere."""
    routed = fleet(2)
    for number in range(2):
        member = routed.members[number]
        routed.give_back(routed.take(Choice(member, 0.0, reads=1000), 0.0, conversation(number)), 20.0)
    routed.take(Choice(routed.members[0], 0.0, lasts=12.0), 20.0, OTHER)
    assert routed.choose(ASK, 20.0, OTHER).is_free


@pytest.mark.parametrize("copies", [1, 2])
def test_what_several_want_all_the_time_is_read_once_more(copies: int) -> None:
    """Waiting costs four seconds and ten of writing beside somebody, reading it ten and five of writing alone: so waiting has to
    have cost others one, by the share that one more copy would have saved."""
    routed, [digest] = fleet(4), OTHER.hashes
    for number in range(copies):
        hold(routed, number, OTHER, lasts=4.0)
    routed.has_waited(digest, copies + 0.5)
    assert not routed.choose(ASK, 0.0, OTHER).is_free
    routed.has_waited(digest, 1.0)
    choice = routed.choose(ASK, 0.0, OTHER)
    assert choice.is_free
    routed.take(choice, 0.0, OTHER)
    assert not routed.choose(ASK, 0.0, OTHER).is_free


def test_nobody_waits_for_a_held_prompt_longer_than_reading_costs() -> None:
    routed = fleet(2)
    hold(routed, 0, OTHER, lasts=4.0)
    assert not routed.choose(ASK, 0.0, OTHER, waited=9.0).is_free
    assert routed.choose(ASK, 0.0, OTHER, waited=16.0).is_free  # ten of reading, five of writing


def test_who_takes_what_is_free_has_the_same_home_by_its_hash() -> None:
    routed = fleet(5, slots=4, policy=Policy.HASH)
    for number, busy in enumerate((4, 4, 2, 0, 1)):
        for _ in range(busy):
            hold(routed, number, NOTHING, lasts=9.0)
    for key in range(50):
        request = replace(ASK, key=hash((key,)))
        assert routed.choose(request, 0.0).member is routed.choose(request, 0.0, waited=None).member


def test_nobody_waits_long_for_what_is_held() -> None:
    routed = fleet(2)
    taken = hold(routed, 0, OTHER, lasts=40.0)
    choice = routed.choose(ASK, 0.0, OTHER)
    assert (choice.member.id, choice.is_free) == (1, True)
    routed.has_read(taken, 0.0)  # sooner than thought, and it has no answer to write
    routed.durations.see(1.0)
    assert not routed.choose(ASK, 0.5, OTHER).is_free


@pytest.mark.parametrize("copies", [1, 2])
def test_a_prefix_is_lent_to_as_many_as_slots_hold_it(copies: int) -> None:
    routed = fleet(2, slots=3)
    for taken in [hold(routed, 0, OTHER, lasts=1.0) for _ in range(copies)]:
        routed.give_back(taken, 1.0)
    for _ in range(copies):
        choice = routed.choose(ASK, 1.0, OTHER)
        assert (choice.member.id, choice.cached, choice.reads) == (0, 1, 0)
        hold(routed, 0, OTHER, lasts=90.0)
    choice = routed.choose(ASK, 1.0, OTHER)
    assert (choice.member.id, choice.cached, choice.reads) == (1, 0, 1000)


def test_who_may_not_wait_gets_what_is_free_though_it_costs_more() -> None:
    routed = fleet(2, slots=1)
    home = routed.members[ask(routed, OTHER)]
    routed.durations.see(1.0)
    hold(routed, home.id, conversation(1), lasts=1.0)
    assert routed.choose(ASK, 0.5, OTHER).member is home
    assert routed.choose(ASK, 0.5, OTHER, waited=None).member is not home
    hold(routed, 1 - home.id, conversation(2), lasts=1.0)
    assert routed.choose(ASK, 0.5, OTHER, waited=None).member is home  # nobody is free


def test_a_memory_that_was_seen_to_be_short_counts_less() -> None:
    routed = fleet(2)
    home = ask(routed, OTHER)
    quick = routed.members[1 - home]
    for _ in range(30):
        quick.speeds.read(400, 1)
        routed.members[home].speeds.read(100, 1)
    assert routed.choose(ASK, 0.0, OTHER).member.id == home
    assert routed.choose(ASK, 0.0, OTHER, kept=0.1).member is quick


def test_anything_in_any_order_leaves_it_right() -> None:
    chance, routed = random.Random(3), fleet(ALL + 10)
    leases: list[Taken] = []
    for step in range(5000):
        now = float(step)
        match chance.randrange(6):
            case 0 if len(routed.members) > ALL - 5:
                routed.remove(chance.choice(list(routed.members.values())))
            case 1:
                routed.put(chance.randrange(2 * ALL), chance.randrange(1, 4))
            case 2:
                member = chance.choice(list(routed.members.values()))
                routed.open(member, not member.is_open)
            case 3 if leases:
                routed.give_back(leases.pop(chance.randrange(len(leases))), now)
            case _:
                prompt = conversation(chance.randrange(50), 2)
                choice = routed.choose(ASK, now, prompt)
                if choice is not None and choice.is_free:
                    assert choice.member.is_open
                    leases.append(routed.take(choice, now, prompt))
    for taken in leases:
        routed.give_back(taken, 6000.0)
    assert {member.busy for member in routed.members.values()} == {0}
    assert not routed._held
    for member in routed.members.values():
        routed.open(member, True)
    for number in range(3 * ALL, 4 * ALL):
        routed.put(number, 1)
    assert len(routed._order) == len(routed.members)
