"""USAGE_RETENTION_DAYS: old records go, in small steps; what they add up to stays."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts import quota, usage
from accounts.ledger_checks import ledger_problems
from accounts.models import LedgerEntry, UsageHour, UsageRecord, User
from accounts.quota import Settlement, UsageFigures


def use(user: User, number: int, at: datetime) -> None:
    figures = UsageFigures(
        model_name="m", endpoint="x", status=200, outcome="completed", completion_tokens=3, created_at=at
    )
    quota.settle(Settlement(f"r{number}", user.wallet.pk, figures))


@pytest.fixture
def ten_days(user: User) -> User:
    """One request a day; the present one is number 0."""
    now = timezone.now()
    for days in range(10):
        use(user, days, now - timedelta(days=days))
    return user


def kept() -> list[str]:
    return sorted(UsageRecord.objects.values_list("request_id", flat=True))


def test_nothing_is_deleted_unless_the_administrator_says_so(ten_days: User, settings) -> None:
    assert settings.USAGE_RETENTION_DAYS == 0
    assert usage.clean_up() == 0
    assert len(kept()) == 10


def test_records_older_than_that_go_and_the_sums_stay(ten_days: User, settings) -> None:
    settings.USAGE_RETENTION_DAYS = 4
    hours = list(UsageHour.objects.values())
    entries = LedgerEntry.objects.count()
    assert usage.clean_up(seconds=60) == 6
    assert kept() == ["r0", "r1", "r2", "r3"]
    assert list(UsageHour.objects.values()) == hours
    assert LedgerEntry.objects.count() == entries
    assert ledger_problems() == []
    assert usage.clean_up() == 0


def test_a_request_settled_again_after_its_record_is_gone_costs_nothing_more(ten_days: User, settings) -> None:
    settings.USAGE_RETENTION_DAYS = 4
    usage.clean_up(seconds=60)
    before = LedgerEntry.objects.count()
    use(ten_days, 9, timezone.now() - timedelta(days=9))
    assert LedgerEntry.objects.count() == before
    assert "r9" not in kept()
    assert ledger_problems() == []


def test_it_goes_on_batch_by_batch_oldest_first(ten_days: User, settings, monkeypatch) -> None:
    monkeypatch.setattr(usage, "BATCH", 2)
    settings.USAGE_RETENTION_DAYS = 4
    assert usage.clean_up(seconds=0) == 2  # no time for more than one batch
    assert kept() == [f"r{number}" for number in range(8)]
    assert usage.clean_up(seconds=60) == 4
    assert kept() == ["r0", "r1", "r2", "r3"]


@pytest.mark.django_db(transaction=True)
def test_each_batch_is_a_transaction_of_its_own(ten_days: User, settings, monkeypatch) -> None:
    monkeypatch.setattr(usage, "BATCH", 2)
    settings.USAGE_RETENTION_DAYS = 4
    inside: list[bool] = []
    wait = usage.time.sleep
    monkeypatch.setattr(usage.time, "sleep", lambda seconds: (inside.append(connection.in_atomic_block), wait(seconds)))
    usage.clean_up(seconds=60)
    assert inside == [False, False, False]
    assert not transaction.get_connection().in_atomic_block


def test_the_rows_are_found_by_the_index(ten_days: User) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("reads SQLite's plan")
    old = UsageRecord.objects.filter(created_at__lt=timezone.now()).order_by("created_at").values_list("pk")[:500]
    assert "usage_by_time" in old.explain()


def test_it_says_how_many(ten_days: User, settings, caplog) -> None:
    settings.USAGE_RETENTION_DAYS = 4
    with caplog.at_level(logging.INFO, logger="accounts.usage"):
        usage.clean_up(seconds=60)
    assert "deleted 6 usage records" in caplog.text
