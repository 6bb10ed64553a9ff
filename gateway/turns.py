"""Whose turn it is, among tenants that want the same thing. Pure: no I/O, no clock.

Tenants share what there is by what their requests cost, not by how many they send: *start-time fair queueing* (P. Goyal,
H. M. Vin, H. Cheng, Start-time Fair Queuing, SIGCOMM 1996), with one account for each tenant, as the virtual token counter has it
(Y. Sheng et al., Fairness in Serving Large Language Models, OSDI 2024). ``v`` is the virtual time, ``tag`` a tenant's account:

    somebody begins to wait     tag = max(tag, v)         nothing is saved up meanwhile; what is owed stays owed
    whose turn it is            the one with the lowest tag; among equal ones, who began to wait first
    a request gets its turn     start = max(tag, v); v = start; tag = start + cost / weight

For any two tenants that both wait all the time, what they got differs by no more than one request of each (theorem 1 there):

    | got(a) / weight(a) - got(b) / weight(b) |  <=  dearest(a) / weight(a) + dearest(b) / weight(b)

**The promise.** From the moment a request comes of whose tenant none waits until it has its turn, every other tenant has one
turn at most, whatever anything costs. Whoever owes nothing has it by the tags: its tag is ``v``, and whoever is served from then
on has a higher one. Of those who do owe the arrival is noted. When it would be the turn of a tenant that has had one since, the
oldest request so noted goes first, and what its tenant owed beyond the tag of that turn is forgiven: else its next ones would
have to pay for the promise (``start = max(min(tag, tag of that turn), v)``). So no account is ahead of ``v`` by more than one
request.

Why not deficit round robin (M. Shreedhar, G. Varghese, Efficient Fair Queueing Using Deficit Round Robin, SIGCOMM 1995): its
turns are visits, each worth a quantum. With a quantum as large as a dear request, one visit is hundreds of cheap requests; with a
small one, a dear request waits for as many visits to all others. Either way a single request may wait for hundreds of slots where
it waits for one here (``bench/queue_order.py`` counts them). What speaks for it, constant time for a turn, is worth nothing here:
a turn is one request, and takes microseconds to find.

Charges are whole numbers, so that sums of them are exact and positions are those of the turns to come.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain, islice, zip_longest
from typing import Generic, NamedTuple, TypeVar

Entry = TypeVar("Entry")

FORGET_FROM = 64  # accounts, before it is looked whether some do not matter any more


@dataclass(slots=True, eq=False)
class Ticket(Generic[Entry]):
    """One request that waits."""

    entry: Entry
    tenant: Hashable
    charge: int  # cost / weight, at least 1
    size: int  # bytes
    since: float
    level: int  # of its priority, 0 comes first
    aged: bool = False  # it came with a lower priority
    first: bool = False  # when it came, none of its tenant's waited


class Turn(NamedTuple, Generic[Entry]):
    """``tag``: that of whoever would have had this turn if promises did not count."""

    ticket: Ticket[Entry]
    tag: int


class Accounts:
    """The tags, and who has the next turn. It knows tenants only; their requests stand in lines."""

    __slots__ = ("_events", "_forget_from", "_places", "_promised", "_served", "_tags", "_virtual", "_waiting")

    def __init__(self) -> None:
        self._virtual = 0
        self._events = 0  # counts arrivals and turns
        self._waiting: list[tuple[int, int, Hashable]] = []  # tag, when they began to wait, tenant: the next one first
        self._places: dict[Hashable, tuple[int, int]] = {}  # the same by tenant
        self._tags: dict[Hashable, int] = {}  # of those who were served
        self._served: dict[Hashable, int] = {}  # when they had their last turn
        self._promised: OrderedDict[Hashable, int] = OrderedDict()  # when the request came for which this holds
        self._forget_from = FORGET_FROM

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def copy(self) -> Accounts:
        new = Accounts()
        new._virtual, new._events = self._virtual, self._events
        new._waiting, new._places = self._waiting.copy(), self._places.copy()
        new._tags, new._served = self._tags.copy(), self._served.copy()
        new._promised = self._promised.copy()
        return new

    @property
    def by_tags_alone(self) -> bool:
        """Whether from now on, if nobody comes or goes, turns follow from the tags that they have."""
        return not self._promised and (not self._waiting or self._waiting[0][0] >= self._virtual)

    def place(self, tenant: Hashable) -> tuple[int, int]:
        return self._places[tenant]

    def waiting(self) -> Iterator[tuple[int, int, Hashable]]:
        """By tag."""
        return iter(self._waiting)

    def join(self, tenant: Hashable) -> None:
        """It begins to wait."""
        self._events += 1
        tag = max(self._virtual, self._tags.get(tenant, 0))
        if tag > self._virtual:
            self._promised[tenant] = self._events
        self._put(tenant, tag, self._events)

    def leave(self, tenant: Hashable) -> None:
        """Nothing of it waits any more, without a turn."""
        self._drop(tenant)
        self.keep_no_promise(tenant)
        self._forget()

    def keep_no_promise(self, tenant: Hashable) -> None:
        """The request for which it held has had its turn, or is gone."""
        self._promised.pop(tenant, None)

    def due(self) -> tuple[Hashable, int]:
        """Who has the next turn, and by which tag."""
        tag, _number, tenant = self._waiting[0]
        if self._promised:
            oldest, came = next(iter(self._promised.items()))
            if came < self._served.get(tenant, 0):
                return oldest, tag
        return tenant, tag

    def serve(self, tenant: Hashable, tag: int, charge: int, *, waits: bool) -> None:
        """``tag``: by which it has the turn; ``waits``: whether more of it does."""
        own, number = self._drop(tenant)
        start = max(self._virtual, min(own, tag))
        self._virtual = start
        self._events += 1
        self._served[tenant] = self._events
        self._tags[tenant] = start + charge
        if waits:
            self._put(tenant, start + charge, number)
        else:
            self._forget()

    def _put(self, tenant: Hashable, tag: int, number: int) -> None:
        insort(self._waiting, (tag, number, tenant))  # numbers differ, so tenants are never compared
        self._places[tenant] = tag, number

    def _drop(self, tenant: Hashable) -> tuple[int, int]:
        place = self._places.pop(tenant)
        del self._waiting[bisect_left(self._waiting, place)]  # by the beginning of the tuple
        return place

    def _forget(self) -> None:
        """Accounts that would say nothing new: all when nobody waits, else those ``v`` has passed and no promise asks for."""
        if not self._waiting:
            self._tags.clear()
            self._served.clear()
        elif len(self._tags) > self._forget_from:
            oldest = next(iter(self._promised.values()), self._events + 1)
            for tenant, tag in list(self._tags.items()):
                if tag <= self._virtual and self._served[tenant] < oldest and tenant not in self._places:
                    del self._tags[tenant], self._served[tenant]
            self._forget_from = max(FORGET_FROM, 2 * len(self._tags))


class Line(Generic[Entry]):
    """What waits of one tenant. What came with a lower priority and has waited long takes turns with what came with this one,
    so that neither a thousand of the former hold up a single one of the latter nor the other way round.

    Where each one stands is numbered when it is first asked for, and stays so while the line grows and shrinks at its ends."""

    __slots__ = ("_aged", "_aged_next", "_gone", "_numbers", "_own", "_sums")

    def __init__(self) -> None:
        self._own: OrderedDict[Ticket[Entry], None] = OrderedDict()
        self._aged: OrderedDict[Ticket[Entry], None] = OrderedDict()
        self._aged_next = False
        self._numbers: dict[Ticket[Entry], int] | None = None
        self._sums: list[int] = []  # of the charges of those before each number
        self._gone = 0  # how many numbers at the beginning stand for nobody any more

    def __len__(self) -> int:
        return len(self._own) + len(self._aged)

    def __iter__(self) -> Iterator[Ticket[Entry]]:
        """In the order of turns."""
        kinds = (self._aged, self._own) if self._aged_next else (self._own, self._aged)
        for pair in zip_longest(*kinds):
            yield from (ticket for ticket in pair if ticket is not None)

    def newest_first(self) -> Iterator[Ticket[Entry]]:
        return chain(reversed(self._own), reversed(self._aged))

    def add(self, ticket: Ticket[Entry]) -> None:
        kind, other = (self._aged, self._own) if ticket.aged else (self._own, self._aged)
        if not self:
            self._aged_next = ticket.aged  # a first one stays at the head
        kind[ticket] = None
        if other:
            self._numbers = None
        elif self._numbers is not None:
            self._numbers[ticket] = len(self._sums) - 1
            self._sums.append(self._sums[-1] + ticket.charge)

    def remove(self, ticket: Ticket[Entry]) -> None:
        kind, other = (self._aged, self._own) if ticket.aged else (self._own, self._aged)
        self._unnumber(ticket, is_head=not other and ticket is next(iter(kind)))
        del kind[ticket]

    def serve(self, ticket: Ticket[Entry]) -> None:
        is_head = ticket is next(iter(self))
        if is_head:
            self._aged_next = not ticket.aged
        self._unnumber(ticket, is_head=is_head)
        del (self._aged if ticket.aged else self._own)[ticket]

    def _unnumber(self, ticket: Ticket[Entry], *, is_head: bool) -> None:
        if self._numbers is None:
            return
        if is_head and self._gone <= len(self):
            del self._numbers[ticket]
            self._gone += 1
        else:
            self._numbers = None

    def index(self, ticket: Ticket[Entry]) -> int:
        return self._numbered()[ticket] - self._gone

    def charged_before(self, index: int) -> int:
        """From some point on that is the same for all."""
        self._numbered()
        return self._sums[self._gone + index]

    def count_before(self, charged: int, begin: int, *, inclusive: bool) -> int:
        """How many, from index ``begin`` on, have less charged before them than that; ``inclusive``: or as much."""
        self._numbered()
        find, first = bisect_right if inclusive else bisect_left, self._gone + begin
        return find(self._sums, charged, first, len(self._sums) - 1) - first

    def _numbered(self) -> dict[Ticket[Entry], int]:
        if self._numbers is None:
            self._numbers = {ticket: number for number, ticket in enumerate(self)}
            self._sums = list(accumulate((ticket.charge for ticket in self._numbers), initial=0))
            self._gone = 0
        return self._numbers


class _Rehearsal(Generic[Entry]):
    """The turns to come, if nobody came or went from now on. Nothing is changed by it."""

    def __init__(self, accounts: Accounts, lines: Mapping[Hashable, Line[Entry]]) -> None:
        self.accounts = accounts.copy()
        self.passed: dict[Hashable, int] = {}  # how many of a line have had their turn
        self._lines = lines
        self._iterators: dict[Hashable, Iterator[Ticket[Entry]]] = {}

    def step(self) -> Turn[Entry]:
        tenant, tag = self.accounts.due()
        line = self._lines[tenant]
        if tenant not in self._iterators:
            self._iterators[tenant] = iter(line)
        ticket = next(self._iterators[tenant])
        self.passed[tenant] = self.passed.get(tenant, 0) + 1
        if ticket.first:
            self.accounts.keep_no_promise(tenant)
        self.accounts.serve(tenant, tag, ticket.charge, waits=self.passed[tenant] < len(line))
        return Turn(ticket, tag)


class Turns(Generic[Entry]):
    """The lines of all tenants and the order among them."""

    def __init__(self) -> None:
        self._accounts = Accounts()
        self._lines: dict[Hashable, Line[Entry]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Turn[Entry]]:
        """As they would come."""
        rehearsal = _Rehearsal(self._accounts, self._lines)
        while rehearsal.accounts:
            yield rehearsal.step()

    def newest_first(self, tenant: Hashable) -> Iterator[Ticket[Entry]]:
        line = self._lines.get(tenant)
        return line.newest_first() if line is not None else iter(())

    def add(self, ticket: Ticket[Entry]) -> None:
        line = self._lines.get(ticket.tenant)
        ticket.first = line is None
        if line is None:
            line = self._lines[ticket.tenant] = Line()
            self._accounts.join(ticket.tenant)
        line.add(ticket)
        self._length += 1

    def remove(self, ticket: Ticket[Entry]) -> None:
        """It goes without a turn, and costs nothing."""
        line = self._lines[ticket.tenant]
        line.remove(ticket)
        self._length -= 1
        if not line:
            del self._lines[ticket.tenant]
            self._accounts.leave(ticket.tenant)
        elif ticket.first:
            self._accounts.keep_no_promise(ticket.tenant)

    def next(self, accepts: Callable[[Entry], bool]) -> Turn[Entry] | None:
        """The first turn that is taken. Those passed over keep theirs: nothing is charged, and no tag but the taker's changes."""
        if not self._lines:
            return None
        tenant, tag = self._accounts.due()
        first = Turn(next(iter(self._lines[tenant])), tag)
        if accepts(first.ticket.entry):
            return first
        return next((turn for turn in islice(self, 1, None) if accepts(turn.ticket.entry)), None)

    def take(self, turn: Turn[Entry]) -> None:
        """It has its turn."""
        ticket, tenant = turn.ticket, turn.ticket.tenant
        line = self._lines[tenant]
        line.serve(ticket)
        self._length -= 1
        if ticket.first:
            self._accounts.keep_no_promise(tenant)
        if not line:
            del self._lines[tenant]
        self._accounts.serve(tenant, turn.tag, ticket.charge, waits=bool(line))

    def ahead_of(self, ticket: Ticket[Entry]) -> int:
        """How many have their turn before it, if nobody comes or goes.

        Promises are rehearsed, which takes a turn for each tenant at most. What is left is sorted by tags, and each line's part
        before a tag is found by bisection.
        """
        rehearsal: _Rehearsal[Entry] | None = None
        ahead = 0
        while not (rehearsal.accounts if rehearsal else self._accounts).by_tags_alone:
            rehearsal = rehearsal or _Rehearsal(self._accounts, self._lines)
            if rehearsal.step().ticket is ticket:
                return ahead
            ahead += 1
        accounts, passed = (rehearsal.accounts, rehearsal.passed) if rehearsal else (self._accounts, {})
        return ahead + self._ahead_by_tags(ticket, accounts, passed)

    def _ahead_by_tags(self, ticket: Ticket[Entry], accounts: Accounts, passed: Mapping[Hashable, int]) -> int:
        own, begin = self._lines[ticket.tenant], passed.get(ticket.tenant, 0)
        index = own.index(ticket)
        tag, own_number = accounts.place(ticket.tenant)
        tag += own.charged_before(index) - own.charged_before(begin)
        ahead = index - begin
        for other_tag, number, tenant in accounts.waiting():
            if (other_tag, number) >= (tag, own_number):
                break
            if tenant != ticket.tenant:
                other, begin = self._lines[tenant], passed.get(tenant, 0)
                charged = tag - other_tag + other.charged_before(begin)
                ahead += other.count_before(charged, begin, inclusive=number < own_number)
        return ahead
