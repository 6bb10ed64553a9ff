"""Money held for somebody who has gone goes back, and settlements outlast a database that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from django.db import OperationalError, ProgrammingError

from accounts import quota
from accounts.quota import Held, HoldRequest, Settlement, UsageFigures
from gateway.billing import Billing

REQUEST = HoldRequest("req-1", 1, "alpha", 10, 20)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Request ids whose holds were given back; no database."""
    found: list[str] = []

    def hold_many(requests: Sequence[HoldRequest]) -> list[Held]:
        return [Held(request.request_id, 100, 20, False) for request in requests]

    monkeypatch.setattr(quota, "hold_many", hold_many)
    monkeypatch.setattr(quota, "release_many", found.extend)
    return found


async def test_a_caller_cancelled_in_the_moment_it_gets_its_hold_gives_it_back(released: list[str]) -> None:
    billing = Billing()
    deliver = billing._deliver

    def deliver_and_cancel(answered: list) -> None:
        deliver(answered)
        task.cancel()

    billing._deliver = deliver_and_cancel
    task = asyncio.create_task(billing.hold(REQUEST))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert billing.wait_until_idle(5)
    assert released == ["req-1"]


async def test_who_stays_keeps_it(released: list[str]) -> None:
    billing = Billing()
    assert (await billing.hold(REQUEST)).amount == 100
    assert billing.wait_until_idle(5)
    assert released == []


def settlement(request_id: str) -> Settlement:
    return Settlement(request_id, 1, UsageFigures(model_name="alpha", endpoint="x", status=200, outcome="completed"))


def test_settlements_wait_for_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[str] = []
    failures = iter([OperationalError("away"), OperationalError("away")])

    def settle_many(settlements: Sequence[Settlement]) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        settled.extend(row.request_id for row in settlements)

    monkeypatch.setattr(quota, "settle_many", settle_many)
    billing = Billing()
    for number in range(3):
        billing.settle(settlement(f"req-{number}"))
    assert billing.wait_until_idle(5)
    assert settled == ["req-0", "req-1", "req-2"]


def test_what_no_database_takes_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def settle_many(settlements: Sequence[Settlement]) -> None:
        tried.append(len(settlements))
        raise ProgrammingError("no such table")

    monkeypatch.setattr(quota, "settle_many", settle_many)
    billing = Billing()
    billing.settle(settlement("req-1"))
    assert billing.wait_until_idle(5)
    assert tried == [1]
