"""How fast replicas read prompts and write answers, and how long that takes, as measured on what they did. Pure.

Means that follow what is seen: a new figure counts ``WEIGHT``, so that about the last ten say what is expected next. Figures
of one replica are few and differ by chance; whoever picks the best of many picks luck. So what all have in common is learnt
from all, and of each only by how much it differs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate

RECENT = 64  # requests whose duration is remembered
WEIGHT = 0.1  # of a new figure of one replica
USUAL_WEIGHT = 0.02  # and of all together, which are many
# What a processor is taken for before anything was seen: tokens a second.
FIRST_READING = 100.0
FIRST_WRITING = 20.0


class Mean:
    """Nothing until something was seen."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def see(self, value: float) -> None:
        self.value = value if self.value is None else self.value + WEIGHT * (value - self.value)


class Rate:
    """Tokens in all by seconds in all, so that what took long says more: beside what an engine does for each request anyway, the
    speed at which it reads twenty tokens is no speed."""

    __slots__ = ("_seconds", "_tokens")

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def see(self, tokens: float, seconds: float) -> None:
        self._tokens += tokens - USUAL_WEIGHT * self._tokens
        self._seconds += seconds - USUAL_WEIGHT * self._seconds

    @property
    def value(self) -> float | None:
        return self._tokens / self._seconds if self._seconds > 0 else None


class Pace:
    """How fast one replica is by the usual speed: seconds that its work takes usually by those that it took. It starts with one
    piece of work of mean length at the usual speed, else whoever was unlucky once would not be asked again."""

    __slots__ = ("_count", "_taken", "_usual", "value")

    def __init__(self) -> None:
        self._count = self._usual = self._taken = 0.0
        self.value = 1.0

    def see(self, usual: float, taken: float) -> None:
        """Seconds."""
        self._count += 1 - WEIGHT * self._count
        self._usual += usual - WEIGHT * self._usual
        self._taken += taken - WEIGHT * self._taken
        mean = self._usual / self._count
        self.value = (self._usual + mean) / (self._taken + mean)


class Usual:
    """Of all replicas of a model together.

    An answer is written slower the more slots are at work, so that speed is kept by their number. For a number that was never
    seen the next smaller one's total is shared out, as if the processor were fully used already.
    """

    __slots__ = ("_known", "_reading", "_writing", "reading")

    def __init__(self) -> None:
        self._reading = Rate()
        self._writing: dict[int, Rate] = {}
        self._known: dict[int, float] = {}  # by number at work; forgotten when something is seen
        self.reading = FIRST_READING  # tokens a second

    def read(self, tokens: float, seconds: float) -> None:
        self._reading.see(tokens, seconds)
        self.reading = self._reading.value or FIRST_READING

    def wrote(self, tokens: float, seconds: float, at_work: int) -> None:
        """While so many slots were at work, its own with them."""
        self._writing.setdefault(at_work, Rate()).see(tokens, seconds)
        self._known.clear()

    def writing(self, at_work: int) -> float:
        """Tokens a second of one answer among so many."""
        found = self._known.get(at_work)
        if found is None:
            found = self._known[at_work] = self._find(at_work)
        return found

    def _find(self, at_work: int) -> float:
        rate = self._writing.get(at_work)
        if rate is not None and rate.value:
            return rate.value
        seen = {number: rate.value for number, rate in self._writing.items() if rate.value}
        fewer = [number for number in seen if number < at_work]
        if fewer:
            return seen[max(fewer)] * max(fewer) / at_work
        return seen[min(seen)] if seen else FIRST_WRITING / at_work


class Speeds:
    """Of one replica: the usual ones, by its own pace at each."""

    __slots__ = ("_reading", "_usual", "_writing")

    def __init__(self, usual: Usual) -> None:
        self._usual = usual
        self._reading = Pace()
        self._writing = Pace()

    def read(self, tokens: float, seconds: float) -> None:
        # What a usual one would have taken: that slow ones are asked less does not make the others look faster.
        self._usual.read(tokens, seconds * self._reading.value)
        self._reading.see(tokens / self._usual.reading, seconds)

    def wrote(self, tokens: float, seconds: float, at_work: int) -> None:
        """While so many slots were at work, its own with them."""
        self._usual.wrote(tokens, seconds * self._writing.value, at_work)
        self._writing.see(tokens / self._usual.writing(at_work), seconds)

    @property
    def reading(self) -> float:
        """Tokens a second."""
        return self._usual.reading * self._reading.value

    def writing(self, at_work: int) -> float:
        """Tokens a second of one answer among so many."""
        return self._usual.writing(at_work) * self._writing.value


class Durations:
    """How long requests have kept a slot, and how long one that has had it for a while will keep it yet: the mean rest of those
    that took longer. Whoever has taken longer than all will take as long again."""

    __slots__ = ("_first", "_recent", "_sorted", "_sums")

    def __init__(self, first: float) -> None:
        """``first``: seconds, what is expected before anything was seen."""
        self._first = first
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._sorted: list[float] = []
        self._sums: list[float] = []  # of each and all longer ones

    def see(self, seconds: float) -> None:
        self._recent.append(seconds)
        self._sorted = sorted(self._recent)
        self._sums = list(accumulate(reversed(self._sorted)))[::-1]

    @property
    def was_seen(self) -> bool:
        return bool(self._sorted)

    @property
    def mean(self) -> float:
        return self._sums[0] / len(self._sorted) if self._sorted else self._first

    def left(self, elapsed: float) -> float:
        """Seconds."""
        if not self._sorted:
            return max(self._first - elapsed, elapsed)
        place = bisect_right(self._sorted, elapsed)
        longer = len(self._sorted) - place
        return self._sums[place] / longer - elapsed if longer else elapsed
