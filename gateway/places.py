"""Limits on the inference path: a request's place within what its key, user, group and model may do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from accounts.callers import Caller
from accounts.limits import Limiter, LimitExceeded, limiter
from accounts.prices import Policy
from gateway import errors


class Place:
    """Whoever has taken one must leave it."""

    __slots__ = ("_kept", "_left", "_limiter", "_request_id", "headers")

    def __init__(self, limiter: Limiter | None, request_id: str, headers: dict[str, str]) -> None:
        self._limiter = limiter
        self._request_id = request_id
        self._kept = False
        self._left: int | None = None
        self.headers = headers  # that tell the caller how much is left

    @classmethod
    async def take(cls, caller: Caller, policies: Iterable[Policy], request_id: str, tokens: int) -> Place:
        """``policies``: of each model that may answer. ``tokens`` is an estimate. Raises GatewayError when a limit holds the
        request back."""
        limits = (*caller.limits, *(policy.limit for policy in policies if policy.limit))
        if not limits:
            return cls(None, request_id, {})
        found = limiter()
        try:
            standing = await found.admit(limits, request_id, tokens)
        except LimitExceeded as refusal:
            raise errors.rate_limited(refusal) from None
        return cls(found, request_id, standing.headers())

    def leave(self, tokens: int) -> None:
        """With what was really used. The second call does nothing."""
        if self._kept:
            self._left = tokens
        elif self._limiter is not None:
            self._limiter.finished(self._request_id, tokens)

    @contextmanager
    def kept_after(self, failure: type[Exception]) -> Iterator[None]:
        """Whoever leaves it within still has it afterwards if that ends with ``failure``: somebody else tries then."""
        self._kept = True
        try:
            yield
        except failure:
            self._kept, self._left = False, None
            raise
        except BaseException:
            self._let_go()
            raise
        self._let_go()

    def _let_go(self) -> None:
        self._kept = False
        if self._left is not None:
            self.leave(self._left)
