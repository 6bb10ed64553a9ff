"""The replicas of one model as the router sees them: who is busy since when, how fast each is, and what each remembers. Pure; the
time is passed in.

Up to ``ALL`` replicas are compared each time. Of more, those are that remember most of the prompt and those that are quickest for
anybody, kept in order as slots are taken and given back: a decision among thousands costs what one among some dozens does.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, islice
from math import exp

from cluster.balancer import CHOOSERS, Candidate, Policy, Request, seconds
from cluster.prefixes import NOTHING, Prefixes, Prompt
from cluster.speeds import Durations, Speeds, Usual

ALL = 64
QUICKEST = 8
OF_LATE = 50  # requests of each, on average
FIRST_DURATION = 5.0  # seconds; what a request is taken for before any was seen


class Reading:
    """A prompt that is read, and tokens of it that are left."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: float) -> None:
        self.tokens = tokens


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
    """``began``: when each of its slots that are taken was; ``promised``: requests that wait for it and for no other;
    ``memory``: by what its cache is known; ``readings``: prompts that it has to read yet, as far as is known, in that order;
    ``elsewhere``: slots that others than this fleet have taken; ``seen_at``: until when the figures are told."""

    __slots__ = (
        "began", "busy_seconds", "elsewhere", "id", "is_open", "memory", "promised", "read", "reading_seconds", "readings",
        "score", "seen_at", "slots", "speeds",
    )  # fmt: skip

    def __init__(self, number: int, slots: int, memory: int, speeds: Speeds) -> None:
        self.id = number
        self.slots = slots
        self.memory = memory
        self.is_open = True
        self.elsewhere = 0
        self.speeds = speeds
        self.began: list[float] = []
        self.promised = 0
        self.readings: list[Reading] = []
        self.read = Recent()
        # Seconds of all its slots together that they were taken, and in which it read; differences are what counts.
        self.busy_seconds = self.reading_seconds = 0.0
        self.seen_at = 0.0
        self.score: float | None = None  # in the order of the quickest; none: not in it

    @property
    def busy(self) -> int:
        return len(self.began)

    @property
    def is_free(self) -> bool:
        return len(self.began) + self.elsewhere < self.slots

    def unread(self, now: float) -> float:
        """Tokens."""
        left = sum([reading.tokens for reading in self.readings])
        return max(left - self.speeds.reading * (now - self.seen_at), 0.0) if left else 0.0

    def advance(self, now: float) -> None:
        """Prompts are read one after the other."""
        passed, self.seen_at = now - self.seen_at, now
        self.busy_seconds += len(self.began) * passed
        speed = self.speeds.reading
        able = passed * speed
        while self.readings and able > 0:
            read = min(self.readings[0].tokens, able)
            able -= read
            self.reading_seconds += read / speed
            self.readings[0].tokens -= read
            if self.readings[0].tokens <= 0:
                del self.readings[0]


@dataclass(frozen=True, slots=True)
class Choice:
    """``member`` may have no free slot: then waiting for it is expected to be better than any that has. ``cached``: the share of
    the prompt that it is thought to remember; ``reads``: tokens that it has to read, ``unread`` those of others before."""

    member: Member
    cached: float
    reads: float = 0.0
    unread: float = 0.0


class Fleet:
    def __init__(self, policy: Policy = Policy.COST, most_entries: int = 100_000) -> None:
        self.policy = policy
        self.members: dict[int, Member] = {}
        self.prefixes = Prefixes(most_entries)
        self.usual = Usual()
        self.durations = Durations(FIRST_DURATION)
        self._by_memory: dict[int, Member] = {}
        self._memories = 0
        self._order: list[tuple[float, int]] = []  # free members by score, when there are many
        self._typical = Request(prompt=500.0, answer=200.0)
        self._cursor = 0
        self._takes = 0  # by which "of late" is told
        self._span = float(OF_LATE)
        self._read = Recent()  # by all
        self._numbers: list[int] = []  # of all, while there are many

    # -- who there is ----------------------------------------------------------------------------------------------------
    def put(self, number: int, slots: int) -> Member:
        """Known from now on, or with another number of slots."""
        member = self.members.get(number)
        if member is None:
            member = self.members[number] = Member(number, slots, 0, Speeds(self.usual))
            self.forget(member)
            self._span = float(OF_LATE * len(self.members))
        member.slots = slots
        self._place(member)
        return member

    def remove(self, member: Member) -> None:
        self.members.pop(member.id, None)
        self._by_memory.pop(member.memory, None)
        self._span = float(OF_LATE * max(len(self.members), 1))
        member.is_open = False
        self._out_of_order(member)

    def open(self, member: Member, is_open: bool) -> None:
        """Whether it is chosen."""
        if member.is_open != is_open:
            member.is_open = is_open
            self._place(member)

    def forget(self, member: Member) -> None:
        """Its process is another one now, whose cache is empty. What the old one had stays unused until it is forgotten."""
        self._by_memory.pop(member.memory, None)
        self._memories += 1
        member.memory = self._memories
        self._by_memory[member.memory] = member

    def remember(self, member: Member, prompt: Prompt) -> None:
        """It has read the whole, and is done with it."""
        self.prefixes.remember(prompt, member.memory)

    # -- slots -----------------------------------------------------------------------------------------------------------
    def take(self, member: Member, now: float, reads: float = 0.0) -> Reading:
        """``reads``: tokens."""
        member.advance(now)
        member.began.append(now)
        reading = Reading(reads)
        self._takes += 1
        if reads > 0:
            member.readings.append(reading)
            for recent in (member.read, self._read):
                recent.add(reads, self._takes, self._span)
        self._place(member)
        return reading

    @staticmethod
    def has_read(member: Member, reading: Reading, now: float) -> None:
        """Or will not read it any more. It may have been taken for read already."""
        member.advance(now)
        if reading in member.readings:
            member.readings.remove(reading)

    def give_back(self, member: Member, began: float, now: float) -> None:
        member.advance(now)
        member.began.remove(began)
        self.durations.see(now - began)
        self._place(member)

    def wait(self, member: Member, now: float) -> float:
        """Seconds until it has a slot for one more."""
        if member.is_free:
            return 0.0
        soonest = min((self.durations.left(now - began) for began in member.began), default=self.durations.mean)
        return soonest + member.promised * self.durations.mean / max(member.slots, 1)

    def taken_elsewhere(self, member: Member, slots: int) -> None:
        if member.elsewhere != slots:
            member.elsewhere = slots
            self._place(member)

    def _reads_of_late(self, member: Member) -> float:
        """By what the others read; where nothing was read, nothing is lost."""
        read = self._read.value(self._takes, self._span)
        return len(self.members) * member.read.value(self._takes, self._span) / read if read else 0.0

    # -- the choice ------------------------------------------------------------------------------------------------------
    def choose(
        self,
        request: Request,
        now: float,
        prompt: Prompt = NOTHING,
        refused: Collection[int] = (),
        kept: float | None = None,
    ) -> Choice | None:
        """None when nobody can have it, but those ``refused``. ``kept``: the share of what replicas should remember
        that they do, as was seen. The cursor moves on."""
        self._cursor += 1
        by_cost = self.policy is Policy.COST
        if by_cost and self._order:
            self._look_at_one_again()
        members = self._quickest(refused) if by_cost else list(self.members.values())
        known: dict[int, int] = {}
        if by_cost and prompt.hashes:
            known = self.prefixes.matches(prompt, [member.memory for member in members])
            others = [self._by_memory[memory] for memory in known if memory in self._by_memory]
            members = list(dict.fromkeys([*members, *others]))
        size, kept = prompt.size or 1, 1.0 if kept is None else kept
        candidates = [
            self._candidate(member, known.get(member.memory, 0) / size * kept * request.prompt, now)
            for member in members
            if member.is_open and member.id not in refused
        ]
        chosen = CHOOSERS[self.policy](candidates, request, self._cursor)
        if chosen is None:
            return None
        member = self.members[chosen.id]
        reads = max(request.prompt - chosen.cached, 0.0)
        return Choice(member, known.get(member.memory, 0) / size, reads, chosen.unread)

    def _candidate(self, member: Member, cached: float, now: float) -> Candidate:
        busy, speeds = len(member.began) + member.elsewhere, member.speeds
        if self.policy is not Policy.COST:
            return Candidate(member.id, member.slots, busy)
        at_work = min(busy + 1, max(member.slots, 1))
        wait = self.wait(member, now) if busy >= member.slots else 0.0
        made = Candidate(member.id, member.slots, busy, wait, speeds.reading, speeds.writing(at_work), cached)
        if member.readings and not wait:
            made.unread = member.unread(now)
        made.reads_of_late = self._reads_of_late(member)
        if at_work > 1:
            made.others_writing = speeds.writing(at_work - 1)
        return made

    # -- the order of the quickest ---------------------------------------------------------------------------------------
    def _quickest(self, refused: Collection[int]) -> list[Member]:
        """All, where they are few or all busy; else some that have a free slot."""
        order, members = self._order, self.members
        if len(members) <= ALL:
            return list(members.values())
        if not order:
            others = (member for member in members.values() if member.id not in refused)
            return list(islice(others, ALL))
        # Of equals, others each time, among which the cursor picks one.
        equals = bisect_left(order, (order[0][0] + 1e-9, -1))
        start = (self._cursor - self._cursor % QUICKEST) % equals if equals > QUICKEST else 0
        places = chain(range(start, equals), range(start), range(equals, len(order)))
        quick = (members[order[place][1]] for place in places if order[place][1] not in refused)
        return list(islice(quick, QUICKEST))

    def _look_at_one_again(self) -> None:
        """What is learnt of all changes the score of each, also of those that nobody was sent to since."""
        if len(self._numbers) != len(self.members):
            self._numbers = list(self.members)
        member = self.members.get(self._numbers[self._cursor % len(self._numbers)])
        if member is None:
            self._numbers = []
        else:
            self._place(member)

    def _place(self, member: Member) -> None:
        self._out_of_order(member)
        if len(self.members) <= ALL or not self._belongs_into_order(member):
            return
        if not self._order:  # there are more than ALL since just now
            for other in self.members.values():
                if self._belongs_into_order(other) and other is not member:
                    self._into_order(other)
        self._into_order(member)

    def _belongs_into_order(self, member: Member) -> bool:
        return member.is_free and member.is_open and self.members.get(member.id) is member

    def _into_order(self, member: Member) -> None:
        member.score = seconds(self._candidate(member, 0.0, member.seen_at), self._typical)
        insort(self._order, (member.score, member.id))

    def _out_of_order(self, member: Member) -> None:
        if member.score is not None:
            place = bisect_left(self._order, (member.score, member.id))
            if place < len(self._order) and self._order[place] == (member.score, member.id):
                del self._order[place]
            member.score = None
