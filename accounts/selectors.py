"""Reads: who has which name, who lacks a second factor, and pages of usage and ledger."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from django.conf import settings
from django.db.models import Model, Q, QuerySet, Value
from django.db.models.functions import Lower

from accounts.models import AuditEntry, LedgerEntry, SecondFactor, UsageRecord, User

Row = TypeVar("Row", bound=Model)


def users_named(name: str) -> list[User]:
    """Accounts with this user name or email address, ignoring case; the one with the user name first. At most two."""
    wanted = Lower(Value(name))
    rows = (
        User.objects.alias(lower_name=Lower("username"), lower_email=Lower("email"))
        .filter(Q(lower_name=wanted) | Q(lower_email=wanted))
        .exclude(username="")[:3]
    )
    return sorted(rows, key=lambda user: user.username.lower() != name.lower())


def must_have_second_factor(user: User) -> bool:
    """By ``SECOND_FACTOR`` and the role; not who can only come in by a provider that asks for one itself."""
    if settings.OIDC_SECOND_FACTOR and not user.has_usable_password():
        return False
    if settings.SECOND_FACTOR == "operators":
        return user.is_staff or user.is_superuser
    return bool(settings.SECOND_FACTOR == "everyone")


def lacks_second_factor(user: User) -> bool:
    """Must have one and has none: such a person sets one up before anything else."""
    return must_have_second_factor(user) and not SecondFactor.objects.filter(user=user).exists()


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """None is everybody, any key, any group; empty texts filter nothing. ``kind`` is for the ledger only, keys and groups for
    usage only."""

    user_id: int | None
    since: datetime | None = None
    until: datetime | None = None
    model_name: str = ""
    kind: str = ""
    key_id: int | None = None
    group_id: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: rows that come in meanwhile neither repeat nor hide any."""

    time: datetime
    id: int

    @classmethod
    def of(cls, row: UsageRecord | LedgerEntry | AuditEntry) -> Place:
        return cls(row.created_at, row.pk)

    @classmethod
    def parse(cls, text: str) -> Place:
        """Raises ValueError for what ``str`` of a Place did not make."""
        time, _separator, row_id = base64.urlsafe_b64decode(text.encode("ascii")).decode("ascii").partition("|")
        try:
            place = cls(datetime.fromisoformat(time).astimezone(UTC), int(row_id))
        except OverflowError as error:
            raise ValueError(text) from error
        if not 0 <= place.id < 2**63:
            raise ValueError(text)
        return place

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{self.time.isoformat()}|{self.id}".encode()).decode("ascii")


def usage_page(wanted: HistoryFilter, after: Place | None, limit: int) -> list[UsageRecord]:
    """Newest first."""
    rows = _within(UsageRecord.objects.select_related("key", "group"), wanted)
    if wanted.user_id is not None:
        rows = rows.filter(user_id=wanted.user_id)
    if wanted.key_id is not None:
        rows = rows.filter(key_id=wanted.key_id)
    if wanted.group_id is not None:
        rows = rows.filter(group_id=wanted.group_id)
    return list(following(rows, after).order_by("-created_at", "-id")[:limit])


def ledger_page(wanted: HistoryFilter, after: Place | None, limit: int) -> list[LedgerEntry]:
    """Newest first."""
    rows = _within(LedgerEntry.objects.select_related("wallet__user"), wanted)
    if wanted.user_id is not None:
        rows = rows.filter(wallet__user_id=wanted.user_id)
    if wanted.kind:
        rows = rows.filter(kind=wanted.kind)
    return list(following(rows, after).order_by("-created_at", "-id")[:limit])


def balance_changes(wallet_id: int, after: Place | None, limit: int) -> list[LedgerEntry]:
    """What a person sees of the ledger, newest first: what a request cost in the end, not what it held meanwhile."""
    passing = (LedgerEntry.Kind.HOLD, LedgerEntry.Kind.RELEASE)
    rows = LedgerEntry.objects.filter(wallet_id=wallet_id).exclude(kind__in=passing)
    return list(following(rows, after).order_by("-created_at", "-id")[:limit])


def _within(rows: QuerySet[Row], wanted: HistoryFilter) -> QuerySet[Row]:
    if wanted.since:
        rows = rows.filter(created_at__gte=wanted.since)
    if wanted.until:
        rows = rows.filter(created_at__lt=wanted.until)
    return rows.filter(model_name=wanted.model_name) if wanted.model_name else rows


def following(rows: QuerySet[Row], place: Place | None) -> QuerySet[Row]:
    """Written as a range and an exception, not as an OR, so that the index on the time is used."""
    if place is None:
        return rows
    return rows.filter(created_at__lte=place.time).exclude(created_at=place.time, id__gte=place.id)
