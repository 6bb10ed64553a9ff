"""How a new build of the engine comes into use: on one replica of one model first (the canary), and on all others when it has
served there for a while.

A build is what ``LocalLauncher.version`` names. While one is on trial the others count as current as they are. One that does not
come up stays on trial: the old ones run on, the reason stands at the canary, and the next change of the engine (a repaired
build, or the old one put back) is the next trial. A replica that ends meanwhile starts with what is installed; there is nothing
else to start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from models_app.command_line import Wanted
from models_app.launchers.local import LocalLauncher
from models_app.lives import Timing
from models_app.preparation import NotStartable, find_file
from models_app.replica_runner import ReplicaRunner
from models_app.states import State

logger = logging.getLogger(__name__)
Runners = Mapping[tuple[int, int], ReplicaRunner]  # by model and number


class EngineBuilds:
    def __init__(self, launcher: LocalLauncher, timing: Timing) -> None:
        self._launcher, self._timing = launcher, timing
        self._looked = float("-inf")
        self._proven = ""
        self._canary: int | None = None  # a model

    async def look(self, runners: Runners) -> None:
        """Whether the installed engine has changed; every few seconds, for that is a look at the disk."""
        if time.monotonic() - self._looked < self._timing.engine:
            return
        self._looked = time.monotonic()
        if await asyncio.to_thread(self._launcher.look):
            logger.warning("the engine has changed: %s is tried on one replica", self._launcher.version)
            for runner in runners.values():
                if runner.row.state is State.FAILED:  # it waits for a change, and this may be the one
                    runner.change_to(runner.wanted)
        if not self._is_proven():
            await asyncio.to_thread(self._judge, runners)

    def _is_proven(self) -> bool:
        return self._proven == self._launcher.version

    def _judge(self, runners: Runners) -> None:
        new = self._launcher.version
        staying = {key: runner for key, runner in list(runners.items()) if not runner.stopping}
        old = {key: runner for key, runner in staying.items() if runner.build not in ("", new)}
        if not old or any(
            runner.build == new and runner.ready_for >= self._timing.trial for runner in staying.values()
        ):
            self._proven, self._canary = new, None
            if old:
                logger.info("%s has proved itself: it comes to all replicas", new)
        elif self._canary not in {model_id for model_id, _number in staying}:
            by_need = sorted(old, key=lambda key: (_size(old[key].wanted), key))
            self._canary = by_need[0][0]

    def version_for(self, model_id: int, runner: ReplicaRunner) -> str:
        """The build that a replica should run."""
        if self._is_proven() or model_id == self._canary:
            return self._launcher.version
        return runner.build or self._launcher.version

    def serves(self, runner: ReplicaRunner) -> bool:
        """Also in an older one's stead: while its build is on trial, it takes nobody's place."""
        return runner.is_ready and (self._is_proven() or runner.build != self._launcher.version)


def _size(wanted: Wanted) -> int:
    """Of the model's file: the smallest is the likeliest to fit beside what runs."""
    try:
        return find_file(wanted).stat().st_size
    except (NotStartable, OSError):
        return 0
