"""Console pages for people, what they have and what they used."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm

from accounts import quota
from accounts.admin_filters import ModelNameFilter, RoleFilter, TimeFilter
from accounts.admin_forms import PersonChangeForm, PersonCreationForm, TopUpForm
from accounts.models import LedgerEntry, UsageRecord, User, Wallet
from llmplatform.lib.console import formats
from llmplatform.lib.console.actions import back, confirmed_action, origin
from llmplatform.lib.console.admin import ConsoleAdmin, LongTableAdmin, ReadOnlyAdmin
from llmplatform.lib.console.badges import Kind, badge

# Django's groups play no part here, and token lists are kept by the service itself.
for hidden in (Group, BlacklistedToken, OutstandingToken):
    if admin.site.is_registered(hidden):
        admin.site.unregister(hidden)

ROLE_KINDS: dict[str, Kind] = {"admin": "warn", "operator": "busy", "user": "off"}
ROLE_NAMES = {
    "admin": gettext_lazy("administrator"),
    "operator": gettext_lazy("operator"),
    "user": gettext_lazy("user"),
}


def _balance(wallet: Wallet | None) -> str | SafeString:
    if wallet is None:
        return formats.NOTHING
    return badge(_("unlimited"), "good") if wallet.unlimited else formats.credits(wallet.available)


def _top_up(request: HttpRequest, wallet: Wallet, form: TopUpForm) -> None:
    note = form.cleaned_data["note"] or _("by %(name)s") % {"name": request.user.get_username()}
    quota.top_up(wallet, amount=form.micro_credits, note=note)
    messages.success(
        request,
        _("%(credits)s credits added for %(name)s.")
        % {"credits": formats.credits(form.micro_credits), "name": wallet.user.username},
    )


@admin.register(User)
class UserAdmin(ConsoleAdmin, DjangoUserAdmin):  # type: ignore[type-arg]
    """Nobody is deleted: the ledger must go on saying who paid. People are deactivated instead."""

    administrators_only = True
    form = PersonChangeForm
    add_form = PersonCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("name", "email", "role_badge", "active_badge", "balance", "seen")
    list_filter = (RoleFilter, "is_active")
    list_select_related = ("wallet",)
    search_fields = ("username", "email")
    search_help_text = gettext_lazy("Search by user name or email address")
    ordering = ("username",)
    filter_horizontal = ()
    actions = ("activate", "deactivate", "make_operator", "make_user")
    actions_row = ("top_up",)
    actions_detail = ("top_up",)
    readonly_fields = ("password_link", "seen", "date_joined", "balance")
    fieldsets = (
        (None, {"fields": ("username", "email", "password_link")}),
        (gettext_lazy("Access"), {"fields": ("role", "is_active", "must_change_password", "language")}),
        (gettext_lazy("Account"), {"fields": ("balance", "seen", "date_joined")}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "email", "password1", "password2")}),
        (gettext_lazy("Access"), {"fields": ("role", "must_change_password")}),
    )

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_form(self, request: HttpRequest, obj: User | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"editor": request.user})

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change:
            quota.open_wallet(obj)

    @display(description=gettext_lazy("user"), ordering="username")
    def name(self, user: User) -> str:
        return user.username

    @display(description=gettext_lazy("role"), ordering="is_superuser")
    def role_badge(self, user: User) -> SafeString:
        return badge(ROLE_NAMES[user.role], ROLE_KINDS[user.role])

    @display(description=gettext_lazy("access"), ordering="is_active")
    def active_badge(self, user: User) -> SafeString:
        return badge(_("active"), "good") if user.is_active else badge(_("blocked"), "bad")

    @display(description=gettext_lazy("balance (credits)"), ordering="wallet__available")
    def balance(self, user: User) -> str | SafeString:
        return _balance(getattr(user, "wallet", None))

    @display(description=gettext_lazy("last login"), ordering="last_login")
    def seen(self, user: User) -> str | SafeString:
        return formats.ago(user.last_login)

    @display(description=gettext_lazy("password"))
    def password_link(self, user: User) -> SafeString:
        url = reverse("admin:auth_user_password_change", args=[user.pk])
        return format_html('<a class="c-link" href="{}">{}</a>', url, _("Set a new password"))

    def _others(self, request: HttpRequest, chosen: QuerySet[User]) -> QuerySet[User]:
        """The chosen people without the one who asks: nobody locks themselves out."""
        own = Q(username=request.user.get_username())
        if chosen.filter(own).exists():
            messages.warning(request, _("Your own account was left as it is."))
        return chosen.exclude(own)

    def _set(self, request: HttpRequest, chosen: QuerySet[User], **fields: bool) -> None:
        count = self._others(request, chosen).update(**fields)
        text = ngettext("%(count)d user changed.", "%(count)d users changed.", count) % {"count": count}
        messages.success(request, text)

    @admin.action(description=gettext_lazy("Give access"), permissions=["operate"])
    def activate(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        self._set(request, chosen, is_active=True)

    @admin.action(description=gettext_lazy("Block access"), permissions=["operate"])
    def deactivate(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        self._set(request, chosen, is_active=False)

    @admin.action(description=gettext_lazy("Make operators"), permissions=["operate"])
    def make_operator(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        self._set(request, chosen, is_staff=True, is_superuser=False)

    @admin.action(description=gettext_lazy("Make ordinary users"), permissions=["operate"])
    def make_user(self, request: HttpRequest, chosen: QuerySet[User]) -> None:
        self._set(request, chosen, is_staff=False, is_superuser=False)

    @confirmed_action(
        model=User,
        title=gettext_lazy("Top up"),
        text=gettext_lazy("The amount is added to the balance at once and stands in the ledger."),
        submit=gettext_lazy("Top up"),
        icon="add_card",
        form_class=TopUpForm,
    )
    def top_up(self, request: HttpRequest, form: TopUpForm, object_id: str) -> HttpResponse:
        wallet = get_object_or_404(Wallet.objects.select_related("user"), user_id=object_id)
        _top_up(request, wallet, form)
        return back(request, origin(request, reverse("admin:accounts_user_change", args=[object_id])))


@admin.register(Wallet)
class WalletAdmin(ReadOnlyAdmin):
    administrators_only = True
    list_display = ("owner", "balance", "held_credits", "unlimited")
    list_select_related = ("user",)
    list_filter = ("unlimited",)
    search_fields = ("^user__username",)
    search_help_text = gettext_lazy("Search by the beginning of the user name")
    ordering = ("user__username",)
    actions_row = ("top_up",)
    actions_detail = ("top_up",)
    fields = ("owner", "balance", "held_credits", "unlimited")

    @display(description=gettext_lazy("user"), ordering="user__username")
    def owner(self, wallet: Wallet) -> str:
        return wallet.user.username

    @display(description=gettext_lazy("available (credits)"), ordering="available")
    def balance(self, wallet: Wallet) -> str | SafeString:
        return _balance(wallet)

    @display(description=gettext_lazy("held for requests under way"), ordering="held")
    def held_credits(self, wallet: Wallet) -> str:
        return formats.credits(wallet.held)

    @confirmed_action(
        model=Wallet,
        title=gettext_lazy("Top up"),
        text=gettext_lazy("The amount is added to the balance at once and stands in the ledger."),
        submit=gettext_lazy("Top up"),
        icon="add_card",
        form_class=TopUpForm,
    )
    def top_up(self, request: HttpRequest, form: TopUpForm, object_id: str) -> HttpResponse:
        wallet = get_object_or_404(Wallet.objects.select_related("user"), pk=object_id)
        _top_up(request, wallet, form)
        return back(request, origin(request, reverse("admin:accounts_wallet_changelist")))


@admin.register(LedgerEntry)
class LedgerEntryAdmin(LongTableAdmin):
    administrators_only = True
    list_display = ("when", "owner", "kind_badge", "available", "held", "cost_credits", "model_name", "note")
    list_select_related = ("wallet__user",)
    list_filter = ("kind", TimeFilter)
    fields = ("when", "owner", "kind_badge", "available", "held", "cost_credits", "request_id", "model_name", "note")
    search_fields = ("request_id",)  # see get_search_results
    search_help_text = gettext_lazy("Request id or user name")
    ordering = ("-id",)
    sortable_by = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LedgerEntry], search_term: str
    ) -> tuple[QuerySet[LedgerEntry], bool]:
        if not search_term:
            return queryset, False
        by_request = queryset.filter(request_id=search_term)
        if by_request.exists():
            return by_request, False
        wallets = list(
            Wallet.objects.filter(user__username__istartswith=search_term).values_list("pk", flat=True)[:200]
        )
        return queryset.filter(wallet_id__in=wallets), False

    @display(description=gettext_lazy("time"))
    def when(self, entry: LedgerEntry) -> str | SafeString:
        return formats.moment(entry.created_at)

    @display(description=gettext_lazy("user"))
    def owner(self, entry: LedgerEntry) -> str:
        return entry.wallet.user.username

    @display(description=gettext_lazy("kind"))
    def kind_badge(self, entry: LedgerEntry) -> SafeString:
        kinds: dict[str, Kind] = {"grant": "good", "topup": "good", "hold": "busy", "adjust": "warn"}
        return badge(entry.get_kind_display(), kinds.get(entry.kind, "off"))

    @display(description=gettext_lazy("available"))
    def available(self, entry: LedgerEntry) -> str:
        return formats.signed_credits(entry.available_change)

    @display(description=gettext_lazy("held"))
    def held(self, entry: LedgerEntry) -> str:
        return formats.signed_credits(entry.held_change)

    @display(description=gettext_lazy("cost"))
    def cost_credits(self, entry: LedgerEntry) -> str:
        return formats.credits(entry.cost) if entry.cost else formats.NOTHING


OUTCOME_KINDS: dict[str, Kind] = {"completed": "good", "cancelled": "off", "failed": "bad", "refused": "warn"}


@admin.register(UsageRecord)
class UsageRecordAdmin(LongTableAdmin):
    list_display = ("when", "who", "model_name", "outcome_badge", "tokens", "waited", "first", "speed", "cost_credits")
    list_filter = (ModelNameFilter, "outcome", TimeFilter)
    fields = (
        "request_id", "full_time", "who", "outcome_badge", "status", "model_name", "replica", "endpoint", "source",
        "prompt_tokens", "cached_tokens", "completion_tokens", "cost_credits", "waited", "first", "took", "speed",
    )  # fmt: skip
    search_fields = ("request_id",)  # see get_search_results
    search_help_text = gettext_lazy("Request id or user name")
    ordering = ("-created_at", "-id")
    sortable_by = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageRecord], search_term: str
    ) -> tuple[QuerySet[UsageRecord], bool]:
        """By index only: one request, or people found in the small table of users."""
        if not search_term:
            return queryset, False
        by_request = queryset.filter(request_id=search_term)
        if by_request.exists():
            return by_request, False
        people = list(User.objects.filter(username__istartswith=search_term).values_list("pk", flat=True)[:200])
        # One id is looked for with "=", for which the index also gives the order.
        return queryset.filter(user_id=people[0]) if len(people) == 1 else queryset.filter(user_id__in=people), False

    @display(description=gettext_lazy("time"))
    def when(self, record: UsageRecord) -> str | SafeString:
        return formats.moment(record.created_at)

    @display(description=gettext_lazy("user"))
    def who(self, record: UsageRecord) -> str:
        return record.username or formats.NOTHING

    @display(description=gettext_lazy("outcome"))
    def outcome_badge(self, record: UsageRecord) -> SafeString:
        return badge(record.get_outcome_display(), OUTCOME_KINDS.get(record.outcome, "off"))

    @display(description=gettext_lazy("tokens"))
    def tokens(self, record: UsageRecord) -> str:
        """Read and written."""
        return f"{formats.number(record.prompt_tokens)} + {formats.number(record.completion_tokens)}"

    @display(description=gettext_lazy("waited"))
    def waited(self, record: UsageRecord) -> str:
        return formats.milliseconds(record.queue_ms)

    @display(description=gettext_lazy("first token"))
    def first(self, record: UsageRecord) -> str:
        return formats.milliseconds(record.first_token_ms)

    @display(description=gettext_lazy("duration"))
    def took(self, record: UsageRecord) -> str:
        return formats.milliseconds(record.duration_ms)

    @display(description=gettext_lazy("time"))
    def full_time(self, record: UsageRecord) -> str | SafeString:
        return formats.moment(record.created_at, with_date=True)

    @display(description=gettext_lazy("speed"))
    def speed(self, record: UsageRecord) -> str:
        if record.tokens_per_second is None:
            return formats.NOTHING
        return _("%(number)s tokens/s") % {"number": formats.number(record.tokens_per_second, 1)}

    @display(description=gettext_lazy("cost"))
    def cost_credits(self, record: UsageRecord) -> str:
        return formats.credits(record.cost)
