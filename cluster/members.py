"""What is known of one replica: which slots are taken, for what and since when, what it reads, and what the others hold. Pure.

llama-server gives a request the idle slot that holds most of its prompt, and lends nobody what a busy slot holds. So it matters
how many slots hold a prefix and not only that one does: the first request that begins with it takes it along, and a second one
at the same time reads everything again, and has a copy of its own from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from math import exp

from cluster.prefixes import NOTHING, Prompt
from cluster.speeds import Speeds

SIMILAR = 0.5  # of a prompt, which a slot has to hold to be given to it for that; see docs/routing.md
KEPT = 0.5  # of what a slot holds: whoever would leave less of it has it put into the host cache first
WORTH = 0.25  # of what the host cache gives back, which has to be of use
HOST = 1  # times the slots: texts of the host cache that are known; how many it holds depends on their lengths


class Taken:
    """A slot that is taken. ``tokens`` of ``prompt`` that are to be read yet; ``ends``: when it is given back, as far as is
    known, ``writes``: seconds of that for the answer; ``memory``: of the process whose slot it is; ``text``: what the slot held,
    where that is nowhere else now."""

    __slots__ = ("began", "ends", "member", "memory", "prompt", "text", "tokens", "writes")

    def __init__(
        self, member: Member, prompt: Prompt, tokens: float, began: float, lasts: float, writes: float
    ) -> None:
        self.member = member
        self.memory = member.memory
        self.prompt = prompt
        self.tokens = tokens
        self.began = began
        self.ends = began + lasts
        self.writes = writes
        self.text = NOTHING


class Recent:
    """A sum in which what was added counts less as time passes, however it is told."""

    __slots__ = ("_at", "_sum")

    def __init__(self) -> None:
        self._sum = self._at = 0.0

    def add(self, value: float, now: float, span: float) -> None:
        self._sum, self._at = self.value(now, span) + value, now

    def value(self, now: float, span: float) -> float:
        return self._sum * exp((self._at - now) / span) if self._sum else 0.0


class Member:
    """``taken``: its slots that are; ``promised``: requests that wait for it and for no other; ``memory``: by what its cache is
    known; ``readings``: those that have to read yet, as far as is known, in that order; ``elsewhere``: slots that others than
    this fleet have taken; ``seen_at``: until when the figures are told."""

    __slots__ = (
        "busy_seconds", "elsewhere", "host", "id", "idle", "is_open", "memory", "promised", "read", "reading_seconds",
        "readings", "score", "seen_at", "slots", "speeds", "taken",
    )  # fmt: skip

    def __init__(self, number: int, slots: int, memory: int, speeds: Speeds) -> None:
        self.id = number
        self.slots = slots
        self.memory = memory
        self.is_open = True
        self.elsewhere = 0
        self.speeds = speeds
        self.taken: list[Taken] = []
        self.promised = 0
        self.readings: list[Taken] = []
        self.idle: list[Prompt] = []  # what its other slots hold, the one unused for longest first
        self.host: list[Prompt] = []  # and its host cache, the oldest first
        self.read = Recent()
        # Seconds of all its slots together that they were taken, and in which it read; differences are what counts.
        self.busy_seconds = self.reading_seconds = 0.0
        self.seen_at = 0.0
        self.score: float | None = None  # in the order of the quickest; none: not in it

    @property
    def busy(self) -> int:
        return len(self.taken)

    @property
    def is_free(self) -> bool:
        return len(self.taken) + self.elsewhere < self.slots

    # -- reading ---------------------------------------------------------------------------------------------------------
    def unread(self, now: float) -> float:
        """Tokens."""
        left = sum([taken.tokens for taken in self.readings])
        return max(left - self.speeds.reading * (now - self.seen_at), 0.0) if left else 0.0

    def advance(self, now: float) -> None:
        """Prompts are read one after the other."""
        passed, self.seen_at = now - self.seen_at, now
        self.busy_seconds += len(self.taken) * passed
        speed = self.speeds.reading
        able = passed * speed
        while self.readings and able > 0:
            read = min(self.readings[0].tokens, able)
            able -= read
            self.reading_seconds += read / speed
            self.readings[0].tokens -= read
            if self.readings[0].tokens <= 0:
                del self.readings[0]

    # -- what it has in its cache ------------------------------------------------------------------------------------------
    def lends(self, prompt: Prompt, size: int) -> int:
        """Bytes of the prompt, of which it has ``size`` in its cache, that it can give to a request now."""
        place = prompt.place_of(size)
        if not any(taken.prompt.begins_as(prompt, place) for taken in self.taken):
            return size
        return min(max((text.common(prompt) for text in chain(self.idle, self.host)), default=0), size)

    def take(self, taken: Taken) -> None:
        self.taken.append(taken)
        if not self.idle and not self.host:
            return
        prompt = taken.prompt
        taken.text = self._take_slot(prompt)
        has = taken.text.common(prompt)
        best = max(self.host, key=lambda text: text.common(prompt), default=NOTHING)
        if best.common(prompt) > max(has, WORTH * best.size):
            self.host.remove(best)
            taken.text = best
        for text in self.idle:
            self._publish(text)

    def _take_slot(self, prompt: Prompt) -> Prompt:
        """What the slot holds that is taken."""
        best = max(self.idle, key=lambda text: text.common(prompt), default=NOTHING)
        common = best.common(prompt)
        if common <= SIMILAR * prompt.size:
            if len(self.idle) + len(self.taken) <= self.slots:
                return NOTHING  # it has one that was never used
            best = self.idle[0]
        if best is NOTHING:
            return best
        self.idle.remove(best)
        if common < KEPT * best.size:
            self._publish(best)
        return best

    def _publish(self, text: Prompt) -> None:
        if any(kept is text for kept in self.host) or any(text.common(kept) >= text.size for kept in self.host):
            return
        self.host = [kept for kept in self.host if kept.common(text) < kept.size]
        self.host.append(text)
        del self.host[: -HOST * self.slots]

    def give_back(self, taken: Taken, was_read: bool) -> None:
        self.taken.remove(taken)
        text = taken.prompt if was_read else taken.text
        if text.hashes and taken.memory == self.memory:
            self.idle.append(text)
            del self.idle[: max(len(self.idle) + len(self.taken) - self.slots, 0)]


class Held:
    """Who holds a prompt in a busy slot, by each hash of it."""

    def __init__(self) -> None:
        self._holders: dict[int, Taken | set[Taken]] = {}  # mostly one, and a set would take much more memory

    def __len__(self) -> int:
        """Hashes."""
        return len(self._holders)

    def add(self, taken: Taken) -> None:
        for digest in taken.prompt.hashes:
            found = self._holders.get(digest)
            if found is None:
                self._holders[digest] = taken
            elif isinstance(found, set):
                found.add(taken)
            else:
                self._holders[digest] = {found, taken}

    def discard(self, taken: Taken) -> None:
        for digest in taken.prompt.hashes:
            found = self._holders.get(digest)
            if found is taken:
                del self._holders[digest]
            elif isinstance(found, set):
                found.discard(taken)
                if not found:
                    del self._holders[digest]

    def most_of(self, prompt: Prompt) -> tuple[int, Iterable[Taken]]:
        """Bytes of the prompt that some hold, more than all others, and those."""
        for place in range(len(prompt.hashes) - 1, -1, -1):
            found = self._holders.get(prompt.hashes[place])
            if found is not None:
                return prompt.read_to(place), found if isinstance(found, set) else (found,)
        return 0, ()
