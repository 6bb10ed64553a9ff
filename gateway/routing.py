"""The replicas of one model: which of them serve, which one a request goes to, and what is learnt from how that went.

The choice is made by ``cluster.fleet``; here it meets the world: replicas that come and go, fail and recover, and figures that
engines report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic

from cluster.balancer import Policy, Request
from cluster.fleet import Choice, Fleet
from cluster.members import Member, Taken
from cluster.prefixes import Prompt
from cluster.speeds import Mean
from gateway.breaker import Breaker, RetryBudget
from gateway.usage import TokenCount
from models_app.selectors import ReplicaView
from models_app.states import State

STANDS_STILL = 4.0  # times as long as it is written an answer takes at most, as far as is believed
TELLING_ANSWER = 8  # tokens; of fewer, the time says little about the speed


class ReplicaSlots:
    """One replica and how many of its slots this process has taken."""

    __slots__ = ("aside_since", "breaker", "member", "view")

    def __init__(self, view: ReplicaView, member: Member) -> None:
        self.view = view
        self.member = member
        self.breaker = Breaker()
        self.aside_since: float | None = None

    @property
    def busy(self) -> int:
        return self.member.busy

    @property
    def since(self) -> list[float]:
        """When each slot that this process has was taken."""
        return [taken.began for taken in self.member.taken]

    @property
    def serves(self) -> bool:
        return self.aside_since is None and self.view.state == State.READY

    @property
    def label(self) -> str:
        return f"{self.view.model}/{self.view.number}"


@dataclass(slots=True, eq=False)
class Placement:
    """A request that has a slot. ``cached``: the share of its prompt that the replica was thought to remember; ``unread``: tokens
    of others that it had to read before; ``was_read``: it has the prompt in its cache now; ``busy_seconds`` and
    ``reading_seconds``: the member's, when the slot was taken and when the prompt was read, and at the end the differences."""

    replica: ReplicaSlots
    cached: float
    unread: float
    taken: Taken
    busy_seconds: float
    reading_seconds: float
    was_read: bool = False
    at_work: int = 1  # slots in use, on average, once it is over


class Router:
    def __init__(self, policy: Policy, most_entries: int) -> None:
        self.replicas: dict[int, ReplicaSlots] = {}
        self.fleet = Fleet(policy, most_entries)
        self.budget = RetryBudget()
        self._ailing: set[int] = set()  # whose breaker is not closed
        self._kept = Mean()  # the share of what replicas were thought to remember that they did

    # -- who there is ----------------------------------------------------------------------------------------------------
    def update(self, views: Iterable[ReplicaView], seen_at: float, *, have_host_cache: bool = True) -> None:
        """Takes over a snapshot read at ``seen_at``."""
        known, replicas = self.replicas, {}
        for view in views:
            replica = known.get(view.id)
            if replica is None:
                replica = ReplicaSlots(view, self.fleet.put(view.id, view.slots, has_host_cache=have_host_cache))
            elif (view.base_url, view.api_key) != (replica.view.base_url, replica.view.api_key):
                self.fleet.forget(replica.member)
            replica.view = view
            self.fleet.put(view.id, view.slots, has_host_cache=have_host_cache)
            if replica.aside_since is not None and replica.aside_since < seen_at:
                replica.aside_since = None
            self.fleet.open(replica.member, replica.serves)
            replicas[view.id] = replica
        for number in known.keys() - replicas.keys():
            self.fleet.remove(known[number].member)
            self._ailing.discard(number)
        self.replicas = replicas  # at once: other threads show figures of them

    def taken_elsewhere(self, slots: Mapping[int, int]) -> None:
        for number, replica in self.replicas.items():
            self.fleet.taken_elsewhere(replica.member, slots.get(number, 0))

    @property
    def serving(self) -> list[ReplicaSlots]:
        return [replica for replica in self.replicas.values() if replica.serves]

    @property
    def has_free_slot(self) -> bool:
        """That somebody may have now."""
        if not self._ailing:
            return self.will_have_free_slot
        resting = self._resting(monotonic())
        if any(replica.member.is_free for replica in self._serving_but(resting)):
            return True
        return bool(resting) and not self._serves_anybody_but(resting) and self.will_have_free_slot

    @property
    def will_have_free_slot(self) -> bool:
        """Also of those that rest after a failure."""
        return any(replica.member.is_free and replica.serves for replica in self.replicas.values())

    def failed(self, replica: ReplicaSlots, *, aside: bool) -> None:
        """It gave no answer; ``aside``: it gets nothing until a later snapshot shows it ready, and remembers nothing then."""
        if self.replicas.get(replica.view.id) is not replica:  # it has gone meanwhile
            return
        now = monotonic()
        replica.breaker.failed(now)
        self._ailing.add(replica.view.id)
        if aside:
            replica.aside_since = now
            self.fleet.forget(replica.member)
            self.fleet.open(replica.member, False)

    def succeeded(self, replica: ReplicaSlots) -> None:
        if replica.view.id in self._ailing:
            self._ailing.discard(replica.view.id)
            replica.breaker.succeeded()

    # -- the way of a request ----------------------------------------------------------------------------------------------
    def choice(
        self, prompt: Prompt, tokens: Request, excluded: frozenset[int], *, waited: float | None = 0.0
    ) -> Choice | None:
        """None when nobody can have it. The one chosen may not be free: waiting for it is better than any other. ``waited``:
        seconds for which it has let free slots pass; None: it takes one."""
        now, kept = monotonic(), self._kept.value
        if not self._ailing:
            return self.fleet.choose(tokens, now, prompt, excluded, kept, waited=waited)
        refused = excluded | self._resting(now)
        choice = self.fleet.choose(tokens, now, prompt, refused, kept, waited=waited)
        if choice is None and not self._serves_anybody_but(refused):
            # A try is better than none.
            choice = self.fleet.choose(tokens, now, prompt, excluded, kept, waited=waited)
        return choice

    def _resting(self, now: float) -> frozenset[int]:
        """After failures."""
        known = [(number, self.replicas[number]) for number in self._ailing if number in self.replicas]
        return frozenset(number for number, replica in known if replica.breaker.rests(now, replica.since))

    def _serving_but(self, refused: frozenset[int]) -> Iterator[ReplicaSlots]:
        return (replica for number, replica in self.replicas.items() if replica.serves and number not in refused)

    def _serves_anybody_but(self, refused: frozenset[int]) -> bool:
        return next(self._serving_but(refused), None) is not None

    def place(self, choice: Choice, prompt: Prompt) -> Placement:
        """Takes the slot."""
        member, now = choice.member, monotonic()
        taken = self.fleet.take(choice, now, prompt)
        replica, (busy, read) = self.replicas[member.id], (member.busy_seconds, member.reading_seconds)
        return Placement(replica, choice.cached, choice.unread, taken, busy, read)

    def is_left(self, placement: Placement) -> None:
        """By its client, while its engine works on."""
        self.fleet.is_left(placement.taken)

    def has_read(self, placement: Placement) -> None:
        """It works, and has the prompt in its cache."""
        if not placement.was_read:
            placement.was_read = True
            member = placement.replica.member
            self.fleet.has_read(placement.taken, monotonic())
            placement.reading_seconds = member.reading_seconds
        self.succeeded(placement.replica)

    def give_back(self, placement: Placement) -> None:
        member, now = placement.replica.member, monotonic()
        self.fleet.give_back(placement.taken, now, was_read=placement.was_read)
        if (passed := now - placement.taken.began) > 0:
            placement.at_work = max(round((member.busy_seconds - placement.busy_seconds) / passed), 1)
        placement.reading_seconds = member.reading_seconds - placement.reading_seconds

    def learn(self, placement: Placement, count: TokenCount) -> None:
        """From what the engine says of an answer, whose slot was given back."""
        speeds = placement.replica.member.speeds
        read, written = count.prompt - count.cached, count.completion
        if count.prompt_per_second and read > 0:
            speeds.read(read + placement.unread, read / count.prompt_per_second)
        if count.tokens_per_second and written >= TELLING_ANSWER:
            # It stood still while others' prompts were read.
            took = written / count.tokens_per_second
            speeds.wrote(written, max(took - placement.reading_seconds, took / STANDS_STILL), placement.at_work)
        if placement.cached > 0 and count.prompt:
            self._kept.see(min(count.cached / (placement.cached * count.prompt), 1.0))
