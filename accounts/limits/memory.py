"""Limits counted in this process.

What was used is kept per second, not per request, and forgotten when the last instant of that second is more than a minute
past. So a subject never gets more than its limit within any 60 seconds, and is held back by what is at most 61 seconds old.
A subject needs at most 61 small entries, and is forgotten when nothing of it counts any more.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from math import floor
from time import monotonic
from typing import NamedTuple

from accounts.limits.terms import (
    CONCURRENT_RETRY_SECONDS,
    UNLIMITED,
    WINDOW_SECONDS,
    Limit,
    LimitExceeded,
    Standing,
    Used,
    What,
    applying,
    standing,
)

NOTHING_USED = Used(0, 0, 0.0)


class _Second:
    __slots__ = ("number", "requests", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.requests = 0
        self.tokens = 0


class _Subject:
    """``requests`` and ``tokens`` are the sums over ``seconds``."""

    __slots__ = ("requests", "running", "seconds", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self.running = 0
        self.seconds: deque[_Second] = deque()

    def forget_before(self, oldest: int) -> None:
        seconds = self.seconds
        while seconds and seconds[0].number < oldest:
            gone = seconds.popleft()
            self.requests -= gone.requests
            self.tokens -= gone.tokens
            gone.tokens = 0  # a request of then that ends now has nothing to give back

    def at(self, second: int) -> _Second:
        seconds = self.seconds
        if not seconds or seconds[-1].number < second:
            seconds.append(_Second(second))
        return seconds[-1]

    def used(self, now: float) -> Used:
        empty_in = _forgotten_in(self.seconds[-1], now) if self.seconds else 0.0
        return Used(self.requests, self.tokens, empty_in)

    def held_back(self, limit: Limit, tokens: int, now: float) -> list[tuple[float, What]]:
        """For how long each of the limit's numbers refuses another request."""
        found: list[tuple[float, What]] = []
        if limit.requests and self.requests >= limit.requests:
            found.append((self._until(limit.requests - 1, "requests", now), "requests"))
        if limit.tokens and self.tokens + min(tokens, limit.tokens) > limit.tokens:
            found.append((self._until(limit.tokens - min(tokens, limit.tokens), "tokens", now), "tokens"))
        if limit.concurrent and self.running >= limit.concurrent:
            found.append((CONCURRENT_RETRY_SECONDS, "concurrent"))
        return found

    def _until(self, most: int, what: What, now: float) -> float:
        """Seconds until no more than ``most`` count."""
        left: int = getattr(self, what)
        for second in self.seconds:
            left -= getattr(second, what)
            if left <= most:
                return _forgotten_in(second, now)
        return 0.0


def _forgotten_in(second: _Second, now: float) -> float:
    return second.number + 1 + WINDOW_SECONDS - now


class Counted(NamedTuple):
    """A request under way, at one of its subjects."""

    limit: Limit
    subject: _Subject
    second: _Second
    tokens: int


class MemoryLimiter:
    """For one thread. ``clock`` tells seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._subjects: OrderedDict[str, _Subject] = OrderedDict()  # the longest unused first
        self._running: dict[str, list[Counted]] = {}

    async def admit(self, limits: Sequence[Limit], request_id: str, tokens: int) -> Standing:
        limits = applying(limits)
        return self.admit_now(limits, request_id, tokens) if limits else UNLIMITED

    def finished(self, request_id: str, tokens: int) -> None:
        """What it used beyond the estimate counts from now on; what it did not use never counted."""
        counted = self._running.pop(request_id, None)
        if counted is None:
            return
        number = floor(self._clock())
        for limit, subject, second, estimate in counted:
            subject.running -= 1
            if not limit.tokens:
                continue
            if tokens < estimate:
                change = max(tokens - estimate, -second.tokens)
            else:
                change = tokens - estimate
                second = subject.at(number)
            second.tokens += change
            subject.tokens += change

    # -- in steps, for whoever asks elsewhere between them; ``limits`` as ``applying`` gives them --------------------------
    def admit_now(self, limits: Sequence[Limit], request_id: str, tokens: int) -> Standing:
        self.check(limits, tokens)
        return self.count(limits, request_id, tokens)

    def check(self, limits: Sequence[Limit], tokens: int) -> None:
        """Raises LimitExceeded. Counts nothing."""
        now = self._clock()
        oldest = floor(now) - WINDOW_SECONDS
        worst: tuple[float, What, Limit] | None = None
        for limit in limits:
            subject = self._subjects.get(limit.subject)
            if subject is None:
                continue
            subject.forget_before(oldest)
            for wait, what in subject.held_back(limit, tokens, now):
                if worst is None or wait > worst[0]:
                    worst = wait, what, limit
        if worst is not None:
            wait, what, limit = worst
            raise LimitExceeded(limit, what, wait, standing(limits, [self._used(each, now) for each in limits]))

    def count(self, limits: Sequence[Limit], request_id: str, tokens: int) -> Standing:
        """Counts it, whether it exceeds a limit or not."""
        now = self._clock()
        number = floor(now)
        counted, used = [], []
        for limit in limits:
            subject = self._touch(limit.subject)
            second = subject.at(number)
            estimate = min(tokens, limit.tokens)
            subject.running += 1
            subject.requests += 1
            subject.tokens += estimate
            second.requests += 1
            second.tokens += estimate
            counted.append(Counted(limit, subject, second, estimate))
            used.append(Used(subject.requests, subject.tokens, _forgotten_in(second, now)))
        self._running[request_id] = counted
        self._forget_idle(number - WINDOW_SECONDS, len(limits) + 1)
        return standing(limits, used)

    def running(self) -> list[tuple[str, list[str]]]:
        """The requests under way and the subjects they count at."""
        return [(name, [each.limit.subject for each in counted]) for name, counted in self._running.items()]

    @property
    def subjects_known(self) -> int:
        return len(self._subjects)

    def _used(self, limit: Limit, now: float) -> Used:
        subject = self._subjects.get(limit.subject)
        return NOTHING_USED if subject is None else subject.used(now)

    def _touch(self, name: str) -> _Subject:
        subject = self._subjects.get(name)
        if subject is None:
            subject = self._subjects[name] = _Subject()
        else:
            self._subjects.move_to_end(name)
        return subject

    def _forget_idle(self, oldest: int, looked_at: int) -> None:
        """Looks at more subjects than an admission can bring, so that they stay no more than are in use."""
        for _ in range(looked_at):
            name, subject = next(iter(self._subjects.items()))
            if subject.running:
                self._subjects.move_to_end(name)
            elif not subject.seconds or subject.seconds[-1].number < oldest:
                del self._subjects[name]
            else:
                return
