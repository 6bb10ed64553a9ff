"""The fair queue: whose turn it is, what it bounds, leaving, positions; and any sequence of all that beside a plain model."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.queue import FairQueue, QueueFull, estimated_wait

NOW, AGEING, ROOM = 1000.0, 60.0, 10**9
CHEAP, DEAR = 10, 8000


def queue_of(limit: int = 2000, bytes_limit: int = ROOM) -> FairQueue:
    return FairQueue(limit, bytes_limit, AGEING)


def always(_entry: object) -> bool:
    return True


def popped(queue: FairQueue, now: float = NOW) -> Iterator:
    while (entry := queue.pop(now, always)) is not None:
        yield entry


def push_many(queue: FairQueue, tenant: str, count: int, **more: object) -> None:
    for number in range(count):
        queue.push(f"{tenant}{number}", tenant, NOW, **more)


# -- turns -----------------------------------------------------------------------------------------------------------------
def test_a_single_request_comes_next_however_many_another_has() -> None:
    queue = queue_of()
    push_many(queue, "many", 1000)
    assert queue.pop(NOW, always) == "many0"
    queue.push("one", "b", NOW)
    assert queue.position("one", NOW) == 1
    assert list(popped(queue))[:2] == ["one", "many1"]


@pytest.mark.parametrize(("single", "others"), [(CHEAP, DEAR), (DEAR, CHEAP)])
def test_single_requests_one_after_the_other_alternate_with_anothers(single: int, others: int) -> None:
    """Whatever they cost; and the other one is not kept waiting either."""
    queue = queue_of()
    push_many(queue, "many", 1000, cost=others)
    turns = "m" * (queue.pop(NOW, always) == "many0")
    for number in range(20):
        queue.push(f"single{number}", "one", NOW, cost=single)
        while turns.count("s") == number:
            turns += queue.pop(NOW, always)[0]
    between = list(map(len, turns.split("s")))
    assert max(between) == 1
    assert single < others or sum(between) >= 19


def test_several_at_once_are_paid_for() -> None:
    """No promise holds for a second one: it waits until the others have had as many tokens."""
    queue = queue_of()
    push_many(queue, "cheap", 100, cost=CHEAP)
    push_many(queue, "dear", 2, cost=50 * CHEAP)
    turns = list(popped(queue))
    assert turns[:2] == ["cheap0", "dear0"]
    assert turns.index("dear1") == 2 + 50


def test_what_one_promise_cost_is_not_charged_to_the_next_requests() -> None:
    queue = queue_of(5000)
    push_many(queue, "cheap", 3000, cost=CHEAP)
    for number in range(30):
        queue.push(f"dear{number}", "dear", NOW, cost=DEAR)
        assert {queue.pop(NOW, always)[0], queue.pop(NOW, always)[0]} == {"c", "d"}
    for number in range(2):
        queue.push(f"last{number}", "dear", NOW, cost=DEAR)
    assert list(popped(queue)).index("last1") <= 2 + 2 * DEAR // CHEAP


def test_a_promise_to_one_changes_nothing_between_two_others() -> None:
    queue, got = queue_of(20_000), Counter()
    push_many(queue, "cheap", 10_000, cost=CHEAP)
    push_many(queue, "dear", 30, cost=DEAR)
    while got["dear"] < 5 * DEAR:
        if not queue.position("single", NOW):
            queue.push("single", "single", NOW, cost=2 * DEAR)
        tenant = queue.pop(NOW, always).rstrip("0123456789")
        got[tenant] += DEAR if tenant == "dear" else CHEAP
        assert abs(got["cheap"] - got["dear"]) <= DEAR + CHEAP


def test_a_promise_goes_with_its_request() -> None:
    """``a`` owes a lot; ``b`` had a turn since the request came for which the promise holds."""
    queue = queue_of()
    push_many(queue, "b", 100, cost=CHEAP)
    push_many(queue, "a", 1, cost=50 * CHEAP)
    assert [queue.pop(NOW, always) for _ in range(2)] == ["b0", "a0"]
    for entry in ("first", "second"):
        queue.push(entry, "a", NOW)
    assert queue.pop(NOW, always) == "b1"
    assert queue.position("first", NOW) == 1
    queue.remove("first")
    assert queue.position("second", NOW) == 50
    queue.remove("second")
    assert queue.pop(NOW, always) == "b2"


def test_what_is_owed_ends_when_nobody_waits() -> None:
    queue = queue_of()
    push_many(queue, "a", 1, cost=DEAR)
    assert list(popped(queue)) == ["a0"]
    push_many(queue, "a", 2)
    push_many(queue, "b", 2)
    assert list(popped(queue)) == ["a0", "b0", "a1", "b1"]


def test_of_those_who_come_and_go_only_what_is_owed_is_kept() -> None:
    queue = queue_of(10**6)
    push_many(queue, "stays", 10**5, cost=CHEAP)
    sizes = []
    for number in range(500):
        queue.push("guest", f"guest {number}", NOW, cost=1)
        while queue.position("guest", NOW):
            queue.pop(NOW, always)
        queue.pop(NOW, always)
        if number % 50 == 49:
            sizes.append(len(pickle.dumps(queue._levels[0]._accounts)))
    assert sizes[-1] < 2 * sizes[0]
    push_many(queue, "owes", 1, cost=90 * CHEAP)
    queue.pop(NOW, always)
    for number in range(80):  # more than accounts are looked through for
        queue.push("guest", f"new {number}", NOW, cost=1)
        queue.pop(NOW, always)
    for tenant, position in (("owes", 2), ("new", 1)):
        queue.push(tenant, tenant, NOW)
        assert queue.position(tenant, NOW) == position
        queue.remove(tenant)


def test_a_cancelled_request_costs_nothing() -> None:
    queue = queue_of()
    push_many(queue, "b", 3, cost=CHEAP)
    push_many(queue, "a", 10, cost=DEAR)
    for number in range(9):
        queue.remove(f"a{number}")
    assert list(popped(queue))[:2] == ["b0", "a9"]


def test_nothing_is_saved_up_while_one_does_not_wait() -> None:
    queue = queue_of()
    push_many(queue, "b", 1, cost=CHEAP)
    push_many(queue, "a", 50, cost=CHEAP)
    for _ in range(40):
        queue.pop(NOW, always)
    push_many(queue, "c", 1, cost=CHEAP)
    push_many(queue, "b", 5, cost=CHEAP)
    owners = "".join(entry[0] for entry in itertools.islice(popped(queue), 9))
    assert owners.index("c") < owners.index("b")
    assert Counter(owners) == {"a": 4, "b": 4, "c": 1}


def test_nobody_is_kept_waiting_by_others_that_never_stop() -> None:
    queue = queue_of()
    for tenant, cost in (("slow", DEAR), ("x", CHEAP), ("y", CHEAP)):
        push_many(queue, tenant, 3, cost=cost)
    for number in itertools.count():
        entry = queue.pop(NOW, always)
        if entry == "slow2":
            break
        if entry[0] in "xy":
            queue.push(f"{entry[0]}-{number}", entry[0], NOW, cost=CHEAP)
        assert number <= 3 + 2 * (2 * DEAR // CHEAP + 1)


lines = st.tuples(st.sampled_from([1, 2, 2.5]), st.lists(st.integers(1, 900), min_size=1))


@given(st.lists(lines, min_size=2, max_size=4))
def test_what_two_tenants_got_differs_by_one_request_of_each(tenants: list[tuple[float, list[int]]]) -> None:
    """While all of them wait: Goyal, Vin, Cheng 1996, theorem 1."""
    queue = queue_of(10**6)
    for tenant, (weight, costs) in enumerate(tenants):
        for number, cost in enumerate(costs):
            queue.push((tenant, number), tenant, NOW, cost=cost, weight=weight)
    left = [len(costs) for _weight, costs in tenants]
    got = [0.0] * len(tenants)
    while all(left):
        tenant, number = queue.pop(NOW, always)
        weight, costs = tenants[tenant]
        left[tenant] -= 1
        got[tenant] += costs[number] / weight
        for one, other in itertools.combinations(range(len(tenants)), 2):
            most = sum(max(tenants[who][1]) / tenants[who][0] for who in (one, other))
            assert abs(got[one] - got[other]) <= most + 1e-6


# -- priorities ------------------------------------------------------------------------------------------------------------
def test_batch_requests_come_after_interactive_ones() -> None:
    queue = queue_of()
    queue.push("batch", "a", NOW, priority="batch")
    push_many(queue, "a", 1)
    push_many(queue, "b", 1)
    assert [queue.position(entry, NOW) for entry in ("a0", "b0", "batch")] == [1, 2, 3]
    assert list(popped(queue)) == ["a0", "b0", "batch"]


def test_a_batch_request_that_has_waited_long_counts_as_interactive() -> None:
    queue = queue_of()
    queue.push("batch", "a", NOW, priority="batch")
    push_many(queue, "b", 5)
    queue.push("late", "c", NOW + AGEING / 2, priority="batch")
    assert queue.position("batch", NOW + AGEING - 1) == 6
    assert queue.position("batch", NOW + AGEING) == 2
    order = list(popped(queue, NOW + AGEING))
    assert (order[1], order[-1]) == ("batch", "late")


def test_interactive_requests_that_never_end_keep_no_batch_request_waiting_for_ever() -> None:
    queue, turns = queue_of(), ""
    push_many(queue, "a", 30, priority="batch")
    for second in range(200):
        queue.push(f"b{second}", "b", NOW + second)
        turns += queue.pop(NOW + second, always)[0]
    assert turns.count("a") == 30


def test_own_requests_that_have_aged_hold_up_an_interactive_one_by_one_turn() -> None:
    queue = queue_of()
    push_many(queue, "a", 10, priority="batch")
    queue.push("chat", "a", NOW + AGEING)
    assert queue.position("chat", NOW + AGEING) == 2
    assert list(popped(queue, NOW + AGEING))[:3] == ["a0", "chat", "a1"]


# -- who does not want what is free --------------------------------------------------------------------------------------------
def test_who_is_passed_over_keeps_its_turn_and_saves_nothing_up() -> None:
    queue = queue_of()
    queue.push("picky", "a", NOW, cost=5 * CHEAP)
    push_many(queue, "b", 50, cost=CHEAP)
    for number in range(40):
        assert queue.pop(NOW, lambda entry: entry != "picky") == f"b{number}"
    assert queue.position("picky", NOW) == 1
    assert queue.pop(NOW, always) == "picky"
    push_many(queue, "a", 1)
    assert list(popped(queue))[:2] == ["b40", "a0"]  # what it had is paid for from that turn on, not from when it came


def test_ones_own_next_request_goes_where_the_first_does_not_want_to() -> None:
    queue = queue_of()
    push_many(queue, "a", 3)
    assert queue.pop(NOW, lambda entry: entry != "a0") == "a1"
    assert queue.pop(NOW, lambda _entry: False) is None
    assert list(popped(queue)) == ["a0", "a2"]


def test_a_batch_request_gets_what_no_interactive_one_wants() -> None:
    queue = queue_of()
    push_many(queue, "a", 2)
    queue.push("batch", "b", NOW, priority="batch")
    assert queue.pop(NOW, lambda entry: entry == "batch") == "batch"


def test_those_who_lost_their_replica_come_first_unless_they_cannot_use_what_is_free() -> None:
    queue = queue_of(1)
    push_many(queue, "a", 1)
    queue.push_returned("picky", NOW)
    queue.push_returned("plain", NOW)
    assert [queue.position(entry, NOW) for entry in ("picky", "plain", "a0")] == [1, 2, 3]
    turns = [queue.pop(NOW, lambda entry: entry != "picky") for _ in range(3)]
    assert turns == ["plain", "a0", None]
    assert queue.pop(NOW, always) == "picky"


# -- bounds ----------------------------------------------------------------------------------------------------------------
def test_the_line_of_one_tenant_is_bounded() -> None:
    queue = queue_of(2)
    push_many(queue, "a", 2)
    with pytest.raises(QueueFull):
        queue.push("a2", "a", NOW)
    assert list(queue) == ["a0", "a1"]


def test_whoever_has_most_in_a_full_line_makes_room() -> None:
    queue = queue_of(4)
    push_many(queue, "a", 4)
    assert queue.push("b0", "b", NOW) == ["a3"]
    assert queue.push("b1", "b", NOW) == ["a2"]
    with pytest.raises(QueueFull):
        queue.push("b2", "b", NOW)
    assert queue.push("c0", "c", NOW) in (["a1"], ["b1"])
    assert len(queue) == 4


def test_nobody_makes_room_for_one_who_would_have_more_then() -> None:
    queue = queue_of(5)
    push_many(queue, "a", 3)
    push_many(queue, "b", 2)
    with pytest.raises(QueueFull):
        queue.push("b2", "b", NOW)


def test_batch_requests_make_room_first_also_for_ones_own() -> None:
    queue = queue_of(3)
    queue.push("batch", "a", NOW, priority="batch")
    push_many(queue, "a", 2)
    assert queue.push("chat", "a", NOW) == ["batch"]
    with pytest.raises(QueueFull):
        queue.push("more", "a", NOW)


def test_bytes_are_bounded_and_whoever_has_most_of_them_makes_room() -> None:
    queue = queue_of(bytes_limit=100)
    push_many(queue, "large", 3, size=30)
    push_many(queue, "small", 5, size=2)
    assert queue.bytes == 100
    assert queue.push("b0", "b", NOW, size=20) == ["large2"]
    assert queue.bytes == 90
    for tenant, size in (("b", 60), ("c", 101)):
        with pytest.raises(QueueFull):
            queue.push("too much", tenant, NOW, size=size)
    assert len(queue) == 8


def test_bytes_that_have_left_count_no_more() -> None:
    queue = queue_of(bytes_limit=100)
    for entry, size in (("a0", 60), ("a1", 2)):
        queue.push(entry, "a", NOW, size=size)
    assert queue.pop(NOW, always) == "a0"
    push_many(queue, "b", 2, size=30)
    push_many(queue, "c", 1, size=30)
    assert queue.push("d0", "d", NOW, size=30) == ["b1"]


# -- leaving, estimates ------------------------------------------------------------------------------------------------------
def test_leaving_twice_or_after_being_served_changes_nothing() -> None:
    queue = queue_of()
    push_many(queue, "a", 1)
    push_many(queue, "b", 1)
    queue.remove("a0")
    queue.remove("a0")
    assert len(queue) == 1
    assert queue.pop(NOW, always) == "b0"
    queue.remove("b0")
    assert (len(queue), queue.position("b0", NOW)) == (0, 0)


def test_the_estimate_grows_with_the_position_and_falls_with_slots() -> None:
    assert estimated_wait(4, 2, 3.0) == 6.0
    assert estimated_wait(1, 0, 3.0) == 3.0


# -- any sequence of all that --------------------------------------------------------------------------------------------------
class Waiting:
    """What the model knows of one entry. ``turns``: those that others had since it came; None where nothing is promised."""

    def __init__(self, tenant: str, priority: str, size: int, came: float, promised: bool) -> None:
        self.tenant, self.priority, self.size, self.came = tenant, priority, size, came
        self.turns: Counter[str] | None = Counter() if promised else None

    def level(self, now: float) -> str:
        return "interactive" if now - self.came >= AGEING else self.priority


class AnyOrder(RuleBasedStateMachine):
    """A queue, and a plain account of what has to come of it."""

    LIMIT, BYTES = 30, 400
    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(self.LIMIT, self.BYTES, AGEING)
        self.now = NOW
        self.numbers = itertools.count()
        self.waiting: dict[int, Waiting] = {}
        self.returned: list[int] = []

    def lines(self) -> dict[tuple[str, str], list[int]]:
        lines = defaultdict(list)
        for entry, about in self.waiting.items():
            lines[about.level(self.now), about.tenant].append(entry)
        return lines

    @rule(
        target=entries,
        tenant=st.sampled_from("abcde"),
        priority=st.sampled_from(["interactive", "interactive", "batch"]),
        cost=st.sampled_from([1, CHEAP, 7 * CHEAP, DEAR]),
        size=st.sampled_from([0, 1, 40]),
        weight=st.sampled_from([1, 1, 3]),
    )
    def push(self, tenant: str, priority: str, cost: int, size: int, weight: int) -> int:
        entry = next(self.numbers)
        alone = not self.lines()[priority, tenant]
        try:
            going = self.queue.push(entry, tenant, self.now, cost=cost, size=size, priority=priority, weight=weight)
        except QueueFull:
            assert len(self.queue) >= self.LIMIT or self.queue.bytes + size > self.BYTES
            return entry
        for other in going:
            del self.waiting[other]
        self.waiting[entry] = Waiting(tenant, priority, size, self.now, alone)
        return entry

    @rule(target=entries)
    def push_returned(self) -> int:
        entry = next(self.numbers)
        self.queue.push_returned(entry, self.now, size=1)
        self.returned.append(entry)
        return entry

    @rule(seconds=st.sampled_from([1.0, AGEING / 2, AGEING]))
    def wait(self, seconds: float) -> None:
        before, self.now = self.now, self.now + seconds
        for about in self.waiting.values():
            if about.level(before) != about.level(self.now):
                about.turns = None

    @rule(entry=consumes(entries))
    def remove(self, entry: int) -> None:
        self.queue.remove(entry)
        self.waiting.pop(entry, None)
        if entry in self.returned:
            self.returned.remove(entry)

    @rule(wants=st.sampled_from([always, always, always, lambda entry: entry % 2 == 0, lambda entry: entry % 5 == 0]))
    def pop(self, wants: Callable[[int], bool]) -> None:
        expected = next((entry for entry in self.queue.in_order(self.now) if wants(entry)), None)
        entry = self.queue.pop(self.now, wants)
        assert entry == expected
        assert (entry is None) == (not any(map(wants, (*self.returned, *self.waiting))))
        for other, about in self.waiting.items():
            if not wants(other):
                about.turns = None  # it had the choice
        if entry in self.returned:
            self.returned.remove(entry)
        elif entry is not None:
            self.note_turn(entry)

    def note_turn(self, entry: int) -> None:
        served = self.waiting.pop(entry)
        for about in self.waiting.values():
            same_level = about.level(self.now) == served.level(self.now)
            if about.turns is not None and same_level and about.tenant != served.tenant:
                about.turns[served.tenant] += 1
                assert about.turns[served.tenant] <= 1

    @invariant()
    def counters_are_right(self) -> None:
        assert len(self.queue) == len(self.waiting) + len(self.returned)
        assert set(self.queue) == {*self.waiting, *self.returned}
        assert self.queue.bytes == sum(about.size for about in self.waiting.values()) + len(self.returned)

    @invariant()
    def positions_are_the_order_of_service(self) -> None:
        order = list(self.queue.in_order(self.now))
        assert [self.queue.position(entry, self.now) for entry in order] == list(range(1, len(order) + 1))
        assert order[: len(self.returned)] == self.returned
        levels = [self.waiting[entry].level(self.now) for entry in order[len(self.returned) :]]
        assert levels == sorted(levels, reverse=True)
        for line in self.lines().values():
            for priority in ("interactive", "batch"):
                own = [entry for entry in line if self.waiting[entry].priority == priority]
                assert [entry for entry in order if entry in own] == own

    def teardown(self) -> None:
        told = list(self.queue.in_order(self.now))
        assert list(popped(self.queue, self.now)) == told
        assert (len(self.queue), self.queue.bytes) == (0, 0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
