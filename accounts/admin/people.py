"""Console page for people: who waits, who may do what, what they have."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group as DjangoGroup
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.decorators import action, display

from accounts import groups, people, services
from accounts.admin import credits_by_csv
from accounts.admin.balances import BalanceActions, balance_text
from accounts.admin.filters import RoleFilter, StatusFilter
from accounts.admin.people_actions import PeopleActions, refusal
from accounts.admin.people_forms import LIMITS, PasswordForm, PersonChangeForm, PersonCreationForm
from accounts.admin.person_page import person_panels
from accounts.models import SecondFactor, User
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import ConsoleAdmin
from llmplatform.lib.console.badges import Kind, badge
from llmplatform.lib.console.pages import own_path
from llmplatform.lib.errors import ApiError

# Django's groups play no part here, and token lists are kept by the service itself.
for hidden in (DjangoGroup, BlacklistedToken, OutstandingToken):
    if admin.site.is_registered(hidden):
        admin.site.unregister(hidden)

ROLE_KINDS: dict[str, Kind] = {"admin": "warn", "operator": "busy", "user": "off"}
ROLE_NAMES = {
    "admin": gettext_lazy("administrator"),
    "operator": gettext_lazy("operator"),
    "user": gettext_lazy("user"),
}
PROFILE = ("username", "email", "language", "must_change_password")


@admin.register(User)
class UserAdmin(PeopleActions, BalanceActions, ConsoleAdmin, DjangoUserAdmin):  # type: ignore[type-arg]
    """Nobody is deleted: the ledger must go on saying who paid. People are blocked instead."""

    administrators_only = True
    form = PersonChangeForm
    add_form = PersonCreationForm
    change_password_form = PasswordForm
    list_display = ("name", "email", "group", "role_badge", "status", "balance", "seen")
    list_filter = (StatusFilter, RoleFilter, "group")
    list_select_related = ("wallet", "group")
    list_before_template = "console/people_bar.html"
    change_form_outer_before_template = "console/person_top.html"
    change_form_outer_after_template = "console/person_more.html"
    search_fields = ("username", "email")
    search_help_text = gettext_lazy("Search by user name or email address")
    ordering = ("-waiting", "username")
    filter_horizontal = ()
    actions = ("approve_chosen", "refuse_chosen", "move_chosen", "activate", "deactivate", "make_operator", "make_user")
    actions_list = ("credits_by_csv",)
    actions_row = ("top_up",)
    actions_detail = (
        "approve",
        "refuse",
        {
            "title": gettext_lazy("Balance"),
            "icon": "account_balance_wallet",
            "items": ["top_up", "correct", "set_allowance", "unlimited_or_not"],
        },
        "reset_second_factor",
        "unblock",
        "block",
    )
    readonly_fields = ("password_link", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "email", "password_link")}),
        (gettext_lazy("Access"), {"fields": ("role", "group", "is_active", "must_change_password", "language")}),
        (gettext_lazy("Limits"), {"fields": LIMITS}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "email", "password1", "password2")}),
        (gettext_lazy("Access"), {"fields": ("role", "group", "must_change_password")}),
    )

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        """Without the service accounts of groups: they are no people."""
        return super().get_queryset(request).filter(service_of=None)

    def get_urls(self) -> list[URLPattern]:
        template = own_path(self, "credits/list.csv", credits_by_csv.people_csv, "credits_list")
        return [template, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        waiting = User.objects.filter(waiting=True).count() if self.has_view_permission(request) else 0
        chosen = request.GET.get("status", "")
        return super().changelist_view(
            request, {**(extra_context or {}), "waiting_count": waiting, "chosen_status": chosen}
        )

    @action(description=gettext_lazy("Credits by CSV"), icon="upload_file", url_path="credits", permissions=["operate"])
    def credits_by_csv(self, request: HttpRequest) -> HttpResponse:
        return credits_by_csv.credits_by_csv(self, request)

    # -- list --------------------------------------------------------------------------------------------------------

    @display(description=gettext_lazy("user"), ordering="username")
    def name(self, user: User) -> str:
        return user.username

    @display(description=gettext_lazy("role"), ordering="is_superuser")
    def role_badge(self, user: User) -> SafeString:
        return badge(ROLE_NAMES[user.role], ROLE_KINDS[user.role])

    @display(description=gettext_lazy("state"), ordering="is_active")
    def status(self, user: User) -> SafeString:
        if user.waiting:
            return _waiting(user)
        return badge(_("active"), "good") if user.is_active else badge(_("blocked"), "bad")

    @display(description=gettext_lazy("credits"), ordering="wallet__available")
    def balance(self, user: User) -> str | SafeString:
        return balance_text(getattr(user, "wallet", None))

    @display(description=gettext_lazy("last login"), ordering="last_login")
    def seen(self, user: User) -> str | SafeString:
        return formats.ago(user.last_login)

    # -- one person --------------------------------------------------------------------------------------------------

    @display(description=gettext_lazy("password"))
    def password_link(self, user: User) -> SafeString:
        url = reverse("admin:auth_user_password_change", args=[user.pk])
        text = _("Set a new password (ends all sessions)")
        return format_html('<a class="c-link" href="{}">{}</a>', url, text)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only what makes sense for this person."""
        user = self.get_object(request, object_id)
        if user is None:
            return []
        unfitting = {"block", "unblock"} if user.waiting else {"approve", "refuse"}
        unfitting.add("unblock" if user.is_active else "block")
        if not SecondFactor.objects.filter(user=user).exists():
            unfitting.add("reset_second_factor")
        found: list[Any] = super().get_actions_detail(request, object_id)
        return [one for one in found if one.path not in unfitting]

    def get_form(self, request: HttpRequest, obj: User | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"editor": request.user})

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        user = self.get_object(request, object_id) if object_id and self.has_view_permission(request) else None
        panels = person_panels(user) if user is not None else {}
        try:
            return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **panels})
        except (ApiError, ValidationError) as error:  # somebody else changed the person meanwhile
            messages.error(request, refusal(error))
            return HttpResponseRedirect(request.get_full_path())

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        filled = form.cleaned_data
        if not change:
            flags = {"is_staff": filled["role"] != "user", "is_superuser": filled["role"] == "admin"}
            made = services.create_user(
                filled["username"],
                filled["password1"],
                filled["email"],
                must_change_password=filled["must_change_password"],
                group=filled["group"],
                **flags,
            )
            obj.pk = made.pk
            return
        stored = User.objects.select_related("group").get(pk=obj.pk)
        changes = {name: filled[name] for name in PROFILE if filled[name] != getattr(stored, name)}
        if changes:
            services.update_profile(stored, changes)
        limits = {name: filled[name] for name in LIMITS if filled[name] != getattr(stored, name)}
        if limits:
            people.set_limits(stored, limits)
        if filled["group"] != stored.group:
            groups.move(stored, filled["group"])
        if filled["role"] != stored.role:
            people.set_role(stored, filled["role"])
        self._save_access(stored, filled["is_active"])

    def _save_access(self, user: User, active: bool) -> None:
        if active and user.waiting:
            people.approve_user(user)
        elif active != user.is_active:
            (people.unblock_user if active else people.block_user)(user)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """There is nothing of Django's groups and permissions to save."""


def _waiting(user: User) -> SafeString:
    """Buttons of the list's own form, which carries the CSRF token: one click is enough."""
    button = format_html(
        '<button type="submit" class="c-button c-go" name="_form_submitted" value="on" formaction="{}">{}</button>',
        reverse("admin:accounts_user_approve", args=[user.pk]),
        _("Approve"),
    )
    refuse = format_html(
        '<button type="submit" class="c-button" name="_form_submitted" value="on" formaction="{}">{}</button>',
        reverse("admin:accounts_user_refuse", args=[user.pk]),
        _("Refuse"),
    )
    return format_html('<span class="c-row-buttons">{}{}{}</span>', badge(_("waits"), "warn"), button, refuse)
