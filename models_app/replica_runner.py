"""One replica from its start to its end: pending → starting → loading → ready → draining, again after a failure, or failed.

Each step that waits has a deadline, notices when the process ends, and leaves at once when asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models_app import engine_limits, gguf, health, model_files, process, reasons
from models_app.command_line import Wanted
from models_app.health import Health
from models_app.liveness import Liveness, Look
from models_app.lives import LOAD_BYTES, Asked, Engine, Failed, PortTaken, Shared
from models_app.preparation import NotStartable, Preparation, find_file, prepare
from models_app.records import ReplicaRow
from models_app.states import State

logger = logging.getLogger(__name__)
QUICK_FAILURES = 5


class ReplicaRunner:
    """``change_to`` gives it other settings at any time; ``stop`` ends its task."""

    def __init__(self, shared: Shared, replica_id: int, number: int, wanted: Wanted) -> None:
        self.shared, self.timing = shared, shared.timing
        self.row, self.id, self.number, self.wanted = ReplicaRow(replica_id), replica_id, number, wanted
        self.stopping, self._drains, self._hurried = False, True, False
        self._quick_failures = 0
        self._ready_at: float | None = None
        self._asked = False
        self._wake = asyncio.Event()  # somebody asked, or the process ended
        self._adopted: Engine | None = None
        self._runs_as = ""  # fingerprint of what runs now
        self.build = ""  # and the version of its engine
        self.engine: Engine | None = None
        self.lacks = 0  # bytes of memory, while that alone keeps it from starting
        self._last_counter = 0.0
        self._made_room: dict[str, Any] | None = None
        self._room_comes = 0.0  # until then an older replica is expected to leave it its memory
        self.task: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"{self.wanted.name}/{self.number}"

    # -- asked from outside --------------------------------------------------------------------------------------------
    def begin(self, adopted: Engine | None = None, fingerprint: str = "", build: str = "") -> None:
        if adopted is not None:
            self._adopted, self._runs_as, self.build = adopted, fingerprint, build
            self.shared.ports[self.id] = adopted.port
            if adopted.ready:  # from the first moment: what serves is not to be renewed where it is
                self.row.state = State.READY
        self.task = asyncio.create_task(self._run(), name=str(self))

    @property
    def is_ready(self) -> bool:
        """Serves, and will go on to."""
        return self.row.state is State.READY and not self._asked

    @property
    def ready_for(self) -> float:
        """Seconds."""
        return time.monotonic() - self._ready_at if self.is_ready and self._ready_at is not None else 0.0

    def will_run_as(self, wanted: Wanted, fingerprint: str) -> bool:
        """Whether that is what it runs, or will without being asked again."""
        if self._runs_as and not self._asked:
            return self._runs_as == fingerprint
        return self.wanted == wanted

    async def room_is_made(self) -> None:
        """An older replica is being stopped in its favour: it is on its way again."""
        self._room_comes = time.monotonic() + self.timing.drain + self.timing.room
        await self.row.set_state(State.PENDING)

    def _ask(self) -> None:
        self._asked = True
        self._wake.set()

    def change_to(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._ask()

    def make_room(self, available: int, least: int) -> None:
        """Memory runs out, and nobody uses this replica: it ends, and starts again when there is enough."""
        self._made_room = reasons.reason("made_room", available=available, least=least)
        self._ask()

    def own_memory(self) -> int:
        """Bytes that are free again when it ends."""
        return self.engine.process.own_memory() if self.engine is not None else 0

    def stop(self, drain: bool = True, hurried: bool = False) -> None:
        """``hurried``: its memory is wanted. A request that comes in this moment is sent again by the gateway."""
        self.stopping, self._drains = True, self._drains and drain
        self._hurried = self._hurried or hurried
        self._ask()

    # -- the life ------------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        while not self.stopping:
            self._asked = False
            try:
                await self._one_life()
            except Asked:
                self._quick_failures = 0
                if self._made_room is not None and not self.stopping:
                    await self._wait_for_memory(self._made_room)
            except PortTaken:
                logger.warning("%s: its port was taken; the next one is tried", self)
            except NotStartable as error:
                await self._wait_until_startable(error.reason)
            except Failed as error:
                await self._after_failure(error.reason)
            except Exception:
                logger.exception("%s", self)
                await self._after_failure(reasons.reason("internal_error"))

    async def _one_life(self) -> None:
        """Always ends with an exception that says why; the process is gone then."""
        engine, self._adopted = self._adopted, None
        try:
            engine = self.engine = engine or await self._start()
            await self._until_ready(engine)
            await self._watch(engine)
        except Asked:
            if engine is not None:
                await self._drain(engine)
            raise
        finally:
            if engine is not None:
                await asyncio.to_thread(engine.process.end, self.timing.grace)
            self.shared.ports.pop(self.id, None)
            self.shared.places.pop(self.id, None)
            self.shared.memory_promised.pop(self.id, None)
            self.shared.loading.pop(self.id, None)
            self._runs_as, self.build, self.engine = "", "", None

    async def _start(self) -> Engine:
        """The row says nonce, port and fingerprint before the process exists, and the process carries the nonce: whatever dies
        in between, the next supervisor finds the one by the other."""
        await self.row.set_state(State.PENDING, port=None, pid=None, pid_started=None)
        prepared = await asyncio.to_thread(prepare, self.wanted, self.shared.around(self.id))
        chosen, nonce, wanted = prepared.chosen, process.new_nonce(), self.wanted
        if chosen.port in self.shared.ports.values():
            raise PortTaken
        self.shared.ports[self.id], self.shared.memory_promised[self.id] = chosen.port, prepared.memory
        self.shared.places[self.id] = prepared.place
        self.build = self.shared.launcher.version
        self._runs_as = wanted.fingerprint(self.build)
        announced = await self.row.set_state(
            State.STARTING,
            port=chosen.port,
            key_nonce=nonce,
            fingerprint=self._runs_as,
            engine=self.build,
            slots=wanted.slots,
            context_length=chosen.context_length,
            **prepared.memory_fields,
        )
        if not announced:
            raise NotStartable("database")
        self._check_asked()
        return await self._spawn(wanted, prepared, nonce)

    async def _spawn(self, wanted: Wanted, prepared: Preparation, nonce: str) -> Engine:
        try:
            started = await asyncio.to_thread(
                self.shared.launcher.start, wanted, prepared.chosen, self.id, nonce, self.log
            )
        except OSError as error:
            code = "log_folder" if error.filename in {str(self.log), str(self.log.parent)} else "engine_missing"
            raise NotStartable(code, error=error.strerror or str(error), folder=str(self.log.parent)) from error
        engine = Engine(
            started.process,
            prepared.chosen.port,
            nonce,
            started.log_start,
            prepared.facts.size,
            prepared.chosen.memory_bound,
            engine_limits.own_memory(prepared.plan),
            prepared.plan.need.mapped,
        )
        self.shared.loading[self.id] = engine.process
        await self.row.write(pid=engine.process.pid, pid_started=engine.process.started)
        return engine

    @property
    def log(self) -> Path:
        return process.log_path(self.wanted.name, self.number)

    # -- getting ready -------------------------------------------------------------------------------------------------
    async def _until_ready(self, engine: Engine) -> None:
        if not engine.ready:
            load = self.timing.load + engine.file_size / LOAD_BYTES
            await self._await_health(engine, {Health.OK, Health.LOADING}, self.timing.start, "start_timeout")
            await self.row.set_state(State.LOADING)
            await self._await_health(engine, {Health.OK}, load, "load_timeout")
            await self._first_token(engine)
        self.shared.memory_promised.pop(self.id, None)
        self.shared.loading.pop(self.id, None)
        self._ready_at = time.monotonic()
        await self.row.set_state(State.READY, reason=None)
        logger.info("%s: ready on port %d", self, engine.port)

    async def _await_health(self, engine: Engine, enough: Iterable[Health], seconds: float, code: str) -> None:
        began = time.monotonic()
        while not (
            await health.health(self.shared.client, engine.base_url) in enough
            # Else a stranger answers on this port, who must not get our key.
            and await asyncio.to_thread(engine.process.listens_on, engine.port)
        ):
            passed = time.monotonic() - began
            if passed > seconds:
                raise Failed(code, seconds=round(seconds), **self._log_params(engine))
            await self._pause(self.timing.next_poll(passed))
            self._check_alive(engine)

    async def _first_token(self, engine: Engine) -> None:
        probe = asyncio.ensure_future(
            health.generate_token(
                self.shared.client, engine.base_url, engine.key, _kind(self.wanted), self.timing.token
            )
        )
        try:
            while not probe.done():
                await asyncio.wait([probe], timeout=self.timing.poll)
                self._check_asked()
                self._check_alive(engine)
            await probe
        except health.NoToken as error:
            raise Failed("no_token", error=str(error), **self._log_params(engine)) from error
        finally:
            probe.cancel()

    # -- ready ---------------------------------------------------------------------------------------------------------
    async def _watch(self, engine: Engine) -> None:
        """Until it ends, hangs, or somebody asks."""
        liveness = Liveness(self.timing.stuck, self.timing.stuck_working)
        answered = looked = time.monotonic()
        with process.told_of_end(engine.process.pid, self._wake.set) as is_told:
            while True:
                checked = time.monotonic()
                while (left := self.timing.check - (time.monotonic() - checked)) > 0:
                    await self._pause(left if is_told else min(left, self.timing.watch))
                    self._check_alive(engine)
                await self._forgive_old_failures()
                if await health.health(self.shared.client, engine.base_url) is Health.OK:
                    answered = time.monotonic()
                elif time.monotonic() - answered > self.timing.hung:
                    raise Failed("hung", seconds=round(self.timing.hung), **self._log_params(engine))
                if time.monotonic() - looked >= self.timing.look_inside:
                    looked = time.monotonic()
                    await self._look_inside(engine, liveness)

    async def _look_inside(self, engine: Engine, liveness: Liveness) -> None:
        """Answering /health is not enough: the thread that answers it is not the one that computes."""
        work = await health.work(self.shared.client, engine.base_url, engine.key)
        if work is None:
            return
        counter = self._last_counter if work.counter is None else work.counter
        self._last_counter = counter
        look = Look(time.monotonic(), work.busy > 0, counter, engine.process.processor_seconds())
        if liveness.is_stuck(look):
            raise Failed("stuck", requests=work.busy, **self._log_params(engine))

    async def _forgive_old_failures(self) -> None:
        if self._quick_failures and not self._failed_quickly():
            self._quick_failures = 0
            await self.row.write(quick_failures=0)

    async def _drain(self, engine: Engine) -> None:
        """No new requests come once the gateway has seen the state; those under way may end."""
        if self.row.state is not State.READY or not self._drains:
            return
        await self.row.set_state(State.DRAINING)
        begin = time.monotonic()
        while self._drains and (spent := time.monotonic() - begin) < self.timing.drain:
            if engine.process.poll() is not None:
                return
            busy = await health.requests_under_way(self.shared.client, engine.base_url, engine.key)
            if (self._hurried or spent >= self.timing.drain_least) and not busy:
                return
            await asyncio.sleep(self.timing.next_poll(spent))

    # -- after a failure -----------------------------------------------------------------------------------------------
    async def _after_failure(self, reason: dict[str, Any]) -> None:
        self._quick_failures = self._quick_failures + 1 if self._failed_quickly() else 1
        self._ready_at = None
        logger.error("%s: %s", self, reasons.text(reason))
        gone = {"reason": reason, "quick_failures": self._quick_failures, "pid": None, "pid_started": None}
        if self._quick_failures < QUICK_FAILURES:
            await self.row.set_state(State.PENDING, **gone)
            await self._pause_quietly(self.timing.back_off * 2 ** (self._quick_failures - 1))
            return
        await self.row.set_state(State.FAILED, **gone)
        await self._wait_for_change()
        self._quick_failures = 0

    def _failed_quickly(self) -> bool:
        return self._ready_at is None or time.monotonic() - self._ready_at < self.timing.healthy

    async def _wait_for_change(self) -> None:
        """Of the settings (somebody asks) or of the file."""
        before = await asyncio.to_thread(self._file_identity)
        while not self._asked:
            await self._pause_quietly(self.timing.recheck)
            if await asyncio.to_thread(self._file_identity) != before:
                return

    def _file_identity(self) -> tuple[int, int, int] | None:
        try:
            return model_files.identity(find_file(self.wanted))
        except NotStartable:
            return None

    async def _wait_for_memory(self, reason: dict[str, Any]) -> None:
        """A while at least: what is free right after it ended is what somebody else was about to take."""
        self._made_room = None
        self._asked = False
        await self.row.set_state(State.FAILED, reason=reason, port=None, pid=None, pid_started=None)
        await self._pause_quietly(self.timing.room)
        if not self._asked and (hindrance := await asyncio.to_thread(self._hindrance)) is not None:
            await self._wait_until_startable(hindrance)

    async def _wait_until_startable(self, reason: dict[str, Any]) -> None:
        """What was found before the start can be looked for again at no cost: it starts when that is gone."""
        logger.error("%s: %s", self, reasons.text(reason))
        gone = {"reason": reason, "port": None, "pid": None, "pid_started": None}
        await self.row.set_state(State.FAILED, **gone)
        hindrance: dict[str, Any] | None = reason
        while hindrance is not None and not self._asked:
            self.lacks = _lacking(hindrance)
            await self._pause_quietly(self.timing.recheck)
            hindrance = await asyncio.to_thread(self._hindrance)
            if hindrance is not None and hindrance["code"] != reason["code"]:
                reason = hindrance
                await self.row.write(reason=reason)
            if self.row.state is State.PENDING and time.monotonic() > self._room_comes:
                await self.row.set_state(State.FAILED)
        self.lacks = 0

    def _hindrance(self) -> dict[str, Any] | None:
        try:
            prepare(self.wanted, self.shared.around(self.id))
            process.check_log_folder(self.log)
        except NotStartable as error:
            return error.reason
        except OSError as error:
            return reasons.reason("log_folder", error=error.strerror or str(error), folder=str(self.log.parent))
        return None

    # -- small steps ---------------------------------------------------------------------------------------------------
    async def _pause_quietly(self, seconds: float) -> None:
        if self._asked:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _pause(self, seconds: float) -> None:
        await self._pause_quietly(seconds)
        self._check_asked()

    def _check_asked(self) -> None:
        if self._asked:
            raise Asked

    def _check_alive(self, engine: Engine) -> None:
        code = engine.process.poll()
        if code is None:
            return
        was_ready = self.row.state is State.READY
        if not was_ready and not process.is_free(engine.port):
            raise PortTaken
        params = self._log_params(engine)
        if engine.memory_bound and (line := engine_limits.wanted_more(params["log"])):
            bounds = {"bound": engine.memory_bound, "planned": engine.memory_planned}
            raise Failed("over_bound", **{**params, "line": line}, **bounds)
        if code == -9:
            raise Failed("killed", **params)
        raise Failed("crashed" if was_ready else "exited", exit=engine.process.exit, **params)

    def _log_params(self, engine: Engine) -> dict[str, Any]:
        lines = process.log_tail(self.log, engine.log_start)
        return {"log": lines, "line": process.decisive_line(lines)}


def _lacking(reason: dict[str, Any]) -> int:
    params = reason["params"]
    return (
        int(params["needed"] + params["reserve"] - params["available"]) if reason["code"] == "not_enough_memory" else 0
    )


def _kind(wanted: Wanted) -> str:
    return gguf.RERANK if wanted.rerank else gguf.EMBEDDING if wanted.embeddings else gguf.CHAT
