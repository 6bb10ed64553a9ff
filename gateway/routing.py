"""The replicas of one model: which of them serve, which one a request goes to, and what is learnt from how that went.

The choice is made by ``cluster.fleet``; here it meets the world: replicas that come and go, fail and recover, and figures that
engines report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from cluster.balancer import Policy, Request
from cluster.fleet import Choice, Fleet, Member
from cluster.prefixes import NOTHING, Prompt
from cluster.speeds import Mean
from gateway.breaker import Breaker, RetryBudget
from gateway.usage import TokenCount
from models_app.selectors import ReplicaView
from models_app.states import State

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
    def serves(self) -> bool:
        return self.aside_since is None and self.view.state == State.READY

    @property
    def label(self) -> str:
        return f"{self.view.model}/{self.view.number}"


@dataclass(slots=True, eq=False)
class Placement:
    """A request that has a slot. ``cached``: the share of its prompt that the replica was thought to remember; ``at_work``: its
    slots in use then; ``was_read``: it has the prompt in its cache now."""

    replica: ReplicaSlots
    began: float
    prompt: Prompt
    cached: float
    at_work: int
    was_read: bool = False


class Router:
    def __init__(self, policy: Policy, most_entries: int) -> None:
        self.replicas: dict[int, ReplicaSlots] = {}
        self.fleet = Fleet(policy, most_entries)
        self.budget = RetryBudget()
        self._ailing: set[int] = set()  # whose breaker is not closed
        self._kept = Mean()  # the share of what replicas were thought to remember that they did

    # -- who there is ----------------------------------------------------------------------------------------------------
    def update(self, views: Iterable[ReplicaView], seen_at: float) -> None:
        """Takes over a snapshot read at ``seen_at``."""
        known, self.replicas = self.replicas, {}
        for view in views:
            replica = known.pop(view.id, None)
            if replica is None:
                replica = ReplicaSlots(view, self.fleet.put(view.id, view.slots))
            elif (view.base_url, view.api_key) != (replica.view.base_url, replica.view.api_key):
                self.fleet.forget(replica.member)
            replica.view = view
            self.fleet.put(view.id, view.slots)
            if replica.aside_since is not None and replica.aside_since < seen_at:
                replica.aside_since = None
            self.fleet.open(replica.member, replica.serves)
            self.replicas[view.id] = replica
        for gone in known.values():
            self.fleet.remove(gone.member)

    def taken_elsewhere(self, slots: Mapping[int, int]) -> None:
        for number, replica in self.replicas.items():
            self.fleet.taken_elsewhere(replica.member, slots.get(number, 0))

    @property
    def serving(self) -> list[ReplicaSlots]:
        return [replica for replica in self.replicas.values() if replica.serves]

    @property
    def has_free_slot(self) -> bool:
        return any(replica.serves and replica.member.is_free for replica in self.replicas.values())

    def failed(self, replica: ReplicaSlots, *, aside: bool) -> None:
        """It gave no answer; ``aside``: it gets nothing until a later snapshot shows it ready, and remembers nothing then."""
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
    def choice(self, prompt: Prompt, tokens: Request, excluded: frozenset[int]) -> Choice | None:
        """None when nobody can have it. The one chosen may have no free slot: waiting for it is better than any other."""
        now = monotonic()
        allowed = self._allowed(now, excluded) if excluded or self._ailing else None
        return self.fleet.choose(tokens, now, prompt, allowed, self._kept.value)

    def _allowed(self, now: float, excluded: frozenset[int]) -> set[int]:
        """Those that rest after failures only where there is nobody else: a try is better than none."""
        serving = {number for number, replica in self.replicas.items() if replica.serves and number not in excluded}
        resting = {
            number
            for number in serving & self._ailing
            if self.replicas[number].breaker.rests(now, self.replicas[number].busy)
        }
        return serving - resting or serving

    def place(self, choice: Choice, prompt: Prompt) -> Placement:
        """Takes the slot."""
        member, now = choice.member, monotonic()
        self.fleet.take(member, now)
        return Placement(self.replicas[member.id], now, prompt, choice.cached, member.busy)

    def give_back(self, placement: Placement) -> None:
        member = placement.replica.member
        self.fleet.give_back(member, placement.began, monotonic())
        if placement.was_read and placement.prompt is not NOTHING:
            self.fleet.remember(member, placement.prompt)

    def learn(self, placement: Placement, count: TokenCount) -> None:
        """From what the engine says of an answer."""
        speeds = placement.replica.member.speeds
        if count.prompt_per_second is not None:
            speeds.read(count.prompt_per_second)
        if count.tokens_per_second is not None and count.completion >= TELLING_ANSWER:
            speeds.wrote(count.tokens_per_second, placement.at_work)
        if placement.cached > 0 and count.prompt:
            self._kept.see(min(count.cached / (placement.cached * count.prompt), 1.0))
