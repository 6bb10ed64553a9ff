"""Makes what runs equal to what is wanted.

Every half second it reads what is wanted (one query) and tells its replica runners: begin, change, stop. The database says
what is wanted, the runners know what runs; nobody else writes ``Replica`` rows. At its start it takes over the engines that an
earlier supervisor left: those that fit a row are adopted, the others ended; processes without this folder's mark are never
touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import httpx
from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import close_old_connections

from models_app import health, process, records, selectors
from models_app.housekeeping import Housekeeping
from models_app.launchers.local import LocalLauncher
from models_app.lives import Engine, Shared, Timing
from models_app.models import Replica
from models_app.process import Found
from models_app.replica_runner import ReplicaRunner
from models_app.selectors import WantedModel
from models_app.states import State

logger = logging.getLogger(__name__)
Key = tuple[int, int]  # model id, number of the replica


class Supervisor:
    """``await Supervisor().run(stop)``; for tests, ``take_over`` and ``reconcile`` can be called on their own."""

    def __init__(self, timing: Timing | None = None, launcher: LocalLauncher | None = None) -> None:
        self.timing = timing or Timing()
        self.launcher = launcher or LocalLauncher()
        self.runners: dict[Key, ReplicaRunner] = {}
        self.housekeeping = Housekeeping()
        self._client: httpx.AsyncClient | None = None
        self._shared: Shared | None = None

    async def run(self, stop: asyncio.Event) -> None:
        await self.take_over()
        try:
            while not stop.is_set():
                await self._step()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self.timing.look)
        finally:
            await self.shut_down()

    async def _step(self) -> None:
        try:
            await self.reconcile()
            await self.housekeeping.step(self.runners.values())
        except DatabaseError as error:
            logger.warning("the database does not answer; models go on running: %s", error)
            await sync_to_async(close_old_connections)()
        except Exception:
            logger.exception("one step failed; the next one follows")

    @property
    def shared(self) -> Shared:
        if self._shared is None:
            self._client = health.new_client()
            self._shared = Shared(self.launcher, self._client, self.timing)
        return self._shared

    # -- taking over ---------------------------------------------------------------------------------------------------
    async def take_over(self) -> None:
        """Adopts or ends what an earlier supervisor left, and corrects rows whose process is gone."""
        node = await self.housekeeping.node()
        left = await asyncio.to_thread(process.find_engines)
        rows = {row.pk: row for row in await records.rows_of(node)}
        models = {model.id: model for model in await sync_to_async(selectors.wanted_models)()}
        adopted: set[int] = set()
        for found in left:
            row = rows.get(found.replica_id)
            fits = row is not None and row.key_nonce == found.nonce and row.model_id in models and row.pk not in adopted
            if row is not None and fits and await self._adopt(row, found, models[row.model_id]):
                adopted.add(row.pk)
                continue
            logger.warning("pid %d: an engine that an earlier supervisor left is ended", found.process.pid)
            await asyncio.to_thread(found.process.end, self.timing.grace)
        await records.delete([pk for pk in rows if pk not in adopted])

    async def _adopt(self, row: Replica, found: Found, model: WantedModel) -> bool:
        """False when it does not take our key, or nobody knows its port: such an engine is of no use."""
        if row.port is None:
            return False
        engine = Engine(found.process, row.port, found.nonce, file_size=0)
        state = await health.health(self.shared.client, engine.base_url)
        answers = state is health.Health.OK
        if answers and not await health.accepts_key(self.shared.client, engine.base_url, engine.key):
            return False
        engine.ready = answers and row.state in (State.READY, State.DRAINING)
        runner = ReplicaRunner(self.shared, row.pk, row.number, model.wanted)
        await runner.row.write(pid=found.process.pid, pid_started=found.process.started)
        runner.begin(engine, row.fingerprint)
        self.runners[(row.model_id, row.number)] = runner
        logger.info("%s: goes on running as pid %d", runner, found.process.pid)
        return True

    # -- one step ------------------------------------------------------------------------------------------------------
    async def reconcile(self) -> None:
        wanted = {model.id: model for model in await sync_to_async(selectors.wanted_models)()}
        self.shared.replicas = sum(model.replicas for model in wanted.values())
        await self._forget_ended(wanted)
        for (model_id, number), runner in self.runners.items():
            model = wanted.get(model_id)
            if model is None or number > model.replicas:
                runner.stop()
        for model in wanted.values():
            await self._begin_missing(model)
            self._change(model)
        for runner in self.runners.values():
            await runner.row.flush()

    async def _forget_ended(self, wanted: dict[int, WantedModel]) -> None:
        """A replica that has stopped leaves no row: a model without rows is a stopped one."""
        ended = {key: runner for key, runner in self.runners.items() if runner.task is not None and runner.task.done()}
        if not ended:
            return
        await records.delete([runner.id for runner in ended.values()])
        for key in ended:
            del self.runners[key]

    async def _begin_missing(self, model: WantedModel) -> None:
        for number in range(1, model.replicas + 1):
            key = (model.id, number)
            if key in self.runners:
                continue
            row = await records.open_row(model.id, number, await self.housekeeping.node())
            if row is not None:
                self.runners[key] = ReplicaRunner(self.shared, row, number, model.wanted)
                self.runners[key].begin()

    def _change(self, model: WantedModel) -> None:
        """New settings reach replicas one after the other, so that one of several always serves."""
        runners = [
            runner
            for (model_id, number), runner in sorted(self.runners.items())
            if model_id == model.id and number <= model.replicas and not runner.stopping
        ]
        for runner in runners:
            if (runner.wanted != model.wanted or runner.outdated) and may_change(runner, runners, model):
                runner.change_to(model.wanted)

    # -- the end -------------------------------------------------------------------------------------------------------
    async def shut_down(self) -> None:
        """Ends every engine, at once and all together."""
        for runner in self.runners.values():
            runner.stop(drain=False)
        tasks = [runner.task for runner in self.runners.values() if runner.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        try:
            await records.delete([runner.id for runner in self.runners.values()])
        except DatabaseError as error:
            logger.warning("rows of stopped replicas stay behind: %s", error)
        self.runners.clear()
        if self._client is not None:
            await self._client.aclose()
            self._client = self._shared = None


def may_change(runner: ReplicaRunner, all_of_model: Sequence[ReplicaRunner], model: WantedModel) -> bool:
    """A replica that serves waits for its turn: until every other one is ready, with the new settings or still with the old."""
    others = [other for other in all_of_model if other is not runner]
    return not runner.is_ready or (len(others) >= model.replicas - 1 and all(other.is_ready for other in others))
