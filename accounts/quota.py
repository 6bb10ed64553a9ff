"""The ledger: wallets, holds, settlements and usage records. Beside it only ``accounts.credits`` changes balances.

A request is paid in two steps. ``hold_many`` sets aside the most the request can cost; ``settle_many`` charges what it did
cost, gives the rest back and writes the usage record. Both take a whole batch in one transaction, so that a busy gateway
commits once for many requests.

Invariants, proven by ``ledger_checks.ledger_problems`` and by tests:

- ``available`` = sum of ``available_change``, ``held`` = sum of ``held_change`` = sum of the open holds, neither below 0;
- a request id has at most one entry of each kind, so doing anything twice changes nothing the second time;
- ``available_change + held_change = -cost`` for a settlement, or 0 when the wallet is unlimited;
- ``spent`` = what settlements took = -sum of ``available_change + held_change`` over them;
- a key's ``budget_used`` is what its requests, and those of the keys it was rotated to, hold and spent since
  ``budget_started``; never above a budget left unchanged.

Why it is right under concurrency: a transaction first locks the wallets it changes, in the order of their ids (PostgreSQL:
row locks; SQLite: ``BEGIN IMMEDIATE`` locks all), and only then reads holds and entries. The change itself is a conditional
UPDATE whose row count is checked, and so are the holds that are taken: even without the locks nothing is overdrawn or given
back twice.

    QuotaError
    ├── InsufficientQuota    the balance does not cover the prompt and one token
    │   └── BudgetUsedUp     nor does what is left of the key's budget
    ├── RequestIdUsed        a finished request has this id, or another wallet's, or a change of another amount
    └── LedgerConflict       a wallet changed under our lock: the transaction was rolled back
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from accounts import journal, ledger_notes, lots
from accounts.ledger import Batch, LedgerConflict, Plain, QuotaError, counted, fitting
from accounts.models import Hold, LedgerEntry, UsageRecord, User, Wallet
from accounts.prices import Price, default_price
from llmplatform.lib import audit, process_identity

logger = logging.getLogger(__name__)
Kind = LedgerEntry.Kind

# One change is at most a billion credits, and a wallet stays far inside the database's 64-bit integers.
LARGEST_CHANGE = 10**15
RELEASED_AT_ONCE = 500
# Of a process on another machine, or on this one before it got another name, nobody here knows whether it lives. No answer takes
# so long; if one did, its settlement would still be charged, from what is available then.
OLDEST_HOLD = timedelta(seconds=journal.STRANGER_SECONDS)


class InsufficientQuota(QuotaError):
    pass


class BudgetUsedUp(InsufficientQuota):
    pass


class RequestIdUsed(QuotaError):
    pass


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Token counts: an upper bound for the prompt, the most that may be generated (0 for embeddings), and the least for which
    a hold is worth while: with less than that affordable, the request is refused. ``key_id``: the key that asks, if one does."""

    request_id: str
    wallet_id: int
    model_name: str
    prompt_bound: int
    max_tokens: int
    least_tokens: int = 1
    key_id: int | None = None
    price: Price = field(default_factory=default_price)


@dataclass(frozen=True, slots=True)
class Held:
    """``max_tokens`` is what balance and budget afford. ``unlimited``: nothing was held (an unlimited wallet, or price 0)."""

    request_id: str
    amount: int
    max_tokens: int
    unlimited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFigures:
    """What became of a request: all a usage record holds but the cost, which is computed here."""

    model_name: str
    endpoint: str
    status: int
    outcome: str  # UsageRecord.Outcome
    source: str = "api"
    replica: str = ""
    streamed: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_ms: int = 0
    first_token_ms: int | None = None
    duration_ms: int = 0
    tokens_per_second: float | None = None
    created_at: datetime = field(default_factory=timezone.now)
    resumed: int = 0  # how often another replica went on with the answer


USAGE_FIELDS = tuple(column.name for column in fields(UsageFigures))


@dataclass(frozen=True, slots=True)
class Settlement:
    """``price`` and ``key_id`` are those of the request's hold."""

    request_id: str
    wallet_id: int
    usage: UsageFigures
    key_id: int | None = None
    price: Price = field(default_factory=default_price)


# -- the way of a request --------------------------------------------------------------------------------------------


def hold_many(requests: Sequence[HoldRequest]) -> list[Held | InsufficientQuota | RequestIdUsed]:
    """Set money aside for each request, all in one transaction. A refusal is an exception in the list, not raised."""
    if all(request.price.is_free for request in requests):
        return [Held(request.request_id, 0, request.max_tokens, True) for request in requests]
    with transaction.atomic():
        batch = Batch((request.wallet_id for request in requests), (request.request_id for request in requests))
        batch.read_budgets(request.key_id for request in requests)
        lots.expire_due(batch, timezone.now())
        results = [_hold(batch, request) for request in requests]
        batch.write()
    return results


def hold(request: HoldRequest) -> Held:
    [result] = hold_many([request])
    if isinstance(result, QuotaError):
        raise result
    return result


def settle_many(settlements: Sequence[Settlement]) -> None:
    """Charge what each request used, give back the rest of its hold and record its usage. A request settled before is left alone.

    One settlement the database will not take does not spoil the others: then each is tried alone, and the bad one is logged.
    """
    try:
        _settle_batch(settlements)
    except (IntegrityError, DataError, LedgerConflict):
        logger.exception("a batch of %d settlements was refused; settling them one by one", len(settlements))
        for settlement in settlements:
            _settle_alone(settlement)


def settle(settlement: Settlement) -> None:
    settle_many([settlement])


def release_many(request_ids: Iterable[str]) -> int:
    """Give back the open holds of requests that never cost anything. Returns how many there were."""
    ids = list(request_ids)
    wallet_ids = list(Hold.objects.filter(request_id__in=ids).values_list("wallet_id", flat=True))
    if not wallet_ids:
        return 0
    with transaction.atomic():
        batch = Batch(wallet_ids, ids)
        holds = list(batch.take_holds())
        batch.read_budgets(row.key_id for row in holds if row.budget_amount)
        for row in holds:
            _give_back_budget(batch, row, 0)
            wallet = batch.wallets[row.wallet_id]
            batch.post(Kind.RELEASE, wallet, row.amount, -row.amount, request_id=row.request_id, key_id=row.key_id)
        batch.write()
    return len(holds)


def release_dead_holds() -> int:
    """Give back the holds of processes that are gone; the supervisor calls this every minute. Returns how many there were.

    What those processes have delivered stands in their journals and is settled first.
    """
    owners = Hold.objects.order_by().values_list("owner", flat=True).distinct()
    gone = [owner for owner in owners if process_identity.is_gone(owner)]
    strangers = [owner for owner in owners if not process_identity.is_from_here(owner)]
    too_old = Q(owner__in=strangers, created_at__lt=timezone.now() - OLDEST_HOLD)
    dead = Hold.objects.filter(Q(owner__in=gone) | too_old).order_by("id").values_list("request_id", flat=True)
    _settle_what_was_noted()  # also of processes that ended after the look at the owners: only whose is noted is released
    released = 0
    while count := release_many(dead[:RELEASED_AT_ONCE]):
        released += count
    if released:
        logger.warning("released %d holds of processes that are gone", released)
    return released


def _settle_what_was_noted() -> None:
    for path, notes in journal.left_behind():
        for note in sorted(notes, key=lambda note: bool(note.content[0]), reverse=True):  # final ones first
            _settle_noted(note)
        path.unlink(missing_ok=True)
        if notes:
            logger.warning("settled %d requests that a process which is gone had not settled", len(notes))


def _settle_noted(note: journal.Note) -> None:
    try:
        settle(_settlement_noted(note))
    except DatabaseError:
        raise  # the journal stays, and is tried again
    except Exception:  # from another version perhaps: no other request may wait for it
        logger.exception("this note cannot be settled: %r", note)


def note_of(settlement: Settlement, *, is_final: bool) -> list[Any]:
    """For the journal. Without ``is_final`` it is of an answer under way: how much was delivered is noted beside it."""
    usage = [getattr(settlement.usage, name) for name in USAGE_FIELDS]
    price = [settlement.price.prompt, settlement.price.cached, settlement.price.completion]
    return [is_final, settlement.request_id, settlement.wallet_id, settlement.key_id, price, usage]


def _settlement_noted(note: journal.Note) -> Settlement:
    is_final, request_id, wallet_id, key_id, price, values = note.content
    usage = dict(zip(USAGE_FIELDS, values, strict=False))  # new fields come last: older notes have fewer
    usage["created_at"] = datetime.fromisoformat(usage["created_at"])
    if not is_final:
        usage["completion_tokens"] = note.delivered
        usage["prompt_tokens"] *= bool(note.delivered)  # before the first token it is the server's fault, and free
    return Settlement(request_id, wallet_id, UsageFigures(**usage), key_id, Price(*price))


# -- balances --------------------------------------------------------------------------------------------------------


def open_wallet(user: User, *, unlimited: bool = False) -> Wallet:
    """The wallet of a new account, with the starting balance of its group or ``DEFAULT_TOKENS`` worth of credit in it, unless it
    is unlimited."""
    group = user.group
    with transaction.atomic():
        wallet = Wallet.objects.create(
            user=user, unlimited=unlimited, allowance_due=timezone.now() if group and group.allowance else None
        )
        start = settings.DEFAULT_TOKENS * settings.TOKEN_PRICE
        if group is not None and group.starting_balance is not None:
            start = group.starting_balance
        if start and not unlimited:
            note = ledger_notes.STARTING_BALANCE if group is None or group.starting_balance is None else group.name
            wallet = _change(
                wallet, Kind.GRANT, start, note, None, told=False
            )  # with the account, in the audit log too
        user.wallet = wallet
    return wallet


def ensure_wallet(user: User) -> Wallet:
    """The user's wallet, opened now for an account that was made without one (``createsuperuser``, an import)."""
    wallet = Wallet.objects.filter(user=user).first()
    if wallet is not None:
        return wallet
    try:
        with transaction.atomic():
            return open_wallet(user)
    except IntegrityError:  # another request has just opened it
        return Wallet.objects.get(user=user)


def grant(wallet: Wallet, amount: int, note: str = "", expires_at: datetime | None = None) -> Wallet:
    return _change(wallet, Kind.GRANT, amount, note, expires_at)


def top_up(
    wallet: Wallet, amount: int, note: str = "", expires_at: datetime | None = None, request_id: str = ""
) -> Wallet:
    """With ``request_id``, as for ``adjust``: done once, however often it is asked for. Raises RequestIdUsed when something else
    was done under this id."""
    return _change(wallet, Kind.TOPUP, amount, note, expires_at, request_id=request_id)


def adjust(wallet: Wallet, amount: int, note: str = "", request_id: str = "") -> Wallet:
    """A correction, up or down. Raises InsufficientQuota when less is available than is to be taken away."""
    return _change(wallet, Kind.ADJUST, amount, note, None, request_id=request_id)


def set_unlimited(wallet: Wallet, unlimited: bool) -> Wallet:
    with transaction.atomic():
        if Wallet.objects.filter(pk=wallet.pk, unlimited=not unlimited).update(unlimited=unlimited):
            tell(wallet, "unlimited", {"unlimited": not unlimited}, {"unlimited": unlimited})
    wallet.unlimited = unlimited
    return wallet


def tell(wallet: Wallet, verb: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """For the audit log, where a balance is one of the things that its user has."""
    audit.record(f"balance.{verb}", "user", wallet.user_id, wallet.user, before, after)


def _change(
    wallet: Wallet,
    kind: str,
    amount: int,
    note: str,
    expires_at: datetime | None,
    *,
    told: bool = True,
    request_id: str = "",
) -> Wallet:
    """Raises ValueError for an amount that cannot be, InsufficientQuota, and RequestIdUsed."""
    if not amount or abs(amount) > LARGEST_CHANGE or (amount < 0 and kind != Kind.ADJUST):
        raise ValueError(f"not an amount for a {kind}: {amount}")
    with transaction.atomic():
        batch = Batch([wallet.pk], [request_id] if request_id else [])
        current = batch.wallets[wallet.pk]
        if batch.kinds_posted(request_id):
            _check_same_change(request_id, wallet, amount, note)
            return current
        if current.available + amount < 0:
            raise InsufficientQuota
        before = {"available": current.available}
        lots.deposit(batch, current, kind, amount, note=note, request_id=request_id, expires_at=expires_at)
        batch.write()
        if told:
            after = {"available": current.available, "amount": amount, "note": note, "expires_at": expires_at}
            tell(current, kind, before, after)
    return current


def _check_same_change(request_id: str, wallet: Wallet, amount: int, note: str) -> None:
    entries = LedgerEntry.objects.filter(~Q(request_id=""), request_id=request_id, wallet=wallet)
    if not entries.filter(available_change=amount, note=fitting(LedgerEntry, "note", note)).exists():
        raise RequestIdUsed


# -- one request within a batch ------------------------------------------------------------------------------------


def _hold(batch: Batch, request: HoldRequest) -> Held | InsufficientQuota | RequestIdUsed:
    wallet = batch.wallets.get(request.wallet_id)
    if wallet is None:
        return InsufficientQuota()
    if batch.kinds_posted(request.request_id):
        return _held_before(batch, request)
    budget = batch.budgets.get(request.key_id or 0)
    if request.price.is_free or (wallet.unlimited and budget is None):
        return Held(request.request_id, 0, request.max_tokens, True)
    least, max_tokens = min(request.least_tokens, request.max_tokens), request.max_tokens
    if not wallet.unlimited:
        max_tokens = request.price.affordable_tokens(wallet.available, request.prompt_bound, max_tokens)
        if max_tokens < least:
            return InsufficientQuota()
    if budget is not None:
        max_tokens = request.price.affordable_tokens(budget.left, request.prompt_bound, max_tokens)
        if max_tokens < least:
            return BudgetUsedUp()
    return _post_hold(batch, wallet, request, max_tokens)


def _post_hold(batch: Batch, wallet: Wallet, request: HoldRequest, max_tokens: int) -> Held:
    bound = request.price.upper_bound(request.prompt_bound, max_tokens)
    amount = 0 if wallet.unlimited else bound
    hold = Plain(
        request_id=request.request_id,
        wallet_id=wallet.pk,
        amount=amount,
        key_id=request.key_id,
        budget_amount=0,
        budget_started=None,
        owner=process_identity.own_identity(),
    )
    if (budget := batch.budgets.get(request.key_id or 0)) is not None:
        hold.budget_amount, hold.budget_started = bound, budget.key.budget_started
        budget.change(bound, hold.budget_started)
    batch.new_holds[request.request_id] = hold
    batch.post(
        Kind.HOLD,
        wallet,
        -amount,
        amount,
        request_id=request.request_id,
        model_name=request.model_name,
        key_id=request.key_id,
    )
    return Held(request.request_id, amount, max_tokens, False)


def _held_before(batch: Batch, request: HoldRequest) -> Held | RequestIdUsed:
    """A retry of a request that still has its hold gets the same answer again; a finished one may not run a second time."""
    row = batch.new_holds.get(request.request_id) or Hold.objects.filter(request_id=request.request_id).first()
    if row is None or row.wallet_id != request.wallet_id:
        return RequestIdUsed()
    money = row.amount or row.budget_amount
    max_tokens = request.price.affordable_tokens(money, request.prompt_bound, request.max_tokens)
    return Held(request.request_id, row.amount, max(0, max_tokens), False)


def _give_back_budget(batch: Batch, hold: Plain, cost: int) -> None:
    """Of what the request held of its key's budget, all but what it cost."""
    budget = batch.budgets.get(hold.key_id or 0)
    if budget is not None and hold.budget_amount:
        budget.change(cost - hold.budget_amount, hold.budget_started)


def _settle_batch(settlements: Sequence[Settlement]) -> None:
    with transaction.atomic():
        batch = Batch((row.wallet_id for row in settlements), (row.request_id for row in settlements))
        holds = {(row.request_id, row.wallet_id): row for row in batch.take_holds()}
        batch.read_budgets(row.key_id for row in holds.values() if row.budget_amount)
        for settlement in settlements:
            _settle(batch, settlement, holds.get((settlement.request_id, settlement.wallet_id)))
        batch.write()


def _settle_alone(settlement: Settlement) -> None:
    try:
        _settle_batch([settlement])
    except (IntegrityError, DataError, LedgerConflict):
        logger.exception("request %s could not be settled", settlement.request_id)


def _settle(batch: Batch, settlement: Settlement, hold: Plain | None) -> None:
    wallet = batch.wallets.get(settlement.wallet_id)
    if wallet is None:
        logger.error("request %s cannot be settled: there is no wallet %d", settlement.request_id, settlement.wallet_id)
        return
    if Kind.SETTLE in batch.kinds_posted(settlement.request_id):
        return
    usage = settlement.usage
    held = hold.amount if hold else 0
    cost = settlement.price.cost(
        counted(usage.prompt_tokens), counted(usage.cached_tokens), counted(usage.completion_tokens)
    )
    paid = 0 if wallet.unlimited else min(cost, held + wallet.available)
    if paid < cost and not wallet.unlimited:
        logger.warning("request %s cost %d, only %d could be charged", settlement.request_id, cost, paid)
        cost = paid
    if hold is not None:
        _give_back_budget(batch, hold, cost)
    batch.post(
        Kind.SETTLE,
        wallet,
        held - paid,
        -held,
        cost=cost,
        request_id=settlement.request_id,
        model_name=usage.model_name,
        key_id=settlement.key_id,
    )
    batch.usage.append(_usage_record(settlement, wallet.user, cost))


# -- usage records ---------------------------------------------------------------------------------------------------


def _usage_record(settlement: Settlement, user: User, cost: int) -> Plain:
    usage = settlement.usage
    return Plain(
        request_id=settlement.request_id,
        user_id=user.pk,
        username=user.username,
        key_id=settlement.key_id,
        group_id=user.group_id,
        model_name=fitting(UsageRecord, "model_name", usage.model_name),
        endpoint=fitting(UsageRecord, "endpoint", usage.endpoint),
        source=fitting(UsageRecord, "source", usage.source),
        replica=fitting(UsageRecord, "replica", usage.replica),
        streamed=usage.streamed,
        status=usage.status,
        outcome=usage.outcome,
        prompt_tokens=counted(usage.prompt_tokens),
        cached_tokens=counted(usage.cached_tokens),
        completion_tokens=counted(usage.completion_tokens),
        cost=cost,
        queue_ms=counted(usage.queue_ms),
        first_token_ms=None if usage.first_token_ms is None else counted(usage.first_token_ms),
        duration_ms=counted(usage.duration_ms),
        tokens_per_second=usage.tokens_per_second,
        resumed=usage.resumed,
        created_at=usage.created_at,
    )
