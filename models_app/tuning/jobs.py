"""The supervisor's side: tunings that somebody asked for become child processes, one at a time, at low priority."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time

import psutil
from asgiref.sync import sync_to_async
from django.conf import settings

from llmplatform.lib import parent_watch
from models_app.models import TuningRun
from models_app.tuning import runs

logger = logging.getLogger(__name__)
LOOK = 1.0  # seconds
NICE, BELOW_NORMAL = 10, 0x4000  # POSIX, Windows
END_SECONDS = 8.0  # to end engines in order


class TuningJobs:
    """``step`` is called twice a second and never waits; ``stop`` ends what runs."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._run_id = 0
        self._looked = float("-inf")

    async def step(self) -> None:
        """Raises what the database raises."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        if self._child is not None and self._child.poll() is not None:
            self._child = None
            await asyncio.to_thread(runs.end_engines, self._run_id)
            await sync_to_async(runs.child_ended)(self._run_id)
        asked = await sync_to_async(runs.open_runs)()
        if self._child is None:
            await self._begin(asked)
        elif any(run.pk == self._run_id and run.stop_wanted for run in asked):
            self._child.terminate()

    async def _begin(self, asked: list[TuningRun]) -> None:
        if any(run.stage == TuningRun.Stage.RUNNING for run in asked):
            await sync_to_async(runs.clean_up)()
            return
        waiting = next((run for run in asked if run.pid is None and not run.stop_wanted), None)
        if waiting is None:
            return
        argv = [sys.executable, str(settings.BASE_DIR / "manage.py"), "tunemodel", "--run", str(waiting.pk)]
        # It holds one end of a pipe whose other end is ours: when we go, however that is, it ends too.
        environment = {**os.environ, parent_watch.VARIABLE: "1"}
        self._child = await asyncio.to_thread(
            subprocess.Popen, argv, stdin=subprocess.PIPE, env=environment, start_new_session=True
        )
        self._run_id = waiting.pk
        with contextlib.suppress(psutil.Error):
            psutil.Process(self._child.pid).nice(NICE if os.name == "posix" else BELOW_NORMAL)
        logger.info("tuning %s: process %d", waiting, self._child.pid)

    async def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            await asyncio.to_thread(self._wait)

    def _wait(self) -> None:
        child = self._child
        if child is None:
            return
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        runs.end_engines(self._run_id)
