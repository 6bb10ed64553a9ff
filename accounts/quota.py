"""The ledger: the only writer of wallets, holds, ledger entries and usage records.

A request is paid in two steps. ``hold_many`` sets aside the most the request can cost; ``settle_many`` charges what it did
cost, gives the rest back and writes the usage record. Both take a whole batch in one transaction, so that a busy gateway
commits once for many requests.

Invariants, proven by ``ledger_checks.ledger_problems`` and by tests:

- ``available`` = sum of ``available_change``, ``held`` = sum of ``held_change`` = sum of the open holds, neither below 0;
- a request id has at most one entry of each kind, so doing anything twice changes nothing the second time;
- ``available_change + held_change = -cost`` for a settlement, or 0 when the wallet is unlimited.

Why it is right under concurrency: a transaction first locks the wallets it changes, in the order of their ids (PostgreSQL:
row locks; SQLite: ``BEGIN IMMEDIATE`` locks all), and only then reads holds and entries. The change itself is a conditional
UPDATE whose row count is checked, so that even without the locks nothing could be overdrawn.

    QuotaError
    ├── InsufficientQuota    the balance does not cover the prompt and one token
    ├── RequestIdUsed        a finished request has this id, or another wallet's
    └── LedgerConflict       a wallet changed under our lock: the transaction was rolled back
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.conf import settings
from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from accounts.ledger import Batch, LedgerConflict, QuotaError, counted, fitting
from accounts.models import Hold, LedgerEntry, UsageRecord, User, Wallet
from llmplatform.lib import process_identity

logger = logging.getLogger(__name__)
Kind = LedgerEntry.Kind

# One change is at most a billion credits, and a wallet stays far inside the database's 64-bit integers.
LARGEST_CHANGE = 10**15
LARGEST_BALANCE = 10**18
RELEASED_AT_ONCE = 500


class InsufficientQuota(QuotaError):
    pass


class RequestIdUsed(QuotaError):
    pass


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Token counts: an upper bound for the prompt, the most that may be generated (0 for embeddings), and the least for which
    a hold is worth while: with less than that affordable, the request is refused."""

    request_id: str
    wallet_id: int
    model_name: str
    prompt_bound: int
    max_tokens: int
    least_tokens: int = 1


@dataclass(frozen=True, slots=True)
class Held:
    """``max_tokens`` is what the balance affords. ``unlimited``: nothing was held (an unlimited wallet, or price 0)."""

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


@dataclass(frozen=True, slots=True)
class Settlement:
    request_id: str
    wallet_id: int
    usage: UsageFigures


# -- the way of a request --------------------------------------------------------------------------------------------


def hold_many(requests: Sequence[HoldRequest]) -> list[Held | InsufficientQuota | RequestIdUsed]:
    """Set money aside for each request, all in one transaction. A refusal is an exception in the list, not raised."""
    if not settings.TOKEN_PRICE:
        return [Held(request.request_id, 0, request.max_tokens, True) for request in requests]
    with transaction.atomic():
        batch = Batch((request.wallet_id for request in requests), (request.request_id for request in requests))
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
        for row in holds:
            batch.post(Kind.RELEASE, batch.wallets[row.wallet_id], row.amount, -row.amount, request_id=row.request_id)
        batch.write()
    return len(holds)


def release_dead_holds() -> int:
    """Give back the holds of processes that are gone; the supervisor calls this every minute. Returns how many there were."""
    owners = Hold.objects.order_by().values_list("owner", flat=True).distinct()
    gone = [owner for owner in owners if process_identity.is_gone(owner)]
    released = 0
    while gone:
        ids = Hold.objects.filter(owner__in=gone).order_by("id").values_list("request_id", flat=True)[:RELEASED_AT_ONCE]
        count = release_many(ids)
        if not count:
            break
        released += count
    if released:
        logger.warning("released %d holds of processes that are gone", released)
    return released


# -- balances --------------------------------------------------------------------------------------------------------


def open_wallet(user: User, *, unlimited: bool = False) -> Wallet:
    """The wallet of a new account, with ``DEFAULT_TOKENS`` worth of credit in it unless it is unlimited."""
    with transaction.atomic():
        wallet = Wallet.objects.create(user=user, unlimited=unlimited)
        if not unlimited and settings.DEFAULT_TOKENS * settings.TOKEN_PRICE:
            wallet = grant(wallet, settings.DEFAULT_TOKENS * settings.TOKEN_PRICE, note="DEFAULT_TOKENS")
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


def grant(wallet: Wallet, amount: int, note: str = "") -> Wallet:
    return _change(wallet, Kind.GRANT, amount, note)


def top_up(wallet: Wallet, amount: int, note: str = "") -> Wallet:
    return _change(wallet, Kind.TOPUP, amount, note)


def adjust(wallet: Wallet, amount: int, note: str = "") -> Wallet:
    """A correction, up or down. Raises InsufficientQuota when less is available than is to be taken away."""
    return _change(wallet, Kind.ADJUST, amount, note)


def set_unlimited(wallet: Wallet, unlimited: bool) -> Wallet:
    Wallet.objects.filter(pk=wallet.pk).update(unlimited=unlimited)
    wallet.unlimited = unlimited
    return wallet


def _change(wallet: Wallet, kind: str, amount: int, note: str) -> Wallet:
    if not amount or abs(amount) > LARGEST_CHANGE or (amount < 0 and kind != Kind.ADJUST):
        raise ValueError(f"not an amount for a {kind}: {amount}")
    with transaction.atomic():
        batch = Batch([wallet.pk], [])
        current = batch.wallets[wallet.pk]
        if current.available + amount < 0:
            raise InsufficientQuota
        if current.available + amount > LARGEST_BALANCE:
            raise ValueError("the balance would be too large")
        batch.post(kind, current, amount, 0, note=note)
        batch.write()
    return current


# -- one request within a batch ------------------------------------------------------------------------------------


def _hold(batch: Batch, request: HoldRequest) -> Held | InsufficientQuota | RequestIdUsed:
    price = settings.TOKEN_PRICE
    wallet = batch.wallets.get(request.wallet_id)
    if wallet is None:
        return InsufficientQuota()
    if batch.kinds_posted(request.request_id):
        return _held_before(batch, request)
    if wallet.unlimited:
        return Held(request.request_id, 0, request.max_tokens, True)
    affordable = wallet.available // price - request.prompt_bound
    if affordable < min(request.least_tokens, request.max_tokens):
        return InsufficientQuota()
    max_tokens = min(request.max_tokens, affordable)
    amount = (request.prompt_bound + max_tokens) * price
    batch.post(Kind.HOLD, wallet, -amount, amount, request_id=request.request_id, model_name=request.model_name)
    batch.new_holds[request.request_id] = Hold(
        request_id=request.request_id, wallet=wallet, amount=amount, owner=process_identity.own_identity()
    )
    return Held(request.request_id, amount, max_tokens, False)


def _held_before(batch: Batch, request: HoldRequest) -> Held | RequestIdUsed:
    """A retry of a request that still has its hold gets the same answer again; a finished one may not run a second time."""
    row = batch.new_holds.get(request.request_id) or Hold.objects.filter(request_id=request.request_id).first()
    if row is None or row.wallet_id != request.wallet_id:
        return RequestIdUsed()
    max_tokens = row.amount // settings.TOKEN_PRICE - request.prompt_bound
    return Held(request.request_id, row.amount, max(0, min(max_tokens, request.max_tokens)), False)


def _settle_batch(settlements: Sequence[Settlement]) -> None:
    with transaction.atomic():
        batch = Batch((row.wallet_id for row in settlements), (row.request_id for row in settlements))
        holds = {(row.request_id, row.wallet_id): row for row in batch.take_holds()}
        for settlement in settlements:
            _settle(batch, settlement, holds.get((settlement.request_id, settlement.wallet_id)))
        batch.write()


def _settle_alone(settlement: Settlement) -> None:
    try:
        _settle_batch([settlement])
    except (IntegrityError, DataError, LedgerConflict):
        logger.exception("request %s could not be settled", settlement.request_id)


def _settle(batch: Batch, settlement: Settlement, hold: Hold | None) -> None:
    wallet = batch.wallets.get(settlement.wallet_id)
    if wallet is None:
        logger.error("request %s cannot be settled: there is no wallet %d", settlement.request_id, settlement.wallet_id)
        return
    if Kind.SETTLE in batch.kinds_posted(settlement.request_id):
        return
    usage = settlement.usage
    held = hold.amount if hold else 0
    cost = (counted(usage.prompt_tokens) + counted(usage.completion_tokens)) * settings.TOKEN_PRICE
    paid = 0 if wallet.unlimited else min(cost, held + wallet.available)
    if paid < cost and not wallet.unlimited:
        logger.warning("request %s cost %d, only %d could be charged", settlement.request_id, cost, paid)
        cost = paid
    batch.post(
        Kind.SETTLE,
        wallet,
        held - paid,
        -held,
        cost=cost,
        request_id=settlement.request_id,
        model_name=usage.model_name,
    )
    batch.usage.append(_usage_record(settlement, wallet.user, cost))


# -- usage records ---------------------------------------------------------------------------------------------------


def _usage_record(settlement: Settlement, user: User, cost: int) -> UsageRecord:
    usage = settlement.usage
    return UsageRecord(
        request_id=settlement.request_id,
        user=user,
        username=user.username,
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
        created_at=usage.created_at,
    )
