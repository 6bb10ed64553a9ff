"""A real engine for a short while, and how fast it answers. The same launcher, checks and command line as the supervisor's.

TrialFailed       no figures; ``reason`` is what ``models_app.reasons`` turns into a sentence
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil

from models_app import gguf, health, process, reasons
from models_app.command_line import Wanted
from models_app.health import Health
from models_app.launchers.local import LocalLauncher
from models_app.lives import LOAD_BYTES, Engine, Timing
from models_app.placement import Place
from models_app.preparation import Circumstances, NotStartable, need_of, prepare

CLAIM_EVERY = 10.0  # seconds
POLL = 0.05
ANSWER_SECONDS = 300.0
LOOK_AT_PROCESSOR = 0.3
# Ordinary prose, long enough that reading it counts, and questions whose answers are longer than what is measured.
PROSE = (
    "A small library in a port town lends its books by hand. Each morning the librarian sorts what came back, writes the"
    " titles into a green ledger and puts the cards of late readers on the desk. In winter the harbour freezes and sailors"
    " sit at the long table, reading about places they have been to. The newspaper comes by train and is two days old."
)
QUESTIONS = (
    "Explain step by step how the lending could be organised better.",
    "Tell the story of one day in this library from the point of view of a sailor.",
    "Describe what the building looks like from the outside and from the inside.",
    "Write a letter in which the librarian asks the town for money.",
)


class TrialFailed(Exception):
    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code, params)
        self.reason = reasons.reason(code, **params)


@dataclass(frozen=True)
class Load:
    """``requests`` one after the other by each of ``clients`` people, each answered with up to ``answer_tokens``."""

    clients: int
    requests: int = 1
    answer_tokens: int = 48


@dataclass(frozen=True)
class Answer:
    """``seconds`` from the question to the end; the two speeds are the engine's own figures."""

    text: str
    tokens: int
    seconds: float
    prompt_per_second: float
    answer_per_second: float


@dataclass(frozen=True)
class Figures:
    """``tokens_per_second``: all answers' tokens by the time all took; ``slowest``: of the person who waited longest for a token,
    reading the question included; ``memory``: resident bytes of all engines."""

    tokens_per_second: float
    slowest: float
    prompt_per_second: float
    answer_per_second: float
    memory: int
    seconds: float


class Trials:
    """``mark`` goes into the engines' environment where a replica's id stands; negative ones belong to no replica. ``taken``:
    ports that are about to be used."""

    def __init__(self, launcher: LocalLauncher, mark: int, log: Path, taken: Iterable[int] = ()) -> None:
        self.launcher, self.mark, self.log = launcher, mark, log
        self.timing = Timing()
        self._ports = set(taken)
        self._places: dict[int, Place] = {}  # by port

    @contextlib.asynccontextmanager
    async def engine(self, wanted: Wanted, replicas: int = 1) -> AsyncIterator[Engine]:
        """A ready engine, ended afterwards. Raises TrialFailed."""
        expected = (need_of(wanted),) * replicas
        around = Circumstances(ports_in_use=frozenset(self._ports), expected=expected, places=self._places)
        try:
            prepared = await asyncio.to_thread(prepare, wanted, around)
            nonce = process.new_nonce()
            # Not in a thread: a cancellation must not come between the process and knowing of it.
            started = self.launcher.start(wanted, prepared.chosen, self.mark, nonce, self.log)
        except NotStartable as error:
            raise TrialFailed(error.reason["code"], **error.reason["params"]) from error
        except OSError as error:
            raise TrialFailed("engine_missing", error=error.strerror or str(error)) from error
        engine = Engine(started.process, prepared.chosen.port, nonce, started.log_start, prepared.facts.size)
        self._ports.add(engine.port)
        self._places[engine.port] = prepared.place
        claiming = asyncio.create_task(_claim())
        try:
            async with health.new_client() as client:
                await self._until_ready(client, engine, wanted)
            yield engine
        finally:
            claiming.cancel()
            engine.process.end()
            self._ports.discard(engine.port)
            self._places.pop(engine.port, None)

    async def _until_ready(self, client: aiohttp.ClientSession, engine: Engine, wanted: Wanted) -> None:
        seconds = self.timing.start + self.timing.load + engine.file_size / LOAD_BYTES
        deadline = time.monotonic() + seconds
        while not (
            await health.health(client, engine.base_url) is Health.OK and engine.process.listens_on(engine.port)
        ):
            self._check_alive(engine)
            if time.monotonic() > deadline:
                raise TrialFailed("load_timeout", seconds=round(seconds), line=self._line(engine))
            await asyncio.sleep(POLL)
        try:
            await health.generate_token(client, engine.base_url, engine.key, gguf.CHAT, self.timing.token)
        except health.NoToken as error:
            raise TrialFailed("no_token", error=str(error), line=self._line(engine)) from error

    def _check_alive(self, engine: Engine) -> None:
        code = engine.process.poll()
        if code is not None:
            raise TrialFailed("exited", exit=code, line=self._line(engine))

    def _line(self, engine: Engine) -> str:
        return process.decisive_line(process.log_tail(self.log, engine.log_start))

    async def measure(self, wanted: Wanted, replicas: int, load: Load) -> Figures:
        """Starts ``replicas`` engines, loads them, ends them. Raises TrialFailed."""
        async with contextlib.AsyncExitStack() as stack:
            engines = [await stack.enter_async_context(self.engine(wanted, replicas)) for _ in range(replicas)]
            client = await stack.enter_async_context(new_client())
            begin = time.monotonic()
            answers = await ask_all(client, engines, load)
            seconds = time.monotonic() - begin
            return figures(answers, seconds, sum(engine.process.resident() for engine in engines))


async def _claim() -> None:
    """There may be no supervisor that does it, and an engine that nobody claims ends itself."""
    while True:
        await asyncio.to_thread(process.claim_engines)
        await asyncio.sleep(CLAIM_EVERY)


def new_client() -> httpx.AsyncClient:
    limits = httpx.Timeout(connect=health.CONNECT, read=ANSWER_SECONDS, write=5.0, pool=5.0)
    return httpx.AsyncClient(timeout=limits, trust_env=False, verify=False)  # noqa: S501 - plain HTTP on this machine


async def ask_all(client: httpx.AsyncClient, engines: Sequence[Engine], load: Load) -> list[list[Answer]]:
    """The answers of each client. Raises TrialFailed."""

    async def person(number: int) -> list[Answer]:
        engine = engines[number % len(engines)]
        questions = [f"{number}.{turn}. {PROSE} {QUESTIONS[number % len(QUESTIONS)]}" for turn in range(load.requests)]
        return [await ask(client, engine, question, load.answer_tokens) for question in questions]

    return list(await asyncio.gather(*(person(number) for number in range(load.clients))))


async def ask(client: httpx.AsyncClient, engine: Engine, question: str, tokens: int, **more: Any) -> Answer:
    """Nothing read before is made use of, so that each question costs the same. Raises TrialFailed."""
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens, "seed": 1, "cache_prompt": False}
    begin = time.monotonic()
    try:
        answer = await client.post(
            f"{engine.base_url}/v1/chat/completions",
            json=body | more,
            headers={"Authorization": f"Bearer {engine.key}"},
        )
        content = answer.raise_for_status().json()
        timings = content["timings"]
        return Answer(
            str(content["choices"][0]["message"]["content"]),
            int(content["usage"]["completion_tokens"]),
            time.monotonic() - begin,
            float(timings["prompt_per_second"]),
            float(timings["predicted_per_second"]),
        )
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise TrialFailed("no_token", error=str(error) or type(error).__name__) from error


def figures(answers: Sequence[Sequence[Answer]], seconds: float, memory: int) -> Figures:
    flat = [answer for own in answers for answer in own]
    return Figures(
        tokens_per_second=sum(answer.tokens for answer in flat) / seconds,
        slowest=min(answer.tokens / answer.seconds for answer in flat),
        prompt_per_second=statistics.median(answer.prompt_per_second for answer in flat),
        answer_per_second=statistics.median(answer.answer_per_second for answer in flat),
        memory=memory,
        seconds=seconds,
    )


async def processor_in_use() -> float:
    """The share of all cores (0 to 1) that others take now."""
    psutil.cpu_percent(None)
    await asyncio.sleep(LOOK_AT_PROCESSOR)
    return float(psutil.cpu_percent(None)) / 100
