"""Which of the models that are loaded when asked for should be in memory now. Pure: no clock, no files, no database.

* What is loaded stays until nobody has used it for its ``ttl``, or until its memory (or its group) is wanted for another.
* Those that wait are served in turn, the longest wait first; what a later one takes never delays an earlier one.
* Room is made by predicted bytes. Of those that nobody uses the least recently used goes first; one that loads or is pinned
  never goes.
* One that is in use gives way when another has waited for ``PATIENCE``: it finishes its requests, its next ones wait their turn.
* Whatever was loaded stays for its ``stay``, so that requests by turns for two models cannot load more often than that.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PATIENCE = 20.0  # seconds somebody waits before a model that is in use has to give way
STAY_LEAST = 5.0  # seconds a model stays once it is ready
STAY_LOADS = 2.0  # and so many times as long as it took to load: at most a third of the time goes into loading
FAILED_STAY = 30.0  # seconds a model that did not come up is not tried again


class Phase(enum.Enum):
    AWAY = enum.auto()
    COMING = enum.auto()
    READY = enum.auto()
    LEAVING = enum.auto()  # it finishes its requests, or its process ends
    FAILED = enum.auto()


@dataclass(frozen=True)
class Standing:
    """One model. Times in seconds, sizes in bytes."""

    id: int
    phase: Phase
    size: int  # what must be free for its start, and is free again when it has gone
    since: float = float("inf")  # in this phase; of one that is AWAY or LEAVING: since it last served
    idle: float = 0.0  # since its last request
    waiting: float | None = None  # how long the first of those that wait has waited; None: nobody waits
    busy: bool = False  # it answers
    ttl: float | None = None  # None: it is not unloaded for being idle
    stay: float = STAY_LEAST
    pinned: bool = False
    group: str = ""  # models of one group never run together

    @property
    def used(self) -> bool:
        return self.busy or self.waiting is not None

    @property
    def turn_wait(self) -> float:
        """How long it has waited for its turn. Its requests may have waited longer: while it served others of its own."""
        return min(self.waiting or 0.0, self.since)

    def excludes(self, other: Standing) -> bool:
        return bool(self.group) and self.group == other.group and self.id != other.id


@dataclass(frozen=True)
class Decision:
    """``loaded``: ids of the models that should be there. ``held_up``: those that wait and cannot begin yet, by whom they wait
    for."""

    loaded: frozenset[int]
    held_up: dict[int, tuple[int, ...]]


def stay(load_seconds: float) -> float:
    """How long a model stays at least, by how long it took to load."""
    return max(STAY_LEAST, STAY_LOADS * load_seconds)


def decide(standings: Iterable[Standing], free: int) -> Decision:
    """``free``: bytes that may be used now, without what is promised to those that are COMING."""
    every = list(standings)
    there = [one for one in every if _stays_by_itself(one)]
    going = [one for one in every if one not in there and one.phase in (Phase.READY, Phase.LEAVING)]
    table = _Table(there, going, free)
    claims = [one for one in every if one.waiting is not None and one.phase in (Phase.AWAY, Phase.LEAVING)]
    for claim in sorted(claims, key=lambda one: (-one.turn_wait, -(one.waiting or 0.0), one.id)):
        table.seat(claim)
    return Decision(frozenset(one.id for one in table.there), table.held_up)


def _stays_by_itself(one: Standing) -> bool:
    if one.phase is Phase.READY:
        return one.used or one.ttl is None or min(one.idle, one.since) < one.ttl
    if one.phase is Phase.FAILED:
        return one.since < FAILED_STAY
    return one.phase is Phase.COMING


@dataclass
class _Table:
    """Who has a place, who is on the way out, and what is free now and will be when they have gone."""

    there: list[Standing]
    going: list[Standing]
    now: int
    later: int = 0
    most: int = 0  # when all that can go have gone, less what is given away
    possible: int = 0  # the same, nothing given away
    held_up: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.later = self.now + sum(one.size for one in self.going)
        self.most = self.possible = self.later + sum(
            one.size for one in self.there if _takes_room(one) and not one.pinned
        )

    def seat(self, claim: Standing) -> None:
        if claim.phase is Phase.LEAVING:
            self._reserve(claim, [claim])
            return
        rivals = [one for one in self.there if one.excludes(claim) and _takes_room(one)]
        if not all(_may_go(one, claim) for one in rivals):
            self.held_up[claim.id] = _ids(rivals)
            return
        if claim.size > self.possible:
            self.there.append(claim)  # its start says with numbers what is missing
            return
        leaving = self._least_used(claim, rivals)
        if leaving is None:
            # Some of these will go, nobody knows which: others may take what leaves enough if all of them went.
            self.held_up[claim.id] = _ids(one for one in self.there if _takes_room(one) and not one.pinned)
            self.most -= claim.size
            self.now = min(self.now, self.most)
            return
        for one in leaving:
            self.there.remove(one)
            self.going.append(one)
            self.later += one.size
        if claim.size > self.now or any(one.excludes(claim) for one in self.going):
            self._reserve(claim, self.going)
        else:
            self.there.append(claim)
            self.now -= claim.size
            self.later -= claim.size
            self.most -= claim.size

    def _reserve(self, claim: Standing, others: Sequence[Standing]) -> None:
        """What it will need when those have gone is not given to somebody who came later."""
        self.held_up[claim.id] = _ids(others)
        self.later -= claim.size
        self.most -= claim.size
        self.now = min(self.now, self.later, self.most)

    def _least_used(self, claim: Standing, rivals: list[Standing]) -> list[Standing] | None:
        """Who goes for it, ``rivals`` in any case; None when those that may go do not suffice."""
        others = [one for one in self.there if one not in rivals and _may_go(one, claim)]
        chosen, missing = list(rivals), claim.size - self.later - sum(one.size for one in rivals)
        for one in sorted(others, key=lambda one: (one.used, -one.idle, one.id)):
            if missing <= 0:
                break
            chosen.append(one)
            missing -= one.size
        if missing > 0:
            return None
        for one in reversed([one for one in chosen if one not in rivals]):  # the last used first: it may do without
            if missing + one.size <= 0:
                chosen.remove(one)
                missing += one.size
        return chosen


def _takes_room(one: Standing) -> bool:
    return one.phase is not Phase.FAILED


def _may_go(one: Standing, claim: Standing) -> bool:
    if one.phase is not Phase.READY or one.pinned or one.since < one.stay:
        return False
    return not one.used or claim.turn_wait >= PATIENCE


def _ids(standings: Iterable[Standing]) -> tuple[int, ...]:
    return tuple(sorted(one.id for one in standings))
