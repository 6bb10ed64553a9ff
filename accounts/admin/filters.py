"""Filters of the console that stay quick on tables with millions of rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models import ApiKey, Group, UsageRecord, User

# Steps from one name to the next through the index: SELECT DISTINCT would read every row.
NEXT_NAMES = """
WITH RECURSIVE names(name) AS (
    SELECT MIN(model_name) FROM {table}
    UNION ALL
    SELECT (SELECT MIN(model_name) FROM {table} WHERE model_name > names.name) FROM names WHERE names.name IS NOT NULL
)
SELECT name FROM names WHERE name IS NOT NULL LIMIT 500
"""


def used_model_names() -> list[str]:
    """Names of all models that were ever called, those since deleted too."""
    with connection.cursor() as cursor:
        cursor.execute(NEXT_NAMES.format(table=connection.ops.quote_name(UsageRecord._meta.db_table)))
        return [row[0] for row in cursor.fetchall()]


class ModelNameFilter(SimpleListFilter):
    title = _("model")
    parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [(name, name) for name in used_model_names()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(model_name=self.value()) if self.value() else queryset


class KeyFilter(SimpleListFilter):
    """The keys used last, and whichever the address names."""

    title = _("API key")
    parameter_name = "key"
    shown = 30

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        keys = list(ApiKey.objects.exclude(last_used_at=None).order_by("-last_used_at")[: self.shown])
        named = _number(request.GET.get(self.parameter_name))
        if named and named not in {key.pk for key in keys}:
            keys += ApiKey.objects.filter(pk=named)
        return [(str(key.pk), str(key)) for key in keys]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        number = _number(self.value())
        return queryset.filter(key_id=number) if number else queryset


class GroupFilter(SimpleListFilter):
    title = _("group")
    parameter_name = "group"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [(str(pk), name) for pk, name in Group.objects.values_list("pk", "name")[:200]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        number = _number(self.value())
        return queryset.filter(group_id=number) if number else queryset


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


class TimeFilter(SimpleListFilter):
    title = _("time")
    parameter_name = "since"
    hours = {"1": _("last hour"), "24": _("last 24 hours"), "168": _("last 7 days"), "720": _("last 30 days")}

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return list(self.hours.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value not in self.hours:
            return queryset
        return queryset.filter(created_at__gte=timezone.now() - timedelta(hours=int(value)))


class RoleFilter(SimpleListFilter):
    title = _("role")
    parameter_name = "role"
    flags = {
        "admin": {"is_superuser": True},
        "operator": {"is_superuser": False, "is_staff": True},
        "user": {"is_superuser": False, "is_staff": False},
    }

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [("admin", _("administrator")), ("operator", _("operator")), ("user", _("user"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        return queryset.filter(**self.flags.get(self.value() or "", {}))


class OwnerFilter(SimpleListFilter):
    """One account, where a link led to it; offered only then, since there may be thousands."""

    title = _("account")
    parameter_name = "owner"
    path = "user_id"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        if not self.value():
            return []
        user = self.account()
        return [(self.value() or "", user.username if user else "?")]

    def account(self) -> User | None:
        number = self.value() or ""
        return User.objects.filter(pk=number).first() if number.isdecimal() else None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        number = self.value()
        if not number:
            return queryset
        return queryset.filter(**{self.path: number}) if number.isdecimal() else queryset.none()


class StatusFilter(SimpleListFilter):
    """Of people: who waits, who is in, who is out."""

    title = _("state")
    parameter_name = "status"
    flags = {
        "waiting": {"waiting": True},
        "active": {"is_active": True},
        "blocked": {"is_active": False, "waiting": False},
    }

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [("waiting", _("waits for approval")), ("active", _("active")), ("blocked", _("blocked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        return queryset.filter(**self.flags.get(self.value() or "", {}))
