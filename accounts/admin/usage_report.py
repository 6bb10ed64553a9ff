"""The console's page "Usage report": who used how much in which period. Everything it shows is chosen by its address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import usage_periods, usage_tables
from accounts.models import ApiKey, Group, User
from accounts.usage_charts import over_time
from accounts.usage_periods import NoPeriod, Period
from accounts.usage_reports import SORTS, By, Row, usage_report

DEFAULT_PERIOD = "30days"
DEFAULT_BY: By = "user"
DEFAULT_TOP = "10"
TOPS: dict[str, int] = {"10": 10, "50": 50, "all": 1000}
BY: dict[By, Promise | str] = {
    "user": gettext_lazy("People"),
    "key": gettext_lazy("API keys"),
    "model": gettext_lazy("Models"),
    "group": gettext_lazy("Groups"),
    "day": gettext_lazy("Days"),
}
ONE: dict[str, Promise | str] = {
    "user": gettext_lazy("user"),
    "key": gettext_lazy("API key"),
    "model": gettext_lazy("model"),
    "group": gettext_lazy("group"),
}
# What a row leads to: the same report on what stands in it, added up the way one would ask next.
NEXT: dict[By, By] = {"user": "model", "key": "model", "model": "user", "group": "user", "day": "user"}
COLUMNS: list[tuple[str, Promise | str]] = [
    ("requests", gettext_lazy("Requests")),
    ("tokens", gettext_lazy("Tokens")),
    ("prompt_tokens", gettext_lazy("Read")),
    ("cached_tokens", gettext_lazy("From the cache")),
    ("completion_tokens", gettext_lazy("Written")),
    ("cost", gettext_lazy("Credits")),
    ("errors", gettext_lazy("Failed")),
    ("first_token_median_ms", gettext_lazy("First token, median")),
    ("first_token_p95_ms", gettext_lazy("First token, p95")),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for. ``only``: ids of a user, key, group or the name of a model, by what they are."""

    period: Period
    by: By = "user"
    top: str = DEFAULT_TOP
    sort: str = ""
    only: Mapping[str, str] = field(default_factory=dict)

    def url(self, **changes: Any) -> str:
        """The address of this report with something else in it."""
        return _url(replace(self, **changes))

    def selected(self) -> dict[str, Any]:
        """As for ``usage_report``."""
        names = {"user": "user_id", "key": "key_id", "group": "group_id"}
        ids = {names[what]: int(value) for what, value in self.only.items() if what in names}
        return {**ids, "model": self.only.get("model", "")}


def _url(asked: Asked) -> str:
    query: dict[str, str] = {**asked.period.query(), "by": asked.by, "top": asked.top}
    if asked.sort:
        query["sort"] = asked.sort
    return "?" + urlencode({**query, **asked.only})


def read(query: Mapping[str, str]) -> Asked:
    """Raises NoPeriod. Anything else that is not understood is as if it were not there."""
    by: By = next((known for known in BY if known == query.get("by")), DEFAULT_BY)
    top, sort = query.get("top", ""), query.get("sort", "")
    only = {what: query[what] for what in NAME_OF if _understood(what, query.get(what, ""))}
    return Asked(
        usage_periods.chosen(query, DEFAULT_PERIOD),
        by,
        top if top in TOPS else DEFAULT_TOP,
        sort if sort in SORTS else "",
        only,
    )


def _understood(what: str, value: str) -> bool:
    if what == "model":
        return 0 < len(value) <= 200 and "\0" not in value
    return value.isascii() and value.isdigit() and len(value) < 19


def usage_report_page(request: HttpRequest) -> HttpResponse:
    """For ``admin_site.admin_view``, which lets operators in and nobody else."""
    problem = ""
    try:
        asked = read(request.GET.dict())
    except NoPeriod as error:
        problem = str(error)
        asked = read({**request.GET.dict(), "since": "", "until": "", "period": DEFAULT_PERIOD})
    context = {
        **admin.site.each_context(request),
        "title": _("Usage report"),
        "problem": problem,
        "asked": asked,
        **_choices(asked),
        **_figures(asked),
    }
    return TemplateResponse(request, "console/usage_report.html", context, status=400 if problem else 200)


# -- what can be chosen ------------------------------------------------------------------------------------------------


def _choice(title: Any, url: str, chosen: bool) -> dict[str, Any]:
    return {"title": title, "url": url, "chosen": chosen}


def _choices(asked: Asked) -> dict[str, Any]:
    periods = [
        _choice(title, asked.url(period=usage_periods.named(name)), name == asked.period.name)
        for name, (title, _days) in usage_periods.CHOICES.items()
    ]
    tops = {"10": _("10 largest"), "50": _("50 largest"), "all": _("All")}
    hidden = {"by": asked.by, "top": asked.top, "sort": asked.sort, **asked.only}
    return {
        "periods": periods,
        "groupings": [_choice(title, asked.url(by=by, sort=""), by == asked.by) for by, title in BY.items()],
        "tops": [_choice(title, asked.url(top=top), top == asked.top) for top, title in tops.items()],
        "hidden": {name: value for name, value in hidden.items() if value},
        "narrowed": _narrowed(asked),
    }


def _narrowed(asked: Asked) -> list[dict[str, Any]]:
    """What the report is narrowed down to, each with the address without it."""
    found = []
    for what, value in asked.only.items():
        rest = {other: kept for other, kept in asked.only.items() if other != what}
        found.append({"title": ONE[what], "name": NAME_OF[what](value) or _("none"), "url": asked.url(only=rest)})
    return found


def _user_name(number: str) -> str:
    return User.objects.filter(pk=int(number)).values_list("username", flat=True).first() or number


def _key_name(number: str) -> str:
    key = ApiKey.objects.filter(pk=int(number)).first()
    return str(key) if key else "" if number == "0" else number


def _group_name(number: str) -> str:
    group = Group.objects.filter(pk=int(number)).first()
    return group.name if group else "" if number == "0" else number


NAME_OF: dict[str, Callable[[str], str]] = {
    "user": _user_name,
    "key": _key_name,
    "model": str,
    "group": _group_name,
}


# -- what is shown -----------------------------------------------------------------------------------------------------


def _figures(asked: Asked) -> dict[str, Any]:
    period, selected = asked.period, asked.selected()
    report = usage_report(asked.by, period.since, period.until, **selected, sort=asked.sort, limit=TOPS[asked.top])
    time = over_time(period, **selected)
    sort = asked.sort or ("name" if asked.by == "day" else "tokens")
    return {
        "rows": [
            {"line": line, "url": _deeper(asked, line.row) if line.row else ""}
            for line in usage_tables.lines(asked.by, report, sort)
        ],
        "total": usage_tables.total(report),
        "left_out": usage_tables.left_out(report),
        "charts": [one for one in time.charts() if one.key != "cost"],
        "by_hour": time.by_hour,
        "name_column": _choice(_("Day") if asked.by == "day" else _("Name"), asked.url(sort="name"), sort == "name"),
        "columns": [_choice(title, asked.url(sort=name), name == sort) for name, title in COLUMNS],
        "csv": _csv(asked),
        "requests": _requests(asked),
    }


def _deeper(asked: Asked, row: Row) -> str:
    """The report on what one row is about."""
    if row.start is not None:
        return asked.url(period=usage_periods.of_day(row.start.date()), by=NEXT["day"], sort="")
    if asked.by == "user" and row.id is None:
        return ""
    value = row.name if asked.by == "model" else str(row.id or 0)
    return asked.url(only={**asked.only, asked.by: value}, by=NEXT[asked.by], sort="")


def _csv(asked: Asked) -> str:
    """The API gives the same figures as a file."""
    period = asked.period
    query: dict[str, Any] = {"by": asked.by, "since": period.since.isoformat(), "until": period.until.isoformat()}
    query["timezone"] = timezone.get_current_timezone_name()
    query.update({"group_id" if what == "group" else what: value for what, value in asked.only.items()})
    if "user" in asked.only:
        query["user"] = _user_name(asked.only["user"])  # people go by their names there
    limit = TOPS[asked.top] if asked.top != "all" else 10_000
    if asked.sort:
        query["sort"] = asked.sort
    return f"{reverse('api-usage-report')}?{urlencode({**query, 'limit': limit, 'format': 'csv'})}"


def _requests(asked: Asked) -> str:
    """The page with the single requests of this report."""
    times = {
        "created_at__gte": asked.period.since.isoformat(),
        "created_at__lt": asked.period.until.isoformat(),
    }
    only = dict(_parameter(what, value) for what, value in asked.only.items())
    return f"{reverse('admin:accounts_usagerecord_changelist')}?{urlencode({**times, **only})}"


def _parameter(what: str, value: str) -> tuple[str, str]:
    """What that page calls it; 0 is none."""
    if value == "0":
        return f"{what}__isnull", "1"
    return ("user__id__exact" if what == "user" else what), value
