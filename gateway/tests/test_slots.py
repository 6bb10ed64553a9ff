"""A model's slots: who gets the next one, what is told while one waits, deadlines, and who leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic

import pytest

from cluster.balancer import Request
from cluster.fleet import FIRST_DURATION
from cluster.prefixes import Prompt
from gateway import leaving, routing, slots
from gateway.errors import GatewayError
from gateway.slots import LOOK_EVERY, Lease, ModelPool, SlotRequest, Standing
from models_app.selectors import ModelView, ReplicaView
from models_app.states import State

LIMIT, ROOM = 50, 1000
BUSY = 100.0  # seconds a slot is taken, as it seems


def view(*slot_counts: int, **more: object) -> ModelView:
    replicas = tuple(
        ReplicaView(number, "m", number, "here", "http://127.0.0.1:1", "k", count, None, State.READY)
        for number, count in enumerate(slot_counts, 1)
    )
    state = State.READY if replicas else State.LOADING
    plain = ModelView("m", state, 64, None, embeddings=False, description="", created=0, replicas=replicas)
    return replace(plain, **more)


def pool_of(*slot_counts: int, **more: object) -> ModelPool:
    return ModelPool(view(*slot_counts, **more), LIMIT, ROOM, coming_wait=30, queue_wait=600)


async def busy_pool(*slot_counts: int) -> tuple[ModelPool, list[Lease]]:
    """All slots taken, and known to be taken for ``BUSY`` seconds each."""
    pool = pool_of(*slot_counts)
    pool.router.fleet.durations.see(BUSY)
    leases = [await pool.take(SlotRequest("x")) for _ in range(sum(slot_counts))]
    return pool, sorted(leases, key=lambda lease: lease.replica.view.number)


class Asker:
    """One who waits, in a task of its own."""

    def __init__(self, pool: ModelPool, request: SlotRequest, *, listens: bool = False) -> None:
        self.told: list[tuple[int, int, bool]] = []
        self.task = asyncio.create_task(pool.take(request, self._hears if listens else None))

    async def _hears(self, position: int, estimate_ms: int, loading: bool) -> bool:
        self.told.append((position, estimate_ms, loading))
        return True

    @property
    def served(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    async def refusal(self) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.task
        return caught.value


async def joined(pool: ModelPool, *requests: SlotRequest, listens: bool = False) -> list[Asker]:
    askers = []
    for request in requests:
        askers.append(Asker(pool, request, listens=listens))
        await asyncio.sleep(0)
    return askers


async def turns(pool: ModelPool, lease: Lease, askers: list[Asker]) -> list[int]:
    """In which order they get the one slot there is."""
    order: list[int] = []
    while len(order) < len(askers):
        lease.release()
        await asyncio.wait([asker.task for number, asker in enumerate(askers) if number not in order], timeout=0)
        [number] = [number for number, asker in enumerate(askers) if asker.served and number not in order]
        order.append(number)
        lease = askers[number].task.result()
    return order


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# -- turns -----------------------------------------------------------------------------------------------------------------
async def test_who_finds_a_free_slot_does_not_wait() -> None:
    lease = await pool_of(1).take(SlotRequest("a"))
    assert lease.standing == Standing(0, 0)
    assert lease.standing.headers == {"x-queue-position": "0", "x-queue-estimate-ms": "0"}


async def test_a_single_request_waits_for_one_turn_and_batch_ones_for_all() -> None:
    pool, [lease] = await busy_pool(1)
    requests = [SlotRequest("b", priority="batch"), *[SlotRequest("many") for _ in range(5)], SlotRequest("one")]
    askers = await joined(pool, *requests)
    assert await turns(pool, lease, askers) == [1, 6, 2, 3, 4, 5, 0]


async def test_what_costs_more_comes_more_seldom() -> None:
    pool, [lease] = await busy_pool(1)
    requests = [SlotRequest("dear", 3) for _ in range(3)] + [SlotRequest("cheap", 1) for _ in range(9)]
    order = await turns(pool, lease, await joined(pool, *requests))
    assert "".join("d" if number < 3 else "c" for number in order) == "dcccdcccdccc"


async def test_who_cannot_use_what_is_free_keeps_nobody_from_it() -> None:
    pool, leases = await busy_pool(1, 1)
    [failed] = await joined(pool, SlotRequest("a", excluded=frozenset({1})))
    leases[0].release()
    assert not failed.served
    assert (await pool.take(SlotRequest("b"))).standing == Standing(0, 0)
    leases[1].release()
    await settle()
    assert failed.served


# -- what a busy slot holds ------------------------------------------------------------------------------------------------
def holds(tenant: str = "a", *, deadline: float | None = None, size: int = 0) -> SlotRequest:
    """Ten seconds of reading, one of writing."""
    prompt, tokens = Prompt((7,), (4000,), (False,)), Request(1000, 20)
    return SlotRequest(tenant, prompt=prompt, tokens=tokens, deadline=deadline, size=size)


async def test_who_wants_what_was_just_read_waits_for_that_slot() -> None:
    pool = pool_of(2, 2)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    [second] = await joined(pool, holds())
    await settle()
    assert not second.served
    assert (await pool.take(SlotRequest("b"))).standing == Standing(0, 0)  # another prompt
    first.release()
    await settle()
    lease = second.task.result()
    assert (lease.replica, lease.placement.cached) == (first.replica, 1)


async def test_who_cannot_wait_takes_what_is_free() -> None:
    pool = pool_of(2, 2)
    pool.router.fleet.durations.see(BUSY)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    for deadline in (monotonic() + 20, monotonic()):  # sooner than a slot is given back, as it seems, and at once
        other = await pool.take(holds(deadline=deadline))
        assert other.placement.cached == 0
        assert not pool.queued
        other.release()


async def test_whoever_has_time_waits_as_others_do() -> None:
    """Official clients tell of some minutes."""
    pool = pool_of(2, 2)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    [second] = await joined(pool, holds(deadline=monotonic() + 600))
    assert not second.served
    first.release()
    await settle()
    assert second.task.result().placement.cached == 1


async def test_nobody_is_refused_who_let_free_slots_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for module in (slots, routing):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    pool = ModelPool(view(1, 1), LIMIT, ROOM, coming_wait=30, queue_wait=0.6)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    [second] = await joined(pool, holds())
    for now[0], served in ((0.29, False), (0.29 + LOOK_EVERY, True)):
        pool.update(view(1, 1), now[0])
        await settle()
        assert second.served == served
    assert second.task.result().replica is not first.replica
    assert second.task.result().standing.position == 1


async def test_a_full_line_of_those_who_let_free_slots_pass_refuses_nobody() -> None:
    pool = ModelPool(view(2, 2), 1, ROOM, coming_wait=30, queue_wait=600)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    [second] = await joined(pool, holds())
    assert not second.served
    third, _another = await pool.take(holds()), await pool.take(SlotRequest("b"))
    assert third.placement.cached == 0
    assert not second.served


async def test_whoever_is_put_out_of_a_full_line_takes_what_is_free() -> None:
    pool = ModelPool(view(3, 3), LIMIT, ROOM, coming_wait=30, queue_wait=600)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    large = await joined(pool, *[holds(size=ROOM // 2) for _ in range(2)])
    assert not any(asker.served for asker in large)
    [small] = await joined(pool, holds(tenant="b", size=10))
    await settle()
    assert [asker.served for asker in (*large, small)] == [False, True, False]


async def test_what_a_client_left_is_waited_for_by_nobody() -> None:
    pool = pool_of(2, 2)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    first.is_left()
    assert (await pool.take(holds())).standing == Standing(0, 0)


async def test_a_slot_that_is_left_to_itself_is_waited_for_by_nobody() -> None:
    pool = pool_of(2, 2)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    leaving.release_when_idle(first)
    assert (await pool.take(holds())).standing == Standing(0, 0)


async def test_what_all_wait_for_is_read_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for module in (slots, routing):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    pool = pool_of(2, 2)
    for _ in range(2):
        first = await pool.take(holds())
        pool.router.has_read(first.placement)
        [second] = await joined(pool, holds())
        now[0] += 10
        first.release()
        await settle()
        assert second.task.result().placement.cached == 1
        second.task.result().release()
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    third = await pool.take(holds())
    assert (third.placement.cached, third.standing) == (0, Standing(0, 0))


def test_what_the_model_says_of_its_host_cache_is_known() -> None:
    for size in (0, 256):
        assert pool_of(2, prompt_cache=size).replicas[1].member.has_host_cache == (size > 0)


async def test_those_who_wait_for_another_slot_are_not_asked_at_each_that_comes_free(monkeypatch) -> None:
    pool = pool_of(2, 2)
    first = await pool.take(holds())
    pool.router.has_read(first.placement)
    [second] = await joined(pool, holds())
    asked = []
    choose = pool.router.choice

    def counted(prompt: Prompt, *arguments: object, **more: object) -> object:
        asked.append(prompt)
        return choose(prompt, *arguments, **more)

    monkeypatch.setattr(pool.router, "choice", counted)
    for _ in range(20):
        (await pool.take(SlotRequest("b", tokens=Request(10, 10)))).release()  # of the one with nothing to do
    assert len([prompt for prompt in asked if prompt.hashes]) <= 1  # as time passes
    first.release()
    await settle()
    assert second.served


# -- what is told ------------------------------------------------------------------------------------------------------------
async def test_position_and_estimate_are_those_of_joining() -> None:
    pool, leases = await busy_pool(1, 1)
    askers = await joined(pool, *[SlotRequest("a") for _ in range(3)])
    for _ in range(2):
        for lease in leases:
            lease.release()
        leases = [asker.task.result() for asker in askers if not await settle() and asker.served][-2:]
    standings = [asker.task.result().standing for asker in askers]
    assert standings == [Standing(position, round(position * BUSY * 1000 / 2)) for position in (1, 2, 3)]


async def test_what_a_waiting_one_hears_is_the_turns_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "POSITION_EVERY", 0.005)
    monkeypatch.setattr(slots, "POSITIONS_HOLD", 0)
    pool, [lease] = await busy_pool(1)
    requests = [SlotRequest(tenant, cost) for tenant, cost in (("a", 9), ("a", 1), ("b", 3), ("b", 3), ("a", 1))]
    askers = await joined(pool, *requests, listens=True)
    left, first = list(askers), await all_positions(askers)
    assert first == [1, 4, 2, 3, 5]
    while left:
        lease.release()
        await settle()
        [served] = [asker for asker in left if asker.served]
        assert served.told[-1][0] == 1
        left.remove(served)
        lease = served.task.result()
        assert await all_positions(left) == [first[askers.index(asker)] - 5 + len(left) for asker in left]


async def all_positions(askers: list[Asker]) -> list[int]:
    """What each was told last, as soon as that is a line without gaps."""
    for _ in range(2000):
        told = [asker.told[-1][0] for asker in askers if asker.told]
        if sorted(told) == list(range(1, len(askers) + 1)):
            return told
        await asyncio.sleep(0.005)
    raise AssertionError(told)


async def test_while_a_model_is_loaded_the_estimate_says_how_long_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "monotonic", lambda: 0.0)
    pool = pool_of(on_demand=True, load_seconds=40.0)
    [asker] = await joined(pool, SlotRequest("a"), listens=True)
    assert asker.told == [(1, 40_000, True)]
    asker.task.cancel()


# -- deadlines ---------------------------------------------------------------------------------------------------------------
async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    pool, _leases = await busy_pool(1, 1)
    [first] = await joined(pool, SlotRequest("a", deadline=monotonic() + BUSY / 2 + 9.5))
    [second] = await joined(pool, SlotRequest("a", deadline=monotonic() + BUSY - 9.5))
    refusal = await second.refusal()
    assert (refusal.status, refusal.code, refusal.retry_after) == (503, "overloaded", 10)
    assert refusal.headers == {"x-queue-position": "2", "x-queue-estimate-ms": str(round(1000 * BUSY))}
    assert pool.queued == 1
    assert not first.task.done()
    first.task.cancel()


async def test_a_deadline_that_passes_while_one_waits() -> None:
    pool = pool_of(1)
    await pool.take(SlotRequest("x"))  # how long it takes is not known, so nothing is refused for it
    began = monotonic()
    [asker] = await joined(pool, SlotRequest("a", deadline=began + 0.05))
    refusal = await asker.refusal()
    assert monotonic() >= began + 0.05
    assert (refusal.code, refusal.headers["x-queue-position"]) == ("overloaded", "1")
    assert refusal.retry_after >= FIRST_DURATION
    assert pool.queued == 0


async def test_a_deadline_that_is_over_is_met_by_a_free_slot_only() -> None:
    pool = pool_of(1)
    over = SlotRequest("a", deadline=monotonic())
    await pool.take(over)
    [asker] = await joined(pool, over)
    assert (await asker.refusal()).code == "overloaded"


async def test_a_model_that_takes_longer_to_load_than_one_waits() -> None:
    pool = pool_of(on_demand=True, load_seconds=40.0)
    [asker] = await joined(pool, SlotRequest("a", deadline=monotonic() + 30.5))
    refusal = await asker.refusal()
    assert (refusal.code, refusal.retry_after) == ("overloaded", 10)
    [patient] = await joined(pool, SlotRequest("a", deadline=monotonic() + 50))
    assert pool.queued == 1
    patient.task.cancel()


async def test_one_that_lost_its_replica_is_not_refused_for_an_estimate() -> None:
    pool, leases = await busy_pool(1, 1)
    [asker] = await joined(pool, SlotRequest("a", deadline=monotonic() + 9, excluded=frozenset({1})))
    leases[1].release()
    await settle()
    assert asker.served


# -- a full line ---------------------------------------------------------------------------------------------------------------
async def test_who_has_half_an_answer_waits_longer_for_a_replica_that_comes_back() -> None:
    pool = ModelPool(view(state=State.LOADING), LIMIT, ROOM, coming_wait=0.01, queue_wait=600)
    half, whole = await joined(pool, SlotRequest("a", returned=True), SlotRequest("b"))
    assert (await whole.refusal()).code == "model_not_available"
    pool.update(view(1), monotonic())
    await settle()
    assert half.served


async def test_who_waits_is_kept_while_one_replica_goes_and_another_comes() -> None:
    pool, _leases = await busy_pool(1)
    [asker] = await joined(pool, SlotRequest("a"))
    goes = replace(view(1), state=State.DRAINING)
    goes = replace(goes, replicas=(replace(goes.replicas[0], state=State.DRAINING),))
    pool.update(replace(goes, coming=True), monotonic())
    await settle()
    assert not asker.task.done()
    pool.update(goes, monotonic())
    assert (await asker.refusal()).code == "model_not_available"


async def test_positions_of_thousands_are_told_by_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ModelPool(view(1), 10_000, 10**9, coming_wait=30, queue_wait=600)
    lease = await pool.take(SlotRequest("x"))
    askers = await joined(pool, *[SlotRequest(number) for number in range(300)], listens=True)
    asked = []
    monkeypatch.setattr(pool._queue, "position", lambda *_: asked.append(1))
    monkeypatch.setattr(slots, "POSITION_EVERY", 0.005)
    in_order, looks, enough = pool._queue.in_order, list[float](), asyncio.Event()

    def looked(now: float):
        looks.append(now)
        if len(looks) == 2:
            enough.set()
        return in_order(now)

    monkeypatch.setattr(pool._queue, "in_order", looked)
    async with asyncio.timeout(30):
        await enough.wait()
    assert asked == []
    for asker in askers:
        asker.task.cancel()
    await asyncio.wait([asker.task for asker in askers])
    assert pool._positions == {}
    lease.release()


async def test_who_has_most_bytes_in_a_full_line_is_refused_for_another() -> None:
    pool, _leases = await busy_pool(1)
    large = await joined(pool, *[SlotRequest("a", size=ROOM // 2) for _ in range(2)])
    [small] = await joined(pool, SlotRequest("b", size=10))
    refusal = await large[1].refusal()
    assert (refusal.status, refusal.code) == (503, "overloaded")
    assert (refusal.retry_after, refusal.headers["x-queue-position"]) == (60, "2")
    [more] = await joined(pool, SlotRequest("a", size=ROOM // 2))
    refusal = await more.refusal()
    assert (refusal.code, refusal.headers["x-queue-position"]) == ("overloaded", "3")
    for asker in (large[0], small):
        assert not asker.task.done()
        asker.task.cancel()


# -- leaving -----------------------------------------------------------------------------------------------------------------
async def test_who_leaves_is_out_of_the_line_at_once() -> None:
    pool, [lease] = await busy_pool(1)
    askers = await joined(pool, *[SlotRequest("a") for _ in range(3)])
    askers[0].task.cancel()
    await settle()
    assert pool.queued == 2
    assert await turns(pool, lease, askers[1:]) == [0, 1]


async def test_who_leaves_in_the_moment_of_its_turn_passes_it_on() -> None:
    pool, [lease] = await busy_pool(1)
    askers = await joined(pool, *[SlotRequest("a") for _ in range(2)])
    lease.release()
    askers[0].task.cancel()
    await settle()
    assert askers[1].served
    assert (pool.queued, pool.busy) == (0, 1)
