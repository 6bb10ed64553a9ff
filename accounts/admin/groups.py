"""Console page for groups: their rules, their members, the keys of their services."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import display

from accounts import groups
from accounts.admin.balances import BalanceActions, allowance_text, balance_text
from accounts.admin.group_forms import LIMITS, MEMBER_LIMITS, GroupForm
from accounts.admin.key_rows import key_rows
from accounts.admin.people_actions import refusal
from accounts.models import ApiKey, Group, User
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import ConsoleAdmin
from llmplatform.lib.errors import ApiError

SHOWN = 10


@admin.register(Group)
class GroupAdmin(BalanceActions, ConsoleAdmin):
    administrators_only = True
    form = GroupForm
    purpose = gettext_lazy("A group gives its members the same models, limits and allowance.")
    list_display = ("name", "member_count", "models", "allowance_shown", "limits", "member_limits", "key_count")
    search_fields = ("name", "description")
    search_help_text = gettext_lazy("Search by name")
    ordering = ("name",)
    sortable_by = ("name",)
    actions = None
    actions_detail = (
        {
            "title": gettext_lazy("Balance of the services"),
            "icon": "account_balance_wallet",
            "items": ["top_up", "correct", "unlimited_or_not"],
        },
    )
    change_form_outer_after_template = "console/group_more.html"
    fieldsets = (
        (None, {"fields": ("name", "description")}),
        (gettext_lazy("Models"), {"fields": ("which_models", "allowed_models")}),
        (gettext_lazy("Credits"), {"fields": ("starting_balance", "allowance", "allowance_period")}),
        (gettext_lazy("Limits of each member"), {"fields": MEMBER_LIMITS}),
        (gettext_lazy("Limits of all members together"), {"fields": LIMITS}),
        (gettext_lazy("Waiting for a slot"), {"fields": ("queue_weight",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        found: QuerySet[Group] = super().get_queryset(request)
        return found.annotate(
            people=_count(User.objects.filter(group=OuterRef("pk"), service_of=None), "group"),
            service_keys=_count(
                ApiKey.objects.filter(user__service_of=OuterRef("pk"), revoked_at=None), "user__service_of"
            ),
        )

    @display(description=gettext_lazy("members"))
    def member_count(self, group: Group) -> str:
        return formats.number(group.people)  # type: ignore[attr-defined]

    @display(description=gettext_lazy("models"))
    def models(self, group: Group) -> str:
        return ", ".join(group.allowed_models) or _("all")

    @display(description=gettext_lazy("allowance"))
    def allowance_shown(self, group: Group) -> str:
        return allowance_text(group.allowance, group.allowance_period)

    @display(description=gettext_lazy("limits together"))
    def limits(self, group: Group) -> str:
        return formats.limits(*(getattr(group, name) for name in LIMITS))

    @display(description=gettext_lazy("limits of each member"))
    def member_limits(self, group: Group) -> str:
        return formats.limits(*(getattr(group, name) for name in MEMBER_LIMITS))

    @display(description=gettext_lazy("keys of services"))
    def key_count(self, group: Group) -> str:
        return formats.number(group.service_keys)  # type: ignore[attr-defined]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """The services have a balance once there is a key for one."""
        has_services = str(object_id).isdecimal() and User.objects.filter(service_of=object_id).exists()
        found: list[Any] = super().get_actions_detail(request, object_id)
        return found if has_services else []

    # -- one group ---------------------------------------------------------------------------------------------------

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        group = self.get_object(request, object_id) if object_id and self.has_view_permission(request) else None
        panels = group_panels(group) if group is not None else {}
        try:
            return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **panels})
        except (ApiError, ValidationError) as error:  # its name was taken meanwhile
            messages.error(request, refusal(error))
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: Group, form: GroupForm, change: bool) -> None:
        fields = form.group_fields()
        if not change:
            obj.pk = groups.create_group(fields).pk
            return
        stored = Group.objects.get(pk=obj.pk)
        groups.update_group(stored, {name: fields[name] for name in fields if fields[name] != getattr(stored, name)})

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except (ApiError, ValidationError) as error:
            messages.error(request, refusal(error))
            return HttpResponseRedirect(reverse("admin:accounts_group_change", args=[object_id]))

    def delete_model(self, request: HttpRequest, obj: Group) -> None:
        groups.delete_group(obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], Any]:
        """What must not be deleted with a group is told by the service that deletes it."""
        rows = [str(group) for group in objs]
        return rows, {Group._meta.verbose_name_plural: len(rows)}, set(), []


def _count(rows: QuerySet[Any], by: str) -> Coalesce:
    return Coalesce(Subquery(rows.order_by().values(by).annotate(number=Count("pk")).values("number")), 0)


def group_panels(group: Group) -> dict[str, Any]:
    service = User.objects.filter(service_of=group).select_related("wallet").first()
    keys = ApiKey.objects.filter(user=service) if service else ApiKey.objects.none()
    members = User.objects.filter(group=group, service_of=None).select_related("wallet").order_by("username")
    return {
        "panel_members": [_member_row(user) for user in members[:SHOWN]],
        "panel_member_count": members.count(),
        "panel_members_url": f"{reverse('admin:accounts_user_changelist')}?group__id__exact={group.pk}",
        "panel_service_balance": balance_text(getattr(service, "wallet", None)) if service else "",
        "panel_keys": key_rows(keys[:SHOWN]),
        "panel_key_count": keys.count(),
        "panel_new_key_url": f"{reverse('admin:accounts_apikey_add')}?group={group.pk}",
        "panel_keys_url": f"{reverse('admin:accounts_apikey_changelist')}?owner={service.pk if service else 0}",
    }


def _member_row(user: User) -> dict[str, str | SafeString]:
    return {
        "name": user.username,
        "url": reverse("admin:accounts_user_change", args=[user.pk]),
        "email": user.email,
        "balance": balance_text(getattr(user, "wallet", None)),
    }
