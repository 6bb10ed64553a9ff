"""Credit that expires, within a transaction that has locked the wallet. Used by ``accounts.quota`` and ``accounts.credits``.

Spending draws on the lot that expires soonest. Between two moments at which a lot begins or ends, the lots are the same, so it is
enough to tell them then what was spent since (``wallet.spent - wallet.spent_at_lots``): a request writes nothing for them.

``wallet.lots_end`` tells each hold whether something may be over: then it is taken first, whether or not a sweep has run.

Of a lot that has expired, what is held by requests under way is not taken: it may yet be spent, and goes when it comes free.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from accounts.ledger import Batch
from accounts.models import CreditLot, LedgerEntry, Wallet

LARGEST_BALANCE = 10**18


def deposit(
    batch: Batch,
    wallet: Wallet,
    kind: str,
    amount: int,
    *,
    note: str = "",
    request_id: str = "",
    expires_at: datetime | None = None,
) -> None:
    """An entry that adds ``amount`` (or takes it, where that is allowed), and its lot if it expires. Raises ValueError when
    the balance would be too large."""
    if wallet.available + amount > LARGEST_BALANCE:
        raise ValueError("the balance would be too large")
    if expires_at is None:
        batch.post(kind, wallet, amount, 0, note=note, request_id=request_id)
        if amount < 0:  # may cut into the lots
            bring_up_to_date(wallet)
        return
    bring_up_to_date(wallet)
    if wallet.lots_end is None or expires_at < wallet.lots_end:
        _note_end(wallet, expires_at)
    entry_id = request_id or f"lot-{uuid.uuid4().hex}"
    batch.post(kind, wallet, amount, 0, note=note, request_id=entry_id)
    batch.new_lots[entry_id] = CreditLot(wallet=wallet, amount=amount, unused=amount, expires_at=expires_at)


def expire_due(batch: Batch, now: datetime) -> None:
    """What is over by now, of all wallets of the batch; without a query where nothing is."""
    for wallet in batch.wallets.values():
        if wallet.lots_end is not None and wallet.lots_end <= now:
            expire(batch, wallet, now)


def expire(batch: Batch, wallet: Wallet, now: datetime) -> int:
    """Takes what is left of the wallet's lots whose time is over, as far as it is not held. Returns how much."""
    taken, held = 0, wallet.held
    left = bring_up_to_date(wallet)
    for lot in left:
        if lot.expires_at > now:
            break
        # Running requests draw on these lots first: what they hold may yet be spent.
        drawn = min(lot.unused, held)
        held -= drawn
        amount = min(lot.unused - drawn, wallet.available)
        if not amount:
            continue
        # What is unused only ever falls, so the id is another one each time.
        batch.post(LedgerEntry.Kind.EXPIRE, wallet, -amount, 0, request_id=f"lot-{lot.pk}-{lot.unused}")
        lot.unused -= amount
        lot.save(update_fields=["unused"])
        taken += amount
    _note_end(wallet, next((lot.expires_at for lot in left if lot.unused), None))
    return taken


def _note_end(wallet: Wallet, end: datetime | None) -> None:
    if wallet.lots_end != end:
        wallet.lots_end = end
        Wallet.objects.filter(pk=wallet.pk).update(lots_end=end)


def bring_up_to_date(wallet: Wallet) -> list[CreditLot]:
    """Tells the lots what was spent since the last time. Returns those with something left, the soonest to expire first."""
    lots = list(CreditLot.objects.filter(wallet=wallet, unused__gt=0).order_by("expires_at", "pk"))
    spent = wallet.spent - wallet.spent_at_lots
    # A correction downwards may have taken more than was not in lots: then the longest-lived lots are the smaller.
    room = wallet.available + wallet.held
    for lot in lots:
        before = lot.unused
        used = min(spent, lot.unused)
        spent -= used
        lot.unused = min(lot.unused - used, room)
        room -= lot.unused
        if lot.unused != before:
            lot.save(update_fields=["unused"])
    if wallet.spent != wallet.spent_at_lots:
        wallet.spent_at_lots = wallet.spent
        Wallet.objects.filter(pk=wallet.pk).update(spent_at_lots=wallet.spent)
    return [lot for lot in lots if lot.unused]
