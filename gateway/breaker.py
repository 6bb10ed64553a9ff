"""Keeping requests away from what fails, and failures from multiplying. Pure; the time is passed in."""

from __future__ import annotations

from collections.abc import Iterable

FIRST_REST = 1.0  # seconds, doubled with each failure that follows
LONGEST_REST = 60.0
# Replicas that are asked. No more, though there may be: what ends one engine after the other is a request now and then.
ATTEMPTS = 3
RETRIES_SHARE = 0.1  # of all requests
RETRIES_SAVED = 10.0


class Breaker:
    """A circuit breaker (M. Nygard, *Release It!*): closed, open for a while after a failure, then half open: one request tries
    it, and its end decides. One failure opens it, for whoever rests a second is missed by nobody, as others serve meanwhile."""

    __slots__ = ("_failures", "_until")

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def rests(self, now: float, began: Iterable[float]) -> bool:
        """Whether it gets no request; ``began``: when those did that it has. One that did since it rested tries it."""
        return self._failures > 0 and (now < self._until or any(moment >= self._until for moment in began))

    def failed(self, now: float) -> None:
        if now < self._until:  # all that were under way fail together: that is one failure
            return
        self._until = now + min(FIRST_REST * 2**self._failures, LONGEST_REST)
        self._failures = min(self._failures + 1, 10)

    def succeeded(self) -> None:
        self._failures, self._until = 0, 0.0


class RetryBudget:
    """Tries again are a tenth of all requests at most, so that they cannot bring down what is overloaded (Google, *Site
    Reliability Engineering*, chapter 21). What is not used is saved up to a bound."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = RETRIES_SAVED

    def asked(self) -> None:
        """A request came."""
        self._left = min(self._left + RETRIES_SHARE, RETRIES_SAVED)

    def spend(self) -> bool:
        """Whether one may be tried again."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
