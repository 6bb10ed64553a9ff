"""Console page for the ledger: read only, with its sums, and as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.db.models import Max, Q, QuerySet, Sum
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy
from unfold.decorators import display

from accounts import ledger_notes
from accounts.admin.balances import owner_name
from accounts.admin.filters import OwnerFilter, TimeFilter
from accounts.api.csv_answer import CsvAnswer
from accounts.api.serializers import LedgerRow
from accounts.models import ApiKey, LedgerEntry, Wallet
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import LongTableAdmin
from llmplatform.lib.console.badges import Kind, badge
from llmplatform.lib.console.pages import own_path

CSV_PAGE = 1000
ADDED_UP = 200_000  # entries; more would make the page slow, and "manage.py ledgercheck" adds them up
KINDS: dict[str, Kind] = {
    "grant": "good",
    "topup": "good",
    "redeem": "good",
    "hold": "busy",
    "adjust": "warn",
    "expire": "warn",
}
# Kinds that every request has; an index holds the others, of which there are few: see LedgerEntry.
OF_REQUESTS = ("hold", "settle", "release")


class KindFilter(SimpleListFilter):
    title = gettext_lazy("kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [("given", gettext_lazy("all but requests")), *LedgerEntry.Kind.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[LedgerEntry]) -> QuerySet[LedgerEntry]:
        kind = self.value()
        if kind != "given" and kind not in LedgerEntry.Kind.values:
            return queryset
        found = queryset if kind == "given" else queryset.filter(kind=kind)
        # As the condition of the index is written: the database compares no more than that.
        return found if kind in OF_REQUESTS else found.filter(*(~Q(kind=other) for other in OF_REQUESTS))


class LedgerOwnerFilter(OwnerFilter):
    path = "wallet__user_id"


class KeyFilter(SimpleListFilter):
    """One key, where a link led to it."""

    title = gettext_lazy("API key")
    parameter_name = "key"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        number = self.value() or ""
        key = ApiKey.objects.filter(pk=number).first() if number.isdecimal() else None
        return [(number, str(key) if key else "?")] if number else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[LedgerEntry]) -> QuerySet[LedgerEntry]:
        """Its owner's wallet is named too: that is what an index finds."""
        number = self.value()
        if not number:
            return queryset
        key = ApiKey.objects.filter(pk=number).first() if number.isdecimal() else None
        return queryset.filter(key=key, wallet__user_id=key.user_id) if key else queryset.none()


@admin.register(LedgerEntry)
class LedgerEntryAdmin(LongTableAdmin):
    administrators_only = True
    list_display = ("when", "owner", "kind_badge", "available", "held", "cost_credits", "model_name", "about")
    list_select_related = ("wallet__user__service_of",)
    list_filter = (KindFilter, TimeFilter, LedgerOwnerFilter, KeyFilter)
    list_before_template = "console/ledger_bar.html"
    fields = ("when", "owner", "kind_badge", "available", "held", "cost_credits", "request_id", "model_name", "key",
              "about")  # fmt: skip
    search_fields = ("request_id",)  # see get_search_results
    search_help_text = gettext_lazy("Request id or user name")
    sortable_by = ()

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """As the index goes that finds the rows."""
        narrowed = any(name in request.GET for name in ("owner", "key", "since", "q"))
        return ("-created_at", "-id") if narrowed else ("-id",)

    def get_urls(self) -> list[URLPattern]:
        return [own_path(self, "ledger.csv", self.as_csv, "csv"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {**(extra_context or {}), "ledger_sums": self._sums(request)})

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

    # -- sums and CSV ------------------------------------------------------------------------------------------------

    def _sums(self, request: HttpRequest) -> dict[str, Any] | None:
        """Of the entries that the filters leave, when they are those of one account; beside its balance."""
        number = request.GET.get("owner", "")
        if not (number.isdecimal() and self.has_view_permission(request)):
            return None
        wallet = Wallet.objects.select_related("user").filter(user_id=number).first()
        if wallet is None:
            return None
        chosen: QuerySet[LedgerEntry] = self.get_changelist_instance(request).get_queryset(request)
        rows = chosen.order_by().select_related(None)
        if rows[ADDED_UP : ADDED_UP + 1].exists():
            return {"wallet": wallet, "too_many": formats.number(ADDED_UP)}
        # One statement for sums and balance: a request that ends between two would make them differ.
        sums = rows.aggregate(
            available=Sum("available_change"),
            held=Sum("held_change"),
            cost=Sum("cost"),
            balance=Max("wallet__available"),
            balance_held=Max("wallet__held"),
        )
        narrowed = any(name in request.GET for name in ("kind", "since", "key", "q"))
        shown = {name: formats.credits(value or 0) for name, value in sums.items()}
        return {"wallet": wallet, "narrowed": narrowed, **shown}

    def as_csv(self, request: HttpRequest) -> HttpResponseBase:
        """All entries that the filters leave, as the API has them."""
        chosen = self.get_changelist_instance(request).get_queryset(request)
        return CsvAnswer(list(LedgerRow().fields), _pages(chosen), filename="ledger.csv", marked=True)

    # -- columns -----------------------------------------------------------------------------------------------------

    @display(description=gettext_lazy("time"))
    def when(self, entry: LedgerEntry) -> str | SafeString:
        return formats.moment(entry.created_at)

    @display(description=gettext_lazy("user"))
    def owner(self, entry: LedgerEntry) -> str | SafeString:
        return owner_name(entry.wallet.user)

    @display(description=gettext_lazy("kind"))
    def kind_badge(self, entry: LedgerEntry) -> SafeString:
        return badge(entry.get_kind_display(), KINDS.get(entry.kind, "off"))

    @display(description=gettext_lazy("available"))
    def available(self, entry: LedgerEntry) -> str:
        return formats.signed_credits(entry.available_change)

    @display(description=gettext_lazy("held"))
    def held(self, entry: LedgerEntry) -> str:
        return formats.signed_credits(entry.held_change)

    @display(description=gettext_lazy("cost"))
    def cost_credits(self, entry: LedgerEntry) -> str:
        return formats.credits(entry.cost) if entry.cost else formats.NOTHING

    @display(description=gettext_lazy("note"))
    def about(self, entry: LedgerEntry) -> str:
        return ledger_notes.in_words(entry.note)


def _pages(entries: QuerySet[LedgerEntry]) -> Iterator[Iterable[dict[str, Any]]]:
    rows = entries.order_by("-created_at", "-id").select_related("wallet__user")
    page = list(rows[:CSV_PAGE])
    while page:
        yield LedgerRow(page, many=True).data
        last = page[-1]
        # A range and an exception, not an OR, so that the index on the time is used.
        after = rows.filter(created_at__lte=last.created_at).exclude(created_at=last.created_at, id__gte=last.pk)
        page = list(after[:CSV_PAGE])
