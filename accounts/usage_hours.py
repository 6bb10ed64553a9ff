"""The sums by the hour, kept with each settlement. Used by ``accounts.ledger`` only, under the lock of the users' wallets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from accounts import histogram
from accounts.models import UsageHour, UsageRecord

TABLE = UsageHour._meta.db_table
Key = tuple[str, int, int, str, int]

_SELECT = (
    f"SELECT id, hour, user_id, key_number, model_name, group_number, first_token FROM {TABLE}"  # noqa: S608 - our own table
    " WHERE user_id IN ({users}) AND hour IN ({hours})"
)
_UPDATE = (
    f"UPDATE {TABLE} SET requests = requests + %s, errors = errors + %s, prompt_tokens = prompt_tokens + %s,"  # noqa: S608
    " cached_tokens = cached_tokens + %s, completion_tokens = completion_tokens + %s, cost = cost + %s, first_token = %s"
    " WHERE id = %s"
)
_INSERT = (
    f"INSERT INTO {TABLE} (requests, errors, prompt_tokens, cached_tokens, completion_tokens, cost, first_token,"  # noqa: S608
    " hour, user_id, key_number, model_name, group_number) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


@dataclass(slots=True)
class _Sum:
    hour: datetime
    figures: list[int]
    first_token: histogram.Counts


def add_to_hours(records: Sequence[Any]) -> None:
    sums = _summed(records)
    known = _known(sums)
    updates: list[tuple[Any, ...]] = []
    inserts: list[tuple[Any, ...]] = []
    for key, total in sums.items():
        if key in known:
            row_id, before = known[key]
            counts = histogram.merge([histogram.decode(before), total.first_token])
            updates.append((*total.figures, histogram.encode(counts), row_id))
        else:
            inserts.append((*total.figures, histogram.encode(total.first_token), _adapted(total.hour), *key[1:]))
    with connection.cursor() as cursor:
        if updates:
            cursor.executemany(_UPDATE, updates)
        if inserts:
            cursor.executemany(_INSERT, inserts)


def _summed(records: Iterable[Any]) -> dict[Key, _Sum]:
    sums: dict[Key, _Sum] = {}
    for record in records:
        hour = record.created_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        key = (_name(_adapted(hour)), record.user_id or 0, record.key_id or 0, record.model_name, record.group_id or 0)
        total = sums.setdefault(key, _Sum(hour, [0] * 6, {}))
        failed = record.outcome == UsageRecord.Outcome.FAILED
        figures = (
            1, int(failed), record.prompt_tokens, record.cached_tokens, record.completion_tokens, record.cost,
        )  # fmt: skip
        total.figures = [so_far + more for so_far, more in zip(total.figures, figures, strict=True)]
        if record.first_token_ms is not None:
            bucket = histogram.bucket_of(record.first_token_ms)
            total.first_token[bucket] = total.first_token.get(bucket, 0) + 1
    return sums


def _known(sums: dict[Key, _Sum]) -> dict[Key, tuple[int, str]]:
    users = sorted({key[1] for key in sums})
    hours = sorted({_adapted(total.hour) for total in sums.values()})
    sql = _SELECT.format(users=",".join(["%s"] * len(users)), hours=",".join(["%s"] * len(hours)))
    with connection.cursor() as cursor:
        cursor.execute(sql, [*users, *hours])
        return {(_name(row[1]), *row[2:6]): (row[0], row[6]) for row in cursor.fetchall()}


def _adapted(hour: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(hour)


def _name(hour: Any) -> str:
    """The hour as every database tells it alike: times are stored in UTC."""
    return str(hour)[:13]
