"""Sums by the hour of the usage records that are there already."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import migrations, transaction

from accounts.histogram import bucket_of, encode

FIELDS = (
    "user_id", "key_id", "model_name", "group_id", "outcome", "prompt_tokens", "cached_tokens", "completion_tokens", "cost",
    "first_token_ms",
)


def fill(apps: Any, schema_editor: Any) -> None:
    """One hour after the other, found by the index on the time: what is in memory is one hour's sums.

    An hour is written whole and in a transaction of its own, so that it does not matter where an earlier run was stopped.
    """
    records = apps.get_model("accounts", "UsageRecord").objects.exclude(user=None)
    hours = apps.get_model("accounts", "UsageHour").objects
    at = _next_hour(records, datetime(1970, 1, 1, tzinfo=UTC))
    while at is not None:
        end = at + timedelta(hours=1)
        with transaction.atomic():
            rows = _summed(at, records.filter(created_at__gte=at, created_at__lt=end), hours.model)
            hours.filter(hour=at).delete()
            hours.bulk_create(rows, batch_size=500)
        at = _next_hour(records, end)


def _next_hour(records: Any, since: datetime) -> datetime | None:
    first = records.filter(created_at__gte=since).order_by("created_at").values_list("created_at", flat=True).first()
    return None if first is None else first.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _summed(hour: datetime, records: Any, model: Any) -> list[Any]:
    sums: dict[tuple[Any, ...], Any] = {}
    first_tokens: dict[tuple[Any, ...], Counter[int]] = {}
    rows = records.order_by().values_list(*FIELDS).iterator(chunk_size=2000)
    for user, key, name, group, outcome, prompt, cached, completion, cost, first_token in rows:
        which = (user, key or 0, name, group or 0)
        total = sums.get(which)
        if total is None:
            total = sums[which] = model(
                hour=hour, user_id=user, key_number=key or 0, model_name=name, group_number=group or 0
            )
            first_tokens[which] = Counter()
        total.requests += 1
        total.errors += outcome == "failed"
        total.prompt_tokens += prompt
        total.cached_tokens += cached
        total.completion_tokens += completion
        total.cost += cost
        if first_token is not None:
            first_tokens[which][bucket_of(first_token)] += 1
    for which, total in sums.items():
        total.first_token = encode(first_tokens[which])
    return list(sums.values())


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0003_fill_spent")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
