"""Reading the audit log: newest first, by index, however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from accounts import selectors
from accounts.models import AuditEntry, User
from llmplatform.lib.proxies import parse_address

ROWS_AT_ONCE = 1000
PEOPLE_FOUND = 10


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """None and empty texts filter nothing; ``target_id`` goes with ``target_type``. ``program``: ``command:NAME`` or such, or the
    beginning of it that ends with the colon."""

    since: datetime | None = None
    until: datetime | None = None
    actor_id: int | None = None
    program: str = ""
    key_id: int | None = None
    address: str = ""
    area: str = ""
    action: str = ""
    target_type: str = ""
    target_id: str = ""
    name: str = ""


def entries(wanted: AuditFilter) -> QuerySet[AuditEntry]:
    rows: QuerySet[AuditEntry] = AuditEntry.objects.select_related("key")
    if wanted.since:
        rows = rows.filter(created_at__gte=wanted.since)
    if wanted.until:
        rows = rows.filter(created_at__lt=wanted.until)
    if wanted.program:
        rows = by_program(rows, wanted.program)
    equal = {
        "actor_id": wanted.actor_id,
        "key_id": wanted.key_id,
        "address": wanted.address,
        "area": wanted.area,
        "action": wanted.action,
        "target_type": wanted.target_type,
        "target_id": wanted.target_id,
    }
    rows = rows.filter(**{name: value for name, value in equal.items() if value})
    return named(rows, wanted.name) if wanted.name else rows


def by_program(rows: QuerySet[AuditEntry], name: str) -> QuerySet[AuditEntry]:
    """By what is no person and has a colon in its name for that; a name that ends with it stands for all that begin so."""
    named_so = Q(actor_name__startswith=name) if name.endswith(":") else Q(actor_name=name)
    return rows.filter(named_so, actor=None)


def named(rows: QuerySet[AuditEntry], name: str) -> QuerySet[AuditEntry]:
    """By the whole name of the object, or by the name of a person who acted or was changed: the whole, else its beginning. An
    address: what came from there."""
    address = parse_address(name)
    if address is not None:
        return rows.filter(address=str(address))
    whole = User.objects.filter(username__iexact=name)
    beginning = User.objects.filter(username__istartswith=name).order_by("username")
    people = list((whole if whole.exists() else beginning).values_list("pk", flat=True)[:PEOPLE_FOUND])
    by_person = Q(actor_id__in=people) | Q(target_type="user", target_id__in=[str(pk) for pk in people])
    return rows.filter(Q(target_name=name) | by_person if people else Q(target_name=name))


def page(rows: QuerySet[AuditEntry], after: selectors.Place | None, limit: int) -> list[AuditEntry]:
    return list(selectors.following(rows, after).order_by("-created_at", "-id")[:limit])


def pages(rows: QuerySet[AuditEntry]) -> Iterator[list[AuditEntry]]:
    """All of them, read bit by bit."""
    after: selectors.Place | None = None
    while found := page(rows, after, ROWS_AT_ONCE):
        yield found
        after = selectors.Place.of(found[-1])
