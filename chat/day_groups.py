"""Conversations put together by how long ago they were last used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from chat.selectors import ConversationRow


@dataclass(slots=True)
class DayGroup:
    key: str  # stable and untranslated: the page joins pages of the list by it
    label: str
    rows: list[ConversationRow] = field(default_factory=list)


def grouped(rows: Iterable[ConversationRow], today: date | None = None) -> list[DayGroup]:
    """``rows`` come newest first; so do the groups."""
    today = today or timezone.localdate()
    groups: list[DayGroup] = []
    for row in rows:
        key, label = _group_of(timezone.localdate(row.updated_at), today)
        if not groups or groups[-1].key != key:
            groups.append(DayGroup(key, label))
        groups[-1].rows.append(row)
    return groups


def _group_of(day: date, today: date) -> tuple[str, str]:
    age = (today - day).days
    if age <= 0:
        return "today", _("Today")
    if age == 1:
        return "yesterday", _("Yesterday")
    if age <= 7:
        return "week", _("The last 7 days")
    if age <= 30:
        return "month", _("The last 30 days")
    return f"{day:%Y-%m}", date_format(day, "YEAR_MONTH_FORMAT")
