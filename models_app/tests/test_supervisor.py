"""The supervisor with real child processes: the stand-in llama-server, told to be slow, crash, hang or lie."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from django.db import Error as DatabaseError

from llmplatform.lib import process_identity
from models_app import health, machine, process, reasons, records, services
from models_app.models import ModelConfig, Replica
from models_app.selectors import serving_snapshot
from models_app.states import State
from models_app.tests.supervised import QUICK, engines, until
from tests import standin

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def seen(row: Replica) -> dict:
    return httpx.get(f"http://127.0.0.1:{row.port}/standin").json()


# -- the way to READY ----------------------------------------------------------------------------------------------------
async def test_a_model_becomes_ready_and_the_gateway_can_use_it(bench, model, monkeypatch):
    monkeypatch.setenv("JWT_SECRET", "not-for-engines")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    await bench.start()
    (row,) = await bench.ready()
    assert (row.slots, row.context_length, row.reason) == (2, 512, None)
    view = (await bench.ask(serving_snapshot))["a"]
    (replica,) = view.replicas
    assert await health.accepts_key(bench.supervisor.shared.client, replica.base_url, replica.api_key)
    (engine,) = engines(bench.home)
    assert engine.pid == row.pid
    assert await bench.ask(Path(f"/proc/{engine.pid}/oom_score_adj").read_text) == f"{process.OOM_SCORE}\n"
    environment = engine.environ()
    assert "not-for-engines" not in environment.values()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert replica.api_key not in " ".join(engine.cmdline())
    assert replica.api_key not in json.dumps(row.key_nonce)
    assert [entry["path"] for entry in seen(row)["seen"]] == ["/completion"], "one real token"


async def test_a_slow_load_is_told_step_by_step(bench, model):
    bench.switches(load_seconds=0.6)
    await bench.start()
    await bench.state(State.LOADING)
    (row,) = await bench.ready()
    assert row.reason is None


async def test_embedding_models_are_ready_when_they_embed(bench, model):
    await bench.ask(lambda: ModelConfig.objects.update(embeddings=True))
    await bench.start()
    (row,) = await bench.ready()
    assert [entry["path"] for entry in seen(row)["seen"]] == ["/v1/embeddings"]


async def test_used_ports_are_skipped(bench, model, settings):
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.LLAMA_CPP_PORT))
        other.listen()
        await bench.start()
        (row,) = await bench.ready()
    assert row.port != settings.LLAMA_CPP_PORT


async def test_a_port_taken_between_look_and_bind_is_no_failure(bench, model, settings, monkeypatch):
    with standin.start(port=settings.LLAMA_CPP_PORT) as stranger:  # looks like a llama-server, and is not ours
        free = process.is_free
        looks = iter([True])
        monkeypatch.setattr(process, "is_free", lambda port: next(looks, None) or free(port))
        await bench.start()
        (row,) = await bench.ready()
        assert row.port != settings.LLAMA_CPP_PORT
        assert row.quick_failures == 0
        assert stranger.requests_seen() == [], "no key and no prompt of ours went to it"


async def test_two_models_share_no_port(bench, model):
    await bench.ask(lambda: ModelConfig.objects.create(name="b", file="a.gguf", replicas=2, context_length=512))
    await bench.start()
    rows = await bench.ready(3)
    assert len({row.port for row in rows}) == 3
    assert len(engines(bench.home)) == 3


# -- what keeps one from starting ------------------------------------------------------------------------------------------
async def failed(bench, code: str) -> str:
    (row,) = await bench.state(State.FAILED)
    assert row.reason["code"] == code
    return reasons.text(row.reason)


async def test_a_missing_file_is_said_and_found_when_it_comes(bench, model):
    (bench.home / "models" / "a.gguf").rename(bench.home / "b")
    await bench.start()
    assert "a.gguf is not in models/" in await failed(bench, "file_missing")
    (bench.home / "b").rename(bench.home / "models" / "a.gguf")
    await bench.ready()


async def test_a_file_cut_short_never_reaches_the_engine(bench, model):
    whole = (bench.home / "models" / "a.gguf").read_bytes()
    (bench.home / "models" / "a.gguf").write_bytes(whole[:-100])
    await bench.start()
    assert f"{len(whole) - 100} of {len(whole)} bytes" in await failed(bench, "gguf_cut_short")
    assert not engines(bench.home)
    (bench.home / "models" / "a.gguf").write_bytes(whole)
    await bench.ready()


async def test_too_little_memory_is_said_with_numbers_and_tried_again(bench, model, monkeypatch):
    available = [50_000_000]
    monkeypatch.setattr(machine, "available_memory", lambda: available[0])
    await bench.start()
    text = await failed(bench, "not_enough_memory")
    assert "0.05 GB are free" in text
    available[0] = 10**10
    await bench.ready()


async def test_a_log_folder_that_cannot_be_written_is_named(bench, model, settings):
    obstacle = bench.home / "logs" / "engines"
    obstacle.parent.mkdir()
    obstacle.write_text("in the way")
    await bench.start()
    assert str(settings.LOG_DIR) in await failed(bench, "log_folder")
    obstacle.unlink()
    await bench.ready()


async def test_one_that_crashes_at_start_fails_with_its_last_words(bench, model):
    bench.switches(crash_at_start=3, log_lines=["error: unknown model architecture: 'new'"])
    await bench.start()
    text = await failed(bench, "exited")
    assert "exit code 3" in text
    assert "unknown model architecture" in text
    (row,) = await bench.rows()
    assert row.quick_failures == 5
    log = process.log_path("a", 1).read_text()
    assert log.count("unknown model architecture") == 5
    bench.switches(crash_at_start=None)
    await bench.ask(services.request_restart, "a")
    await bench.ready()


async def test_a_failed_one_starts_again_when_its_file_changes(bench, model):
    bench.switches(crash_at_start=3)
    await bench.start()
    await failed(bench, "exited")
    bench.switches(crash_at_start=None)
    os.utime(bench.home / "models" / "a.gguf")
    await bench.ready()


@pytest.mark.parametrize(
    ("switches", "timing", "code"),
    [
        ({"never_healthy": True}, {"load": 0.1}, "load_timeout"),
        ({"generate": "error"}, {}, "no_token"),
        ({"generate": "hang"}, {"token": 0.2}, "no_token"),
    ],
)
async def test_one_that_never_generates_is_never_ready(bench, model, switches, timing, code):
    bench.switches(**switches)
    await bench.start(replace(QUICK, **timing))
    await failed(bench, code)
    assert not engines(bench.home)


# -- crashes -----------------------------------------------------------------------------------------------------------------
async def test_a_killed_one_comes_back_alone(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    psutil.Process(before.pid).kill()
    (after,) = await bench.until(lambda rows: rows[0].state == State.READY and rows[0].pid != before.pid)
    assert (after.id, after.quick_failures) == (before.id, 1)
    assert len(engines(bench.home)) == 1


async def test_failures_are_forgiven_after_a_healthy_while(bench, model):
    await bench.start(replace(QUICK, healthy=0.3))
    (before,) = await bench.ready()
    psutil.Process(before.pid).kill()
    await bench.until(
        lambda rows: rows[0].state == State.READY and rows[0].quick_failures == 0 and rows[0].pid != before.pid
    )


async def test_one_that_hangs_is_replaced(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    bench.switches(never_healthy=True)
    await bench.until(lambda rows: rows[0].pid != before.pid)
    bench.switches(never_healthy=None)
    await bench.ready()


async def test_one_that_answers_health_and_does_not_generate_is_replaced(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    bench.switches(generate="hang")
    key = process.engine_key(before.key_nonce)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        request = client.post(f"http://127.0.0.1:{before.port}/v1/completions", json={"prompt": "x"})
        with pytest.raises(httpx.HTTPError):
            await request
    bench.switches(generate=None)
    (after,) = await bench.until(lambda rows: rows[0].state == State.READY and rows[0].pid != before.pid)
    assert after.quick_failures == 1


async def test_one_that_ignores_term_is_killed(bench, model):
    bench.switches(hang_on_term=True)
    await bench.start()
    await bench.ready()
    begin = time.monotonic()
    await bench.end()
    assert time.monotonic() - begin < 8
    assert not engines(bench.home)
    assert await bench.rows() == []


# -- changes -----------------------------------------------------------------------------------------------------------------
async def test_stopping_waits_for_requests_under_way(bench, model):
    bench.switches(token_seconds=0.05, chunks=400)
    await bench.start(replace(QUICK, drain=30))
    (row,) = await bench.ready()
    key = process.engine_key(row.key_nonce)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        request = asyncio.create_task(client.post(f"http://127.0.0.1:{row.port}/v1/completions", json={"prompt": "x"}))
        await until(lambda: [entry for entry in seen(row)["seen"] if entry["state"] == "running"])
        await bench.ask(services.set_active, "a", False)
        await bench.state(State.DRAINING)
        bench.switches(token_seconds=1e-6)  # may end now
        assert (await request).status_code == 200
    await bench.until(lambda rows: rows == [])
    assert not engines(bench.home)
    await bench.ask(services.set_active, "a", True)
    await bench.ready()


async def test_new_settings_replace_replicas_one_after_the_other(bench, model):
    await bench.ask(lambda: ModelConfig.objects.update(replicas=2))
    await bench.start()
    before = {row.pid for row in await bench.ready(2)}
    await bench.ask(services.update_model, "a", {"temperature": 0.1})

    def replaced(rows) -> bool:
        assert any(row.state == State.READY for row in rows), "one always serves"
        return all(row.state == State.READY and row.pid not in before for row in rows)

    await bench.until(replaced)
    assert all("--temp 0.1" in " ".join(engine.cmdline()) for engine in engines(bench.home))


async def test_a_change_that_no_engine_sees_restarts_nothing(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    await bench.ask(services.update_model, "a", {"description": "new words", "replicas": 2})
    rows = await bench.ready(2)
    assert rows[0].pid == before.pid
    await bench.ask(services.update_model, "a", {"replicas": 1})
    (row,) = await bench.until(lambda rows: len(rows) == 1)
    assert row.pid == before.pid


async def test_a_deleted_models_engine_ends(bench, model):
    await bench.start()
    await bench.ready()
    await bench.ask(services.delete_model, "a")
    await until(lambda: not engines(bench.home))


# -- an earlier supervisor -----------------------------------------------------------------------------------------------------
async def test_what_runs_and_fits_is_adopted(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    await bench.abandon()
    await bench.start()
    await until(lambda: bench.supervisor.runners)
    (row,) = await bench.ready()
    assert (row.id, row.pid) == (before.id, before.pid)
    assert len(engines(bench.home)) == 1
    await bench.end()
    assert not engines(bench.home)


async def test_an_engine_behind_a_script_is_adopted_as_one(bench, model, settings):
    script = bench.home / "script"
    script.write_text(f'#!/bin/sh\n"{bench.engine}" "$@"\nexit $?\n')
    script.chmod(0o755)
    settings.LLAMA_CPP_PATH = str(script)
    await bench.start()
    [before] = await bench.ready()
    family = {engine.pid for engine in engines(bench.home)}
    assert len(family) == 2
    await bench.abandon()
    assert [found.process.pid for found in await asyncio.to_thread(process.find_engines)] == [before.pid]
    await bench.start()
    await until(lambda: bench.supervisor.runners)
    [after] = await bench.ready()
    assert (after.pid, after.port) == (before.pid, before.port)
    assert {engine.pid for engine in engines(bench.home)} == family


async def test_what_runs_with_old_settings_is_replaced(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    await bench.abandon()
    await bench.ask(services.update_model, "a", {"temperature": 0.1})
    await bench.start()
    await bench.until(lambda rows: len(rows) == 1 and rows[0].state == State.READY and rows[0].pid != before.pid)
    assert len(engines(bench.home)) == 1


@pytest.mark.parametrize("loss", ["row", "nonce", "model", "secret", "hung"])
async def test_what_runs_and_fits_nothing_is_ended(bench, model, loss, settings):
    await bench.start()
    (before,) = await bench.ready()
    await bench.abandon()
    if loss == "row":  # killed before the row was written, or a restored database
        await bench.ask(lambda: Replica.objects.all().delete())
    elif loss == "nonce":
        await bench.ask(lambda: Replica.objects.update(key_nonce="other"))
    elif loss == "model":
        await bench.ask(lambda: ModelConfig.objects.all().delete())
    elif loss == "secret":
        settings.SECRET_KEY = "another secret that engines do not know"
    else:
        bench.switches(never_healthy=True)
        await asyncio.to_thread(seen, before)  # it has read its switches
        await bench.start(replace(QUICK, load=0.2))
    if loss != "hung":
        await bench.start()
    await until(lambda: before.pid not in [engine.pid for engine in engines(bench.home)])


async def test_others_processes_are_never_touched(bench, model, settings):
    stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)", "--alias", "a")
    try:
        with standin.start(model="a") as other:
            fields = {"node": "x", "state": State.READY, "since": "2026-01-01T00:00:00Z", "port": other.port}
            started = process_identity.started_at(stranger.pid)
            await bench.ask(
                lambda: Replica.objects.create(model=model, number=1, pid=stranger.pid, pid_started=started, **fields)
            )
            await bench.start()
            (row,) = await bench.until(
                lambda rows: len(rows) == 1 and rows[0].state == State.READY and rows[0].port != other.port
            )
            assert row.pid not in {stranger.pid, other.process.pid}
            assert other.process.poll() is None
            assert other.requests_seen() == []
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


# -- trouble with the database ---------------------------------------------------------------------------------------------------
async def test_a_database_that_does_not_take_writes_stops_no_model(bench, model, monkeypatch):
    await bench.start()
    (row,) = await bench.ready()
    write, broken, refused = records._update, [True], asyncio.Event()

    async def refuse(*arguments) -> None:
        if broken[0]:
            refused.set()
            raise DatabaseError("database is locked")
        await write(*arguments)

    monkeypatch.setattr(records, "_update", refuse)
    psutil.Process(row.pid).kill()
    await asyncio.wait_for(refused.wait(), 30)
    broken[0] = False
    (after,) = await bench.until(lambda rows: rows[0].state == State.READY and rows[0].pid != row.pid)
    assert [engine.pid for engine in engines(bench.home)] == [after.pid]
