"""When memory runs out, the largest replica that nobody uses goes before the kernel chooses one."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import httpx
import pytest

from models_app import machine, memory_guard, process, reasons
from models_app.models import ModelConfig, Replica
from models_app.replica_runner import ReplicaRunner
from models_app.states import State
from models_app.tests.supervised import QUICK, engines, until

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
async def shortage(bench, model, monkeypatch):
    """Two models that run, of which "b" takes more. While it is set, memory suffices for one of them only."""
    await bench.ask(lambda: ModelConfig.objects.create(name="b", file="a.gguf", context_length=512))
    short = threading.Event()
    monkeypatch.setattr(
        machine, "available_memory", lambda: 50_000_000 if short.is_set() and len(engines(bench.home)) > 1 else 10**10
    )
    monkeypatch.setattr(memory_guard, "EVERY", 0.05)
    monkeypatch.setattr(ReplicaRunner, "own_memory", lambda runner: {"a": 1, "b": 2}[runner.wanted.name])
    await bench.start(replace(QUICK, room=3))  # before that what made room would come back, and the other one go
    await bench.ready(2)
    return short


async def one_gone(bench) -> tuple[Replica, Replica]:
    """The one that is left and the one that made room."""
    rows = await bench.until(lambda rows: sorted(row.state for row in rows) == [State.FAILED, State.READY])
    gone, left = sorted(rows, key=lambda row: row.state)
    return left, gone


async def test_the_largest_idle_one_makes_room_and_comes_back(bench, model, shortage):
    shortage.set()
    left, gone = await one_gone(bench)
    shortage.clear()
    assert left.model_id == model.pk
    assert "0.05 GB free" in reasons.text(gone.reason)
    assert "nobody used" in reasons.text(gone.reason)
    (_, row) = await bench.ready(2)
    assert row.reason is None


async def test_a_busy_one_is_left_alone(bench, model, shortage):
    (busy,) = [row for row in await bench.rows() if row.model_id != model.pk]
    bench.switches(token_seconds=0.05, chunks=400)
    key = process.engine_key(busy.key_nonce)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        url = f"http://127.0.0.1:{busy.port}"
        request = asyncio.create_task(client.post(f"{url}/v1/completions", json={"prompt": "x"}))
        await until(lambda: any(one["state"] == "running" for one in httpx.get(f"{url}/standin").json()["seen"]))
        shortage.set()
        left, _gone = await one_gone(bench)
        shortage.clear()
        bench.switches(token_seconds=1e-6)  # may end now
        assert left.pk == busy.pk
        assert (await request).status_code == 200
