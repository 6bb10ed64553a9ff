"""The proof that the ledger is right: every invariant as a query that must find nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import CharField, Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Cast, Coalesce, Concat

from accounts.models import ApiKey, CreditLot, Hold, LedgerEntry, RedeemCode, UsageHour, UsageRecord, Wallet

Kind = LedgerEntry.Kind
OF_REQUESTS = (Kind.HOLD, Kind.SETTLE, Kind.RELEASE)


def ledger_problems() -> list[str]:
    """One line for each broken invariant, in English; empty when all is right. Holds of requests under way are no problem."""
    with _one_snapshot():
        return [problem for check in CHECKS for problem in check()]


@contextmanager
def _one_snapshot() -> Iterator[None]:
    """All queries see the database as it was at one moment, however busy it is meanwhile, and keep nobody from writing.

    Written out: Django would begin by SQLite's write lock, and with PostgreSQL's usual isolation, where each query has a
    snapshot of its own. Within a transaction of the caller's it is as that one is.
    """
    if connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if connection.vendor == "postgresql" else "BEGIN"
        )
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


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


def _spending() -> Iterator[str]:
    settled = LedgerEntry.objects.filter(kind=Kind.SETTLE)
    charged = -_sum_of(settled, "available_change") - _sum_of(settled, "held_change")
    wallets = Wallet.objects.annotate(charged=charged)
    for wallet in wallets.filter(~Q(spent=F("charged")) | Q(spent_at_lots__gt=F("spent"))):
        yield f"wallet {wallet.pk}: spent {wallet.spent}, by its settlements {wallet.charged}"


def _holds() -> Iterator[str]:
    # The index on request ids leaves out "", and is used only for a query that does so too.
    same_request = LedgerEntry.objects.exclude(request_id="").filter(request_id=OuterRef("request_id"))
    opened = same_request.filter(kind=Kind.HOLD, held_change=OuterRef("amount"), wallet=OuterRef("wallet"))
    closed = same_request.filter(kind__in=[Kind.SETTLE, Kind.RELEASE])
    for hold in Hold.objects.filter(~Exists(opened) | Exists(closed)):
        yield f"hold of request {hold.request_id}: no matching entry, or closed already"
    lost = LedgerEntry.objects.filter(kind=Kind.HOLD).filter(
        ~Exists(closed), ~Exists(Hold.objects.filter(request_id=OuterRef("request_id")))
    )
    for entry in lost:
        yield f"request {entry.request_id}: {entry.held_change} were held, and nothing became of them"
    moved = LedgerEntry.objects.filter(kind__in=[Kind.HOLD, Kind.RELEASE])
    for entry in moved.exclude(available_change=-F("held_change")):
        yield f"request {entry.request_id}: {entry.kind} {entry.held_change}, but {entry.available_change} available"


def _closed() -> Iterator[str]:
    """What a request held is given back once: all of it by its release, or else by its settlement.

    A settlement after the release is charged, and takes nothing from what is held; so both sums tell all.
    """
    is_open = Exists(Hold.objects.filter(request_id=OuterRef("request_id")))
    entries = LedgerEntry.objects.exclude(request_id="").filter(~is_open, kind__in=OF_REQUESTS)
    of_release = Coalesce(Sum("held_change", filter=Q(kind=Kind.RELEASE)), 0)
    of_hold = Coalesce(Sum("held_change", filter=Q(kind=Kind.HOLD)), 0)
    requests = entries.order_by().values("request_id").annotate(
        held=Sum("held_change"), opened=of_hold, released=of_release,
        holds=Count("pk", filter=Q(kind=Kind.HOLD)), releases=Count("pk", filter=Q(kind=Kind.RELEASE)),
        wallets=Count("wallet", distinct=True),
    )  # fmt: skip
    wrong = ~Q(held=0) | ~Q(wallets=1) | Q(releases__gt=F("holds")) | (Q(releases__gt=0) & ~Q(released=-F("opened")))
    for row in requests.filter(wrong):
        yield (
            f"request {row['request_id']}: of {row['opened']} held {-row['released']} were released, and"
            f" {row['held']} are left of it after its end; {row['wallets']} balances"
        )


def _requests() -> Iterator[str]:
    settled = LedgerEntry.objects.filter(kind=Kind.SETTLE)
    charged = F("available_change") + F("held_change")
    for wrong in settled.annotate(charged=charged).exclude(Q(charged=0) | Q(charged=-F("cost"))):
        yield f"request {wrong.request_id}: cost {wrong.cost}, but {-wrong.charged} were charged"
    recorded = UsageRecord.objects.filter(request_id=OuterRef("request_id"))
    for entry in settled.filter(Exists(recorded.exclude(cost=OuterRef("cost")))):
        yield f"request {entry.request_id}: the usage record states another cost than the ledger"
    unsettled = UsageRecord.objects.exclude(
        Exists(settled.exclude(request_id="").filter(request_id=OuterRef("request_id")))
    )
    for record in unsettled:
        yield f"request {record.request_id}: usage was recorded, but nothing settled"
    twice = LedgerEntry.objects.exclude(request_id="").order_by().values("request_id", "kind").annotate(n=Count("pk"))
    for row in twice.filter(n__gt=1):
        yield f"request {row['request_id']}: {row['n']} entries of kind {row['kind']}"


def _hours() -> Iterator[str]:
    """The sums by the hour say what the settlements say, for ever: usage records may be cleaned up, these two never are."""
    entries = LedgerEntry.objects.filter(kind=Kind.SETTLE)
    settled = _figures(entries, "wallet__user_id", Count("pk"))
    summed = _figures(UsageHour.objects.all(), "user_id", Sum("requests"))
    for user_id in sorted(settled.keys() | summed.keys()):
        by_entries, by_hours = settled.get(user_id, (0, 0)), summed.get(user_id, (0, 0))
        if by_entries != by_hours:
            yield (
                f"user {user_id}: {by_entries[0]} settlements cost {by_entries[1]},"
                f" by the hour it is {by_hours[0]} requests and {by_hours[1]}"
            )


def _figures(rows: QuerySet[Any], user: str, requests: Count | Sum) -> dict[int, tuple[int, int]]:
    """User id → number of requests, and what they cost."""
    sums = rows.order_by().values(user).annotate(n_requests=requests, sum_cost=Sum("cost"))
    return {row[user]: (row["n_requests"], row["sum_cost"]) for row in sums}


def _budgets() -> Iterator[str]:
    for key in ApiKey.objects.filter(root=None).exclude(budget=None).exclude(budget_started=None):
        chain = [key.pk, *key.rotations.values_list("pk", flat=True)]
        holds = Hold.objects.filter(key__in=chain, budget_started=key.budget_started)
        held = holds.aggregate(total=Sum("budget_amount"))["total"] or 0
        settled = LedgerEntry.objects.filter(kind=Kind.SETTLE, key__in=chain, created_at__gte=key.budget_started)
        spent = settled.aggregate(total=Sum("cost"))["total"] or 0
        if not held <= key.budget_used <= held + spent:
            yield f"key {key.pk}: {key.budget_used} of its budget used, but {held} are held and {spent} spent in this period"


def _lots() -> Iterator[str]:
    wrong = ~Q(amount=F("entry__available_change")) | Q(unused__gt=F("amount")) | ~Q(wallet=F("entry__wallet"))
    for lot in CreditLot.objects.filter(wrong):
        yield f"lot {lot.pk}: {lot.unused} of {lot.amount} left, which its entry does not bear out"
    left = CreditLot.objects.filter(unused__gt=0)
    for lot in left.filter(Q(wallet__lots_end=None) | Q(wallet__lots_end__gt=F("expires_at"))):
        yield f"lot {lot.pk}: ends before its balance {lot.wallet_id} knows of it"


def _codes() -> Iterator[str]:
    reference = Concat(Value("code-"), Cast(OuterRef("pk"), CharField()))
    entries = LedgerEntry.objects.exclude(request_id="").filter(kind=Kind.REDEEM, request_id=reference)
    right = entries.filter(available_change=OuterRef("batch__amount"), wallet__user=OuterRef("used_by"))
    for code in RedeemCode.objects.filter(~Q(used_at=None) & ~Exists(right)):
        yield f"code {code.pk}: used, but nothing was credited for it"
    for code in RedeemCode.objects.filter(Q(used_at=None) & Exists(entries)):
        yield f"code {code.pk}: credited, but not marked as used"


CHECKS: list[Callable[[], Iterator[str]]] = [
    _wallets, _spending, _holds, _closed, _requests, _hours, _budgets, _lots, _codes,
]  # fmt: skip
