"""The migration that adds up what was used before there were sums by the hour."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection

from accounts import quota
from accounts.models import ApiKey, Group, UsageHour, UsageRecord, User
from accounts.quota import Settlement, UsageFigures

START = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
COLUMNS = [field.attname for field in UsageHour._meta.fields if field.name != "id"]


def fill() -> None:
    with connection.schema_editor() as editor:
        import_module("accounts.migrations.0004_fill_usage_hours").fill(apps, editor)


def sums() -> list[tuple[object, ...]]:
    return sorted(UsageHour.objects.values_list(*COLUMNS))


@pytest.mark.django_db(transaction=True)
def test_it_makes_what_the_settlements_would_have_made(user: User, operator: User) -> None:
    dice = random.Random(2)
    key = ApiKey.objects.create(user=user, name="notebook", hash="h", prefix="sk-abcdef", last4="wxyz")
    user.group = Group.objects.create(name="Physics")
    user.save()
    for number in range(120):
        who = dice.choice([user, operator])
        figures = UsageFigures(
            model_name=dice.choice(["small", "large"]),
            endpoint="x",
            status=200,
            outcome=dice.choice(["completed", "failed", "cancelled", "refused"]),
            prompt_tokens=dice.randint(0, 9),
            cached_tokens=dice.randint(0, 3),
            completion_tokens=dice.randint(0, 5),
            first_token_ms=dice.choice([None, dice.randint(0, 5000)]),
            created_at=START + timedelta(minutes=dice.randint(0, 600)),
        )
        key_id = key.pk if who == user and dice.random() < 0.5 else None
        quota.settle(Settlement(f"r{number}", who.wallet.pk, figures, key_id))
    settled = sums()
    assert len(settled) > 20
    UsageHour.objects.all().delete()
    fill()
    assert sums() == settled
    fill()  # again, as after a run that was stopped half-way
    assert sums() == settled


@pytest.mark.django_db(transaction=True)
def test_records_of_nobody_are_left_out(user: User) -> None:
    fields = {"model_name": "m", "endpoint": "x", "status": 200, "outcome": "completed"}
    UsageRecord.objects.create(request_id="r1", created_at=START, **fields)
    UsageRecord.objects.create(request_id="r2", created_at=START + timedelta(hours=9), user=user, **fields)
    fill()
    assert [(row.user_id, row.requests) for row in UsageHour.objects.all()] == [(user.pk, 1)]
