"""Console page for API keys, of people and of groups' services."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy
from unfold.decorators import display
from unfold.enums import ActionVariant

from accounts import groups, keys
from accounts.admin import key_rows
from accounts.admin.balances import name_url, owner_name
from accounts.admin.filters import OwnerFilter
from accounts.admin.key_forms import ChangeKeyForm, NewKeyForm, RotateForm
from accounts.models import ApiKey, Group, User
from llmplatform.lib.console import formats
from llmplatform.lib.console.actions import NamedDialogForm, asked_for_all, back, confirmed_action, origin
from llmplatform.lib.console.admin import ReadOnlyAdmin
from llmplatform.lib.console.pages import add_errors, once, page


class KeyStatusFilter(SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [
            (key_rows.ACTIVE, gettext_lazy("active")),
            (key_rows.EXPIRED, gettext_lazy("expired")),
            (key_rows.REVOKED, pgettext_lazy("state", "revoked")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        return key_rows.with_status(queryset, self.value() or "")


class ForWhomFilter(SimpleListFilter):
    title = gettext_lazy("owner")
    parameter_name = "of"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [("person", gettext_lazy("people")), ("service", gettext_lazy("services of groups"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        if self.value() not in {"person", "service"}:
            return queryset
        return queryset.filter(user__service_of__isnull=self.value() == "person")


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    administrators_only = True
    list_display = ("name", "owner", "mask", "scope_list", "priority_name", "used", "expiry", "status")
    list_select_related = ("user__service_of", "root")
    list_filter = (KeyStatusFilter, ForWhomFilter, OwnerFilter)
    search_fields = ("name",)  # see get_search_results
    search_help_text = gettext_lazy("Name, beginning or last four characters, or user name")
    purpose = gettext_lazy("A key lets a program ask in somebody’s name, within the bounds that it has.")
    ordering = ("-id",)
    sortable_by = ()
    actions = ("revoke_chosen",)  # type: ignore[assignment]
    actions_row = ("rotate", "revoke")
    actions_detail = ("change_rules", "rotate", "revoke")
    fields = ("name", "owner", "mask", "status", "scope_list", "models", "addresses", "expiry", "priority_name", "budget_text",
              "limits", "used", "maker", "made")  # fmt: skip

    def has_add_permission(self, request: HttpRequest, *_obj: Any) -> bool:
        return self._may(request)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        key = self.get_object(request, object_id)
        usable = key is not None and key_rows.status_of(key) == key_rows.ACTIVE
        found: list[Any] = super().get_actions_detail(request, object_id)
        return found if usable else []

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ApiKey], search_term: str
    ) -> tuple[QuerySet[ApiKey], bool]:
        """Also a whole key that somebody found: only its beginning and end are looked for."""
        term = search_term.strip()
        if term.startswith("sk-"):
            found = queryset.filter(prefix__startswith=term[:9])
            return (found.filter(last4=term[-4:]) if len(term) > 9 + 4 else found), False
        if not term:
            return queryset, False
        people = list(User.objects.filter(username__istartswith=term).values_list("pk", flat=True)[:200])
        return queryset.filter(Q(name__icontains=term) | Q(last4=term) | Q(user_id__in=people)), False

    # -- what is shown -----------------------------------------------------------------------------------------------

    @display(description=gettext_lazy("owner"))
    def owner(self, key: ApiKey) -> SafeString:
        return format_html('<a class="c-link" href="{}">{}</a>', name_url(key.user), owner_name(key.user))

    @display(description=gettext_lazy("key"))
    def mask(self, key: ApiKey) -> SafeString:
        return key_rows.mask(key)

    @display(description=gettext_lazy("scopes"))
    def scope_list(self, key: ApiKey) -> SafeString:
        return key_rows.scope_badges(key)

    @display(description=gettext_lazy("last used"))
    def used(self, key: ApiKey) -> str | SafeString:
        return formats.ago(key.last_used_at) if key.last_used_at else _("never")

    @display(description=gettext_lazy("expires"))
    def expiry(self, key: ApiKey) -> str | SafeString:
        return formats.moment(key.expires_at, with_date=True) if key.expires_at else _("never")

    @display(description=gettext_lazy("state"))
    def status(self, key: ApiKey) -> SafeString:
        return key_rows.status_badge(key)

    @display(description=gettext_lazy("models"))
    def models(self, key: ApiKey) -> str:
        return ", ".join(key.allowed_models) or _("all")

    @display(description=gettext_lazy("addresses"))
    def addresses(self, key: ApiKey) -> str:
        return ", ".join(key.allowed_addresses) or _("from anywhere")

    @display(description=gettext_lazy("priority"))
    def priority_name(self, key: ApiKey) -> str:
        return str(key.get_priority_display())

    @display(description=gettext_lazy("budget"))
    def budget_text(self, key: ApiKey) -> str:
        if key.budget is None:
            return _("as much as its owner has")
        used = _("%(used)s of %(budget)s credits used")
        used %= {"used": formats.credits(key.holder.budget_used), "budget": formats.credits(key.budget)}
        period = key.get_budget_period_display() if key.budget_period else ""
        return _("%(used)s, begins anew %(period)s") % {"used": used, "period": period} if period else used

    @display(description=gettext_lazy("limits"))
    def limits(self, key: ApiKey) -> str:
        return formats.limits(key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests)

    @display(description=gettext_lazy("made by"))
    def maker(self, key: ApiKey) -> str:
        return key.created_by.username if key.created_by else formats.NOTHING

    @display(description=gettext_lazy("made"))
    def made(self, key: ApiKey) -> SafeString:
        return formats.moment(key.created_at, with_date=True)

    # -- making one --------------------------------------------------------------------------------------------------

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        owner = _owner_asked_for(request)
        form = NewKeyForm(request.POST or None, owner=owner)
        if request.method == "POST" and form.is_valid():
            answer = self._make(request, form)
            if answer is not None:
                return answer
        about = format_html('<p class="c-what">{}</p>', owner) if owner else ""
        return page(
            self,
            request,
            "console/form.html",
            _("Make a key"),
            form=form,
            about=about,
            form_submit_text=_("Make the key"),
            cancel_url=_home_of(owner) if owner else "",
        )

    def _make(self, request: HttpRequest, form: NewKeyForm) -> HttpResponse | None:
        """The page with the new key; None when it cannot be made: the form then says why."""
        owner = form.owner

        def make() -> tuple[ApiKey, str]:
            user = groups.service_account(owner) if isinstance(owner, Group) else cast(User, owner)
            return keys.create_key(user, keys.NewKey(**form.rules()), self._by(request))

        try:
            made = once(request, form, make)
        except ValidationError as error:
            add_errors(form, error)
            return None
        home = _home_of(owner) if owner else reverse("admin:accounts_apikey_changelist")
        return self._shown_once(request, made[0], made[1], home) if made else back(request, home)

    def _by(self, request: HttpRequest) -> User:
        assert isinstance(request.user, User)  # noqa: S101 - for mypy: has_add_permission let nobody else pass
        return request.user

    def _shown_once(self, request: HttpRequest, key: ApiKey, secret: str, home: str) -> HttpResponse:
        """Like every page of the console it is stored by no cache."""
        heading = _("The key %(name)s") % {"name": key.name}
        title = _("New key")
        return page(self, request, "console/secret.html", title, heading=heading, secret=secret, done_url=home)

    # -- what is done with them --------------------------------------------------------------------------------------

    @confirmed_action(
        title=gettext_lazy("Rotate"),
        text=gettext_lazy("Makes a new key with the same rules. The old one goes on working for as long as you say."),
        submit=gettext_lazy("Make the new key"),
        icon="autorenew",
        form_class=RotateForm,
        window=False,
    )
    def rotate(self, request: HttpRequest, form: RotateForm, object_id: str) -> HttpResponse | None:
        key: ApiKey = form.target
        home = reverse("admin:accounts_apikey_change", args=[key.pk])
        try:
            made = once(request, form, lambda: keys.rotate_key(key, form.duration, self._by(request)))
        except ValidationError as error:
            add_errors(form, error)
            return None
        return self._shown_once(request, made[0], made[1], home) if made else back(request, home)

    @confirmed_action(
        title=gettext_lazy("Change"),
        text=gettext_lazy("What this key may do from now on. The key itself stays the same."),
        submit=gettext_lazy("Save"),
        icon="edit",
        form_class=ChangeKeyForm,
        window=False,
    )
    def change_rules(self, request: HttpRequest, form: ChangeKeyForm, object_id: str) -> HttpResponse | None:
        try:
            key = keys.update_key(form.target, form.rules(), self._by(request))
        except ValidationError as error:
            add_errors(form, error)
            return None
        messages.success(request, _("%(key)s was changed.") % {"key": key})
        return back(request, reverse("admin:accounts_apikey_change", args=[key.pk]))

    @confirmed_action(
        title=gettext_lazy("Revoke"),
        text=gettext_lazy("Programs that use this key are refused within seconds. This cannot be undone."),
        submit=gettext_lazy("Revoke"),
        icon="key_off",
        variant=ActionVariant.DANGER,
    )
    def revoke(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        keys.revoke_key(form.target, self._by(request))
        messages.success(request, _("%(key)s was revoked.") % {"key": form.target})
        return back(request, origin(request, reverse("admin:accounts_apikey_changelist")))

    @admin.action(description=gettext_lazy("Revoke"), permissions=["operate"])
    def revoke_chosen(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> HttpResponse | None:
        alive = chosen.filter(revoked_at=None)
        text = _("Programs that use these keys are refused within seconds. This cannot be undone.")
        asked = asked_for_all(self, request, alive, title=_("Revoke"), text=text, submit=_("Revoke"))
        if isinstance(asked, HttpResponse):
            return asked
        revoked = list(alive)
        for key in revoked:
            keys.revoke_key(key, self._by(request))
        count = len(revoked)
        messages.success(
            request, ngettext("%(count)d key revoked.", "%(count)d keys revoked.", count) % {"count": count}
        )
        return None


def _owner_asked_for(request: HttpRequest) -> User | Group | None:
    """Whom the page that led here was about."""
    kinds: tuple[tuple[str, QuerySet[Any]], ...] = (
        ("user", User.objects.filter(service_of=None)),
        ("group", Group.objects.all()),
    )
    for parameter, rows in kinds:
        number = request.GET.get(parameter, "")
        if number.isdecimal():
            return rows.filter(pk=number).first()
    return None


def _home_of(owner: Model) -> str:
    name = "group" if isinstance(owner, Group) else "user"
    return reverse(f"admin:accounts_{name}_change", args=[owner.pk])
