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

from accounts.models import UsageRecord, User

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
