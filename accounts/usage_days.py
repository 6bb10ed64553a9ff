"""What an account used day by day, for the chart on its page."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db.models import CharField, Count, F, Sum
from django.db.models.functions import Cast, Left
from django.utils import timezone

from accounts.models import UsageRecord

DAYS = 30


@dataclass(frozen=True, slots=True)
class DayUsage:
    day: date
    requests: int
    tokens: int
    cost: int


def usage_by_day(user_id: int, today: date | None = None) -> list[DayUsage]:
    """The last 30 days in the active time zone, oldest first, days without use included. One query.

    The database sums by UTC hour, cut out of the time as text: it does so in C for SQLite too, where truncating dates would call
    Python for each of 100,000 rows. Hours are put together to local days here.
    """
    today = today or timezone.localdate()
    first = today - timedelta(days=DAYS - 1)
    start = timezone.make_aware(datetime.combine(first, datetime.min.time()))
    rows = (
        UsageRecord.objects.filter(user_id=user_id, created_at__gte=start)
        .order_by()
        .annotate(hour=Left(Cast("created_at", CharField(max_length=32)), 13))
        .values("hour")
        .annotate(requests=Count("id"), tokens=Sum(F("prompt_tokens") + F("completion_tokens")), cost=Sum("cost"))
    )
    sums: defaultdict[date, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        hour = datetime.strptime(row["hour"].replace("T", " "), "%Y-%m-%d %H").replace(tzinfo=UTC)
        total = sums[timezone.localtime(hour).date()]
        for place, name in enumerate(("requests", "tokens", "cost")):
            total[place] += row[name]
    days = [first + timedelta(days=number) for number in range(DAYS)]
    return [DayUsage(day, *sums[day]) for day in days]


@dataclass(frozen=True, slots=True)
class Bar:
    day: DayUsage
    x: float
    y: float
    height: float


def bars(days: list[DayUsage], *, step: float = 20, height: float = 120) -> list[Bar]:
    """Where each day's bar stands in an SVG that is ``len(days) * step`` wide and ``height`` high."""
    top = max((day.tokens for day in days), default=0) or 1
    # A day with any use at all shows at least a line.
    heights = [max(2.0, day.tokens / top * height) if day.tokens else 0.0 for day in days]
    return [
        Bar(day, round(place * step, 1), round(height - size, 1), round(size, 1))
        for place, (day, size) in enumerate(zip(days, heights, strict=True))
    ]
