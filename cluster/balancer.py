"""Which replica gets a request. Pure: no database, no I/O, no clock, so that a simulation can drive it with 10,000 replicas.

The rule is the least cost in seconds, until the request's last token, and to others:

    seconds until it has a free slot
    + tokens of prompts that it reads before, and of this one that it does not remember / tokens it reads a second
    + tokens of the answer / tokens it writes a second with one more answer under way
    + what the others under way lose: the time in which this prompt is read, for they stand still then, and that by which
      they are written slower
    + what is lost later: what is read takes the place of as much in the cache, which is read again some time, and the sooner
      the more it has read of late, as what is lost is younger then

Every term is measured, none is a weight that somebody chose. A replica that remembers the conversation wins as long as waiting
for it costs less than reading everything again elsewhere, so a prefix that many want gets further homes by the same arithmetic.
Among equals the caller's cursor decides, which the caller raises by one a request. docs/routing.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

BOTH_LAST = 0.5  # of the time that an answer takes another lasts too, on average, that began at any time
NEARLY = 1e-9  # seconds that make no difference
BOUND = 1.25  # times the mean load that a replica may have where conversations are bound to one by their hash


class Policy(StrEnum):
    COST = "cost"
    LEAST_BUSY = "least_busy"
    ROUND_ROBIN = "round_robin"
    HASH = "hash"


@dataclass(slots=True)
class Candidate:
    """One replica as the caller sees it now, for one request. ``wait``: seconds until it has a free slot, 0 when it has one.
    Speeds in tokens a second, ``writing`` with this one, ``others_writing`` without; ``cached``: tokens of the prompt that it
    remembers; ``unread``: of other prompts, that it reads before; ``reads_of_late``: by what the others read, on average."""

    id: int
    slots: int
    busy: int = 0
    wait: float = 0.0
    reading: float = 1.0
    writing: float = 1.0
    cached: float = 0.0
    unread: float = 0.0
    reads_of_late: float = 1.0
    others_writing: float = 0.0  # 0: nobody writes

    @property
    def is_free(self) -> bool:
        return self.busy < self.slots

    @property
    def load(self) -> float:
        return self.busy / self.slots if self.slots > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of a request: tokens of its prompt and, expected, of its answer. ``key``: the same for all turns of a
    conversation."""

    prompt: float = 0.0
    answer: float = 0.0
    key: int = 0


def seconds(candidate: Candidate, request: Request) -> float:
    """Expected until the last token of the answer, and taken from others."""
    left = request.prompt - candidate.cached
    reading = left / candidate.reading if left > 0 else 0.0
    own = candidate.wait + candidate.unread / candidate.reading + reading + request.answer / candidate.writing
    later = reading * candidate.reads_of_late
    others = candidate.busy if candidate.busy < candidate.slots else candidate.slots - 1
    if others <= 0 or candidate.others_writing <= 0:
        return own + later
    more = 1 / candidate.writing - 1 / candidate.others_writing
    slower = BOTH_LAST * request.answer * more if more > 0 else 0.0
    # The others come to their end, and it is written faster then.
    return own - slower + others * (reading + slower) + later


def by_cost(
    candidates: Sequence[Candidate],
    request: Request,
    cursor: int,
    has_less: Callable[[Candidate], bool] = lambda candidate: False,
) -> Candidate | None:
    """May be one without a free slot: waiting for it is better than any other then. ``has_less`` is asked of those only that
    would be chosen: whether it remembers less than was thought, which is corrected then."""
    costs = [seconds(candidate, request) for candidate in candidates]
    while costs:
        place = _least(costs, cursor)
        if not has_less(candidates[place]):
            return candidates[place]
        costs[place] = seconds(candidates[place], request)
    return None


def least_busy(candidates: Sequence[Candidate], request: Request, cursor: int) -> Candidate | None:
    """Relative to slots."""
    free = [candidate for candidate in candidates if candidate.is_free]
    return free[_least([candidate.load for candidate in free], cursor)] if free else None


def round_robin(candidates: Sequence[Candidate], request: Request, cursor: int) -> Candidate | None:
    """Each in turn, passing over those without a free slot."""
    in_turn = [candidates[(cursor + step) % len(candidates)] for step in range(len(candidates))]
    return next((candidate for candidate in in_turn if candidate.is_free), None)


def by_hash(candidates: Sequence[Candidate], request: Request, cursor: int) -> Candidate | None:
    """Each conversation has an order of replicas of its own (rendezvous hashing, Thaler and Ravishankar 1998); it gets the first
    whose load is within bounds (consistent hashing with bounded loads, Mirrokni, Thorup and Zadimoghaddam 2018)."""
    free = [candidate for candidate in candidates if candidate.is_free]
    if not free:
        return None
    share = BOUND * (sum(one.busy for one in candidates) + 1) / sum(one.slots for one in candidates)
    within = [candidate for candidate in free if candidate.busy < ceil(share * candidate.slots)] or free
    return max(within, key=lambda candidate: hash((request.key, candidate.id)))


def _least(figures: Sequence[float], cursor: int) -> int:
    """Its place; among equals the cursor decides."""
    limit = min(figures) + NEARLY
    equals = [place for place, figure in enumerate(figures) if figure <= limit]
    return equals[cursor % len(equals)]


CHOOSERS: dict[Policy, Callable[[Sequence[Candidate], Request, int], Candidate | None]] = {
    Policy.COST: by_cost,
    Policy.LEAST_BUSY: least_busy,
    Policy.ROUND_ROBIN: round_robin,
    Policy.HASH: by_hash,
}
