"""The periods people choose on pages about usage: whole days of the reader's time zone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

LONGEST_DAYS = 366
OWN = "own"
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """From the first day to the last one, both included."""

    name: str
    first: date
    last: date

    @property
    def since(self) -> datetime:
        return _midnight(self.first)

    @property
    def until(self) -> datetime:
        return _midnight(self.last + ONE_DAY)

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def query(self) -> dict[str, str]:
        """What ``chosen`` makes this period of again."""
        if self.name != OWN:
            return {"period": self.name}
        return {"since": self.first.isoformat(), "until": self.last.isoformat()}

    def __str__(self) -> str:
        first = date_format(self.first, "DATE_FORMAT")
        if self.days == 1:
            return first
        return _("%(first)s to %(last)s") % {"first": first, "last": date_format(self.last, "DATE_FORMAT")}


class NoPeriod(ValueError):
    """The message is for whoever chose it."""


def _month_before(today: date) -> tuple[date, date]:
    last = today.replace(day=1) - ONE_DAY
    return last.replace(day=1), last


CHOICES: dict[str, tuple[Promise | str, Callable[[date], tuple[date, date]]]] = {
    "today": (gettext_lazy("Today"), lambda today: (today, today)),
    "yesterday": (gettext_lazy("Yesterday"), lambda today: (today - ONE_DAY, today - ONE_DAY)),
    "7days": (gettext_lazy("Last 7 days"), lambda today: (today - 6 * ONE_DAY, today)),
    "30days": (gettext_lazy("Last 30 days"), lambda today: (today - 29 * ONE_DAY, today)),
    "this_month": (gettext_lazy("This month"), lambda today: (today.replace(day=1), today)),
    "last_month": (gettext_lazy("Last month"), _month_before),
}


def named(name: str) -> Period:
    return Period(name, *CHOICES[name][1](timezone.localdate()))


def of_day(day: date) -> Period:
    return Period(OWN, day, day)


def of_month(text: str) -> Period:
    """``2026-03``. Raises NoPeriod."""
    first = _date(f"{text}-01")
    last = (first.replace(day=28) + 4 * ONE_DAY).replace(day=1) - ONE_DAY
    return Period(OWN, first, last)


def chosen(query: Mapping[str, str], default: str) -> Period:
    """By ``period``, one of CHOICES, or by ``since`` and ``until``, the first and the last day. Raises NoPeriod."""
    if query.get("since") or query.get("until"):
        return _own(query.get("since", ""), query.get("until", ""))
    name = query.get("period") or default
    if name not in CHOICES:
        raise NoPeriod(_("There is no such period."))
    return named(name)


def _own(since: str, until: str) -> Period:
    last = _date(until) if until else timezone.localdate()
    first = _date(since) if since else last
    if first > last:
        raise NoPeriod(_("The first day comes after the last one."))
    period = Period(OWN, first, last)
    if period.days > LONGEST_DAYS:
        raise NoPeriod(_("A report holds %(days)d days at most.") % {"days": LONGEST_DAYS})
    return period


def _date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise NoPeriod(_("Write days as 2026-03-31.")) from error
    if not 2000 <= day.year < 2200:  # far from the ends of what a date can be
        raise NoPeriod(_("Write days as 2026-03-31."))
    return day


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), timezone.get_current_timezone())
