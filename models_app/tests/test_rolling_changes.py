"""New settings of a running model: a new version comes up beside the old one, which stays until it is ready, and if it is not."""

from __future__ import annotations

import time
from dataclasses import replace

import psutil
import pytest

from models_app import machine, process, reasons, services
from models_app.models import Replica
from models_app.preparation import Circumstances, prepare
from models_app.selectors import wanted_models
from models_app.states import State
from models_app.tests.gguf_files import make_gguf
from models_app.tests.supervised import QUICK, engines, until

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]
SWITCHED = replace(QUICK, hung=60)  # what the new one is told, the old one does as well: it is not to be ended for it


def by_pid(rows: list[Replica]) -> dict[int | None, Replica]:
    return {row.pid: row for row in rows}


async def test_the_old_one_serves_until_the_new_one_does(bench, model):
    await bench.start(SWITCHED)
    (before,) = await bench.ready()
    bench.switches(load_seconds=0.5)
    await bench.ask(services.update_model, "a", {"context_length": 1024})
    rows = await bench.until(lambda rows: any(row.state == State.LOADING for row in rows))
    assert by_pid(rows)[before.pid].state == State.READY
    (after,) = await bench.until(lambda rows: len(rows) == 1 and rows[0].pid != before.pid)
    assert (after.state, after.context_length) == (State.READY, 1024)
    assert [engine.pid for engine in engines(bench.home)] == [after.pid]


async def test_a_new_version_that_does_not_come_up_leaves_the_old_one_and_says_why(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    bench.switches(crash_at_start=3, log_lines=["error: no such template"])
    await bench.ask(services.update_model, "a", {"context_length": 1024})
    rows = await bench.until(lambda rows: any(row.state == State.FAILED for row in rows))
    assert by_pid(rows)[before.pid].state == State.READY
    (bad,) = [row for row in rows if row.state == State.FAILED]
    assert "no such template" in reasons.text(bad.reason)

    # The old one comes back as what it was, should it fail now, and goes when the settings are good.
    bench.switches(crash_at_start=None)
    psutil.Process(before.pid).kill()
    rows = await bench.until(lambda rows: any(row.state == State.READY and row.pid != before.pid for row in rows))
    assert [row.context_length for row in rows if row.state == State.READY] == [512]
    await bench.ask(services.update_model, "a", {"context_length": 2048})
    (after,) = await bench.until(lambda rows: len(rows) == 1 and rows[0].context_length == 2048)
    assert after.state == State.READY


async def test_settings_taken_back_stop_the_new_version_and_leave_the_old_one_alone(bench, model):
    await bench.start(SWITCHED)
    (before,) = await bench.ready()
    bench.switches(never_healthy=True)
    await bench.ask(services.update_model, "a", {"context_length": 1024})
    await bench.until(lambda rows: len(rows) == 2)
    await bench.ask(services.update_model, "a", {"context_length": 512})
    (after,) = await bench.until(lambda rows: len(rows) == 1)
    assert (after.pid, after.state) == (before.pid, State.READY)


async def test_where_memory_does_not_suffice_for_both_the_old_one_makes_room(bench, model, monkeypatch):
    available = [10**10]
    monkeypatch.setattr(machine, "available_memory", lambda: available[0] if len(engines(bench.home)) else 10**10)
    await bench.start()
    (before,) = await bench.ready()
    needed = await bench.ask(lambda: prepare(wanted_models()[0].wanted, Circumstances()).memory)
    available[0] = needed + machine.low_mark() - 5_000_000  # too little for the new one; the old one has that much
    await bench.ask(services.update_model, "a", {"temperature": 0.1})
    (after,) = await bench.until(
        lambda rows: len(rows) == 1 and rows[0].state == State.READY and rows[0].pid != before.pid
    )
    assert "--temp 0.1" in " ".join(psutil.Process(after.pid).cmdline())


async def test_where_it_would_not_fit_even_alone_the_old_one_stays(bench, model, monkeypatch):
    await bench.start()
    (before,) = await bench.ready()
    monkeypatch.setattr(machine, "available_memory", lambda: 1_000_000)
    await bench.ask(services.update_model, "a", {"context_length": 1_000_000, "slots": 200})
    rows = await bench.until(lambda rows: any(row.state == State.FAILED for row in rows))
    assert [row.reason["code"] for row in rows if row.state == State.FAILED] == ["not_enough_memory"]
    assert by_pid(rows)[before.pid].state == State.READY


async def test_a_change_goes_on_after_the_supervisor_was_killed_in_the_middle(bench, model):
    await bench.start()
    (before,) = await bench.ready()
    # The switch holds for all of them: the first one is to be older than that, else it says that it loads again.
    await until(lambda: time.time() - psutil.Process(before.pid).create_time() > 1)
    bench.switches(load_seconds=0.5)
    await bench.ask(services.update_model, "a", {"context_length": 1024})
    rows = await bench.until(lambda rows: any(row.state == State.LOADING for row in rows))
    loading = next(row.pid for row in rows if row.state == State.LOADING)
    await bench.abandon()
    assert {found.process.pid for found in process.find_engines()} == {before.pid, loading}
    await bench.start()
    (after,) = await bench.until(lambda rows: len(rows) == 1 and rows[0].pid == loading)
    assert after.state == State.READY


async def test_a_new_file_is_a_new_version(bench, model):
    make_gguf(bench.home / "models" / "b.gguf")
    await bench.start()
    (before,) = await bench.ready()
    await bench.ask(services.update_model, "a", {"file": "b.gguf"})
    (after,) = await bench.until(lambda rows: len(rows) == 1 and rows[0].pid != before.pid)
    assert "b.gguf" in " ".join(psutil.Process(after.pid).cmdline())
