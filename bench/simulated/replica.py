"""One llama-server, simulated: its slots, what they remember, its host cache, and how fast it works.

After llama.cpp b11549, tools/server: ``get_available_slot``, ``prompt_save``/``prompt_load``, ``update_slots``.

- A request gets the idle slot that shares most of it, if that is more than ``similarity`` of it, else the one unused for
  longest. A busy slot lends nothing.
- What a slot held goes to the host cache before it is replaced by less than half of itself; whatever the host cache has more of
  comes back out of it. Idle slots are copied there each time a request begins. The oldest go when it is full.
- Prompts are read one after the other, ``BATCH`` tokens at a time. Answers are written a token each round, so beside a prompt
  that is read they get one token for each batch. Alone, they share ``writing * n ** TOGETHER`` tokens a second.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

BATCH = 2048
TOGETHER = 0.5  # four answers at once are written twice as fast as one, in sum


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens by the hashes of its parts, each of all up to there."""

    hashes: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.tokens[-1] if self.tokens else 0

    def common(self, other: Text) -> int:
        """Tokens with which both begin."""
        low, high = 0, min(len(self.hashes), len(other.hashes))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.hashes[middle - 1] == other.hashes[middle - 1] else (low, middle - 1)
        return self.tokens[low - 1] if low else 0


@dataclass(slots=True, eq=False)
class Job:
    prompt: Text
    whole: Text  # with the answer
    slot: Slot
    began: float
    cached: int
    reading: float  # tokens left
    writing: float
    read: asyncio.Future[float]  # when
    done: asyncio.Future[float]
    read_at: float = 0.0


@dataclass(slots=True, eq=False)
class Slot:
    text: Text = field(default_factory=Text)
    used: float = -1.0
    job: Job | None = None


class Died(Exception):
    pass


@dataclass(frozen=True)
class Machine:
    """``reading`` and ``writing``: tokens a second of one request alone; ``host``: tokens that the host cache holds."""

    slots: int = 4
    reading: float = 250.0
    writing: float = 30.0
    host: int = 8000
    similarity: float = 0.5


class SimulatedReplica:
    def __init__(self, machine: Machine, loop: asyncio.AbstractEventLoop) -> None:
        self.machine = machine
        self.fails_at_once = False
        self._loop = loop
        self._start_anew()
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def _start_anew(self) -> None:
        self._slots = [Slot() for _ in range(self.machine.slots)]
        self._host: list[Text] = []
        self._jobs: list[Job] = []

    # -- requests ----------------------------------------------------------------------------------------------------------
    def begin(self, prompt: Text, answer_hash: int, answer: int) -> Job:
        if self.fails_at_once:
            raise Died
        self._advance()
        now = self._loop.time()
        slot = self._slot_for(prompt)
        cached = min(slot.text.common(prompt), len(prompt) - 1)
        whole = Text((*prompt.hashes, answer_hash), (*prompt.tokens, len(prompt) + answer))
        future = self._loop.create_future
        job = Job(prompt, whole, slot, now, cached, len(prompt) - cached, max(answer - 1, 0), future(), future())
        slot.text, slot.job = prompt, job
        self._jobs.append(job)
        for other in self._slots:
            if other.job is None and other.text.tokens:
                self._publish(other.text)
        self._plan()
        return job

    def die(self) -> None:
        """Whoever waits for it hears of it; it is back at once, and empty."""
        jobs = self._jobs
        self._start_anew()
        self._plan()
        for job in jobs:
            for future in (job.read, job.done):
                if not future.done():
                    future.set_exception(Died())
                    future.exception()  # not everybody asks

    # -- memory ------------------------------------------------------------------------------------------------------------
    def _slot_for(self, prompt: Text) -> Slot:
        idle = [slot for slot in self._slots if slot.job is None]
        best = max(idle, key=lambda slot: slot.text.common(prompt))
        common = best.text.common(prompt)
        if common <= self.machine.similarity * len(prompt):
            best = min(idle, key=lambda slot: slot.used)
        elif common >= 0.5 * len(best.text):
            return best
        if best.text.tokens:
            self._publish(best.text)
        self._take_back(best, prompt)
        return best

    def _publish(self, text: Text) -> None:
        if len(text) > self.machine.host or any(text.common(kept) == len(text) for kept in self._host):
            return
        self._host = [kept for kept in self._host if kept.common(text) < len(kept)]
        self._host.append(text)
        total = sum(map(len, self._host))
        while total > self.machine.host:
            total -= len(self._host.pop(0))

    def _take_back(self, slot: Slot, prompt: Text) -> None:
        best, has = None, slot.text.common(prompt)
        kept_of_it = has / max(len(slot.text), 1)
        for kept in self._host:
            common = kept.common(prompt)
            if common / len(kept) >= 0.25 and common > has and common / len(kept) > kept_of_it:
                best, has, kept_of_it = kept, common, common / len(kept)
        if best is not None:
            self._host.remove(best)
            slot.text = best

    # -- work --------------------------------------------------------------------------------------------------------------
    def _rates(self) -> list[tuple[Job, float, float]]:
        """Tokens a second that each reads and writes."""
        readers = [job for job in self._jobs if job.reading > 0]
        writers = [job for job in self._jobs if job.reading <= 0]
        reading, count = self.machine.reading, len(writers)
        each = self.machine.writing * count**TOGETHER / count if count else 0.0
        if readers:
            each = min(each, reading / BATCH)
        return [(job, reading, 0.0) for job in readers[:1]] + [(job, 0.0, each) for job in writers]

    def _advance(self) -> None:
        passed, self._at = self._loop.time() - self._at, self._loop.time()
        if passed > 0:
            for job, reading, writing in self._rates():
                job.reading -= reading * passed
                job.writing -= writing * passed
        for job in [job for job in self._jobs if job.reading <= 1e-6]:
            job.reading = 0.0
            if not job.read.done():
                job.read_at = self._at
                job.read.set_result(self._at)
            if job.writing <= 1e-6:
                self._finish(job)

    def _finish(self, job: Job) -> None:
        self._jobs.remove(job)
        job.slot.text, job.slot.used, job.slot.job = job.whole, self._at, None
        job.done.set_result(self._at)

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        soonest = min(
            (job.reading / reading if reading else job.writing / writing for job, reading, writing in self._rates()),
            default=None,
        )
        if soonest is not None:
            self._timer = self._loop.call_later(max(soonest, 1e-6), self._happen)

    def _happen(self) -> None:
        self._advance()
        self._plan()
