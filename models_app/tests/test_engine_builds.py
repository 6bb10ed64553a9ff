"""Another build of the engine while models run: one replica first, the others when it has served there, nobody when it does not
come up."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from models_app import reasons
from models_app.launchers.local import LocalLauncher, label
from models_app.models import ModelConfig, Replica
from models_app.states import State
from models_app.tests.supervised import QUICK, engines

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]
WATCHING = replace(QUICK, engine=0.05, trial=0.6)


@pytest.fixture
async def two_models(bench, model):
    """``a`` with two replicas, and ``b``."""
    await bench.ask(lambda: ModelConfig.objects.update(replicas=2))
    await bench.ask(lambda: ModelConfig.objects.create(name="b", file="a.gguf", slots=2, context_length=512))
    await bench.start(WATCHING)
    return await bench.ready(3)


def install(engine: Path, *, good: bool = True) -> None:
    """As an installation does: beside it, then in its place."""
    new = engine.with_name("new")
    text = engine.read_text() if good else "#!/bin/sh\necho 'error: illegal instruction' >&2\nexit 3\n"
    new.write_text(text.rstrip("#\n") + "\n" + "#" * (1 + text.count("#")) + "\n")
    new.chmod(0o755)
    new.replace(engine)


def of(rows: list[Replica], pids: set[int | None]) -> list[Replica]:
    return [row for row in rows if row.pid in pids]


async def test_one_replica_tries_it_and_then_all_get_it(bench, two_models):
    before = {row.pid for row in two_models}
    install(bench.engine)
    seen = []

    def all_new(rows: list[Replica]) -> bool:
        ready = [row for row in rows if row.state == State.READY]
        seen.append((len({row.model_id for row in rows if row.pid and row.pid not in before}), len(of(ready, before))))
        assert {row.model_id for row in ready} == {row.model_id for row in two_models}, "each model always serves"
        return len(rows) == 3 and len(ready) == 3 and not of(rows, before)

    rows = await bench.until(all_new, 30)
    trial = [new_models for new_models, old_ready in seen if old_ready == 3 and new_models]
    assert trial
    assert set(trial) == {1}, "while all old ones run, only one model has a new one"
    assert {row.engine for row in rows} == {bench.supervisor.launcher.version}
    assert not {row.engine for row in rows} & {row.engine for row in two_models}


async def test_one_that_has_not_served_long_enough_takes_nobodys_place(bench, model):
    await bench.start(replace(WATCHING, trial=1000))
    [before] = await bench.ready()
    install(bench.engine)
    for _ in range(2):  # it crashes, and serves again
        rows = await bench.ready(2)
        [canary] = [row.pid for row in rows if row.pid != before.pid]
        assert before.pid in {row.pid for row in rows}
        psutil.Process(canary).kill()
        await bench.until(lambda rows, dead=canary: dead not in {row.pid for row in rows})


async def test_one_that_does_not_come_up_is_told_and_the_old_ones_run_on(bench, two_models):
    before = {row.pid for row in two_models}
    whole = bench.engine.with_name("whole")
    shutil.copy2(bench.engine, whole)
    install(bench.engine, good=False)
    rows = await bench.until(lambda rows: any(row.state == State.FAILED for row in rows), 30)
    [canary] = [row for row in rows if row.state == State.FAILED]
    assert "illegal instruction" in reasons.text(canary.reason)
    assert {row.pid for row in rows if row.state == State.READY} == before

    # The way back is the old program: nothing is restarted, and the canary goes.
    whole.replace(bench.engine)
    rows = await bench.ready(3)
    assert {row.pid for row in rows} == before


async def test_a_trial_goes_on_under_another_supervisor(bench, two_models):
    """It was away when the engine changed. A third build, which is good, is the next trial."""
    before, good = {row.pid for row in two_models}, bench.engine.read_text()
    await bench.abandon()
    install(bench.engine, good=False)
    await bench.start(WATCHING)
    rows = await bench.until(lambda rows: any(row.state == State.FAILED for row in rows), 30)
    assert len(rows) == 4
    assert {row.pid for row in rows if row.state == State.READY} == before
    bench.engine.write_text(good + "##\n")
    await bench.until(
        lambda rows: len(rows) == 3 and all(row.state == State.READY and row.pid not in before for row in rows), 30
    )
    assert len(engines(bench.home)) == 3


async def test_another_program_named_in_env_is_the_same_change(bench, model, monkeypatch):
    monkeypatch.delenv("LLAMA_CPP_PATH", raising=False)
    await bench.start(WATCHING)
    [before] = await bench.ready()
    other = bench.home / "other-server"
    other.write_text(bench.engine.read_text())
    other.chmod(0o755)
    (bench.home / ".env").write_text(f"LLAMA_CPP_PATH={other}\n")
    [after] = await bench.until(
        lambda rows: len(rows) == 1 and rows[0].state == State.READY and rows[0].pid != before.pid, 30
    )
    assert after.engine.startswith(str(other))
    assert label(after.engine).startswith("other-server of ")
    assert psutil.pid_exists(after.pid)


def test_a_program_that_is_gone_or_half_written_is_no_change(home, settings):
    program = home / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    settings.LLAMA_CPP_PATH = str(program)
    launcher = LocalLauncher()
    version = launcher.version
    program.unlink()
    assert not launcher.look()
    assert launcher.program == program
    for half in ("#!/bin/sh\nex", "#!/bin/sh\nexit"):
        program.write_text(half)
        program.chmod(0o755)
        assert not launcher.look()
    assert launcher.version == version
    assert launcher.look()
    assert launcher.version != version
    assert not launcher.look()


def test_how_builds_are_called():
    assert label("embedded 0.2.6") == "built-in 0.2.6"
    assert label("") == label("from another version") == ""
