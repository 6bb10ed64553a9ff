"""What an account used day by day, for the chart on its page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.core.cache import cache
from django.db.models import CharField, Count, F, Sum
from django.db.models.functions import Cast, Left
from django.utils import timezone

from accounts.models import UsageRecord

DAYS = 30
KEPT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class DayUsage:
    day: date
    requests: int
    tokens: int
    cost: int


def usage_by_day(user_id: int, today: date | None = None) -> list[DayUsage]:
    """The last 30 days in the active time zone, oldest first, days without use included.

    Days that are over are kept for some minutes: adding up 100,000 records takes longer than a page should.
    """
    today = today or timezone.localdate()
    days = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    first, midnight = _start_of(days[0]), _start_of(today)
    key = f"usage_by_day:{user_id}:{first.isoformat()}"
    over = cache.get(key)
    if over is None:
        over = _sums(user_id, first, midnight)
        cache.set(key, over, KEPT_SECONDS)
    sums = over | _sums(user_id, midnight, _start_of(today + timedelta(days=1)))
    return [DayUsage(day, *sums.get(day, (0, 0, 0))) for day in days]


def _start_of(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, datetime.min.time()))


def _sums(user_id: int, start: datetime, end: datetime) -> dict[date, tuple[int, int, int]]:
    """Requests, tokens and cost of each local day with any use.

    The database sums by UTC hour, cut out of the time as text: it does so in C for SQLite too, where truncating dates would call
    Python for each row. Hours are put together to local days here.
    """
    rows = (
        UsageRecord.objects.filter(user_id=user_id, created_at__gte=start, created_at__lt=end)
        .order_by()
        .annotate(hour=Left(Cast("created_at", CharField(max_length=32)), 13))
        .values("hour")
        .annotate(requests=Count("id"), tokens=Sum(F("prompt_tokens") + F("completion_tokens")), cost=Sum("cost"))
        .values_list("hour", "requests", "tokens", "cost")
    )
    sums: dict[date, tuple[int, int, int]] = {}
    for hour, requests, tokens, cost in rows:
        at = datetime.strptime(hour.replace("T", " "), "%Y-%m-%d %H").replace(tzinfo=UTC)
        day = timezone.localtime(at).date()
        so_far = sums.get(day, (0, 0, 0))
        sums[day] = so_far[0] + requests, so_far[1] + tokens, so_far[2] + cost
    return sums


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
