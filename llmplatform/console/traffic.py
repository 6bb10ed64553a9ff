"""Requests and tokens by hour, out of the usage records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.cache import cache
from django.db.models import Count, Sum
from django.utils import timezone

from accounts.models import UsageRecord

HOURS = 24
# A record is written when its request ends, with the time at which it began: an hour gets late entries for a while.
SETTLED_AFTER = timedelta(minutes=30)


@dataclass(frozen=True)
class Hour:
    start: datetime
    requests: int
    tokens: int


def _read(start: datetime) -> Hour:
    records = UsageRecord.objects.filter(created_at__gte=start, created_at__lt=start + timedelta(hours=1))
    sums = records.order_by().aggregate(
        requests=Count("id"), prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens")
    )
    return Hour(start, sums["requests"], (sums["prompt"] or 0) + (sums["completion"] or 0))


def _hour(start: datetime, now: datetime) -> Hour:
    """Hours gone by are read once and kept, so that a page that refreshes itself reads the present hour only."""
    if now - start < timedelta(hours=1) + SETTLED_AFTER:
        return _read(start)
    key = f"console-hour-{start.timestamp():.0f}"
    found: Hour | None = cache.get(key)
    if found is None:
        found = _read(start)
        cache.set(key, found, timeout=HOURS * 3600)
    return found


def last_hours(now: datetime) -> list[Hour]:
    """The last 24 hours, oldest first, each beginning at a full hour of the service's time zone."""
    current = timezone.localtime(now).replace(minute=0, second=0, microsecond=0)
    return [_hour(current - timedelta(hours=back), now) for back in range(HOURS - 1, -1, -1)]


def today(hours: list[Hour], now: datetime) -> tuple[int, int]:
    """Requests and tokens since midnight, out of ``last_hours``."""
    date = timezone.localtime(now).date()
    of_today = [hour for hour in hours if timezone.localtime(hour.start).date() == date]
    return sum(hour.requests for hour in of_today), sum(hour.tokens for hour in of_today)
