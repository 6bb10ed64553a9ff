"""One transaction on the ledger. Used by ``accounts.quota`` only, which says what the rules are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, cast

from django.db import connection
from django.db.models import CharField, DateTimeField, Model
from django.utils import timezone

from accounts.models import Hold, LedgerEntry, UsageRecord, User, Wallet

Row = TypeVar("Row", bound=Model)

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
        # The index on request ids leaves out "", and is used only for a query that does so too.
        for request_id, kind in _rows_in(
            LedgerEntry, ("request_id", "kind"), "NOT (request_id = '') AND request_id", self.request_ids
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
        rows = _rows_in(Hold, HOLD_FIELDS, "request_id", self.request_ids)
        holds = [hold for row in rows if (hold := _loaded(Hold, HOLD_FIELDS, row)).wallet_id in self.wallets]
        if holds:
            ids = [hold.pk for hold in holds]
            _execute(f"DELETE FROM {Hold._meta.db_table} WHERE id IN ({_marks(ids)})", ids)  # noqa: S608 - names of our own tables and columns
        yield from holds

    def write(self) -> None:
        _update_wallets(self.entries)
        _insert(LedgerEntry, self.entries)
        _insert(Hold, list(self.new_holds.values()))
        _insert(UsageRecord, self.usage)


# -- statements ------------------------------------------------------------------------------------------------------
# Written out, since every request passes here twice: composing them anew costs several times what the database takes.

# Fields stand in the order in which the models have them: ``from_db`` wants it so.
HOLD_FIELDS = ("id", "request_id", "wallet_id", "amount", "owner")
WALLET_FIELDS = ("id", "user_id", "available", "held", "unlimited")
USER_FIELDS = ("id", "username")


def _marks(values: Sequence[Any]) -> str:
    return ",".join(["%s"] * len(values))


def _execute(sql: str, parameters: Sequence[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def _rows_in(model: type[Model], fields: Sequence[str], key: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    if not values:
        return []
    with connection.cursor() as cursor:
        table = model._meta.db_table
        cursor.execute(f"SELECT {','.join(fields)} FROM {table} WHERE {key} IN ({_marks(values)})", values)  # noqa: S608 - names of our own tables and columns
        return cast(list[tuple[Any, ...]], cursor.fetchall())


def _loaded(model: type[Row], fields: Sequence[str], values: Sequence[Any]) -> Row:
    return model.from_db(connection.alias, fields, values)


def _locked_wallets(wallet_ids: Iterable[int]) -> dict[int, Wallet]:
    ids = sorted(set(wallet_ids))
    if not ids:
        return {}
    columns = ",".join([f"w.{name}" for name in WALLET_FIELDS] + [f"u.{name}" for name in USER_FIELDS])
    tables = f"{Wallet._meta.db_table} w JOIN {User._meta.db_table} u ON u.id = w.user_id"
    lock = " FOR NO KEY UPDATE OF w" if connection.features.has_select_for_no_key_update else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {tables} WHERE w.id IN ({_marks(ids)}) ORDER BY w.id{lock}", ids)  # noqa: S608 - names of our own tables and columns
        rows = cursor.fetchall()
    wallets = {}
    for row in rows:
        wallet = _loaded(Wallet, WALLET_FIELDS, row[: len(WALLET_FIELDS)])
        wallet.unlimited = bool(wallet.unlimited)  # SQLite has numbers only
        wallet.user = _loaded(User, USER_FIELDS, row[len(WALLET_FIELDS) :])
        wallets[wallet.pk] = wallet
    return wallets


@cache
def _insertion(model: type[Model]) -> tuple[str, list[Any]]:
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    columns = ",".join(str(field.column) for field in fields)
    return f"INSERT INTO {model._meta.db_table} ({columns}) VALUES ({_marks(fields)})", fields  # noqa: S608 - names of our own tables and columns


def _insert(model: type[Row], rows: Sequence[Row]) -> None:
    """New rows whose fields hold what the columns take; only times need a form of their own."""
    if not rows:
        return
    sql, fields = _insertion(model)
    now, adapt = timezone.now(), connection.ops.adapt_datetimefield_value

    def value(row: Row, field: Any) -> Any:
        if isinstance(field, DateTimeField):
            return adapt(now if field.auto_now_add else getattr(row, field.attname))
        return getattr(row, field.attname)

    with connection.cursor() as cursor:
        cursor.executemany(sql, [[value(row, field) for field in fields] for row in rows])


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
