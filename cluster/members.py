"""What is known of one replica: which slots are taken, for what and since when, what it reads, and what the others hold. Pure.

llama-server gives a request the idle slot that holds most of its prompt, and lends nobody what a busy slot holds. So it matters
how many slots hold a prefix and not only that one does: the first request that begins with it takes it along, and a second one
at the same time reads everything again, and has a copy of its own from then on.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from math import exp

from cluster.prefixes import NOTHING, Prompt
from cluster.speeds import Speeds

# How much of a prompt a slot has to hold to be given to it for that: as engines are started, and their default without a host
# cache; see docs/routing.md.
SIMILAR, SIMILAR_WITHOUT_HOST = 0.5, 0.1
KEPT = 0.5  # of what a slot holds: whoever would leave less of it has it put into the host cache first
WORTH = 0.25  # of what the host cache gives back, which has to be of use
HOST = 1  # times the slots: texts of the host cache that are known; how many it holds depends on their lengths


SHORT = 80  # bytes of a prompt that is read so soon that nobody has to know where it is
MOST_WAITED_FOR = 1000  # prompts for which it is known how long others have waited


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

    @property
    def is_short(self) -> bool:
        return self.prompt.size < SHORT


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
    this fleet have taken; ``seen_at``: until when the figures are told; ``returns``: slots that were given back so far."""

    __slots__ = (
        "busy_seconds", "elsewhere", "has_host_cache", "host", "id", "idle", "is_open", "memory", "promised", "published", "read",
        "reading_seconds", "readings", "returns", "score", "seen_at", "slots", "speeds", "taken",
    )  # fmt: skip

    def __init__(self, number: int, slots: int, memory: int, speeds: Speeds) -> None:
        self.id = number
        self.slots = slots
        self.memory = memory
        self.is_open = True
        self.elsewhere = 0
        self.speeds = speeds
        self.taken: list[Taken] = []
        self.promised = self.returns = 0
        self.readings: list[Taken] = []
        self.has_host_cache = True
        self.idle: list[Prompt] = []  # what its other slots hold, the one unused for longest first
        self.published: set[int] = set()  # the identities of those that were copied to the host cache
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
        """As llama-server does it: see docs/routing.md."""
        self.taken.append(taken)
        if taken.is_short or not (self.idle or self.host):
            return
        prompt = taken.prompt
        text, common = NOTHING, 0
        for other in self.idle:
            if (has := other.common(prompt)) > common:
                text, common = other, has
                if has >= prompt.size:
                    break
        if common <= (SIMILAR if self.has_host_cache else SIMILAR_WITHOUT_HOST) * prompt.size:
            text, common = self._longest_unused(), 0
        if text is not NOTHING:
            del self.idle[next(place for place, other in enumerate(self.idle) if other is text)]  # and no equal one
            self.published.discard(id(text))
        if self.has_host_cache:
            if common < KEPT * text.size or not common:
                self._publish(text)
                text = self._from_host(prompt, text)
            for other in self.idle:
                if id(other) not in self.published:
                    self.published.add(id(other))
                    self._publish(other)
        taken.text = text

    def _longest_unused(self) -> Prompt:
        """What the slot holds that was not used for longest; nothing, if one was never used."""
        if not self.idle or len(self.idle) + len(self.taken) <= self.slots:
            return NOTHING
        return self.idle[0]

    def _publish(self, text: Prompt) -> None:
        """Into the host cache, unless it is there. What it contains is not needed there any more."""
        if not text.hashes or any(kept is text or kept.contains(text) for kept in self.host):
            return
        self.host = [kept for kept in self.host if not text.contains(kept)]
        self.host.append(text)
        del self.host[: -HOST * self.slots]

    def _from_host(self, prompt: Prompt, text: Prompt) -> Prompt:
        """What the slot has of it then: what the host cache has more of, with less that is of no use, is not there any more."""
        best, has = text, text.common(prompt)
        useful = has / (text.size or 1)
        for kept in self.host:
            common = kept.common(prompt)
            if common > has and common > kept.size * max(useful, WORTH):
                best, has, useful = kept, common, common / (kept.size or 1)
        if best is not text:
            self.host.remove(best)
        return best

    def give_back(self, taken: Taken, was_read: bool) -> None:
        self.taken.remove(taken)
        self.returns += 1
        text = taken.prompt if was_read else taken.text
        if text.hashes and not taken.is_short and taken.memory == self.memory:
            self.idle.append(text)
            while self.idle and len(self.idle) + len(self.taken) > self.slots:
                self.published.discard(id(self.idle.pop(0)))


class Held:
    """Who holds a prompt in a busy slot, by each hash of it, and how long others have waited for that."""

    def __init__(self) -> None:
        # Mostly one, and a dictionary would take much more memory; of several, the one that has it for longest first.
        self._holders: dict[int, Taken | dict[Taken, None]] = {}
        self._waited: dict[int, float] = {}  # seconds; what nobody waited for of late comes first

    def __len__(self) -> int:
        """Hashes."""
        return len(self._holders)

    def add(self, taken: Taken) -> None:
        for digest in taken.prompt.hashes:
            found = self._holders.get(digest)
            if found is None:
                self._holders[digest] = taken
            elif isinstance(found, dict):
                found[taken] = None
            else:
                self._holders[digest] = {found: None, taken: None}

    def discard(self, taken: Taken) -> None:
        """The second time does nothing."""
        for digest in taken.prompt.hashes:
            found = self._holders.get(digest)
            if isinstance(found, dict):
                found.pop(taken, None)
            if found is taken or found == {}:
                del self._holders[digest]

    def most_of(self, prompt: Prompt, least: int) -> tuple[int, Collection[Taken]]:
        """Up to which part some hold it, if that is more than ``least`` bytes, and who: those that hold most."""
        for place in range(len(prompt.hashes) - 1, -1, -1):
            if prompt.read_to(place) <= least:
                break
            found = self._holders.get(prompt.hashes[place])
            if found is not None:
                return place, found if isinstance(found, dict) else (found,)
        return 0, ()

    def waited(self, digest: int) -> float:
        """Seconds, since somebody read it though another held it."""
        return self._waited.get(digest, 0.0)

    def add_wait(self, digest: int, seconds: float) -> None:
        self._waited[digest] = self._waited.pop(digest, 0.0) + seconds
        if len(self._waited) > MOST_WAITED_FOR:
            del self._waited[next(iter(self._waited))]

    def is_read_again(self, prompt: Prompt, cached: float) -> None:
        """All of it, but the bytes that are ``cached``: there is another copy then."""
        if self._waited:
            for digest, size in zip(prompt.hashes, prompt.sizes, strict=True):
                if size > cached:
                    self._waited.pop(digest, None)
