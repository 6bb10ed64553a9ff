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

from models_app import health, model_files, process, reasons
from models_app.command_line import Wanted
from models_app.health import Health
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
        self.stopping, self._drains = False, True
        self._quick_failures = 0
        self._ready_at: float | None = None
        self._asked = asyncio.Event()
        self._adopted: Engine | None = None
        self._runs_as = ""  # fingerprint of what runs now
        self.task: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"{self.wanted.name}/{self.number}"

    # -- asked from outside --------------------------------------------------------------------------------------------
    def begin(self, adopted: Engine | None = None, fingerprint: str = "") -> None:
        if adopted is not None:
            self._adopted, self._runs_as = adopted, fingerprint
            self.shared.ports[self.id] = adopted.port
        self.task = asyncio.create_task(self._run(), name=str(self))

    @property
    def is_ready(self) -> bool:
        """Serves, and will go on to."""
        return self.row.state is State.READY and not self._asked.is_set()

    @property
    def outdated(self) -> bool:
        """Something else runs than should."""
        return bool(self._runs_as) and self._runs_as != self._fingerprint()

    def change_to(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._asked.set()

    def stop(self, drain: bool = True) -> None:
        self.stopping, self._drains = True, self._drains and drain
        self._asked.set()

    def _fingerprint(self) -> str:
        return self.wanted.fingerprint(self.shared.launcher.version)

    # -- the life ------------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        while not self.stopping:
            self._asked.clear()
            try:
                await self._one_life()
            except Asked:
                self._quick_failures = 0
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
            engine = engine or await self._start()
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
            self.shared.memory_promised.pop(self.id, None)
            self._runs_as = ""

    async def _start(self) -> Engine:
        """The row says nonce, port and fingerprint before the process exists, and the process carries the nonce: whatever dies
        in between, the next supervisor finds the one by the other."""
        await self.row.set_state(State.PENDING, port=None, pid=None, pid_started=None)
        prepared = await asyncio.to_thread(prepare, self.wanted, self.shared.around(self.id))
        chosen, nonce, wanted = prepared.chosen, process.new_nonce(), self.wanted
        if chosen.port in self.shared.ports.values():
            raise PortTaken
        self.shared.ports[self.id], self.shared.memory_promised[self.id] = chosen.port, prepared.memory
        self._runs_as = self._fingerprint()
        announced = await self.row.set_state(
            State.STARTING,
            port=chosen.port,
            key_nonce=nonce,
            fingerprint=self._runs_as,
            slots=wanted.slots,
            context_length=chosen.context_length,
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
        engine = Engine(started.process, prepared.chosen.port, nonce, started.log_start, prepared.facts.size)
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
        self._ready_at = time.monotonic()
        await self.row.set_state(State.READY, reason=None)
        logger.info("%s: ready on port %d", self, engine.port)

    async def _await_health(self, engine: Engine, enough: Iterable[Health], seconds: float, code: str) -> None:
        deadline = time.monotonic() + seconds
        while not (
            await health.health(self.shared.client, engine.base_url) in enough
            # Else a stranger answers on this port, who must not get our key.
            and await asyncio.to_thread(engine.process.listens_on, engine.port)
        ):
            if time.monotonic() > deadline:
                raise Failed(code, seconds=round(seconds), **self._log_params(engine))
            await self._pause(self.timing.poll)
            self._check_alive(engine)

    async def _first_token(self, engine: Engine) -> None:
        probe = asyncio.ensure_future(
            health.generate_token(
                self.shared.client, engine.base_url, engine.key, self.wanted.embeddings, self.timing.token
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
        answered = checked = time.monotonic()
        while True:
            await self._pause(self.timing.watch)
            self._check_alive(engine)
            await self._forgive_old_failures()
            if time.monotonic() - checked < self.timing.check:
                continue
            if await health.health(self.shared.client, engine.base_url) is Health.OK:
                answered = time.monotonic()
            elif time.monotonic() - answered > self.timing.hung:
                raise Failed("hung", seconds=round(self.timing.hung), **self._log_params(engine))
            checked = time.monotonic()

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
            await asyncio.sleep(self.timing.poll)
            if engine.process.poll() is not None:
                return
            busy = await health.requests_under_way(self.shared.client, engine.base_url, engine.key)
            if spent >= self.timing.drain_least and not busy:
                return

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
        while not self._asked.is_set():
            await self._pause_quietly(self.timing.recheck)
            if await asyncio.to_thread(self._file_identity) != before:
                return

    def _file_identity(self) -> tuple[int, int, int] | None:
        try:
            return model_files.identity(find_file(self.wanted))
        except NotStartable:
            return None

    async def _wait_until_startable(self, reason: dict[str, Any]) -> None:
        """What was found before the start can be looked for again at no cost: it starts when that is gone."""
        logger.error("%s: %s", self, reasons.text(reason))
        gone = {"reason": reason, "port": None, "pid": None, "pid_started": None}
        await self.row.set_state(State.FAILED, **gone)
        while not self._asked.is_set():
            await self._pause_quietly(self.timing.recheck)
            if await asyncio.to_thread(self._startable):
                return

    def _startable(self) -> bool:
        try:
            prepare(self.wanted, self.shared.around(self.id))
            process.check_log_folder(self.log)
        except (NotStartable, OSError):
            return False
        return True

    # -- small steps ---------------------------------------------------------------------------------------------------
    async def _pause_quietly(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), seconds)

    async def _pause(self, seconds: float) -> None:
        await self._pause_quietly(seconds)
        self._check_asked()

    def _check_asked(self) -> None:
        if self._asked.is_set():
            raise Asked

    def _check_alive(self, engine: Engine) -> None:
        code = engine.process.poll()
        if code is None:
            return
        was_ready = self.row.state is State.READY
        if not was_ready and not process.is_free(engine.port):
            raise PortTaken
        params = self._log_params(engine)
        if code == -9:
            raise Failed("killed", **params)
        raise Failed("crashed" if was_ready else "exited", exit=code, **params)

    def _log_params(self, engine: Engine) -> dict[str, Any]:
        lines = process.log_tail(self.log, engine.log_start)
        return {"log": lines, "line": process.decisive_line(lines)}
