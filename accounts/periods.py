"""Days, weeks and months of budgets and allowances, by the service's time zone."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone

from accounts.models import Period


def period_start(period: str, at: datetime) -> datetime:
    """The beginning of the period that ``at`` lies in; weeks begin on Monday."""
    day = timezone.localtime(at, timezone.get_default_timezone()).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == Period.WEEK:
        day -= timedelta(days=day.weekday())
    elif period == Period.MONTH:
        day = day.replace(day=1)
    return _midnight(day)


def period_end(period: str, at: datetime) -> datetime:
    """The beginning of the next period."""
    start = timezone.localtime(period_start(period, at), timezone.get_default_timezone())
    if period == Period.MONTH:
        return _midnight((start + timedelta(days=32)).replace(day=1))
    return _midnight(start + timedelta(days=7 if period == Period.WEEK else 1))


def _midnight(day: datetime) -> datetime:
    """Of a local day: its UTC offset is the one of that very moment, also where clocks were changed in between."""
    return day.replace(tzinfo=None).replace(tzinfo=timezone.get_default_timezone())
