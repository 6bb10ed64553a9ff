"""The proof that the ledger is right: every invariant as a query that must find nothing."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from accounts.models import Hold, LedgerEntry, UsageRecord, Wallet

Kind = LedgerEntry.Kind


def ledger_problems() -> list[str]:
    """One line for each broken invariant, in English; empty when all is right. Holds of requests under way are no problem."""
    return [*_wallets(), *_holds(), *_requests()]


def _sum_of(rows: QuerySet[LedgerEntry] | QuerySet[Hold], column: str) -> Coalesce:
    total = rows.filter(wallet=OuterRef("pk")).order_by().values("wallet").annotate(total=Sum(column)).values("total")
    return Coalesce(Subquery(total), Value(0))


def _wallets() -> Iterator[str]:
    wallets = Wallet.objects.annotate(
        entries_available=_sum_of(LedgerEntry.objects.all(), "available_change"),
        entries_held=_sum_of(LedgerEntry.objects.all(), "held_change"),
        open_holds=_sum_of(Hold.objects.all(), "amount"),
    )
    wrong = ~Q(available=F("entries_available")) | ~Q(held=F("entries_held")) | ~Q(held=F("open_holds"))
    for wallet in wallets.filter(wrong | Q(available__lt=0) | Q(held__lt=0)):
        yield (
            f"wallet {wallet.pk}: available {wallet.available}, by its entries {wallet.entries_available};"
            f" held {wallet.held}, by its entries {wallet.entries_held}, by open holds {wallet.open_holds}"
        )


def _holds() -> Iterator[str]:
    same_request = LedgerEntry.objects.filter(request_id=OuterRef("request_id"))
    opened = same_request.filter(kind=Kind.HOLD, held_change=OuterRef("amount"), wallet=OuterRef("wallet"))
    closed = same_request.filter(kind__in=[Kind.SETTLE, Kind.RELEASE])
    for hold in Hold.objects.filter(~Exists(opened) | Exists(closed)):
        yield f"hold of request {hold.request_id}: no matching entry, or closed already"
    lost = LedgerEntry.objects.filter(kind=Kind.HOLD).filter(
        ~Exists(closed), ~Exists(Hold.objects.filter(request_id=OuterRef("request_id")))
    )
    for entry in lost:
        yield f"request {entry.request_id}: {entry.held_change} were held, and nothing became of them"


def _requests() -> Iterator[str]:
    settled = LedgerEntry.objects.filter(kind=Kind.SETTLE)
    charged = F("available_change") + F("held_change")
    for wrong in settled.annotate(charged=charged).exclude(Q(charged=0) | Q(charged=-F("cost"))):
        yield f"request {wrong.request_id}: cost {wrong.cost}, but {-wrong.charged} were charged"
    recorded = UsageRecord.objects.filter(request_id=OuterRef("request_id"))
    for entry in settled.filter(Exists(recorded.exclude(cost=OuterRef("cost")))):
        yield f"request {entry.request_id}: the usage record states another cost than the ledger"
    unsettled = UsageRecord.objects.exclude(Exists(settled.filter(request_id=OuterRef("request_id"))))
    for record in unsettled:
        yield f"request {record.request_id}: usage was recorded, but nothing settled"
    twice = LedgerEntry.objects.exclude(request_id="").order_by().values("request_id", "kind").annotate(n=Count("pk"))
    for row in twice.filter(n__gt=1):
        yield f"request {row['request_id']}: {row['n']} entries of kind {row['kind']}"
