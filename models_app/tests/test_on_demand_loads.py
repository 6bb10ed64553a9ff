"""Models on demand under a real supervisor, on a machine whose memory takes one of them at a time."""

from __future__ import annotations

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async

from models_app import demand, machine, on_demand, services
from models_app.demand import Report
from models_app.models import Loading, ModelConfig, Replica
from models_app.replica_runner import ReplicaRunner
from models_app.states import LIVE, State
from models_app.tests.supervised import engines, until

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]
GIB = 1 << 30


@pytest.fixture
async def two(bench, monkeypatch):
    """Models ``a`` and ``b``; a loaded one leaves nothing for another, and need not stay for long."""
    monkeypatch.setattr(machine, "available_memory", lambda: GIB if engines(bench.home) else 8 * GIB)
    monkeypatch.setattr(ReplicaRunner, "own_memory", lambda runner: 4 * GIB if runner.engine else 0)
    monkeypatch.setattr(on_demand, "STAY_LEAST", 0.0)
    monkeypatch.setattr("models_app.on_demand_loads.STAY_LEAST", 0.0)
    make = sync_to_async(ModelConfig.objects.create)
    more = {"file": "a.gguf", "context_length": 131072, "slots": 64, "policy": "on_demand"}  # 4 GiB by plan
    return [await make(name=name, **more) for name in ("a", "b")]


async def ask(model: ModelConfig, waiting: int = 1, under_way: int = 0) -> None:
    await sync_to_async(demand.report)("test", {model.pk: Report(waiting, 0.0, under_way)}, holds=600)


async def serves(bench, model: ModelConfig) -> None:
    await bench.until(lambda rows: [(row.model_id, row.state) for row in rows] == [(model.pk, State.READY)])
    assert len(engines(bench.home)) == 1


async def test_nothing_runs_until_somebody_asks_and_one_makes_room_for_the_other(bench, two):
    a, b = two
    await bench.start()
    await ask(a)
    await serves(bench, a)
    await ask(a, waiting=0)
    await ask(b)
    await serves(bench, b)
    assert await sync_to_async(lambda: Loading.objects.get(model=a).seconds)() > 0


async def test_one_that_answers_stays_and_the_other_is_told_for_whom_it_waits(bench, two):
    a, b = two
    await bench.start()
    await ask(a)
    await serves(bench, a)
    await ask(a, waiting=0, under_way=1)
    await ask(b)

    def held_up() -> list[str] | None:
        return Loading.objects.filter(model=b).values_list("held_up_by", flat=True).first()

    end = time.monotonic() + 30
    while await sync_to_async(held_up)() != ["a"]:  # in the thread of all others, for SQLite in memory knows no waiting
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    assert [row.model_id for row in await bench.rows() if row.state in LIVE] == [a.pk]
    await ask(a, waiting=0)
    await serves(bench, b)
    assert await sync_to_async(held_up)() is None


async def test_nobody_asks_any_more(bench, two):
    a, _b = two
    await sync_to_async(ModelConfig.objects.filter(pk=a.pk).update)(ttl=1)
    await bench.start()
    await ask(a)
    await serves(bench, a)
    await ask(a, waiting=0)
    await bench.until(lambda rows: rows == [])
    assert engines(bench.home) == []


async def test_a_model_that_should_always_run_gets_room_from_one_on_demand(bench, two):
    a, b = two
    await bench.start()
    await ask(a)
    await serves(bench, a)
    await ask(a, waiting=0)
    await bench.ask(services.update_model, "b", {"policy": "always"})
    await serves(bench, b)


async def test_nobody_goes_for_one_that_would_not_fit_all_the_same(bench, two, monkeypatch):
    """What a model has mapped counts as free while it runs, so less becomes free than its size."""
    a, b = two
    monkeypatch.setattr(ReplicaRunner, "own_memory", lambda runner: 1 if runner.engine else 0)
    await bench.start()
    await ask(a)
    await serves(bench, a)
    await ask(a, waiting=0)
    await bench.ask(services.update_model, "b", {"policy": "always"})
    await bench.until(lambda rows: {row.model_id: row.state for row in rows} == {a.pk: State.READY, b.pk: State.FAILED})
    before = await sync_to_async(lambda: Replica.objects.get(model=a).pid)()
    looks: list[int] = []

    def look() -> int:
        looks.append(1)
        return GIB

    monkeypatch.setattr(machine, "available_memory", look)
    await until(lambda: len(looks) > 20)
    assert await sync_to_async(lambda: Replica.objects.get(model=a).pid)() == before


async def test_a_new_supervisor_takes_up_what_was_loaded(bench, two):
    a, _b = two
    await bench.start()
    await ask(a)
    await serves(bench, a)
    before = await sync_to_async(lambda: Replica.objects.get().pid)()
    await bench.abandon()
    await ask(a, waiting=0)
    await bench.start()
    await serves(bench, a)
    assert await sync_to_async(lambda: Replica.objects.get().pid)() == before
