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

from django.db import DatabaseError, connection

from accounts import journal, quota
from accounts.quota import BudgetUsedUp, Held, HoldRequest, InsufficientQuota, Settlement
from gateway import errors

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 200
SETTLED_AT_ONCE = 100  # a hold that comes meanwhile waits for so many: some milliseconds
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


@dataclass(slots=True, eq=False)
class _WaitingSettlement:
    """Noted in the journal until the ledger has it."""

    settlement: Settlement
    slot: int | None


class Billing:
    """Thread-safe. The thread starts with the first request and ends with the process."""

    def __init__(self) -> None:
        self._holds: deque[_WaitingHold] = deque()
        self._settlements: deque[_WaitingSettlement] = deque()
        self._unclaimed: deque[str] = deque()
        self._wake_up = threading.Condition()
        self._busy = False
        self._pause = FIRST_PAUSE
        self._urgent = False
        self._due = 0.0  # when waiting settlements are written at the latest
        self._failing: set[str] = set()  # what the ledger did not take when it was last tried
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
        if isinstance(result, BudgetUsedUp):
            raise errors.budget_used_up()
        if isinstance(result, InsufficientQuota):
            raise errors.insufficient_quota()
        raise errors.unavailable() from result

    def settle(self, settlement: Settlement, under_way: int | None = None) -> None:
        """Returns at once; the ledger has it some milliseconds later. ``under_way``: the slot of its note in the journal."""
        slot = journal.own().replace(under_way, quota.note_of(settlement, is_final=True))
        self._hand_in(self._settlements, _WaitingSettlement(settlement, slot))

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
            logger.error("%d settlements are left to the journal: the database is away", len(self._settlements))
        journal.own().close()

    def _run(self) -> None:
        while True:
            with self._wake_up:
                self._busy = False
                self._wait_for_work()
                self._busy, self._urgent = True, False
                holds, unclaimed = _take(self._holds), _take(self._unclaimed)
            try:
                self._work_off(holds, unclaimed)
            except Exception as error:  # a loop's edge: without this thread nobody could pay any more
                logger.exception("billing failed")
                # Who has been answered already hears nothing of it, and releasing twice does no harm.
                self._answer(holds, [error] * len(holds))
                self._unclaimed.extendleft(reversed(unclaimed))
                self._rest()

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
        if again or unclaimed or self._settlements_are_due():
            written = self._settle(unclaimed, at_least=len(self._settlements) if again else len(holds))
        if again:
            self._answer(again, self._hold([waiting.request for waiting in again]))
        if written:
            self._pause = FIRST_PAUSE
        else:
            self._rest()

    def _rest(self) -> None:
        sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _settlements_are_due(self) -> bool:
        waiting = len(self._settlements)
        return waiting >= SETTLED_AT_ONCE or (waiting > 0 and self._due <= monotonic())

    def _hold_in_full(self, holds: list[_WaitingHold]) -> list[_WaitingHold]:
        """Answers those that get all they ask for; returns the others, for which a settlement may change something."""
        requests = [replace(waiting.request, least_tokens=waiting.request.max_tokens) for waiting in holds]
        results = self._hold(requests) if requests else []
        refused = [isinstance(result, InsufficientQuota) for result in results]
        given = [(w, r) for w, r, no in zip(holds, results, refused, strict=True) if not no]
        if given:
            self._answer([waiting for waiting, _result in given], [result for _waiting, result in given])
        return [waiting for waiting, no in zip(holds, refused, strict=True) if no]

    def _settle(self, unclaimed: list[str], *, at_least: int) -> bool:
        """What a database that is away could not take goes to the front of its line again. The lines stay short: nothing new
        is held meanwhile. Holds that come in between are not kept waiting once ``at_least`` so many are written; as many as
        there were holds, for else the line would grow."""
        written, left = True, at_least
        while written and (left > 0 or not self._holds) and (settlements := _take(self._settlements, SETTLED_AT_ONCE)):
            left -= len(settlements)
            unwritten = self._unwritten(settlements)
            written = not unwritten
            self._settlements.extendleft(reversed(unwritten))
        self._due = monotonic() + LINGER_SECONDS
        if unclaimed and not (written and self._done("releases", partial(quota.release_many, unclaimed))):
            self._unclaimed.extendleft(reversed(unclaimed))
            written = False
        return written

    def _unwritten(self, waiting: list[_WaitingSettlement]) -> list[_WaitingSettlement]:
        """Those for which the database was not to be had. What is no fault of the database is one of a single settlement: the
        others are written without it, and it is given up, for it would keep everybody waiting for ever."""
        rows = [one.settlement for one in waiting]
        try:
            if not self._done("settlements", partial(quota.settle_many, rows)):
                return waiting
        except Exception:  # the loop's edge
            if len(waiting) > 1:
                return [left for one in waiting for left in self._unwritten([one])]
            logger.exception("this settlement cannot be written: %r", rows[0])
            connection.close()
        for one in waiting:
            journal.own().free(one.slot)
        return []

    def _done(self, what: str, write: Callable[[], object]) -> bool:
        """False when the database did not take it: busy, away, read-only for a while. Then it is tried again, which does no
        harm."""
        try:
            write()
        except DatabaseError:
            self._failed(what)
            return False
        self._failing.discard(what)
        return True

    def _hold(self, requests: list[HoldRequest]) -> Sequence[HoldResult]:
        try:
            results = quota.hold_many(requests)
        except Exception as error:  # noqa: BLE001 - each caller must be told and the thread must live
            self._failed("holds")
            return [error] * len(requests)
        self._failing.discard("holds")
        return results

    def _failed(self, what: str) -> None:
        """Called while an exception is handled. The first one of an outage tells where it comes from, the others are many."""
        logger.error("the ledger did not take %s", what, exc_info=what not in self._failing)
        self._failing.add(what)
        connection.close()

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
        # By an unlimited account with a budget nothing is set aside but of the budget.
        if isinstance(result, Held) and not result.unlimited:
            self._hand_in(self._unclaimed, waiting.request.request_id)


def _take(line: deque[Item], most: int = MOST_AT_ONCE) -> list[Item]:
    return [line.popleft() for _ in range(min(len(line), most))]


billing = Billing()
