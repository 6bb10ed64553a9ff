"""Slots of replicas, in memory: who has one, and waiting for one. Decisions are in ``queue`` and ``cluster.balancer``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from cluster.balancer import Policy, Request
from cluster.fleet import Choice
from cluster.members import Member
from cluster.prefixes import NOTHING, Prompt
from gateway import errors, metrics
from gateway.expectation import Expectation
from gateway.queue import FairQueue, Priority, QueueFull, estimated_wait
from gateway.routing import Placement, ReplicaSlots, Router
from gateway.usage import TokenCount
from models_app.demand import Report
from models_app.selectors import ModelView, ReplicaView
from models_app.states import COMING, State

# Position, estimated wait in milliseconds, and whether the model has to be loaded first. Whether it was told to anybody.
OnQueue = Callable[[int, int, bool], Awaitable[bool]]
LOOK_EVERY = 0.25  # seconds between two looks at slots that are free and wanted by nobody who waits
PREFIX_ENTRIES = 200_000  # of each model; about 35 MB, where they are all in use
POSITION_EVERY = 0.5  # seconds between two looks whether somebody who waits and wants to know it has another position
POSITIONS_HOLD = 0.25  # so long all are told by one look
TELL_EVERY = 5.0  # seconds after which the same position is told again, so that a line does not look dead
LIMITS_EVERY = 5.0  # and between two looks whether somebody has waited too long
LOAD_SECONDS = 10.0  # what loading a model is taken for before it was seen
# Seconds after which a batch request counts as an interactive one; half of what it may wait, where that is less.
BATCH_AGEING = 60.0
LONGEST_RETRY_AFTER = 60  # seconds; the official clients do not come back by themselves for more
NO_TOKENS = Request()


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """Who wants a slot, and for what. ``cost`` in tokens, ``size`` in bytes; ``weight``: so many times as much as others get is
    the tenant's due; ``deadline`` (monotonic): until then or not at all;
    ``prompt`` and ``tokens``: by what the replica is chosen; ``excluded``: ids of replicas that have failed it already;
    ``returned``: it had a slot and lost it."""

    tenant: Hashable
    cost: int = 1
    size: int = 0
    priority: Priority = "interactive"
    deadline: float | None = None
    prompt: Prompt = NOTHING
    tokens: Request = NO_TOKENS
    excluded: frozenset[int] = frozenset()
    returned: bool = False
    weight: int = 1

    @property
    def goes_first(self) -> bool:
        """It has waited already."""
        return self.returned or bool(self.excluded)


@dataclass(frozen=True, slots=True)
class Standing:
    """What held when a request joined the line; 0 and 0: it did not wait."""

    position: int = 0
    estimate_ms: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"x-queue-position": str(self.position), "x-queue-estimate-ms": str(self.estimate_ms)}


class Lease:
    """One slot of one replica, until released."""

    __slots__ = ("_pool", "placement", "standing")

    def __init__(self, pool: ModelPool, placement: Placement) -> None:
        self._pool: ModelPool | None = pool
        self.placement = placement
        self.standing = Standing()

    @property
    def replica(self) -> ReplicaSlots:
        return self.placement.replica

    def is_left(self) -> None:
        """Its client has gone, the engine works on."""
        if self._pool is not None:
            self._pool.router.is_left(self.placement)

    def release(self) -> None:
        """Gives the slot to whoever waits. The second call does nothing."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.give_back(self.placement)


class _Waiter:
    """``waits_for``: a replica that is better for it than any free slot, when that had given back so many (``returns``); it looks
    at others again at ``looks_at``. ``held``: the hash of what it lets free slots pass for, which was read, and since when."""

    __slots__ = ("began", "future", "held", "looks_at", "request", "returns", "standing", "waits_for")

    def __init__(self, request: SlotRequest) -> None:
        self.waits_for: Member | None = None
        self.returns = 0
        self.looks_at = 0.0
        self.held: tuple[int, float] | None = None
        self.began = monotonic()
        self.request = request
        self.standing = Standing()
        self.future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()


class ModelPool:
    """The replicas of one model and the line in front of them."""

    def __init__(
        self,
        view: ModelView,
        queue_limit: int,
        queue_bytes: int,
        coming_wait: float,
        queue_wait: float,
        wanted: Callable[[], object] = lambda: None,
        policy: Policy = Policy.COST,
    ) -> None:
        """``wanted`` is called when the first one waits for a model that has to be loaded."""
        self.view = view
        self._wanted = wanted
        self._gone = False
        self._used_at: float | None = None
        self.router = Router(policy, PREFIX_ENTRIES)
        self._choice: Choice | None = None  # of the waiter that was asked last
        self._looking: asyncio.TimerHandle | None = None
        self._positions: dict[_Waiter, int] = {}
        self._positions_at = 0.0
        self._queue: FairQueue[_Waiter] = FairQueue(queue_limit, queue_bytes, min(BATCH_AGEING, queue_wait / 2))
        self._coming_wait = coming_wait
        self.queue_wait = queue_wait
        self.expectation = Expectation()
        self.prompt_per_second: float | None = None  # how fast a replica read a prompt, as last seen
        self.update(view, monotonic())

    # -- what there is -------------------------------------------------------------------------------------------------
    @property
    def replicas(self) -> dict[int, ReplicaSlots]:
        return self.router.replicas

    @property
    def _mean_seconds(self) -> float:
        """That a slot is taken."""
        return self.router.fleet.durations.mean

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def slots(self) -> int:
        return sum(replica.view.slots for replica in self.replicas.values() if replica.serves)

    @property
    def busy(self) -> int:
        return sum(replica.busy for replica in self.replicas.values())

    @property
    def _coming(self) -> bool:
        if self._gone:
            return False
        if self.view.on_demand:
            return self.view.state != State.FAILED
        is_coming = self.view.state in COMING or self.view.coming
        return is_coming or any(replica.aside_since is not None for replica in self.replicas.values())

    def _longest_coming(self, request: SlotRequest) -> float:
        """Seconds it waits while there is no replica. Whoever has half an answer waits as long as for a slot."""
        return self.queue_wait if self.view.on_demand or request.returned else self._coming_wait

    def demand(self) -> Report | None:
        """How much it is asked for; None when it never was."""
        if self._used_at is None:
            return None
        now, waiting = monotonic(), [waiter.began for waiter in self._queue]
        used = 0.0 if waiting or self.busy else now - self._used_at
        return Report(len(waiting), now - min(waiting, default=now), self.busy, used)

    def update(self, view: ModelView | None, seen_at: float) -> None:
        """Takes over a snapshot read at ``seen_at``; None: the model is gone."""
        self._gone = view is None
        if view is not None:
            self.view = view
        views: Iterable[ReplicaView] = view.replicas if view is not None else ()
        self.router.update(views, seen_at, have_host_cache=self.view.prompt_cache > 0)
        if view is None or not (self.slots or self._coming):
            self._refuse_all()
        for waiter in [waiter for waiter in self._queue if self._has_failed_everywhere(waiter.request.excluded)]:
            self._refuse(waiter, errors.upstream_error())
        self._serve()

    def failed(self, replica: ReplicaSlots, *, unreachable: bool) -> None:
        """It gave no answer. One that cannot be reached, or may be on its way out for it is loaded when asked for, gets nothing
        until a later snapshot shows it ready."""
        self.router.failed(replica, aside=unreachable or self.view.on_demand)

    def taken_elsewhere(self, slots: Mapping[int, int]) -> None:
        """How many of each replica's other web processes have."""
        self.router.taken_elsewhere(slots)
        self._serve()

    # -- taking and giving back ---------------------------------------------------------------------------------------
    def any_replica(self, excluded: frozenset[int] = frozenset()) -> ReplicaSlots | None:
        """For requests that need no slot."""
        serving = [replica for replica in self.router.serving if replica.view.id not in excluded]
        self._used_at = monotonic()
        return min(serving, key=lambda replica: replica.busy, default=None)

    def try_take(self, request: SlotRequest) -> Lease | None:
        """A slot that is free right now, unless others wait for it or waiting for another is better."""
        if self._queue or not self.router.has_free_slot:
            return None
        is_over = request.deadline is not None and monotonic() >= request.deadline
        choice = self._choose(request, None if is_over else 0.0)
        return self._lease(choice, request) if choice is not None and choice.is_free else None

    def _choose(self, request: SlotRequest, waited: float | None = 0.0) -> Choice | None:
        """``waited``: seconds for which it has let free slots pass; None: it takes one."""
        return self.router.choice(request.prompt, request.tokens, request.excluded, waited=waited)

    def _waited(self, waiter: _Waiter) -> float | None:
        """Nobody is refused for waiting too long who let free slots pass: it waits half of that time at most."""
        now, longest, deadline = monotonic(), self.queue_wait, waiter.request.deadline
        if deadline is not None:
            longest = min(longest, deadline - waiter.began)
        if now - waiter.began >= longest / 2:
            return None
        return now - waiter.held[1] if waiter.held is not None else 0.0

    def _lease(self, choice: Choice, request: SlotRequest) -> Lease:
        self._used_at = monotonic()
        return Lease(self, self.router.place(choice, request.prompt))

    def give_back(self, placement: Placement) -> None:
        self._used_at = monotonic()
        self.router.give_back(placement)
        self._serve()

    def _wants(self, waiter: _Waiter) -> bool:
        """Whether it takes one of the slots that are free. Whoever waits for a certain one is asked again when that was given
        back, and now and then: many may wait."""
        now, member = monotonic(), waiter.waits_for
        if member is not None and member.returns == waiter.returns and now < waiter.looks_at:
            return False
        self._waits_for_nobody(waiter)
        choice = self._choice = self._choose(waiter.request, self._waited(waiter))
        if choice is None or choice.is_free:
            return choice is not None
        choice.member.promised += 1
        waiter.waits_for, waiter.returns = choice.member, choice.member.returns
        waiter.looks_at = now + LOOK_EVERY / 2
        if choice.held is not None and choice.is_read and waiter.held is None:
            waiter.held = (choice.held, now)
        return False

    @staticmethod
    def _waits_for_nobody(waiter: _Waiter) -> None:
        """It waits for nobody in particular any more."""
        if waiter.waits_for is not None:
            waiter.waits_for.promised -= 1
            waiter.waits_for = None

    def _serve(self) -> None:
        while self._queue and self.router.has_free_slot:
            waiter = self._queue.pop(monotonic(), self._wants)
            if waiter is None or self._choice is None:
                break
            if waiter.held is not None:
                digest, since = waiter.held
                self.router.fleet.has_waited(digest, monotonic() - since)
            lease = self._lease(self._choice, waiter.request)
            if waiter.future.done():
                lease.release()
                continue
            lease.standing = waiter.standing
            waiter.future.set_result(lease)
        self._look_again()

    def _look_again(self) -> None:
        """As time passes, whoever lets slots go by for a better one may want one of them after all."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._queue and self.router.will_have_free_slot:
            self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY, self._serve)

    def learn(self, lease: Lease, count: TokenCount, answers: int, size: int) -> None:
        """From a whole answer. ``size``: bytes of its prompt, 0 where they are not text."""
        self.expectation.learn(count, answers, size)
        self.router.learn(lease.placement, count)
        metrics.EXPECTED_CACHED_TOKENS.labels(self.view.name).inc(lease.placement.cached * count.prompt)

    def _refuse_all(self) -> None:
        for waiter in list(self._queue):
            self._refuse(waiter, errors.model_not_available(self.view.name, self.retry_after()))

    def _refuse(self, waiter: _Waiter, error: errors.GatewayError) -> None:
        self._queue.remove(waiter)
        if not waiter.future.done():
            waiter.future.set_exception(error)

    # -- waiting ------------------------------------------------------------------------------------------------------
    def retry_after(self) -> int:
        """Whole seconds after which another try makes sense."""
        waiting = estimated_wait(len(self._queue) + 1, self.slots, self._mean_seconds)
        return max(1, min(round(waiting), LONGEST_RETRY_AFTER)) if self.slots else 10

    async def take(self, request: SlotRequest, on_queue: OnQueue | None = None) -> Lease:
        """A slot, waited for in turn. Raises GatewayError when there will be none."""
        if not request.goes_first:
            self.router.budget.asked()
        if (lease := self.try_take(request)) is not None:
            return lease
        self._used_at = monotonic()
        if not self.slots and not self._coming:
            raise errors.model_not_available(self.view.name, self.retry_after())
        self._refuse_if_none_left(request.excluded)
        waiter = _Waiter(request)
        try:
            self._join(waiter)
            if self.view.on_demand and not self.slots:
                self._wanted()
            return await self._wait(waiter, on_queue)
        except errors.GatewayError as error:
            error.headers |= waiter.standing.headers
            raise
        finally:
            self._leave(waiter)

    def _join(self, waiter: _Waiter) -> None:
        """Raises GatewayError for whom the line is too long."""
        request, now = waiter.request, waiter.began
        if request.goes_first:
            self._queue.push_returned(waiter, now, size=request.size)
        else:
            self._push(waiter)
        self._serve()  # a slot may be free that nobody who waits wants
        waiter.standing = self._standing(waiter, now)
        if not request.goes_first and self._comes_too_late(waiter) and not self._takes_what_is_free(waiter):
            raise self._too_late(waiter)

    def _push(self, waiter: _Waiter) -> None:
        request, last = waiter.request, len(self._queue) + 1
        try:
            going = self._queue.push(
                waiter,
                request.tenant,
                waiter.began,
                cost=request.cost,
                size=request.size,
                priority=request.priority,
                weight=request.weight,
            )
        except QueueFull:
            waiter.standing = Standing(last, round(1000 * self._expected_wait(last, 0)))
            if not self._takes_what_is_free(waiter):
                raise errors.overloaded(self.retry_after()) from None
            return
        for other in going:
            if not self._takes_what_is_free(other):
                self._refuse(other, errors.overloaded(self.retry_after()))

    def _takes_what_is_free(self, waiter: _Waiter) -> bool:
        """Before it is refused: it may have let free slots pass for a better one."""
        choice = self._choose(waiter.request, None) if self.router.has_free_slot else None
        if choice is None or not choice.is_free or waiter.future.done():
            return False
        self._queue.remove(waiter)
        self._waits_for_nobody(waiter)
        lease = self._lease(choice, waiter.request)
        lease.standing = waiter.standing
        waiter.future.set_result(lease)
        return True

    def _position(self, waiter: _Waiter, now: float) -> int:
        """As it was a moment ago: of thousands each asks twice a second."""
        if now - self._positions_at >= POSITIONS_HOLD:
            self._positions = {one: place for place, one in enumerate(self._queue.in_order(now), 1)}
            self._positions_at = now
        return self._positions.get(waiter, 0) or self._queue.position(waiter, now)

    def _standing(self, waiter: _Waiter, now: float, position: int | None = None) -> Standing:
        if position is None:
            position = self._queue.position(waiter, now)
        return Standing(position, round(1000 * self._expected_wait(position, now - waiter.began)) if position else 0)

    def _comes_too_late(self, waiter: _Waiter) -> bool:
        """Where nothing was seen yet that tells how long it takes, only a deadline that is over counts."""
        deadline, standing = waiter.request.deadline, waiter.standing
        if deadline is None or not standing.position:
            return False
        known = self.router.fleet.durations.was_seen if self.slots else self.view.load_seconds is not None
        return waiter.began + (standing.estimate_ms / 1000 if known else 0) >= deadline

    def _too_late(self, waiter: _Waiter) -> errors.GatewayError:
        """Once the line is so much shorter, its deadline is met."""
        now, deadline = monotonic(), waiter.request.deadline or 0
        too_much = math.ceil(now - deadline + self._standing(waiter, now).estimate_ms / 1000)
        return errors.overloaded(max(1, min(too_much, LONGEST_RETRY_AFTER)))

    def _refuse_if_none_left(self, excluded: frozenset[int]) -> None:
        """Raises GatewayError when every replica has failed the request that excludes them."""
        if self._has_failed_everywhere(excluded):
            raise errors.upstream_error()

    def _has_failed_everywhere(self, excluded: frozenset[int]) -> bool:
        """One that is loaded when asked for comes back as another replica: with none there is still hope."""
        if not excluded:
            return False
        serving = [replica.view.id for replica in self.router.serving]
        return excluded.issuperset(serving) and (bool(serving) or not self.view.on_demand)

    def _leave(self, waiter: _Waiter) -> None:
        """Whoever stops waiting before taking the slot it was given passes it on."""
        self._queue.remove(waiter)
        if not self._queue:
            self._positions = {}
        self._waits_for_nobody(waiter)
        future = waiter.future
        if not future.done():
            future.cancel()

    async def _wait(self, waiter: _Waiter, on_queue: OnQueue | None) -> Lease:
        told, told_at = 0, 0.0
        try:
            while not waiter.future.done():
                left = self._left_to_wait(waiter)
                self._refuse_if_none_left(waiter.request.excluded)
                if on_queue is not None:
                    now = monotonic()
                    standing = self._standing(waiter, now, self._position(waiter, now))
                    position = standing.position
                    is_news = position and (position != told or now - told_at >= TELL_EVERY)
                    if is_news and await on_queue(position, standing.estimate_ms, not self.slots):
                        told, told_at = position, monotonic()
                step = POSITION_EVERY if on_queue is not None else LIMITS_EVERY
                await asyncio.wait({waiter.future}, timeout=max(0.01, min(step, left)))
        except BaseException:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                waiter.future.result().release()
            raise
        return waiter.future.result()

    def _left_to_wait(self, waiter: _Waiter) -> float:
        """Seconds. Raises GatewayError when it has waited as long as it may, or will."""
        now, deadline = monotonic(), waiter.request.deadline
        waited = now - waiter.began
        longest = self.queue_wait if self.slots else self._longest_coming(waiter.request)
        if not self.slots and waited >= longest:
            raise errors.model_not_available(self.view.name, self.retry_after())
        if waited >= self.queue_wait:
            raise errors.overloaded(self.retry_after())
        left = longest - waited
        if deadline is None:
            return left
        if now >= deadline:
            raise self._too_late(waiter)
        return min(left, deadline - now)

    def _expected_wait(self, position: int, waited: float) -> float:
        """Seconds. While nothing is loaded, what loading took last counts, less what has passed."""
        if self.slots:
            return estimated_wait(position, self.slots, self._mean_seconds)
        load = self.view.load_seconds or LOAD_SECONDS
        return max(1.0, load - waited) + estimated_wait(position - 1, self.view.slots, self._mean_seconds)
