"""Holds and settlements of many requests in few transactions.

One thread with one database connection. It takes whatever has accumulated while it was busy, so one client waits for
nothing and many share a commit. Settlements come before holds: what a finished request gives back, the next one may spend.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import sleep
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
            # The answer may have been delivered in the very moment of the cancellation.
            if not waiting.future.cancelled():
                self._return_unclaimed(waiting, waiting.future.result())
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
            return self._wake_up.wait_for(lambda: not (self._busy or self._has_work()), seconds)

    # -- the thread ----------------------------------------------------------------------------------------------------
    def _has_work(self) -> bool:
        return bool(self._holds or self._settlements or self._unclaimed)

    def _hand_in(self, line: deque[Item], item: Item) -> None:
        with self._wake_up:
            line.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="billing", daemon=True)
                self._thread.start()
                atexit.register(self._finish)
            elif not self._busy:
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
                if not self._has_work():
                    self._wake_up.notify_all()  # for wait_until_idle
                    self._wake_up.wait_for(self._has_work)
                self._busy = True
                settlements, unclaimed, holds = _take(self._settlements), _take(self._unclaimed), _take(self._holds)
            try:
                self._work_off(settlements, unclaimed, holds)
            except Exception:  # a loop's edge: without this thread nobody could pay any more
                logger.exception("billing failed")

    def _work_off(self, settlements: list[Settlement], unclaimed: list[str], holds: list[_WaitingHold]) -> None:
        """What a database that is away could not take goes to the front of its line again: while it is away nothing new is
        held, so the lines stay short, and whoever asks for a hold hears so instead of waiting."""
        written = True
        if settlements and not _written(lambda: quota.settle_many(settlements), f"{len(settlements)} settlements"):
            self._settlements.extendleft(reversed(settlements))
            written = False
        if unclaimed and not _written(lambda: quota.release_many(unclaimed), f"{len(unclaimed)} releases"):
            self._unclaimed.extendleft(reversed(unclaimed))
            written = False
        if holds:
            self._answer(holds, _hold([waiting.request for waiting in holds]))
        if written:
            self._pause = FIRST_PAUSE
        else:
            sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

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
                self._return_unclaimed(waiting, result)

    def _return_unclaimed(self, waiting: _WaitingHold, result: HoldResult) -> None:
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
