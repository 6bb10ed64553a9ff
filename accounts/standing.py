"""Whether anything has changed about many people who are here, asked all at once.

For those who hold a connection open and only listen. A mark says nothing by itself: when one differs from the one before,
``accounts.callers`` decides whether the person may stay. So a look costs a query for each table and each ``AT_ONCE`` rows of it,
however many connections there are, and no work for each person while nothing changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import ApiKey, User

AT_ONCE = 500  # databases take some thousand values in one query at most
OF_USERS = ("is_active", "password", "is_staff", "is_superuser", "second_factor")
OF_KEYS = ("revoked_at", "expires_at", "scopes", "allowed_addresses")

Mark = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Presence:
    """Who is here, and by what: a session, a key, or neither (a token)."""

    user_id: int
    key_id: int | None = None
    session_key: str = ""


def marks_of(present: Collection[Presence]) -> dict[Presence, Mark]:
    """Of each: what lets them in as the database has it now."""
    users = _rows(User.objects.all(), "pk", {one.user_id for one in present}, OF_USERS)
    keys = _rows(ApiKey.objects.all(), "pk", {one.key_id for one in present if one.key_id is not None}, OF_KEYS)
    going_on = Session.objects.filter(expire_date__gt=timezone.now())
    sessions = _rows(going_on, "session_key", {one.session_key for one in present if one.session_key}, ())
    return {one: (users.get(one.user_id), keys.get(one.key_id), sessions.get(one.session_key)) for one in present}


def _rows(rows: QuerySet[Any], name: str, wanted: Collection[Any], columns: tuple[str, ...]) -> dict[Any, Mark]:
    found: dict[Any, Mark] = {}
    for some in _parts(sorted(wanted)):
        read = rows.filter(**{f"{name}__in": some}).values_list(name, *columns)
        found.update((row[0], row[1:]) for row in read)
    return found


def _parts(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
