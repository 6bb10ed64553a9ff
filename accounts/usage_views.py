"""A user's own page about usage."""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.db.models import Min
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from accounts import usage_periods, usage_tables
from accounts.models import UsageHour, User
from accounts.usage_charts import over_time
from accounts.usage_periods import ONE_DAY, NoPeriod, Period
from accounts.usage_reports import By, usage_report

MONTHS = 24
ROWS = 50


@login_required
@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)  # noqa: S101 - login_required stands before
    month, problem = request.GET.get("month", ""), ""
    try:
        period = _period(month)
    except NoPeriod as error:
        period, month, problem = usage_periods.named("30days"), "", str(error)
    context = {
        **_context(request.user, period),
        "months": _months(request.user, month),
        "month": month,
        "problem": problem,
    }
    return render(request, "accounts/usage.html", context, status=400 if problem else 200)


def _period(month: str) -> Period:
    return usage_periods.of_month(month) if month else usage_periods.named("30days")


def _context(user: User, period: Period) -> dict[str, Any]:
    time = over_time(period, user_id=user.pk)
    return {
        "page": "account",
        "tab": "usage",
        "period": period,
        "total": usage_tables.total(time.report),
        "charts": time.charts(),
        "tables": [_table(_("By model"), "model", period, user), _table(_("By key"), "key", period, user)],
        "day_csv": _csv("api-usage-report", user, period, **_by_day()),
        "request_csv": _csv("api-usage", user, period),
    }


def _table(title: str, by: By, period: Period, user: User) -> dict[str, Any]:
    report = usage_report(by, period.since, period.until, user_id=user.pk, limit=ROWS)
    return {"title": title, "lines": usage_tables.lines(by, report), "left_out": usage_tables.left_out(report)}


def _by_day() -> dict[str, Any]:
    """The days are the page's: its reader's browser says in which zone they begin."""
    zone = timezone.get_current_timezone_name()
    return {"by": "day", "sort": "name", "limit": usage_periods.LONGEST_DAYS, "timezone": zone}


def _csv(view: str, user: User, period: Period, **more: Any) -> str:
    """With whose usage it is: an operator would get everybody's."""
    asked = {**more, "user": user.username, "since": period.since.isoformat(), "until": period.until.isoformat()}
    return f"{reverse(view)}?{urlencode({**asked, 'format': 'csv'})}"


def _months(user: User, chosen: str) -> list[tuple[str, str]]:
    """From this month back to the first with any use, and the chosen one."""
    oldest = UsageHour.objects.filter(user=user).aggregate(first=Min("hour"))["first"]
    first = timezone.localtime(oldest).date().replace(day=1) if oldest else None
    month, months = timezone.localdate().replace(day=1), list[date]()
    while first and month >= first and len(months) < MONTHS:
        months.append(month)
        month = (month - ONE_DAY).replace(day=1)
    if chosen and chosen not in [f"{month:%Y-%m}" for month in months]:
        months.append(date.fromisoformat(f"{chosen}-01"))
    return [(f"{month:%Y-%m}", date_format(month, "YEAR_MONTH_FORMAT")) for month in months]
