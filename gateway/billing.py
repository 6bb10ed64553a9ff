"""Holds and settlements of many requests in few transactions.

One thread with one database connection. It takes whatever has accumulated while it was busy, so one client waits for
nothing and many share a commit.

Somebody waits for a hold and nobody for a settlement, so holds go first and settlements linger to be written together. Yet
what a finished request gives back, the next one may spend: a hold that could not be given in full is tried again after the
settlements that were waiting.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, sleep
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from accounts import quota
from accounts.quota import Held, HoldRequest, InsufficientQuota, Settlement
from gateway import errors

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 200
# Seconds before settlements that a database could not take are tried again; doubled each time.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
EXIT_SECONDS = 5.0
LINGER_SECONDS = 0.03

Item = TypeVar("Item")
HoldResult = Held | Exception


@dataclass(slots=True, eq=False)
class _WaitingHold:
    request: HoldRequest
    future: asyncio.Future[HoldResult]
    loop: asyncio.AbstractEventLoop


class Billing:
    """Thread-safe. The thread starts with the first request and ends with the process."""

    def __init__(self) -> None:
        self._holds: deque[_WaitingHold] = deque()
        self._settlements: deque[Settlement] = deque()
        self._unclaimed: deque[str] = deque()
        self._wake_up = threading.Condition()
        self._busy = False
        self._pause = FIRST_PAUSE
        self._urgent = False
        self._due = 0.0  # when waiting settlements are written at the latest
        self._thread: threading.Thread | None = None
        # Called at exit, to settle requests whose true figures are still being asked for.
        self.before_exit: Callable[[], None] | None = None

    async def hold(self, request: HoldRequest) -> Held:
        """Raises GatewayError when it cannot be paid for."""
        loop = asyncio.get_running_loop()
        waiting = _WaitingHold(request, loop.create_future(), loop)
        self._hand_in(self._holds, waiting)
        try:
            result = await waiting.future
        except asyncio.CancelledError:
            # The money may have been held in the very moment in which the client left.
            if waiting.future.done() and not waiting.future.cancelled():
                self._give_back(waiting, waiting.future.result())
            raise
        if isinstance(result, Held):
            return result
        if isinstance(result, InsufficientQuota):
            raise errors.insufficient_quota()
        raise errors.unavailable() from result

    def settle(self, settlement: Settlement) -> None:
        """Returns at once; the ledger has it some milliseconds later."""
        self._hand_in(self._settlements, settlement)

    def wait_until_idle(self, seconds: float) -> bool:
        """Whether everything handed in so far was written in time."""
        with self._wake_up:
            self._due = 0.0
            self._wake_up.notify_all()
            return self._wake_up.wait_for(lambda: not (self._busy or self._has_work()), seconds)

    # -- the thread ----------------------------------------------------------------------------------------------------
    def _has_work(self) -> bool:
        return bool(self._holds or self._settlements or self._unclaimed)

    def _hand_in(self, line: deque[Item], item: Item) -> None:
        with self._wake_up:
            if line is not self._settlements:
                self._urgent = True
            elif not line:
                self._due = monotonic() + LINGER_SECONDS
            line.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="billing", daemon=True)
                self._thread.start()
                atexit.register(self._finish)
            elif self._urgent or len(line) == 1:
                self._wake_up.notify_all()

    def _finish(self) -> None:
        if self.before_exit is not None:
            self.before_exit()
        if not self.wait_until_idle(EXIT_SECONDS):
            logger.error("%d settlements could not be written before the end", len(self._settlements))

    def _run(self) -> None:
        while True:
            with self._wake_up:
                self._busy = False
                self._wait_for_work()
                self._busy, self._urgent = True, False
                holds, unclaimed = _take(self._holds), _take(self._unclaimed)
            try:
                self._work_off(holds, unclaimed)
            except Exception:  # a loop's edge: without this thread nobody could pay any more
                logger.exception("billing failed")

    def _wait_for_work(self) -> None:
        while not (self._holds or self._unclaimed):
            left = self._due - monotonic() if self._settlements else None
            if left is not None and left <= 0:
                return
            if left is None:
                self._wake_up.notify_all()  # for wait_until_idle
            self._wake_up.wait(left)

    def _work_off(self, holds: list[_WaitingHold], unclaimed: list[str]) -> None:
        again = self._hold_in_full(holds) if self._settlements else holds
        written = True
        if again or unclaimed or (self._settlements and self._due <= monotonic()):
            written = self._settle(unclaimed)
        if again:
            self._answer(again, _hold([waiting.request for waiting in again]))
        if written:
            self._pause = FIRST_PAUSE
        else:
            sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _hold_in_full(self, holds: list[_WaitingHold]) -> list[_WaitingHold]:
        """Answers those that get all they ask for; returns the others, for which a settlement may change something."""
        requests = [replace(waiting.request, least_tokens=waiting.request.max_tokens) for waiting in holds]
        results = _hold(requests) if requests else []
        refused = [isinstance(result, InsufficientQuota) for result in results]
        given = [(w, r) for w, r, no in zip(holds, results, refused, strict=True) if not no]
        if given:
            self._answer([waiting for waiting, _result in given], [result for _waiting, result in given])
        return [waiting for waiting, no in zip(holds, refused, strict=True) if no]

    def _settle(self, unclaimed: list[str]) -> bool:
        """What a database that is away could not take goes to the front of its line again. The lines stay short: nothing new
        is held meanwhile."""
        written = True
        while written and (settlements := _take(self._settlements)):
            written = _written(partial(quota.settle_many, settlements), f"{len(settlements)} settlements")
            if not written:
                self._settlements.extendleft(reversed(settlements))
        if unclaimed and not (
            written and _written(partial(quota.release_many, unclaimed), f"{len(unclaimed)} releases")
        ):
            self._unclaimed.extendleft(reversed(unclaimed))
            written = False
        return written

    def _answer(self, holds: list[_WaitingHold], results: Sequence[HoldResult]) -> None:
        for loop in {waiting.loop for waiting in holds}:
            own = [(waiting, result) for waiting, result in zip(holds, results, strict=True) if waiting.loop is loop]
            try:
                loop.call_soon_threadsafe(self._deliver, own)
            except RuntimeError:
                # The loop has ended: the process does too, and its holds are released by the supervisor.
                logger.warning("%d holds have nobody waiting for them any more", len(own))

    def _deliver(self, answered: list[tuple[_WaitingHold, HoldResult]]) -> None:
        """In the loop. Whoever went away meanwhile gets the money back."""
        for waiting, result in answered:
            if not waiting.future.done():
                waiting.future.set_result(result)
            else:
                self._give_back(waiting, result)

    def _give_back(self, waiting: _WaitingHold, result: HoldResult) -> None:
        if isinstance(result, Held) and result.amount:
            self._hand_in(self._unclaimed, waiting.request.request_id)


def _take(line: deque[Item]) -> list[Item]:
    return [line.popleft() for _ in range(min(len(line), MOST_AT_ONCE))]


def _hold(requests: list[HoldRequest]) -> Sequence[HoldResult]:
    try:
        return quota.hold_many(requests)
    except Exception as error:  # whatever it is, each caller must be told and the thread must live
        logger.exception("money could not be held for %d requests", len(requests))
        connection.close()
        return [error] * len(requests)


def _written(write: Callable[[], object], what: str) -> bool:
    """False when the database is busy or away: then it may be tried again without harm."""
    try:
        write()
    except (OperationalError, InterfaceError):
        logger.warning("%s wait for the database", what, exc_info=True)
        connection.close()
        return False
    except DatabaseError:
        logger.exception("%s could not be written", what)
        connection.close()
    return True


billing = Billing()
