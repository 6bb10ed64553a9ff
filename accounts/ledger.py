"""One transaction on the ledger. Used by ``accounts.quota`` only, which says what the rules are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from django.db import connection
from django.db.models import CharField

from accounts.models import Hold, LedgerEntry, UsageRecord, Wallet

LARGEST_COUNT = 2**31 - 1  # of the counters in a usage record


class QuotaError(Exception):
    pass


class LedgerConflict(QuotaError):
    pass


class Batch:
    """Changes to some wallets within the running transaction.

    Making it locks the wallets and reads what the ledger knows of the requests; ``post`` notes a change; ``write`` stores
    everything with a fixed number of statements.
    """

    def __init__(self, wallet_ids: Iterable[int], request_ids: Iterable[str]) -> None:
        self.wallets = _locked_wallets(wallet_ids)
        self.request_ids = list(request_ids)
        self.entries: list[LedgerEntry] = []
        self.new_holds: dict[str, Hold] = {}
        self.usage: list[UsageRecord] = []
        self._posted: dict[str, set[str]] = {}
        if self.request_ids:
            for request_id, kind in LedgerEntry.objects.filter(request_id__in=self.request_ids).values_list(
                "request_id", "kind"
            ):
                self._posted.setdefault(request_id, set()).add(kind)

    def kinds_posted(self, request_id: str) -> set[str]:
        return self._posted.get(request_id, set())

    def post(
        self,
        kind: str,
        wallet: Wallet,
        available: int,
        held: int,
        *,
        cost: int = 0,
        request_id: str = "",
        model_name: str = "",
        note: str = "",
    ) -> None:
        wallet.available += available
        wallet.held += held
        self._posted.setdefault(request_id, set()).add(kind)
        self.entries.append(
            LedgerEntry(
                wallet=wallet,
                kind=kind,
                available_change=available,
                held_change=held,
                cost=cost,
                request_id=request_id,
                model_name=fitting(LedgerEntry, "model_name", model_name),
                note=fitting(LedgerEntry, "note", note),
            )
        )

    def take_holds(self) -> Iterator[Hold]:
        """The open holds of this batch's requests on the locked wallets; they are deleted here and are the caller's to settle."""
        holds = list(Hold.objects.filter(request_id__in=self.request_ids, wallet_id__in=self.wallets))
        if holds:
            Hold.objects.filter(pk__in=[row.pk for row in holds]).delete()
        yield from holds

    def write(self) -> None:
        _update_wallets(self.entries)
        if self.entries:
            LedgerEntry.objects.bulk_create(self.entries)
        if self.new_holds:
            Hold.objects.bulk_create(self.new_holds.values())
        if self.usage:
            UsageRecord.objects.bulk_create(self.usage)


def _locked_wallets(wallet_ids: Iterable[int]) -> dict[int, Wallet]:
    rows = (
        Wallet.objects.select_for_update(of=("self",), no_key=True)
        .select_related("user")
        .only("available", "held", "unlimited", "user__username")
        .filter(pk__in=set(wallet_ids))
        .order_by("pk")
    )
    return {wallet.pk: wallet for wallet in rows}


def _update_wallets(entries: Iterable[LedgerEntry]) -> None:
    changes: dict[int, list[int]] = {}
    for entry in entries:
        change = changes.setdefault(entry.wallet_id, [0, 0])
        change[0] += entry.available_change
        change[1] += entry.held_change
    rows = [(a, h, wallet_id, a, h) for wallet_id, (a, h) in sorted(changes.items()) if a or h]
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE accounts_wallet SET available = available + %s, held = held + %s"
            " WHERE id = %s AND available + %s >= 0 AND held + %s >= 0",
            rows,
        )
        if cursor.rowcount != len(rows):
            raise LedgerConflict


def fitting(model: type[LedgerEntry | UsageRecord], field_name: str, value: str) -> str:
    """Cut to what the column takes: a name too long, or with a NUL that PostgreSQL refuses, must not stop a settlement."""
    column = cast("CharField[str, str]", model._meta.get_field(field_name))
    return value.replace("\x00", "")[: column.max_length]


def counted(value: float) -> int:
    return max(0, min(int(value), LARGEST_COUNT))
