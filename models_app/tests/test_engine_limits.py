"""What the system holds a real engine to: the processors it may run on, and the memory it may ask for."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from django.conf import settings as project

from models_app import engine_limits, preparation, reasons, services, topology
from models_app.engine_limits import HEAD_ROOM, PER_PROCESSOR, memory_bound, own_memory
from models_app.launchers.local import LocalLauncher
from models_app.memory import MIB
from models_app.models import ModelConfig
from models_app.preparation import Circumstances, NotStartable, need_of, prepare
from models_app.selectors import wanted_models
from models_app.states import State
from models_app.tests.supervised import QUICK
from models_app.tests.test_engine_settings import FILE, engine
from tests.running_service import put_starter_model

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def affinities(pid: int) -> set[frozenset[int]]:
    """Of all its threads."""
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in Path(f"/proc/{pid}/task").iterdir()}


def test_all_threads_run_on_the_named_cores_and_memory_is_bounded_with_room_to_spare(home):
    last = max(topology.read().cpus)
    with engine(home, cores=str(last), context_length=2048) as asked:
        assert asked.completes()
        argv = asked.process.cmdline()
        assert affinities(asked.process.pid) == {frozenset({last})}
        bound = engine_limits.bound_of(asked.process.pid)
        taken = next(
            line for line in Path(f"/proc/{asked.process.pid}/status").read_text().splitlines() if "VmData" in line
        )
    assert argv[argv.index("--threads") + 1] == "1"
    planned = own_memory(prepare(wanted_models()[0].wanted, Circumstances()).plan)
    assert bound >= planned + HEAD_ROOM
    assert int(taken.split()[1]) * 1024 < bound / 2


def test_an_engine_with_numa_set_runs(home):
    with engine(home, numa="isolate") as asked:
        assert "--numa" in asked.process.cmdline()
        assert asked.completes()


async def test_an_engine_that_wants_more_ends_and_says_so(bench, monkeypatch, settings):
    """The bound is set below what the model takes, on the way to the system; the plan stays what it is."""
    settings.LLAMA_CPP_PATH = ""
    put_starter_model(project.MODELS_PATH)
    monkeypatch.setattr(preparation.engine_limits, "memory_bound", lambda *_arguments: 150 * MIB)
    await bench.ask(lambda: ModelConfig.objects.create(name="m", file=FILE, slots=2, context_length=8192))
    await bench.start(replace(QUICK, start=60, load=60))
    [row] = await bench.state(State.FAILED, seconds=90)
    assert row.reason["code"] == "over_bound", row.reason
    text = reasons.text(row.reason)
    assert "more memory than the 0.15 GB" in text
    assert "ENGINE_MEMORY_BOUND" in text
    assert row.reason["params"]["line"] in row.reason["params"]["log"]


def test_the_bound_is_wide_and_never_below_what_was_measured(home):
    put_starter_model(project.MODELS_PATH)
    services.create_model({"name": "m", "file": FILE, "context_length": 512})
    prepared = prepare(wanted_models()[0].wanted, Circumstances())
    planned, stacks = own_memory(prepared.plan), PER_PROCESSOR * (psutil.cpu_count() or 1)
    assert planned < prepared.plan.need.most
    assert memory_bound(prepared.plan, 0, 2, 0) == planned + HEAD_ROOM + stacks
    assert memory_bound(prepared.plan, 0, 10, 0) == 10 * planned + stacks
    assert memory_bound(prepared.plan, 2**34, 2, 0) == 2**34 + HEAD_ROOM + stacks
    assert memory_bound(prepared.plan, 0, 0, 0) == memory_bound(prepared.plan, 0, 2, 99) == 0


def test_a_bound_of_our_own_process_is_not_raised(home):
    """The service itself may run under one."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_DATA, (2**40, 2**40))
        engine_limits.apply(os.getpid(), memory=2**42)
        os._exit(0 if engine_limits.bound_of(os.getpid()) == 2**40 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_has_ended_already_is_no_error():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    engine_limits.apply(child, {0}, 2**40)
    assert engine_limits.bound_of(child) == 0


def test_cores_that_this_machine_lacks_are_said(home):
    put_starter_model(project.MODELS_PATH)
    services.create_model({"name": "m", "file": FILE, "cores": "4000-4001"})
    with pytest.raises(NotStartable) as caught:
        prepare(wanted_models()[0].wanted, Circumstances())
    assert "names 4000-4001, but this service may use 0" in reasons.text(caught.value.reason)


def test_threads_go_by_the_cores_that_replicas_share_out(home):
    put_starter_model(project.MODELS_PATH)
    services.create_model({"name": "m", "file": FILE, "context_length": 512})
    [model] = wanted_models()
    cores = topology.physical_cores()
    for replicas in (1, 2, 3):
        expected = (need_of(model.wanted),) * replicas
        assert prepare(model.wanted, Circumstances(expected=expected)).chosen.threads == max(1, cores // replicas)


def test_a_place_is_found_again_when_an_engine_is_taken_over(home):
    put_starter_model(project.MODELS_PATH)
    last = max(topology.read().cpus)
    services.create_model({"name": "m", "file": FILE, "context_length": 512, "slots": 1, "cores": str(last)})
    [model] = wanted_models()
    prepared = prepare(model.wanted, Circumstances())
    started = LocalLauncher().start(model.wanted, prepared.chosen, 1, "nonce", home / "engine.log")
    try:
        assert topology.place_of(started.process.pid, "m", {}) == prepared.place
    finally:
        started.process.end()
