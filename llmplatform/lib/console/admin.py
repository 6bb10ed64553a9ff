"""Base classes of the console's pages. Permission is by role, never by Django's per-user permissions."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator


def is_operator(request: HttpRequest) -> bool:
    user = request.user
    return bool(user.is_authenticated and user.is_active and (user.is_staff or user.is_superuser))


def is_administrator(request: HttpRequest) -> bool:
    return bool(request.user.is_authenticated and request.user.is_active and request.user.is_superuser)


class RolePermissions:
    """Operators may do everything on the page, or administrators only where ``administrators_only`` is set."""

    administrators_only: ClassVar[bool] = False

    def _may(self, request: HttpRequest) -> bool:
        return is_administrator(request) if self.administrators_only else is_operator(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._may(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._may(request)

    def has_add_permission(self, request: HttpRequest, *_obj: Any) -> bool:
        return self._may(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._may(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._may(request)

    def has_operate_permission(self, request: HttpRequest, _obj: Any = None) -> bool:
        """For actions, also on pages whose rows nobody may edit."""
        return self._may(request)


class ReadOnly(RolePermissions):
    """Rows that the service alone writes: shown, never added, changed or deleted by hand."""

    def has_add_permission(self, request: HttpRequest, *_obj: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ConsoleAdmin(RolePermissions, ModelAdmin):
    compressed_fields = True
    list_filter_submit = True
    list_fullwidth = True
    show_facets = admin.ShowFacets.NEVER  # each would be one more COUNT(*) per filter value
    list_per_page = 50


class ReadOnlyAdmin(ReadOnly, ConsoleAdmin):
    actions = None

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return list(self.fields or [])

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        # Django's history knows only what was edited here, which for these rows is nothing.
        return super().changeform_view(request, object_id, form_url, {"show_history": False, **(extra_context or {})})


class LongTableAdmin(ReadOnlyAdmin):
    """For tables that grow by the million: pages are found by index, the rows are never counted."""

    paginator = InfinitePaginator
    show_full_result_count = False
