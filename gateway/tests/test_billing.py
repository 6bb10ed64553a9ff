"""Money held for somebody who has gone goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from accounts import quota
from accounts.quota import Held, HoldRequest
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
