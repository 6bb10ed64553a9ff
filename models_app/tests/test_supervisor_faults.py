"""What can go wrong under a supervisor, one fault after the other: files, ports, first prompts, its own end, a reboot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

import httpx
import psutil
import pytest

from llmplatform.lib import process_identity
from models_app import preparation, process, reasons, services, states
from models_app.models import ModelConfig, Replica
from models_app.states import State
from models_app.tests.supervised import engines, until

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def files(bench):
    return bench.home / "models" / "a.gguf", bench.home / "models" / "kept"


# -- files ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", ["deleted", "replaced", "cut"])
async def test_a_file_that_goes_while_its_engine_runs(bench, model, fault):
    """What runs goes on running; started again, it says what is wrong, and it comes back with the file."""
    await bench.start()
    (before,) = await bench.ready()
    file, kept = files(bench)
    kept.write_bytes(file.read_bytes())
    if fault == "deleted":
        file.unlink()
    elif fault == "replaced":
        (bench.home / "nonsense").write_bytes(b"no model" * 100)
        os.replace(bench.home / "nonsense", file)
    else:
        os.truncate(file, 500)
    (now,) = await bench.ready()
    assert now.pid == before.pid
    psutil.Process(before.pid).kill()
    (row,) = await bench.state(State.FAILED)
    assert row.reason["code"] == {"deleted": "file_missing", "replaced": "gguf_not_one", "cut": "gguf_cut_short"}[fault]
    assert not engines(bench.home)
    os.replace(kept, file)
    (after,) = await bench.ready()
    assert after.id == before.id


async def test_another_model_goes_on_while_one_has_lost_its_file(bench, model):
    (bench.home / "models" / "b.gguf").write_bytes(files(bench)[0].read_bytes())
    await bench.ask(lambda: ModelConfig.objects.create(name="b", file="b.gguf", context_length=512))
    await bench.start()
    before = await bench.ready(2)
    files(bench)[0].unlink()
    psutil.Process(before[0].pid).kill()
    rows = await bench.until(lambda rows: rows[0].state == State.FAILED)
    assert (rows[1].state, rows[1].pid) == (State.READY, before[1].pid)


# -- ports ---------------------------------------------------------------------------------------------------------------
async def test_a_used_up_range_of_ports_is_named_and_one_that_is_free_again_is_taken(
    bench, model, settings, monkeypatch
):
    monkeypatch.setattr(preparation, "PORTS_TRIED", 1)
    with socket.create_server(("127.0.0.1", settings.LLAMA_CPP_PORT)):
        await bench.start()
        (row,) = await bench.state(State.FAILED)
        assert row.reason["code"] == "no_free_port"
        assert str(settings.LLAMA_CPP_PORT) in reasons.text(row.reason)
    (row,) = await bench.ready()
    assert row.port == settings.LLAMA_CPP_PORT


# -- the first prompt ----------------------------------------------------------------------------------------------------
async def test_one_that_dies_of_its_first_prompt_fails_and_others_go_on(bench, model):
    """The answer to it never comes whole: it ends after the first question that was put to it."""
    await bench.start()
    (good,) = await bench.ready()
    bench.switches(crash_after_requests=1)
    await bench.ask(lambda: ModelConfig.objects.create(name="b", file="a.gguf", context_length=512))
    rows = await bench.until(lambda rows: len(rows) == 2 and rows[1].state == State.FAILED)
    assert rows[1].reason["code"] in {"exited", "crashed"}
    assert rows[1].reason["params"]["exit"] == 134
    assert "told to crash" in reasons.text(rows[1].reason)
    assert (rows[0].state, rows[0].pid) == (State.READY, good.pid)
    assert [engine.pid for engine in engines(bench.home)] == [good.pid]
    bench.switches()
    await bench.ask(services.request_restart, "b")
    await bench.ready(2)


# -- the supervisor's own end --------------------------------------------------------------------------------------------
# How a replica comes to be in a state and stays there while its supervisor is killed.
HELD = {
    State.PENDING: {"crash_at_start": 3},
    State.LOADING: {"load_seconds": 2},
    State.READY: {},
    State.DRAINING: {"chunks": 400, "token_seconds": 0.02},
    State.FAILED: {"crash_at_start": 3},
}


async def _ask_for_long(row: Replica) -> None:
    """It may be cut: only that it is under way matters."""
    headers = {"Authorization": f"Bearer {process.engine_key(row.key_nonce)}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        with contextlib.suppress(httpx.HTTPError):
            await client.post(f"http://127.0.0.1:{row.port}/v1/completions", json={"prompt": "x"})


def _busy(row: Replica) -> bool:
    seen = httpx.get(f"http://127.0.0.1:{row.port}/standin").json()["seen"]
    return any(entry["state"] == "running" for entry in seen)


@pytest.mark.parametrize("state", HELD)
async def test_killed_in_any_state_the_next_one_goes_on_from_there(bench, model, state):
    bench.switches(**HELD[state])
    await bench.start()
    if state is State.DRAINING:
        (row,) = await bench.ready()
        asking = asyncio.create_task(_ask_for_long(row))
        await until(lambda: _busy(row))
        await bench.ask(services.set_active, "a", False)
    (before,) = await bench.state(state)
    await bench.abandon()
    bench.switches()
    await bench.start()
    if state is State.DRAINING:
        await bench.until(lambda rows: rows == [])
        assert not engines(bench.home)
        await asking
        await bench.ask(services.set_active, "a", True)
    (after,) = await bench.ready()
    await until(lambda: [engine.pid for engine in engines(bench.home)] == [after.pid])
    if state is State.READY:
        assert after.pid == before.pid


def test_those_are_all_states_that_can_be_met():
    """STARTING lasts as long as a process takes to listen: test_startmodels kills the supervisor in it."""
    assert set(HELD) == set(states.State) - {State.STARTING, State.DOWNLOADING, State.STOPPED}


async def test_an_engine_that_was_taken_over_and_ends_is_not_said_to_have_ended_well(bench, model):
    """How it ended is told to its parent only, which is gone."""
    await bench.start()
    (before,) = await bench.ready()
    await bench.abandon()
    bench.switches(load_seconds=30)
    await bench.start()
    await until(lambda: bench.supervisor.runners)
    os.kill(before.pid, signal.SIGTERM)
    (row,) = await bench.until(lambda rows: len(rows) == 1 and rows[0].reason)
    assert reasons.text(row.reason).startswith("llama-server ended (nobody saw how)")


# -- a reboot ------------------------------------------------------------------------------------------------------------
async def test_after_a_reboot_nobody_else_who_has_our_numbers_now_is_touched(bench, model):
    """All processes are gone; rows, claims and notes are there, and their pids belong to others."""
    await bench.start()
    (before,) = await bench.ready()
    await bench.abandon()
    for engine in engines(bench.home):
        engine.kill()
    await until(lambda: not engines(bench.home))
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    try:
        # Not started at the same moment, as two processes of one test are.
        earlier = before.pid_started - 60
        await bench.ask(lambda: Replica.objects.update(pid=stranger.pid, pid_started=earlier))
        process.claim_file().touch()
        assert not process_identity.is_same(stranger.pid, earlier)
        await bench.start()
        (after,) = await bench.until(
            lambda rows: len(rows) == 1 and rows[0].state == State.READY and rows[0].pid != stranger.pid
        )
        await bench.end()
        assert stranger.returncode is None
        assert not psutil.pid_exists(after.pid)
    finally:
        stranger.kill()
        await stranger.wait()
