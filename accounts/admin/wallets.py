"""Console page for balances."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import display

from accounts.admin.balances import BalanceActions, allowance_text, balance_text, name_url, owner_name
from accounts.models import Wallet
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import ReadOnlyAdmin


class LowFilter(SimpleListFilter):
    title = gettext_lazy("left")
    parameter_name = "left"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [("none", gettext_lazy("used up")), ("some", gettext_lazy("something left"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Wallet]) -> QuerySet[Wallet]:
        if self.value() == "none":
            return queryset.filter(available=0, unlimited=False)
        return queryset.exclude(available=0, unlimited=False) if self.value() == "some" else queryset


@admin.register(Wallet)
class WalletAdmin(BalanceActions, ReadOnlyAdmin):
    administrators_only = True
    list_display = ("owner", "balance", "held_credits", "spent_credits", "allowance_shown")
    list_select_related = ("user__service_of", "user__group")
    list_filter = ("unlimited", LowFilter)
    search_fields = ("^user__username",)
    search_help_text = gettext_lazy("Search by the beginning of the user name")
    ordering = ("user__username",)
    actions_row = ("top_up", "correct")
    actions_detail = ("top_up", "correct", "set_allowance", "unlimited_or_not")
    fields = ("owner", "balance", "held_credits", "spent_credits", "allowance_shown", "lots", "ledger_link")

    def audit_target(self, obj: Wallet) -> tuple[str, Any]:
        return "user", obj.user_id

    @display(description=gettext_lazy("user"), ordering="user__username")
    def owner(self, wallet: Wallet) -> str | SafeString:
        return owner_name(wallet.user)

    @display(description=gettext_lazy("available (credits)"), ordering="available")
    def balance(self, wallet: Wallet) -> str | SafeString:
        return balance_text(wallet)

    @display(description=gettext_lazy("held for requests under way"), ordering="held")
    def held_credits(self, wallet: Wallet) -> str:
        return formats.credits(wallet.held)

    @display(description=gettext_lazy("spent so far"), ordering="spent")
    def spent_credits(self, wallet: Wallet) -> str:
        return formats.credits(wallet.spent)

    @display(description=gettext_lazy("allowance"))
    def allowance_shown(self, wallet: Wallet) -> str:
        if wallet.allowance is not None:
            return allowance_text(wallet.allowance, wallet.allowance_period)
        group = wallet.user.group
        return allowance_text(group.allowance, group.allowance_period) if group else formats.NOTHING

    @display(description=gettext_lazy("of it expires"))
    def lots(self, wallet: Wallet) -> str:
        """What is left of each is known at the time when one begins or ends: what was spent since is not told to them."""
        lots = wallet.lots.filter(unused__gt=0).order_by("expires_at")[:20]
        text = _("up to %(credits)s on %(day)s")
        said = [text % {"credits": formats.credits(lot.unused), "day": formats.day(lot.expires_at)} for lot in lots]
        return ", ".join(said) or _("nothing")

    @display(description=gettext_lazy("more"))
    def ledger_link(self, wallet: Wallet) -> SafeString:
        ledger = f"{reverse('admin:accounts_ledgerentry_changelist')}?owner={wallet.user_id}"
        return format_html(
            '<a class="c-link" href="{}">{}</a> · <a class="c-link" href="{}">{}</a>',
            ledger,
            _("Ledger"),
            name_url(wallet.user),
            wallet.user.username,
        )
