"""A supervisor in the test's own process, with the stand-in llama-server; for the tests of what it does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from unittest.mock import AsyncMock, patch

import psutil
import pytest
from asgiref.sync import sync_to_async

from models_app import process
from models_app.lives import Timing
from models_app.models import ModelConfig, Replica
from models_app.states import State
from models_app.supervisor import Supervisor
from models_app.tests.gguf_files import make_gguf
from tests import standin

QUICK = Timing(look=0.05, poll=0.03, watch=0.05, check=0.1, hung=0.6, start=5, load=5, token=5, drain=5, drain_least=0.1,
               healthy=60, look_inside=0.1, stuck=1.5, room=0.3, back_off=0.01, recheck=0.05, grace=1)  # fmt: skip


class Bench:
    """A supervisor that runs in this test, and what a test wants to know about it."""

    def __init__(self, home: Path, engine: Path) -> None:
        self.home, self.engine = home, engine
        self.supervisor: Supervisor | None = None
        self.stop, self.task = asyncio.Event(), None

    async def start(self, timing: Timing = QUICK) -> None:
        self.stop = asyncio.Event()
        self.supervisor = Supervisor(timing)
        self.task = asyncio.create_task(self.supervisor.run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        if self.task is not None:
            await asyncio.wait_for(self.task, 20)
            self.task = None

    async def abandon(self) -> None:
        """As by kill -9: the supervisor is gone, nobody has ended the engines or written a row."""
        tasks = [self.task, *(runner.task for runner in self.supervisor.runners.values())]
        self.supervisor.shut_down = AsyncMock()
        with patch.object(process.EngineProcess, "end"):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        self.task = None

    def switches(self, **switches) -> None:
        standin.set_switches(self.engine, **switches)

    async def rows(self) -> list[Replica]:
        return await sync_to_async(lambda: list(Replica.objects.order_by("model__name", "number")))()

    async def until(self, condition, seconds: float = 30):
        """Waits until ``condition(rows)`` holds and returns the rows."""
        end = time.monotonic() + seconds
        while not condition(rows := await self.rows()):
            assert time.monotonic() < end, [(row.state, row.reason) for row in rows]
            await asyncio.sleep(0.02)
        return rows

    async def state(self, state: State, count: int = 1, seconds: float = 30) -> list[Replica]:
        return await self.until(lambda rows: len(rows) == count and all(row.state == state for row in rows), seconds)

    async def ready(self, count: int = 1) -> list[Replica]:
        return await self.state(State.READY, count)

    async def ask(self, function, *arguments):
        return await sync_to_async(function)(*arguments)


async def until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def engines(home: Path) -> list[psutil.Process]:
    """Running engines of this folder, found without the code under test."""
    found = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = candidate.cmdline()
            if "--alias" in command and str(home) in " ".join(command) and candidate.status() != psutil.STATUS_ZOMBIE:
                found.append(candidate)
    return found


@pytest.fixture
async def bench(home, settings):
    make_gguf(home / "models" / "a.gguf")
    engine = standin.write_executable(home / "llama-server")
    settings.LLAMA_CPP_PATH = str(engine)
    bench = Bench(home, engine)
    yield bench
    await bench.end()
    left = engines(home)
    for engine in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.kill()
    assert not left, "an engine outlived its supervisor"


@pytest.fixture
async def model(bench):
    return await bench.ask(lambda: ModelConfig.objects.create(name="a", file="a.gguf", slots=2, context_length=512))
