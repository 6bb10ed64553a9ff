"""One transaction on the ledger. Used by ``accounts.quota``, ``credits`` and ``lots`` only, which say what the rules are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from django.db import connection
from django.db.models import CharField, DateTimeField, Model, Q
from django.utils import timezone

from accounts.models import ApiKey, CreditLot, Hold, LedgerEntry, UsageRecord, User, Wallet
from accounts.periods import period_end, period_start
from accounts.usage_hours import add_to_hours

Row = TypeVar("Row", bound=Model)
# What becomes a row or was one, its columns as attributes: making an object of the model takes longer than the database does.
Plain = SimpleNamespace

LARGEST_COUNT = 2**31 - 1  # of the counters in a usage record


class QuotaError(Exception):
    pass


class LedgerConflict(QuotaError):
    pass


class Batch:
    """Changes to some wallets within the running transaction.

    Making it locks the wallets and reads what the ledger knows of the requests; ``post`` notes a change; ``write`` stores
    everything with a fixed number of statements. The lock of a wallet is also that of its owner's keys' budgets, holds, lots
    and sums by the hour: none of them is written without it.
    """

    def __init__(self, wallet_ids: Iterable[int], request_ids: Iterable[str]) -> None:
        self.wallets = _locked_wallets(wallet_ids)
        self.budgets: dict[int, Budget] = {}  # by the key that asks; rotated keys have one together
        self.request_ids = list(request_ids)
        self.entries: list[Plain] = []  # of LedgerEntry
        self.new_holds: dict[str, Plain] = {}
        self.new_lots: dict[str, CreditLot] = {}  # by the request id of the entry that brings the credit
        self.usage: list[Plain] = []  # of UsageRecord
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
        key_id: int | None = None,
        note: str = "",
    ) -> None:
        wallet.available += available
        wallet.held += held
        if kind == LedgerEntry.Kind.SETTLE:
            wallet.spent -= available + held
        self._posted.setdefault(request_id, set()).add(kind)
        self.entries.append(
            Plain(
                wallet_id=wallet.pk,
                kind=kind,
                available_change=available,
                held_change=held,
                cost=cost,
                request_id=request_id,
                model_name=fitting(LedgerEntry, "model_name", model_name),
                key_id=key_id,
                note=fitting(LedgerEntry, "note", note),
            )
        )

    def take_holds(self) -> Iterator[Plain]:
        """The open holds of this batch's requests on the locked wallets; they are deleted here and are the caller's to settle."""
        rows = _rows_in(Hold, HOLD_FIELDS, "request_id", self.request_ids)
        holds = [hold for row in rows if (hold := _hold_of(row)).wallet_id in self.wallets]
        if holds:
            ids = [hold.id for hold in holds]
            with connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {Hold._meta.db_table} WHERE id IN ({_marks(ids)})", ids)  # noqa: S608 - names of our own tables and columns
                if cursor.rowcount != len(ids):
                    raise LedgerConflict  # another transaction has just taken one of them
        yield from holds

    def read_budgets(self, key_ids: Iterable[int | None]) -> None:
        """Of those keys that have one."""
        known = {budget.key.pk: budget for budget in self.budgets.values()}
        for key_id, key in _budget_holders({key_id for key_id in key_ids if key_id is not None} - self.budgets.keys()):
            if key.pk not in known:
                known[key.pk] = Budget(key)
                known[key.pk].take_holds_along()
            self.budgets[key_id] = known[key.pk]

    def write(self) -> None:
        _update_wallets(self.entries)
        _update_budgets({budget.key.pk: budget for budget in self.budgets.values()}.values())
        _insert(LedgerEntry, self.entries)
        _insert(Hold, self.new_holds.values())
        _insert(UsageRecord, self.usage)
        if self.usage:
            add_to_hours(self.usage)
        if self.new_lots:
            self._write_lots()

    def _write_lots(self) -> None:
        entries = LedgerEntry.objects.filter(request_id__in=self.new_lots)
        ids = dict(entries.exclude(request_id="").values_list("request_id", "pk"))
        for request_id, lot in self.new_lots.items():
            lot.entry_id = ids[request_id]
        CreditLot.objects.bulk_create(self.new_lots.values())


class Budget:
    """What a key may spend in its present period, and what of it is used: held or spent. ``key`` is the holder's row."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self.used_before, self.started_before = key.budget_used, key.budget_started
        self.ahead: datetime | None = None
        now = timezone.now()
        started = period_start(key.budget_period, now) if key.budget_period else now
        latest = period_end(key.budget_period, now) if key.budget_period else now
        if key.budget_started is None or (key.budget_period and started > key.budget_started):
            key.budget_started, key.budget_used = started, 0
        elif key.budget_started > latest:
            # A clock was far ahead and is set right. A period further it may stay so, and always what is used stays: after a
            # clock that went wrong nobody gets an old period's budget again.
            self.ahead, key.budget_started = key.budget_started, started

    @property
    def left(self) -> int:
        return (self.key.budget or 0) - self.key.budget_used

    def take_holds_along(self) -> None:
        """Where the period was brought back: what is held in it is still given back to it."""
        if self.ahead is not None:
            chain = ApiKey.objects.filter(Q(pk=self.key.pk) | Q(root=self.key.pk))
            Hold.objects.filter(key__in=chain, budget_started=self.ahead).update(budget_started=self.key.budget_started)

    def change(self, amount: int, started: datetime | None) -> None:
        """What was held in a period that is over is not given back to the present one."""
        if started is not None and started in (self.key.budget_started, self.ahead):
            self.key.budget_used = max(0, self.key.budget_used + amount)


# -- statements ------------------------------------------------------------------------------------------------------
# Written out, since every request passes here twice: composing them anew costs several times what the database takes.

# Fields stand in the order in which the models have them: ``from_db`` wants it so.
HOLD_FIELDS = ("id", "request_id", "wallet_id", "amount", "key_id", "budget_amount", "budget_started", "owner")
WALLET_FIELDS = ("id", "user_id", "available", "held", "unlimited", "spent", "spent_at_lots", "lots_end")
USER_FIELDS = ("id", "username", "group_id")
BUDGET_FIELDS = ("id", "budget", "budget_period", "budget_used", "budget_started")


def _budget_holders(key_ids: Collection[int]) -> list[tuple[int, ApiKey]]:
    """Each of the keys and the row that counts for it, where there is a budget."""
    ids = sorted(key_ids)
    if not ids:
        return []
    columns, table = ",".join(f"r.{name}" for name in BUDGET_FIELDS), ApiKey._meta.db_table
    tables = f"{table} k JOIN {table} r ON r.id = COALESCE(k.root_id, k.id)"
    with connection.cursor() as cursor:
        sql = f"SELECT k.id,{columns} FROM {tables} WHERE r.budget IS NOT NULL AND k.id IN ({_marks(ids)})"  # noqa: S608 - names of our own tables and columns
        cursor.execute(sql, ids)
        rows = cursor.fetchall()
    found = [(row[0], _loaded(ApiKey, BUDGET_FIELDS, row[1:])) for row in rows]
    for _key_id, key in found:
        key.budget_started = _time(key.budget_started)
    return found


def _marks(values: Sequence[Any]) -> str:
    return ",".join(["%s"] * len(values))


def _rows_in(model: type[Model], fields: Sequence[str], key: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    if not values:
        return []
    with connection.cursor() as cursor:
        table = model._meta.db_table
        cursor.execute(f"SELECT {','.join(fields)} FROM {table} WHERE {key} IN ({_marks(values)})", values)  # noqa: S608 - names of our own tables and columns
        return cast(list[tuple[Any, ...]], cursor.fetchall())


def _loaded(model: type[Row], fields: Sequence[str], values: Sequence[Any]) -> Row:
    return model.from_db(connection.alias, fields, values)


def _hold_of(row: Sequence[Any]) -> Plain:
    hold = Plain(**dict(zip(HOLD_FIELDS, row, strict=True)))
    hold.budget_started = _time(hold.budget_started)
    return hold


def _time(value: Any) -> Any:
    """SQLite gives times without their zone, which is UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


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
        wallet.lots_end = _time(wallet.lots_end)
        wallet.user = _loaded(User, USER_FIELDS, row[len(WALLET_FIELDS) :])
        wallets[wallet.pk] = wallet
    return wallets


class _Insertion:
    """Into one table: rows whose columns hold what the database takes, but for times, which need a form of their own."""

    def __init__(self, model: type[Model]) -> None:
        fields: list[Any] = [field for field in model._meta.concrete_fields if not field.primary_key]
        columns = ",".join(str(field.column) for field in fields)
        self.sql = f"INSERT INTO {model._meta.db_table} ({columns}) VALUES ({_marks(fields)})"  # noqa: S608 - names of our own tables and columns
        self.times = [place for place, field in enumerate(fields) if isinstance(field, DateTimeField)]
        self.is_now = [field.attname for field in fields if getattr(field, "auto_now_add", False)]
        self.values_of = attrgetter(*[field.attname for field in fields])

    def execute(self, rows: Iterable[Plain]) -> None:
        now, adapt = timezone.now(), connection.ops.adapt_datetimefield_value
        lines = []
        for row in rows:
            row.__dict__.update(dict.fromkeys(self.is_now, now))
            line = list(self.values_of(row))
            for place in self.times:
                line[place] = line[place] and adapt(line[place])
            lines.append(line)
        with connection.cursor() as cursor:
            cursor.executemany(self.sql, lines)


_insertion = cache(_Insertion)


def _insert(model: type[Model], rows: Collection[Plain]) -> None:
    if rows:
        _insertion(model).execute(rows)


def _update_wallets(entries: Iterable[Plain]) -> None:
    changes: dict[int, list[int]] = {}
    for entry in entries:
        change = changes.setdefault(entry.wallet_id, [0, 0, 0])
        change[0] += entry.available_change
        change[1] += entry.held_change
        if entry.kind == LedgerEntry.Kind.SETTLE:
            change[2] -= entry.available_change + entry.held_change
    _update_all(
        "UPDATE accounts_wallet SET available = available + %s, held = held + %s, spent = spent + %s"
        " WHERE id = %s AND available + %s >= 0 AND held + %s >= 0",
        [(a, h, s, wallet_id, a, h) for wallet_id, (a, h, s) in sorted(changes.items()) if a or h or s],
    )


def _update_budgets(budgets: Iterable[Budget]) -> None:
    adapt = connection.ops.adapt_datetimefield_value
    _update_all(
        "UPDATE accounts_apikey SET budget_used = %s, budget_started = %s WHERE id = %s AND budget_used = %s",
        [
            (budget.key.budget_used, adapt(budget.key.budget_started), budget.key.pk, budget.used_before)
            for budget in budgets
            if (budget.key.budget_used, budget.key.budget_started) != (budget.used_before, budget.started_before)
        ],
    )


def _update_all(sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Raises LedgerConflict unless each of the conditional updates finds its row."""
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)
        if cursor.rowcount != len(rows):
            raise LedgerConflict


def fitting(model: type[LedgerEntry | UsageRecord], field_name: str, value: str) -> str:
    """Cut to what the column takes: a name too long, or with a NUL that PostgreSQL refuses, must not stop a settlement."""
    return value.replace("\x00", "")[: _longest(model, field_name)]


@cache
def _longest(model: type[Model], field_name: str) -> int | None:
    return cast("CharField[str, str]", model._meta.get_field(field_name)).max_length


def counted(value: float) -> int:
    return max(0, min(int(value), LARGEST_COUNT))
