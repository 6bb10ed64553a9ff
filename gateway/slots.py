"""Slots of replicas, in memory: who has one, and waiting for one. Decisions are in ``queue`` and ``cluster.balancer``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic

from cluster.balancer import Candidate, choose
from gateway import errors
from gateway.queue import FairQueue, QueueFull, estimated_wait
from models_app.demand import Report
from models_app.selectors import ModelView, ReplicaView
from models_app.states import COMING, State

# Position, estimated wait in milliseconds, and whether the model has to be loaded first. Whether it was told to anybody.
OnQueue = Callable[[int, int, bool], Awaitable[bool]]
# How quickly the mean time a slot is taken follows what is seen, and what it is taken for before anything was seen.
MEAN_WEIGHT = 0.1
FIRST_MEAN = 5.0
POSITION_EVERY = 0.5  # seconds between two looks whether somebody who waits and wants to know it has another position
TELL_EVERY = 5.0  # seconds after which the same position is told again, so that a line does not look dead
LIMITS_EVERY = 5.0  # and between two looks whether somebody has waited too long
LOAD_SECONDS = 10.0  # what loading a model is taken for before it was seen


class ReplicaSlots:
    """One replica and how many of its slots this process has taken."""

    __slots__ = ("aside_since", "busy", "view")

    def __init__(self, view: ReplicaView) -> None:
        self.view = view
        self.busy = 0
        self.aside_since: float | None = None

    @property
    def serves(self) -> bool:
        return self.aside_since is None and self.view.state == State.READY

    @property
    def label(self) -> str:
        return f"{self.view.model}/{self.view.number}"


class Lease:
    """One slot of one replica, until released."""

    __slots__ = ("_pool", "_since", "replica")

    def __init__(self, pool: ModelPool, replica: ReplicaSlots) -> None:
        self._pool: ModelPool | None = pool
        self._since = monotonic()
        self.replica = replica

    def release(self) -> None:
        """Gives the slot to whoever waits. The second call does nothing."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.give_back(self.replica, monotonic() - self._since)


class _Waiter:
    __slots__ = ("began", "excluded", "future", "user")

    def __init__(self, user: int, excluded: frozenset[int]) -> None:
        self.began = monotonic()
        self.user = user
        self.excluded = excluded
        self.future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()


class ModelPool:
    """The replicas of one model and the line in front of them."""

    def __init__(
        self,
        view: ModelView,
        queue_limit: int,
        coming_wait: float,
        queue_wait: float,
        wanted: Callable[[], object] = lambda: None,
    ) -> None:
        """``wanted`` is called when the first one waits for a model that has to be loaded."""
        self.view = view
        self._wanted = wanted
        self._gone = False
        self._used_at: float | None = None
        self.replicas: dict[int, ReplicaSlots] = {}
        self._queue: FairQueue[_Waiter] = FairQueue(queue_limit)
        self.coming_wait = coming_wait
        self._queue_wait = queue_wait
        self._cursor = 0
        self._mean = FIRST_MEAN
        self.prompt_per_second: float | None = None  # how fast the replicas read prompts, as last seen
        self.update(view, monotonic())

    # -- what there is -------------------------------------------------------------------------------------------------
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
        return self.view.state in COMING or any(r.aside_since is not None for r in self.replicas.values())

    @property
    def _longest_coming(self) -> float:
        """Seconds somebody waits while there is no replica."""
        return self._queue_wait if self.view.on_demand else self.coming_wait

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
        known = self.replicas
        self.replicas = {}
        for replica_view in views:
            replica = known.get(replica_view.id) or ReplicaSlots(replica_view)
            replica.view = replica_view
            if replica.aside_since is not None and replica.aside_since < seen_at:
                replica.aside_since = None
            self.replicas[replica_view.id] = replica
        if view is None or not (self.slots or self._coming):
            self._refuse_all()
        for waiter in [
            waiter for waiter in self._queue if waiter.excluded and self._has_failed_everywhere(waiter.excluded)
        ]:
            self._refuse(waiter, errors.upstream_error())
        self._serve()

    def failed(self, replica: ReplicaSlots, *, unreachable: bool) -> None:
        """It gave no answer. One that cannot be reached, or may be on its way out for it is loaded when asked for, gets nothing
        until a later snapshot shows it ready."""
        if unreachable or self.view.on_demand:
            replica.aside_since = monotonic()

    # -- taking and giving back ---------------------------------------------------------------------------------------
    def any_replica(self) -> ReplicaSlots | None:
        """For requests that need no slot."""
        serving = [replica for replica in self.replicas.values() if replica.serves]
        self._used_at = monotonic()
        return min(serving, key=lambda replica: replica.busy, default=None)

    def try_take(self, excluded: frozenset[int]) -> Lease | None:
        """A slot that is free right now, unless others wait for it."""
        return None if self._queue else self._take(excluded)

    def _take(self, excluded: frozenset[int]) -> Lease | None:
        candidates = [
            Candidate(number, replica.view.slots, replica.busy)
            for number, replica in self.replicas.items()
            if replica.serves and number not in excluded
        ]
        chosen = choose(candidates, self._cursor)
        if chosen is None:
            return None
        self._cursor += 1
        replica = self.replicas[chosen.id]
        replica.busy += 1
        self._used_at = monotonic()
        return Lease(self, replica)

    def give_back(self, replica: ReplicaSlots, seconds: float) -> None:
        replica.busy -= 1
        self._used_at = monotonic()
        self._mean += MEAN_WEIGHT * (seconds - self._mean)
        self._serve()

    def _can_take(self, waiter: _Waiter) -> bool:
        return any(
            replica.serves and replica.busy < replica.view.slots and number not in waiter.excluded
            for number, replica in self.replicas.items()
        )

    def _serve(self) -> None:
        while self._queue and any(r.serves and r.busy < r.view.slots for r in self.replicas.values()):
            waiter = self._queue.pop(self._can_take)
            if waiter is None:
                return
            lease = self._take(waiter.excluded)
            if lease is not None and not waiter.future.done():
                waiter.future.set_result(lease)
            elif lease is not None:
                lease.release()

    def _refuse_all(self) -> None:
        for waiter in list(self._queue):
            self._refuse(waiter, errors.model_not_available(self.view.name, self.retry_after()))

    def _refuse(self, waiter: _Waiter, error: errors.GatewayError) -> None:
        self._queue.remove(waiter.user, waiter)
        if not waiter.future.done():
            waiter.future.set_exception(error)

    # -- waiting ------------------------------------------------------------------------------------------------------
    def retry_after(self) -> int:
        """Whole seconds after which another try makes sense."""
        waiting = estimated_wait(len(self._queue) + 1, self.slots, self._mean)
        return max(1, min(round(waiting), 60)) if self.slots else 10

    async def take(
        self,
        user: int,
        excluded: frozenset[int] = frozenset(),
        on_queue: OnQueue | None = None,
        *,
        returned: bool = False,
    ) -> Lease:
        """A slot, waited for in turn; before everybody by what was ``returned``: it had one and lost it. Raises GatewayError when
        there will be none."""
        if (lease := self.try_take(excluded)) is not None:
            return lease
        self._used_at = monotonic()
        if not self.slots and not self._coming:
            raise errors.model_not_available(self.view.name, self.retry_after())
        self._refuse_if_none_left(excluded)
        waiter = _Waiter(user, excluded)
        try:
            if excluded or returned:
                self._queue.push_returned(waiter)
            else:
                self._queue.push(user, waiter)
        except QueueFull:
            raise errors.overloaded(self.retry_after()) from None
        if self.view.on_demand and not self.slots:
            self._wanted()
        try:
            return await self._wait(waiter, on_queue)
        finally:
            self._leave(waiter)

    def _refuse_if_none_left(self, excluded: frozenset[int]) -> None:
        """Raises GatewayError when every replica has failed the request that excludes them."""
        if excluded and self._has_failed_everywhere(excluded):
            raise errors.upstream_error()

    def _has_failed_everywhere(self, excluded: frozenset[int]) -> bool:
        """One that is loaded when asked for comes back as another replica: with none there is still hope."""
        serving = [number for number, replica in self.replicas.items() if replica.serves]
        return excluded.issuperset(serving) and (bool(serving) or not self.view.on_demand)

    def _leave(self, waiter: _Waiter) -> None:
        """Whoever stops waiting before taking the slot it was given passes it on."""
        self._queue.remove(waiter.user, waiter)
        future = waiter.future
        if not future.done():
            future.cancel()

    async def _wait(self, waiter: _Waiter, on_queue: OnQueue | None) -> Lease:
        began, told, told_at = waiter.began, 0, 0.0
        try:
            while not waiter.future.done():
                waited = monotonic() - began
                if not self.slots and waited >= self._longest_coming:
                    raise errors.model_not_available(self.view.name, self.retry_after())
                if waited >= self._queue_wait:
                    raise errors.overloaded(self.retry_after())
                self._refuse_if_none_left(waiter.excluded)
                if on_queue is not None:
                    position = self._queue.position(waiter.user, waiter)
                    if position and (position != told or monotonic() - told_at >= TELL_EVERY):
                        wait = round(1000 * self._expected_wait(position, waited))
                        if await on_queue(position, wait, not self.slots):
                            told, told_at = position, monotonic()
                limit = self._queue_wait if self.slots else self._longest_coming
                step = POSITION_EVERY if on_queue is not None else LIMITS_EVERY
                await asyncio.wait({waiter.future}, timeout=max(0.01, min(step, limit - waited)))
        except BaseException:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                waiter.future.result().release()
            raise
        return waiter.future.result()

    def _expected_wait(self, position: int, waited: float) -> float:
        """Seconds. While nothing is loaded, what loading took last counts, less what has passed."""
        if self.slots:
            return estimated_wait(position, self.slots, self._mean)
        load = self.view.load_seconds or LOAD_SECONDS
        return max(1.0, load - waited) + estimated_wait(position - 1, self.view.slots, self._mean)
