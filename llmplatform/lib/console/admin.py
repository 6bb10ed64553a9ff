"""Base classes of the console's pages. Permission is by role, never by Django's per-user permissions."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import urlencode
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator

from llmplatform.lib import audit


def is_operator(request: HttpRequest) -> bool:
    user = request.user
    return bool(user.is_authenticated and user.is_active and (user.is_staff or user.is_superuser))


def is_administrator(request: HttpRequest) -> bool:
    return bool(request.user.is_authenticated and request.user.is_active and request.user.is_superuser)


def is_among_models(request: HttpRequest) -> bool:
    """Which of the menu's entries is the current page: “Add a model” lies below “Models” and has an entry of its own."""
    below = request.path.removeprefix(reverse("admin:models_app_modelconfig_changelist"))
    return below != request.path and not below.startswith("add/")


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


class Audited:
    """What is saved or deleted in the console stands in the audit log, and each object's “History” is its part of it.

    A page that writes through services overrides ``save_model`` and the like: the services tell the log themselves.
    """

    model: type[Model]

    def audited(self, obj: Any) -> dict[str, Any]:
        """The fields that are told when they change."""
        return audit.fields_of(obj)

    def audit_target(self, obj: Any) -> tuple[str, Any] | None:
        """Kind and id of the object in the audit log, if its changes stand there."""
        kind = audit.type_of(self.model)
        return (kind, obj.pk) if audit.model_of(kind) else None

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        stored = self.model._base_manager.filter(pk=obj.pk).first() if change else None
        before = self.audited(stored) if stored is not None else None
        super().save_model(request, obj, form, change)  # type: ignore[misc]
        audit.on(obj, "update" if change else "create", before, self.audited(obj))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        audit.on(obj, "delete", self.audited(obj))
        super().delete_model(request, obj)  # type: ignore[misc]

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for obj in queryset:
            audit.on(obj, "delete", self.audited(obj))
        super().delete_queryset(request, queryset)  # type: ignore[misc]

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        obj = self.get_object(request, object_id)  # type: ignore[attr-defined]
        target = self.audit_target(obj) if obj is not None and is_administrator(request) else None
        if target is None:
            return super().history_view(request, object_id, extra_context)  # type: ignore[misc,no-any-return]
        query = urlencode({"object": ":".join(map(str, target))})
        return HttpResponseRedirect(f"{reverse('admin:accounts_auditentry_changelist')}?{query}")

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        obj = kwargs.get("obj") or context.get("original")
        shows = obj is not None and is_administrator(request) and self.audit_target(obj) is not None
        return super().render_change_form(request, {**context, "show_history": shows}, *args, **kwargs)  # type: ignore[misc]


class ConsoleAdmin(Audited, RolePermissions, ModelAdmin):
    compressed_fields = True
    list_filter_submit = True
    list_fullwidth = True
    show_facets = admin.ShowFacets.NEVER  # each would be one more COUNT(*) per filter value
    list_per_page = 50
    list_max_show_all = 0  # pages are enough, and quicker


class ReadOnlyAdmin(ReadOnly, ConsoleAdmin):
    actions = None

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return list(self.fields or [])


class LongTableAdmin(ReadOnlyAdmin):
    """For tables that grow by the million: pages are found by index, the rows are never counted."""

    paginator = InfinitePaginator
    show_full_result_count = False
