"""Simulated clients, the gateway's own ``ModelPool`` (line, router, fleet, expectations) and simulated replicas, in told time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import thread_time
from typing import Any

from bench.simulated.clock import SimulatedLoop
from bench.simulated.replica import Died, Job, Machine, SimulatedReplica
from bench.simulated.traces import Conversation, Turn
from cluster.balancer import Policy
from cluster.fleet import Choice
from cluster.prefixes import Prompt
from gateway import errors, routing, slots
from gateway.breaker import ATTEMPTS
from gateway.slots import Lease, ModelPool, SlotRequest
from gateway.usage import TELLING_PROMPT, TokenCount
from models_app.selectors import ModelView, ReplicaView
from models_app.states import State

MOST_ANSWER = 1024  # tokens; the model's limit
CONNECT = 0.005  # seconds until a failed connection is noticed


@dataclass(frozen=True)
class Park:
    """``nodes``: machines, which share the replicas and die as a whole. ``slow``: the share of nodes that work at ``slowness``
    of the others' speed. ``deaths``: of nodes, in all, at random moments of ``span`` seconds; each is back, and empty, after
    ``restart``. ``failing``: replicas that refuse everything at once. ``spread``: sigma of the log-normal factor by which each
    machine is faster or slower."""

    replicas: int = 16
    nodes: int = 8
    machine: Machine = field(default_factory=Machine)
    slow: float = 0.0
    slowness: float = 0.3
    deaths: int = 0
    span: float = 400.0
    restart: float = 20.0
    failing: int = 0
    spread: float = 0.0


@dataclass(slots=True)
class Seen:
    """Of one request. ``first``: seconds to the first token."""

    user: int
    first: float
    total: float
    prompt: int
    cached: int
    answer: int


@dataclass
class Outcome:
    requests: list[Seen] = field(default_factory=list)
    failed: int = 0
    decisions: list[float] = field(default_factory=list)  # seconds of real time
    expected: float = 0.0  # cached tokens that the router counted on
    seconds: float = 0.0  # simulated, to the last answer


class World:
    def __init__(self, park: Park, policy: Policy, seed: int, is_burst_kept: bool = False) -> None:
        self.park = park
        self.outcome = Outcome()
        self._chance = random.Random(seed)
        self._lives = [0] * park.replicas
        self._away: set[int] = set()
        self._loop = SimulatedLoop()
        slots.monotonic = routing.monotonic = self._loop.time  # type: ignore[attr-defined]
        self._factors = [self._chance.lognormvariate(0, park.spread) for _ in range(park.nodes)]
        self._replicas = [self._replica(number) for number in range(park.replicas)]
        self._policy = policy
        self._is_burst_kept = is_burst_kept

    def _replica(self, number: int) -> SimulatedReplica:
        machine, nodes = self.park.machine, self.park.nodes
        factor = self._factors[number % nodes] if self.park.spread else 1.0
        if number % nodes < self.park.slow * nodes:
            factor *= self.park.slowness
        machine = replace(machine, reading=machine.reading * factor, writing=machine.writing * factor)
        replica = SimulatedReplica(machine, self._loop)
        replica.fails_at_once = number < self.park.failing
        return replica

    # -- what the gateway sees ---------------------------------------------------------------------------------------------
    def _view(self) -> ModelView:
        count, context = self.park.machine.slots, 8192
        views = tuple(
            ReplicaView(number, "m", number, f"n{number % self.park.nodes}", "", str(life), count, context, State.READY)
            for number, life in enumerate(self._lives)
            if number not in self._away
        )
        slots, host = count * self.park.replicas, self.park.machine.host
        return ModelView(
            "m", State.READY, MOST_ANSWER, context, False, "", 0, views, slots=slots, prompt_cache=min(host, 1)
        )

    def _make_pool(self) -> ModelPool:
        pool = ModelPool(self._view(), 10**6, 10**12, 30.0, 3600.0, policy=self._policy)
        choice, place = pool.router.choice, pool.router.place

        def timed(*arguments: Any, **more: Any) -> Choice | None:
            began = thread_time()
            chosen = choice(*arguments, **more)
            self.outcome.decisions.append(thread_time() - began)
            return chosen

        def placed(chosen: Choice, prompt: Prompt) -> routing.Placement:
            pool.router.fleet.remember(chosen.member, prompt)
            return place(chosen, prompt)

        pool.router.choice = timed  # type: ignore[method-assign]
        if self._is_burst_kept:
            pool.router.place = placed  # type: ignore[method-assign]
        return pool

    # -- the run -----------------------------------------------------------------------------------------------------------
    def run(self, conversations: Sequence[Conversation]) -> Outcome:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._run(conversations))
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
        return self.outcome

    async def _run(self, conversations: Sequence[Conversation]) -> None:
        self._pool = self._make_pool()
        deaths = [self._loop.create_task(self._death()) for _ in range(self.park.deaths)]
        await asyncio.gather(*(self._talk(conversation) for conversation in conversations))
        self.outcome.seconds = self._loop.time()
        for death in deaths:
            death.cancel()

    async def _death(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, self.park.span))
        node = self._chance.randrange(self.park.nodes)
        gone = {number for number in range(self.park.replicas) if number % self.park.nodes == node}
        self._away |= gone
        for number in gone:
            self._lives[number] += 1
            self._replicas[number].fails_at_once = True
            self._replicas[number].die()
        await asyncio.sleep(self.park.restart)
        for number in gone:
            self._replicas[number].fails_at_once = False
        self._away -= gone
        self._pool.update(self._view(), self._loop.time())

    async def _talk(self, conversation: Conversation) -> None:
        for turn in conversation.turns:
            now = self._loop.time()
            await asyncio.sleep(max(turn.time - now, turn.think))
            try:
                await self._ask(conversation.user, turn)
            except errors.GatewayError:
                self.outcome.failed += 1
                return

    async def _ask(self, user: int, turn: Turn) -> None:
        """As ``gateway.exchange`` does."""
        began, pool, failed = self._loop.time(), self._pool, frozenset[int]()
        first = 0.0
        for _ in range(ATTEMPTS):
            likely = turn.prompt.size // 4
            wanted = SlotRequest(
                user,
                pool.expectation.cost(likely, MOST_ANSWER, 1),
                prompt=turn.prompt,
                tokens=pool.expectation.request(turn.prompt, likely, MOST_ANSWER, 1),
                excluded=failed,
            )
            lease = await pool.take(wanted)
            try:
                job = self._replicas[lease.replica.view.id].begin(turn.text, turn.answer_hash, turn.answer)
                first = first or await job.read - began
                pool.router.has_read(lease.placement)
                self._learn(lease, turn, job, await job.done)
                self.outcome.requests.append(
                    Seen(user, first, self._loop.time() - began, len(turn.text), job.cached, turn.answer)
                )
                return
            except Died:
                await asyncio.sleep(CONNECT)
                pool.failed(lease.replica, unreachable=lease.replica.view.id >= self.park.failing)
                failed |= {lease.replica.view.id}
                if not pool.router.budget.spend():
                    raise errors.upstream_error() from None
            finally:
                lease.release()
        raise errors.upstream_error()

    def _learn(self, lease: Lease, turn: Turn, job: Job, done: float) -> None:
        read, written = len(turn.text) - job.cached, done - job.read_at
        count = TokenCount(len(turn.text), job.cached, turn.answer)
        if written > 0 and turn.answer > 1:
            count.tokens_per_second = (turn.answer - 1) / written
        if read >= TELLING_PROMPT and job.read_at > job.began:
            count.prompt_per_second = read / (job.read_at - job.began)
        self.outcome.expected += lease.placement.cached * count.prompt
        lease.release()
        self._pool.learn(lease, count, 1, turn.prompt.size)
