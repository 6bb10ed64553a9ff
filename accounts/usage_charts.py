"""Usage over time as small bar charts, drawn on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.usage_periods import ONE_DAY, Period
from accounts.usage_reports import Figures, Report, start_of, usage_report
from llmplatform.lib import chart
from llmplatform.lib.console import formats

MOST_LABELS = 4  # as many as stand side by side in the narrowest chart
HOURS_UP_TO = 2  # days: a chart of so few shows hours
ONE_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class UsageChart:
    key: str
    title: str
    total: str
    chart: chart.Chart | None


@dataclass(frozen=True, slots=True)
class OverTime:
    """Every day of the period, or every hour of a short one, used or not; ``report`` is what they add up to."""

    by_hour: bool
    report: Report
    figures: list[tuple[datetime, Figures]]

    def charts(self) -> list[UsageChart]:
        return [
            self._chart("requests", _("Requests"), lambda one: one.requests, formats.number),
            self._chart("tokens", _("Tokens"), lambda one: one.tokens, formats.number),
            self._chart("cost", _("Credits"), lambda one: one.cost, formats.rounded_credits),
        ]

    def _chart(
        self, key: str, title: str, value: Callable[[Figures], int], written: Callable[[int], str]
    ) -> UsageChart:
        values = [value(figures) for _start, figures in self.figures]
        starts = [self._written(start) for start, _figures in self.figures]
        step = -(-len(values) // MOST_LABELS)
        labels = [text if place % step == 0 else "" for place, (text, _long) in enumerate(starts)]
        tips = [f"{long}: {written(one)}" for (_short, long), one in zip(starts, values, strict=True)]
        total = written(value(self.report.totals))
        summary = _("%(title)s: %(total)s") % {"title": title, "total": total}
        drawn = chart.bars(values, labels, tips, top=written(max(values, default=0)), summary=summary)
        return UsageChart(key, title, total, drawn)

    def _written(self, start: datetime) -> tuple[str, str]:
        """Short for the axis, long for the tip."""
        if self.by_hour:
            local = timezone.localtime(start)
            return f"{local:%H:%M}", f"{date_format(local, 'SHORT_DATE_FORMAT')} {local:%H:%M}"
        return f"{start:%m-%d}", date_format(start, "DATE_FORMAT")


def over_time(period: Period, **selected: Any) -> OverTime:
    """``selected``: as for ``usage_report``."""
    by_hour = period.days <= HOURS_UP_TO
    report = usage_report("hour" if by_hour else "day", period.since, period.until, **selected)
    known = {row.start: row.figures for row in report.rows}
    starts = _hours(period) if by_hour else _days(period)
    return OverTime(by_hour, report, [(start, known.get(start, Figures())) for start in starts])


def _days(period: Period) -> Iterator[datetime]:
    zone = timezone.get_current_timezone()
    return (start_of(period.first + number * ONE_DAY, zone) for number in range(period.days))


def _hours(period: Period) -> Iterator[datetime]:
    """Those of UTC, which are what reports are made of; counted there, since a local hour may come twice or not at all."""
    since, until = period.since.astimezone(UTC), period.until.astimezone(UTC)
    hour = since.replace(minute=0)
    while hour < until:
        if hour >= since:
            yield hour
        hour += ONE_HOUR
