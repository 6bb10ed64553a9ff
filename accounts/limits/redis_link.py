"""One ordered stream of scripts from an event loop to Redis, many in one round trip, and what happens while Redis is away.

Redis is away from the first failure until a round trip succeeds again. Meanwhile questions are refused at once, and a task tries
it every few seconds, so that no request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 200
MOST_POSTED = 10_000  # while Redis is away; what is older is of no use to it then
FAILURES = (RedisError, OSError, ValueError)  # the last: an address that is none

_LUA = Path(__file__).parent / "lua"
_WINDOW = (_LUA / "window.lua").read_text(encoding="utf-8")
ADMIT, FINISH, RENEW = ("admit", "finish", "renew")
TEXTS = {name: _WINDOW + (_LUA / f"{name}.lua").read_text(encoding="utf-8") for name in (ADMIT, FINISH, RENEW)}

Undo = Callable[[list[Any]], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds."""

    connect: float = 0.1
    answer: float = 0.25
    lease: float = 30.0  # how long a place stays taken when the process that took it was killed
    renew: float = 10.0
    probe: float = 0.5  # the first pause while Redis is away; doubled each time
    longest_probe: float = 5.0


class Call(NamedTuple):
    script: str
    keys: list[str]
    arguments: list[int | str]


class RedisAway(Exception):
    pass


@dataclass(slots=True, eq=False)
class _Item:
    call: Call
    future: asyncio.Future[list[Any]] | None = None
    undo: Undo | None = None

    def answer(self, answer: list[Any]) -> None:
        if self.future is None:
            return
        if not self.future.done():
            self.future.set_result(answer)
        elif self.undo is not None:
            self.undo(answer)

    def refuse(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(RedisAway())


class RedisLink:
    """Belongs to the event loop in which it is first used. ``heartbeat`` tells what is said every few seconds."""

    def __init__(self, url: str, timing: Timing, heartbeat: Callable[[], list[Call]]) -> None:
        self.away = False
        self._closed = False
        self._url = url
        self._timing = timing
        self._heartbeat = heartbeat
        self._heartbeat_at = 0.0
        self._probe_pause = timing.probe
        self._queue: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._client: Redis | None = None
        self._scripts: dict[str, AsyncScript] = {}
        self._worker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, call: Call, undo: Undo | None = None) -> list[Any]:
        """Raises RedisAway. ``undo`` gets the answer when nobody waits for it any more."""
        if self.away or self._closed:
            raise RedisAway
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._put(_Item(call, future, undo))
        try:
            return await future
        except asyncio.CancelledError:
            if undo is not None and future.done() and not future.cancelled() and future.exception() is None:
                undo(future.result())
            raise

    def post(self, call: Call) -> None:
        """Nobody waits for the answer. What is posted while Redis is away is said when it is back: it must bear being said
        twice."""
        if (self._loop is None or not self._loop.is_closed()) and not (self.away and len(self._queue) >= MOST_POSTED):
            self._put(_Item(call))

    async def aclose(self) -> None:
        """Whoever still asks gets RedisAway."""
        self._closed = True
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        for item in self._queue:
            item.refuse()
        if self._client is not None:
            await self._client.aclose()

    def _put(self, item: _Item) -> None:
        self._queue.append(item)
        if self._worker is None:
            self._loop = asyncio.get_running_loop()
            self._worker = self._loop.create_task(self._work())
        elif not self._wake.is_set():
            self._wake.set()

    # -- the task ----------------------------------------------------------------------------------------------------------
    async def _work(self) -> None:
        # Cancelling is not enough to end it: redis-py sends with asyncio.wait_for, which before Python 3.12 swallows a
        # cancellation that comes in the moment in which all is sent (python/cpython#86296).
        while not self._closed:
            await self._pause()
            try:
                await self._round()
            except FAILURES as error:
                # What is wrong with an address may quote it, with its password.
                self._lost("REDIS_URL is not an address of Redis" if isinstance(error, ValueError) else error)
            except Exception:  # a loop's edge: without this task nobody would be asked or told any more
                logger.exception("limits could not be shared")
                self._lost("an error of our own")

    async def _pause(self) -> None:
        if self.away:
            await asyncio.sleep(self._probe_pause)
            self._probe_pause = min(2 * self._probe_pause, self._timing.longest_probe)
        elif not self._queue:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_at - monotonic()):
                    await self._wake.wait()

    async def _round(self) -> None:
        heartbeat = self.away or self._heartbeat_at <= monotonic()
        alive = [_Item(call) for call in self._heartbeat()] if heartbeat else []
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_AT_ONCE))]
        batch = alive + [item for item in batch if item.future is None or not item.future.done()]
        try:
            answers = await self._run([item.call for item in batch])
        except BaseException:
            for item in reversed(batch[len(alive) :]):
                item.refuse()
                if item.future is None:
                    self._queue.appendleft(item)
            raise
        self._hand_out(batch, answers)
        if heartbeat:
            self._heartbeat_at = monotonic() + self._timing.renew
            self._reached()

    def _hand_out(self, batch: list[_Item], answers: list[Any]) -> None:
        failure: RedisError | None = None
        for item, answer in zip(batch, answers, strict=True):
            if isinstance(answer, RedisError):
                failure = answer
                item.refuse()
            else:
                item.answer(answer)
        if failure is not None:
            raise failure

    def _reached(self) -> None:
        if self.away:
            self.away = False
            logger.info("Redis answers again: limits are shared between the web processes")
        else:
            self._probe_pause = self._timing.probe  # not before it has held for a while: it may come and go

    def _lost(self, reason: object) -> None:
        if not self.away:
            self.away = True
            logger.warning(
                "Redis does not answer (%s): each web process counts limits on its own until it does", reason
            )
        for item in self._queue:
            item.refuse()
        self._queue = deque(item for item in self._queue if item.future is None)

    # -- Redis -------------------------------------------------------------------------------------------------------------
    async def _run(self, calls: list[Call]) -> list[Any]:
        if not calls:
            return []
        client = self._connected()
        answers = await self._execute(client, calls)
        unknown = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # A Redis that was started anew. Nothing of these was done.
            for script in self._scripts.values():
                await client.script_load(script.script)
            for index, answer in zip(unknown, await self._execute(client, [calls[i] for i in unknown]), strict=True):
                answers[index] = answer
        return answers

    async def _execute(self, client: Redis, calls: list[Call]) -> list[Any]:
        async with client.pipeline(transaction=False) as pipeline:
            for script, keys, arguments in calls:
                pipeline.evalsha(self._scripts[script].sha, len(keys), *keys, *arguments)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
            return answers

    def _connected(self) -> Redis:
        if self._client is None:
            self._client = Redis.from_url(
                self._url,
                protocol=2,  # every Redis since 5 speaks it
                decode_responses=True,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=self._timing.connect,
                socket_timeout=self._timing.answer,
            )
            self._scripts = {name: self._client.register_script(text) for name, text in TEXTS.items()}
        return self._client
