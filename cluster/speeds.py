"""How fast replicas read prompts and write answers, and how long that takes, as measured on what they did. Pure.

Means that follow what is seen: a new figure counts ``WEIGHT``, so that about the last ten say what is expected next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import accumulate

RECENT = 64  # requests whose duration is remembered
WEIGHT = 0.2
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


class Speeds:
    """Of one replica, or with ``of_all`` those of its fellows where it was not seen itself.

    An answer is written slower the more slots are at work, so that speed is kept by their number. For a number that was never
    seen the next smaller one's total is shared out, as if the processor were fully used already.
    """

    __slots__ = ("_of_all", "_reading", "_writing")

    def __init__(self, of_all: Speeds | None = None) -> None:
        self._of_all = of_all
        self._reading = Mean()
        self._writing: dict[int, Mean] = {}

    def read(self, tokens_per_second: float) -> None:
        self._reading.see(tokens_per_second)
        if self._of_all is not None:
            self._of_all.read(tokens_per_second)

    def wrote(self, tokens_per_second: float, at_work: int) -> None:
        """While so many slots were at work, its own with them."""
        self._writing.setdefault(at_work, Mean()).see(tokens_per_second)
        if self._of_all is not None:
            self._of_all.wrote(tokens_per_second, at_work)

    @property
    def seen_reading(self) -> float | None:
        """Tokens a second; nothing until it was seen."""
        return self._reading.value

    @property
    def reading(self) -> float:
        """Tokens a second."""
        if self._reading.value is not None:
            return self._reading.value
        return self._of_all.reading if self._of_all is not None else FIRST_READING

    def writing(self, at_work: int) -> float:
        """Tokens a second of one answer among so many."""
        for speeds in (self, self._of_all):
            if speeds is not None and (seen := speeds._writing.get(at_work)) is not None and seen.value is not None:
                return seen.value
        for speeds in (self, self._of_all):
            if speeds is not None and (known := speeds._nearest(at_work)) is not None:
                return known
        return FIRST_WRITING / at_work

    def _nearest(self, at_work: int) -> float | None:
        seen = {number: mean.value for number, mean in self._writing.items() if mean.value is not None}
        fewer = [number for number in seen if number < at_work]
        if fewer:
            return seen[max(fewer)] * max(fewer) / at_work
        more = [number for number in seen if number > at_work]
        return seen[min(more)] if more else None


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
