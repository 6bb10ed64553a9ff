"""Who waits for a slot, and whose turn it is. Pure: no I/O, no tasks, and the time is told.

Requests that had a replica and lost it before its first byte come before everybody: they have waited already. Then what somebody
waits for (``interactive``), then what may wait (``batch``), each in the order of :mod:`gateway.turns`. A batch request that has
waited for ``ageing`` seconds counts as an interactive one, so that it comes even where interactive ones never end.

The line is bounded in requests and in bytes. Where it is full, whoever has most in it makes room: that tenant's newest request
goes, batch ones first, unless that would leave it less than the one has who comes (P. McKenney, Stochastic Fairness Queueing,
INFOCOM 1990). So nobody keeps others out by sending a lot. Whoever has most makes room for its own interactive request by a batch
one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Generic, Literal, TypeVar

from gateway.turns import Ticket, Turns

Entry = TypeVar("Entry")
Priority = Literal["interactive", "batch"]
PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")  # the first one first

CHARGE = 1000  # for a token at weight 1: whole numbers, also for weights that are none


class QueueFull(Exception):
    """No more requests may wait."""


@dataclass(slots=True)
class _Share:
    """What one tenant has in the line."""

    requests: int = 0
    bytes: int = 0


class FairQueue(Generic[Entry]):
    """Entries must be hashable by identity and be in the queue at most once."""

    def __init__(self, limit: int, bytes_limit: int, ageing: float) -> None:
        self.limit = limit
        self.bytes_limit = bytes_limit
        self.ageing = ageing
        self.bytes = 0
        self._tickets: dict[Entry, Ticket[Entry]] = {}
        self._returned: OrderedDict[Ticket[Entry], None] = OrderedDict()
        self._levels: tuple[Turns[Entry], ...] = tuple(Turns() for _ in PRIORITIES)
        self._not_aged: OrderedDict[Ticket[Entry], None] = OrderedDict()  # of the last priority, the oldest first
        self._shares: dict[Hashable, _Share] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Entry]:
        """All entries, as they came."""
        return iter(self._tickets)

    def in_order(self, now: float) -> Iterator[Entry]:
        """All entries, as they would be served if nobody came or went."""
        self._age(now)
        yield from (ticket.entry for ticket in self._returned)
        yield from (turn.ticket.entry for level in self._levels for turn in level)

    def push(
        self,
        entry: Entry,
        tenant: Hashable,
        now: float,
        *,
        cost: int = 1,
        size: int = 0,
        priority: Priority = "interactive",
        weight: float = 1,
    ) -> list[Entry]:
        """Returns those that have to go for it. Raises QueueFull. ``weight`` is that of the tenant: twice as much gets twice as
        much."""
        self._age(now)
        level = PRIORITIES.index(priority)
        going = [ticket.entry for ticket in self._make_room(tenant, size, level)]
        for other in going:
            self.remove(other)
        ticket = Ticket(entry, tenant, max(1, round(cost * CHARGE / weight)), size, now, level)
        share = self._shares.setdefault(tenant, _Share())
        share.requests += 1
        share.bytes += size
        self._note(ticket)
        self._levels[level].add(ticket)
        if level > 0:
            self._not_aged[ticket] = None
        return going

    def push_returned(self, entry: Entry, now: float, *, size: int = 0) -> None:
        """An entry that was served before and failed through no fault of its own. Never refused, never charged twice."""
        ticket = Ticket(entry, None, 0, size, now, -1)
        self._note(ticket)
        self._returned[ticket] = None

    def pop(self, now: float, accepts: Callable[[Entry], bool]) -> Entry | None:
        """The next entry that ``accepts`` what is free now. Those before it that do not are passed over and keep their turn."""
        self._age(now)
        for ticket in self._returned:
            if accepts(ticket.entry):
                self.remove(ticket.entry)
                return ticket.entry
        for level in self._levels:
            if (turn := level.next(accepts)) is not None:
                level.take(turn)
                self._forget(turn.ticket)
                return turn.ticket.entry
        return None

    def remove(self, entry: Entry) -> None:
        """Somebody went away. Removing what is not there any more does nothing."""
        ticket = self._tickets.get(entry)
        if ticket is None:
            return
        if ticket.level < 0:
            del self._returned[ticket]
        else:
            self._levels[ticket.level].remove(ticket)
        self._forget(ticket)

    def position(self, entry: Entry, now: float) -> int:
        """How many are served before ``entry``, plus one, if nobody comes or goes; 0 when it does not wait."""
        self._age(now)
        ticket = self._tickets.get(entry)
        if ticket is None:
            return 0
        if ticket.level < 0:
            return list(self._returned).index(ticket) + 1
        before = len(self._returned) + sum(map(len, self._levels[: ticket.level]))
        return before + self._levels[ticket.level].ahead_of(ticket) + 1

    def _age(self, now: float) -> None:
        while self._not_aged:
            ticket = next(iter(self._not_aged))
            if now - ticket.since < self.ageing:
                return
            del self._not_aged[ticket]
            self._levels[ticket.level].remove(ticket)
            ticket.level, ticket.aged = 0, True
            self._levels[0].add(ticket)

    def _note(self, ticket: Ticket[Entry]) -> None:
        self._tickets[ticket.entry] = ticket
        self.bytes += ticket.size

    def _forget(self, ticket: Ticket[Entry]) -> None:
        del self._tickets[ticket.entry]
        self._not_aged.pop(ticket, None)
        self.bytes -= ticket.size
        if ticket.level < 0:
            return
        share = self._shares[ticket.tenant]
        share.requests -= 1
        share.bytes -= ticket.size
        if not share.requests:
            del self._shares[ticket.tenant]

    def _make_room(self, tenant: Hashable, size: int, level: int) -> list[Ticket[Entry]]:
        """Who goes for one more of ``tenant``. Raises QueueFull."""
        requests, bytes_ = len(self) + 1 - self.limit, self.bytes + size - self.bytes_limit
        going: list[Ticket[Entry]] = []
        if requests <= 0 and bytes_ <= 0:
            return going
        shares = {other: share.bytes if bytes_ > 0 else share.requests for other, share in self._shares.items()}
        for ticket in self._who_may_go(tenant, level, shares, size if bytes_ > 0 else 0):
            going.append(ticket)
            requests, bytes_ = requests - 1, bytes_ - ticket.size
            if requests <= 0 and bytes_ <= 0:
                return going
        raise QueueFull

    def _who_may_go(
        self, tenant: Hashable, level: int, shares: Mapping[Hashable, int], size: int
    ) -> Iterator[Ticket[Entry]]:
        """One after the other. ``shares`` and ``size`` are bytes, or requests when ``size`` is 0."""
        most = max(shares, key=shares.__getitem__, default=tenant)
        if most == tenant:
            yield from self._newest_first(tenant, level + 1)
            return
        left, own = shares[most], shares.get(tenant, 0) + (size or 1)
        for ticket in self._newest_first(most, 0):
            left -= ticket.size if size else 1
            if left < own:
                return
            yield ticket

    def _newest_first(self, tenant: Hashable, highest: int) -> Iterator[Ticket[Entry]]:
        """From the lowest priority up to that level."""
        return chain.from_iterable(level.newest_first(tenant) for level in reversed(self._levels[highest:]))


def estimated_wait(position: int, slots: int, mean_seconds: float) -> float:
    """Seconds until the entry at ``position`` gets a slot, if every slot keeps its pace."""
    return position * mean_seconds / max(slots, 1)
