"""Holds and settlements in batches: nothing is lost, whoever leaves when."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
from django.db import DatabaseError, InternalError, OperationalError, ProgrammingError

from accounts.quota import Held, HoldRequest, InsufficientQuota
from gateway import billing as module
from gateway.billing import Billing
from gateway.errors import GatewayError
from gateway.tests.conftest import until


class Ledger:
    """Stands in for accounts.quota and remembers the batches."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.holds: list[list[str]] = []
        self.settled: list[list[str]] = []
        self.released: list[str] = []

    def hold_many(self, requests) -> list:
        self.gate.wait()
        self.holds.append([request.request_id for request in requests])
        return [
            InsufficientQuota() if request.max_tokens > 1000 else Held(request.request_id, 5, request.max_tokens, False)
            for request in requests
        ]

    def settle_many(self, settlements) -> None:
        self.settled.append(list(settlements))

    def note_of(self, settlement, *, is_final: bool) -> list:
        return [is_final, settlement]

    def release_many(self, ids) -> int:
        self.released.extend(ids)
        return len(ids)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    ledger = Ledger()
    monkeypatch.setattr(module, "quota", ledger)
    return ledger


def asked(name: str, tokens: int = 10) -> HoldRequest:
    return HoldRequest(name, 1, "m", 10, tokens)


async def test_requests_that_come_together_share_a_transaction(ledger: Ledger) -> None:
    billing = Billing()
    await billing.hold(asked("first"))
    ledger.gate.clear()
    tasks = [asyncio.create_task(billing.hold(asked(str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    ledger.gate.set()
    assert [held.request_id for held in await asyncio.gather(*tasks)] == [str(number) for number in range(20)]
    assert len(ledger.holds) <= 3


async def test_a_refusal_concerns_one_request_only(ledger: Ledger) -> None:
    billing = Billing()
    results = await asyncio.gather(
        billing.hold(asked("rich")), billing.hold(asked("poor", 5000)), return_exceptions=True
    )
    assert results[0].request_id == "rich"
    assert isinstance(results[1], GatewayError)
    assert results[1].code == "insufficient_quota"


async def test_who_leaves_before_the_money_is_held_gets_it_back(ledger: Ledger) -> None:
    billing = Billing()
    ledger.gate.clear()
    task = asyncio.create_task(billing.hold(asked("gone")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    ledger.gate.set()
    await asyncio.to_thread(until, lambda: ledger.released == ["gone"])


async def test_who_leaves_before_a_budget_alone_is_held_gets_it_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unlimited account: nothing of its wallet is held."""
    hold_many = ledger.hold_many
    monkeypatch.setattr(ledger, "hold_many", lambda asked: [replace(held, amount=0) for held in hold_many(asked)])
    billing = Billing()
    ledger.gate.clear()
    task = asyncio.create_task(billing.hold(asked("gone")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    ledger.gate.set()
    await asyncio.to_thread(until, lambda: ledger.released == ["gone"])


async def test_who_leaves_in_the_moment_the_money_is_held_gets_it_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = Billing()
    deliver = billing._deliver

    def deliver_and_leave(answered) -> None:
        deliver(answered)
        task.cancel()  # the answer is there, the task has not run yet

    monkeypatch.setattr(billing, "_deliver", deliver_and_leave)
    task = asyncio.create_task(billing.hold(asked("gone")))
    await asyncio.wait({task})
    assert task.cancelled()
    assert await asyncio.to_thread(billing.wait_until_idle, 5)
    assert ledger.released == ["gone"]


async def test_settlements_are_written_when_idle_is_reported(ledger: Ledger) -> None:
    billing = Billing()
    for number in range(5):
        billing.settle(number)  # type: ignore[arg-type]
    assert await asyncio.to_thread(billing.wait_until_idle, 5)
    assert [item for batch in ledger.settled for item in batch] == [0, 1, 2, 3, 4]


async def test_what_a_finished_request_gives_back_can_be_spent_by_the_next(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = 3

    def hold_many(requests) -> list:
        return [
            InsufficientQuota()
            if available < min(request.least_tokens, request.max_tokens)
            else Held(request.request_id, 5, min(request.max_tokens, available), False)
            for request in requests
        ]

    def settle_many(settlements) -> None:
        nonlocal available
        available = 50

    monkeypatch.setattr(ledger, "hold_many", hold_many)
    monkeypatch.setattr(ledger, "settle_many", settle_many)
    billing = Billing()
    assert (await billing.hold(asked("first", 10))).max_tokens == 3
    billing.settle("first")  # type: ignore[arg-type]
    assert (await billing.hold(asked("second", 10))).max_tokens == 10


async def test_whoever_can_pay_does_not_wait_for_others_settlements(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = threading.Event()
    monkeypatch.setattr(ledger, "settle_many", lambda _settlements: settling.wait(10))
    billing = Billing()
    billing.settle("earlier")  # type: ignore[arg-type]
    assert (await billing.hold(asked("now"))).request_id == "now"
    settling.set()
    assert await asyncio.to_thread(billing.wait_until_idle, 5)


@pytest.mark.parametrize(
    "failure", [OperationalError("away"), InternalError("read-only transaction"), ProgrammingError("no such table")]
)
async def test_settlements_wait_for_a_database_that_does_not_take_them(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: DatabaseError
) -> None:
    failures = iter([failure] * 3)
    written: list[str] = []

    def settle_many(settlements) -> None:
        if (now := next(failures, None)) is not None:
            raise now
        written.extend(settlements)

    monkeypatch.setattr(ledger, "settle_many", settle_many)
    billing = Billing()
    for name in ("1", "2", "3"):
        billing.settle(name)  # type: ignore[arg-type]
    assert await asyncio.to_thread(billing.wait_until_idle, 5)
    assert written == ["1", "2", "3"]
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]


async def test_a_settlement_that_breaks_the_ledger_keeps_nobody_waiting(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No fault of the database: trying again would not help it, and everybody else would wait."""
    written: list[str] = []

    def settle_many(settlements) -> None:
        if "bad" in settlements:
            raise KeyError("unexpected")
        written.extend(settlements)

    monkeypatch.setattr(ledger, "settle_many", settle_many)
    billing = Billing()
    for name in ("1", "bad", "3"):
        billing.settle(name)  # type: ignore[arg-type]
    assert await asyncio.to_thread(billing.wait_until_idle, 5)
    assert written == ["1", "3"]
    assert "'bad'" in caplog.text


async def test_whatever_fails_nobody_waits_for_ever_and_the_next_are_served(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 60)  # so that both are written together
    billing = Billing()
    settle, failures = billing._settle, iter([MemoryError()])

    def fail_once(*arguments, **options) -> bool:
        if (now := next(failures, None)) is not None:
            raise now
        return settle(*arguments, **options)

    monkeypatch.setattr(billing, "_settle", fail_once)
    billing.settle("1")  # type: ignore[arg-type]
    with pytest.raises(GatewayError) as caught:
        await asyncio.wait_for(billing.hold(asked("unlucky", 5000)), 5)
    assert (caught.value.status, caught.value.code) == (503, "service_unavailable")
    assert (await billing.hold(asked("next"))).request_id == "next"
    assert await asyncio.to_thread(billing.wait_until_idle, 5)
    assert ledger.settled == [["1"]]


async def test_releases_wait_for_a_database_that_is_away(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    release_many, failures = ledger.release_many, iter([OperationalError("away")])

    def sometimes(ids) -> int:
        if (now := next(failures, None)) is not None:
            raise now
        return release_many(ids)

    monkeypatch.setattr(ledger, "release_many", sometimes)
    billing = Billing()
    ledger.gate.clear()
    task = asyncio.create_task(billing.hold(asked("gone")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    ledger.gate.set()
    await asyncio.to_thread(until, lambda: ledger.released == ["gone"])
