"""Makes what runs equal to what is wanted.

Every second, and when somebody knocks, it reads what is wanted (one query) and tells its replica runners: begin, change,
stop. The database says what is wanted, the runners know what runs; nobody else writes ``Replica`` rows. At its start it takes
over the engines that an earlier supervisor left: those that fit a row are adopted, the others ended; processes without this
folder's mark are never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Sequence
from typing import Any

import aiohttp
from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import close_old_connections

from llmplatform.lib import knock
from models_app import engine_limits, health, process, records, selectors, topology
from models_app.downloads import worker as downloads
from models_app.engine_builds import EngineBuilds
from models_app.housekeeping import Housekeeping
from models_app.launchers.local import LocalLauncher
from models_app.lives import Engine, Shared, Timing
from models_app.memory_guard import MemoryGuard
from models_app.models import Replica
from models_app.on_demand_loads import OnDemandLoads
from models_app.preparation import need_of
from models_app.process import Found
from models_app.replica_runner import ReplicaRunner
from models_app.rollout import Standing, next_steps
from models_app.selectors import WantedModel
from models_app.states import State
from models_app.tuning.jobs import TuningJobs

logger = logging.getLogger(__name__)
CLAIM_EVERY = 10.0
LEAST_PAUSE = 0.02  # however many knock
Key = tuple[int, int]  # model id, number of the replica


class Supervisor:
    """``await Supervisor().run(stop)``; for tests, ``take_over`` and ``reconcile`` can be called on their own."""

    def __init__(self, timing: Timing | None = None, launcher: LocalLauncher | None = None) -> None:
        self.timing = timing or Timing()
        self.launcher = launcher or LocalLauncher()
        self.runners: dict[Key, ReplicaRunner] = {}
        self.housekeeping = Housekeeping()
        self.memory_guard = MemoryGuard()
        self.tuning = TuningJobs()
        self.on_demand = OnDemandLoads()
        self._news = asyncio.Event()
        self.builds = EngineBuilds(self.launcher, self.timing)
        self._client: aiohttp.ClientSession | None = None
        self._shared: Shared | None = None

    async def run(self, stop: asyncio.Event) -> None:
        await self.take_over()
        pulling = asyncio.create_task(downloads.Worker().run(stop), name="downloads")
        claiming = asyncio.create_task(_claim_for_ever(), name="claim")
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(self._has_news)
        door = await knock.Door.open(knock.SUPERVISOR, self._news.set)
        try:
            while not stop.is_set():
                self._news.clear()
                await self._step()
                await asyncio.sleep(LEAST_PAUSE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.timing.look):
                        await self._news.wait()
        finally:
            door.close()
            stopping.cancel()
            claiming.cancel()
            pulling.cancel()
            await self.shut_down()
            await asyncio.wait([pulling])

    def _watch(self, runner: ReplicaRunner) -> None:
        """When it ends, somebody may want its memory."""
        if runner.task is not None:
            runner.task.add_done_callback(self._has_news)

    def _has_news(self, _task: asyncio.Task[Any]) -> None:
        self._news.set()

    async def _step(self) -> None:
        try:
            await self.builds.look(self.runners)
            await self.reconcile()
            await self.memory_guard.step(self.runners.values())
            await self.housekeeping.step(self.runners.values())
            await self.tuning.step()
        except DatabaseError as error:
            logger.warning("the database does not answer; models go on running: %s", error)
            await sync_to_async(close_old_connections)()
        except Exception:
            logger.exception("one step failed; the next one follows")

    @property
    def shared(self) -> Shared:
        if self._shared is None:
            self._client = health.new_client()
            self._shared = Shared(self.launcher, self._client, self.timing, learned=self.housekeeping.learned)
        return self._shared

    # -- taking over ---------------------------------------------------------------------------------------------------
    async def take_over(self) -> None:
        """Adopts or ends what an earlier supervisor left, and corrects rows whose process is gone."""
        node = await self.housekeeping.node()
        await self.housekeeping.recall()
        left = await asyncio.to_thread(process.find_engines)
        rows = {row.pk: row for row in await records.rows_of(node)}
        models = {model.id: model for model in await sync_to_async(selectors.wanted_models)()}
        adopted: set[int] = set()
        for found in left:
            if found.replica_id < 0 and found.is_measured:
                continue
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
        engine = Engine(found.process, row.port, found.nonce)
        engine.memory_bound = engine_limits.bound_of(found.process.pid)
        engine.memory_planned = row.memory_planned or 0
        state = await health.health(self.shared.client, engine.base_url)
        answers = state is health.Health.OK
        if answers and not await health.accepts_key(self.shared.client, engine.base_url, engine.key):
            return False
        engine.ready = answers and row.state in (State.READY, State.DRAINING)
        runner = ReplicaRunner(self.shared, row.pk, row.number, model.wanted)
        await runner.row.write(pid=found.process.pid, pid_started=found.process.started)
        self.shared.places[row.pk] = await asyncio.to_thread(
            topology.place_of, found.process.pid, model.name, self.shared.places
        )
        runner.begin(engine, row.fingerprint, row.engine)
        self._watch(runner)
        self.runners[(row.model_id, row.number)] = runner
        logger.info("%s: goes on running as pid %d", runner, found.process.pid)
        return True

    # -- one step ------------------------------------------------------------------------------------------------------
    async def reconcile(self) -> None:
        await self._forget_ended()
        models = await sync_to_async(selectors.wanted_models)()
        running = self._by_model()
        models = await self.on_demand.step(models, running, self.shared)
        wanted = {model.id for model in models}
        self.shared.expected = tuple(need_of(model.wanted) for model in models for _ in range(model.replicas))
        for (model_id, _number), runner in self.runners.items():
            if model_id not in wanted:
                runner.stop()
        for model in models:
            await self._bring_closer(model, running.get(model.id, ()))
        for runner in self.runners.values():
            await runner.row.flush()

    def _by_model(self) -> dict[int, list[ReplicaRunner]]:
        found: dict[int, list[ReplicaRunner]] = {}
        for (model_id, _number), runner in self.runners.items():
            found.setdefault(model_id, []).append(runner)
        return found

    async def _bring_closer(self, model: WantedModel, running: Sequence[ReplicaRunner]) -> None:
        """One step from what runs of a model to what should."""
        of_model = {runner.number for runner in running}
        staying = {runner.number: runner for runner in running if not runner.stopping}
        builds = {number: self.builds.version_for(model.id, runner) for number, runner in staying.items()}
        fingerprints = {build: model.wanted.fingerprint(build) for build in set(builds.values())}
        current = {
            number
            for number, runner in staying.items()
            if runner.will_run_as(model.wanted, fingerprints[builds[number]])
        }
        old = [staying[number] for number in sorted(staying.keys() - current)]
        standings = [
            Standing(
                number, number in current, self.builds.serves(runner), runner.row.state is State.FAILED,
                number in current and await _would_fit(runner, old),
            )
            for number, runner in staying.items()
        ]  # fmt: skip
        steps = next_steps(standings, model.replicas, leaving=len(of_model) - len(staying))
        for number in steps.stop:
            staying[number].stop(hurried=model.on_demand is not None and not model.replicas)
        for number in steps.renew:
            staying[number].change_to(model.wanted)
        for standing in standings:
            if steps.stop and standing.fits_instead:
                await staying[standing.number].room_is_made()
        free = (number for number in itertools.count(1) if number not in of_model)
        for number in itertools.islice(free, steps.start):
            await self._begin(model, number)

    async def _forget_ended(self) -> None:
        """A replica that has stopped leaves no row: a model without rows is a stopped one."""
        ended = {key: runner for key, runner in self.runners.items() if runner.task is not None and runner.task.done()}
        if not ended:
            return
        await records.delete([runner.id for runner in ended.values()])
        for key in ended:
            del self.runners[key]

    async def _begin(self, model: WantedModel, number: int) -> None:
        row = await records.open_row(model.id, number, await self.housekeeping.node())
        if row is not None:
            self.runners[(model.id, number)] = runner = ReplicaRunner(self.shared, row, number, model.wanted)
            runner.begin()
            self._watch(runner)

    # -- the end -------------------------------------------------------------------------------------------------------
    async def shut_down(self) -> None:
        """Ends every engine, at once and all together."""
        await self.tuning.stop()
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
            await self._client.close()
            self._client = self._shared = None


async def _claim_for_ever() -> None:
    """Beside everything else: engines that nobody claims end themselves, and a database that hangs is no reason for that."""
    while True:
        await asyncio.to_thread(process.claim_engines)
        await asyncio.sleep(CLAIM_EVERY)


async def _would_fit(runner: ReplicaRunner, old: Sequence[ReplicaRunner]) -> bool:
    """Whether it lacks nothing but memory, and the first of the old ones has that much."""
    return bool(old) and runner.lacks > 0 and await asyncio.to_thread(old[0].own_memory) >= runner.lacks
