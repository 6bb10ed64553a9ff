"""The replicas of one model as the router sees them: who is busy since when, how fast each is, and what each remembers. Pure; the
time is passed in.

Up to ``ALL`` replicas are compared each time. Of more, those are that remember most of the prompt and those that are quickest for
anybody, kept in order as slots are taken and given back: a decision among thousands costs what one among some dozens does.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

from cluster import balancer
from cluster.balancer import CHOOSERS, Candidate, Policy, Request, seconds
from cluster.members import SHORT, Held, Member, Recent, Taken
from cluster.prefixes import MOST_HOLDERS, NOTHING, Prefixes, Prompt
from cluster.speeds import Durations, Speeds, Usual

ALL = 64
QUICKEST = 8
OF_LATE = 50  # requests of each, on average
WORTH_WAITING_FOR = 50.0  # tokens; fewer are read so soon that nobody has to know
FIRST_DURATION = 5.0  # seconds; what a request is taken for before any was seen


@dataclass(frozen=True, slots=True)
class Choice:
    """``member`` may have no free slot, or hold what this request begins with in one that is busy (``held``, the hash of that;
    ``is_read``: already): then waiting for it is expected to be better than any that is free. ``cached``: the share of the prompt
    that it is thought to remember; ``reads``: tokens that it has to read, ``unread`` those of others before; ``lasts``: seconds,
    of which ``writes`` for the answer."""

    member: Member
    cached: float
    reads: float = 0.0
    unread: float = 0.0
    lasts: float = 0.0
    writes: float = 0.0
    held: int | None = None
    is_read: bool = False

    @property
    def is_free(self) -> bool:
        return self.member.is_free and self.held is None


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
        self._mean_read, self._mean_read_at = 0.0, 0  # by each, after so many takes
        self._numbers: list[int] = []  # of all, while there are many
        self._held = Held()

    # -- who there is ----------------------------------------------------------------------------------------------------
    def put(self, number: int, slots: int, *, has_host_cache: bool = True) -> Member:
        """Known from now on, or with another number of slots."""
        member = self.members.get(number)
        if member is None:
            member = self.members[number] = Member(number, slots, 0, Speeds(self.usual))
            self.forget(member)
            self._span = float(OF_LATE * len(self.members))
            self._mean_read_at = -1
        member.slots, member.has_host_cache = slots, has_host_cache
        self._place(member)
        return member

    def remove(self, member: Member) -> None:
        self.members.pop(member.id, None)
        self._by_memory.pop(member.memory, None)
        self._span = float(OF_LATE * max(len(self.members), 1))
        self._mean_read_at = -1
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
        member.idle.clear()
        member.published.clear()
        member.host.clear()
        self._by_memory[member.memory] = member

    def remember(self, member: Member, prompt: Prompt) -> None:
        """It has the whole in its cache."""
        self.prefixes.remember(prompt, member.memory)

    # -- slots -----------------------------------------------------------------------------------------------------------
    def take(self, choice: Choice, now: float, prompt: Prompt = NOTHING) -> Taken:
        """One of the member's, for what was chosen."""
        member = choice.member
        member.advance(now)
        taken = Taken(member, prompt, choice.reads, now, choice.lasts, choice.writes)
        member.take(taken)
        if not taken.is_short:
            self._held.is_read_again(prompt, choice.cached * prompt.size)
            self._held.add(taken)
        self._takes += 1
        if choice.reads > 0:
            member.readings.append(taken)
            for recent in (member.read, self._read):
                recent.add(choice.reads, self._takes, self._span)
        self._place(member)
        return taken

    @staticmethod
    def has_read(taken: Taken, now: float) -> None:
        """Or will not read it any more. It may have been taken for read already."""
        taken.member.advance(now)
        taken.ends = now + taken.writes
        if taken in taken.member.readings:
            taken.member.readings.remove(taken)

    def has_waited(self, digest: int, seconds: float) -> None:
        """Somebody who let free slots pass for what a busy one held, by its hash."""
        self._held.add_wait(digest, seconds)

    def is_left(self, taken: Taken) -> None:
        """Its client has gone, so nobody knows how much of the prompt will be there when the slot is given back."""
        self._held.discard(taken)

    def give_back(self, taken: Taken, now: float, *, was_read: bool = True) -> None:
        """``was_read``: it is known that the replica has read the whole prompt."""
        member = taken.member
        self.has_read(taken, now)
        member.give_back(taken, was_read)
        self._held.discard(taken)
        self.durations.see(now - taken.began)
        if was_read and taken.memory == member.memory:
            self.remember(member, taken.prompt)
        self._place(member)

    def wait(self, member: Member, now: float) -> float:
        """Seconds until it has a slot for one more."""
        if member.is_free:
            return 0.0
        soonest = min((self.durations.left(now - taken.began) for taken in member.taken), default=self.durations.mean)
        return soonest + member.promised * self.durations.mean / max(member.slots, 1)

    def taken_elsewhere(self, member: Member, slots: int) -> None:
        if member.elsewhere != slots:
            member.elsewhere = slots
            self._place(member)

    def _reads_of_late(self, member: Member) -> float:
        """By what the others read; where nothing was read, nothing is lost."""
        if self._mean_read_at != self._takes:
            self._mean_read_at = self._takes
            self._mean_read = self._read.value(self._takes, self._span) / max(len(self.members), 1)
        return member.read.value(self._takes, self._span) / self._mean_read if self._mean_read else 0.0

    # -- the choice ------------------------------------------------------------------------------------------------------
    def choose(
        self,
        request: Request,
        now: float,
        prompt: Prompt = NOTHING,
        refused: Collection[int] = (),
        kept: float | None = None,
        *,
        waited: float | None = 0.0,
    ) -> Choice | None:
        """None when nobody can have it, but those ``refused``. ``kept``: the share of what replicas should remember
        that they do, as was seen. ``waited``: seconds for which it has let free slots pass; None: it takes one. The cursor moves
        on."""
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
        if by_cost and waited is None:
            candidates = [candidate for candidate in candidates if candidate.is_free] or candidates
        if by_cost:
            has_less = partial(self._has_less, prompt, known, kept * request.prompt / size)
            chosen = balancer.by_cost(candidates, request, self._cursor, has_less)
        else:
            chosen = CHOOSERS[self.policy](candidates, request, self._cursor)
        if chosen is None:
            return None
        member = self.members[chosen.id]
        if by_cost and waited is not None and prompt.size >= SHORT:
            least = known.get(member.memory, 0)
            held = self._worth_waiting_for(prompt, request, now, refused, kept, chosen, least, waited)
            if held is not None:
                return held
        reads = max(request.prompt - chosen.cached, 0.0)
        writes = request.answer / chosen.writing
        lasts = (reads + chosen.unread) / chosen.reading + writes
        return Choice(member, known.get(member.memory, 0) / size, reads, chosen.unread, lasts, writes)

    def _has_less(self, prompt: Prompt, known: dict[int, int], tokens: float, candidate: Candidate) -> bool:
        """Whether it has less of the prompt for this request than was ``known``, as others use it; that is corrected then.
        ``tokens``: of each byte."""
        if not candidate.cached or not candidate.busy or prompt.size < SHORT:
            return False
        memory = self.members[candidate.id].memory
        had = known[memory]
        known[memory] = self.members[candidate.id].lends(prompt, had)
        candidate.cached = known[memory] * tokens
        return known[memory] < had

    def _worth_waiting_for(
        self,
        prompt: Prompt,
        request: Request,
        now: float,
        refused: Collection[int],
        kept: float,
        chosen: Candidate,
        known: int,
        waited: float,
    ) -> Choice | None:
        """A replica one of whose busy slots holds what this prompt begins with, of which the one chosen has ``known`` bytes, if
        waiting for that slot and reading only the rest costs less.

        Nobody waits longer than reading costs, and what others have waited since there was a new copy counts too, by the share
        of it that one more copy would have saved them: so what several want all the time is read again until there are as many
        copies as they need. It is the question how long to rent before one buys (ski rental; Karlin and others 1988)."""
        place, holders = self._held.most_of(prompt, known)
        size = prompt.read_to(place)
        cached = size / prompt.size * kept * request.prompt
        if not holders or cached < chosen.cached + WORTH_WAITING_FOR:
            return None
        # Nothing is lost later by one copy more of what several want at once.
        chosen.reads_of_late = 0.0
        digest, best = prompt.hashes[place], None
        least = seconds(chosen, request)
        if waited >= least:
            return None
        least -= self._held.waited(digest) / (1 + len(holders))
        for taken in islice(holders, MOST_HOLDERS):
            member = taken.member
            if not member.is_open or member.id in refused or taken.memory != member.memory:
                continue
            left = taken.ends - now if taken.ends > now else self.durations.left(now - taken.began)
            if left >= least:
                continue
            made = self._candidate(member, cached, now)
            reads = max(request.prompt - cached, 0.0)
            own = reads / made.reading + request.answer / made.writing
            made.wait = left + member.promised * own
            # It is written as slowly as if that slot were taken again: others will have begun, too.
            made.unread, made.busy = 0.0, max(made.busy - 1, 0)
            made.reads_of_late = 0.0
            if (cost := seconds(made, request)) < least:
                is_read = taken not in member.readings
                least, best = cost, Choice(member, size / prompt.size, reads, held=digest, is_read=is_read)
        return best

    def _candidate(self, member: Member, cached: float, now: float) -> Candidate:
        busy, speeds = len(member.taken) + member.elsewhere, member.speeds
        if self.policy is not Policy.COST:
            return Candidate(member.id, member.slots, busy)
        at_work = busy + 1 if busy < member.slots else max(member.slots, 1)
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
