"""How the console writes figures: the same everywhere, in the reader's language."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format, localize, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

MICRO = 1_000_000
NOTHING = "–"


def credits(micro: int | None) -> str:
    """Whole micro-credits as credits, every decimal that is not zero."""
    if micro is None:
        return NOTHING
    amount = Decimal(micro) / MICRO
    places = max(2, -int(amount.normalize().as_tuple().exponent))
    return str(number_format(amount, decimal_pos=places, use_l10n=True, force_grouping=True))


def rounded_credits(micro: int) -> str:
    """Credits as people read them: small amounts to the last unit, large ones to the hundredth."""
    amount = Decimal(micro) / MICRO
    places = 2 if abs(amount) >= 100 else max(0, -int(amount.normalize().as_tuple().exponent))
    return str(number_format(round(amount, places), places, use_l10n=True, force_grouping=True))


def number(value: float | None, places: int = 0) -> str:
    return NOTHING if value is None else str(number_format(value, decimal_pos=places, force_grouping=True))


def size(count: int | None) -> str:
    return NOTHING if count is None else filesizeformat(count)


def milliseconds(value: int | None) -> str:
    if value is None:
        return NOTHING
    if value < 1000:
        return _("%(value)s ms") % {"value": value}
    return _("%(value)s s") % {"value": number_format(value / 1000, decimal_pos=1)}


def ago(moment: datetime | None) -> str | SafeString:
    """“3 minutes ago”, with the exact time when the pointer rests on it."""
    if moment is None:
        return NOTHING
    seconds = (timezone.now() - moment).total_seconds()
    text = _("just now") if seconds < 60 else _("%(time)s ago") % {"time": timesince(moment, depth=1)}
    exact = localize(timezone.localtime(moment))
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact, text)


def moment(value: datetime, with_date: bool = False) -> SafeString:
    """The time to the second in the reader's time zone, short enough for a table."""
    local = timezone.localtime(value)
    shown = local.strftime(
        "%H:%M:%S" if local.date() == timezone.localdate() and not with_date else "%Y-%m-%d %H:%M:%S"
    )
    return format_html(
        '<time class="c-time" datetime="{}" title="{}">{}</time>', value.isoformat(), localize(local), shown
    )


def day(value: datetime) -> str:
    return str(date_format(timezone.localtime(value), "SHORT_DATE_FORMAT"))


def signed_credits(micro: int) -> str:
    if not micro:
        return NOTHING
    return f"{'+' if micro > 0 else '−'}{credits(abs(micro))}"


def limits(requests: int, tokens: int, concurrent: int) -> str:
    """What may pass in a minute and at once; 0 is no limit."""
    said = [
        _("%(count)s requests a minute") % {"count": number(requests)} if requests else "",
        _("%(count)s tokens a minute") % {"count": number(tokens)} if tokens else "",
        _("%(count)s at once") % {"count": number(concurrent)} if concurrent else "",
    ]
    return ", ".join(part for part in said if part) or _("no limit")
