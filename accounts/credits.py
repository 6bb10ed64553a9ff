"""Credit that people are given: redeem codes, allowances, many top-ups at once, and its expiry.

CodeRefused    ``reason`` is ``unknown`` (also for a revoked batch), ``used`` or ``expired``
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import ledger_notes, lots, quota
from accounts.ledger import Batch
from accounts.models import CreditLot, Group, LedgerEntry, Period, RedeemBatch, RedeemCode, User, Wallet
from accounts.periods import period_end, period_start
from accounts.secrets_at_rest import keyed_hash
from llmplatform.lib import audit

logger = logging.getLogger(__name__)
Kind = LedgerEntry.Kind

MOST_CODES = 10_000
SECONDS = 1.0  # of one sweep: ten thousand members have their month begin at the same moment
LONGEST_PAUSE = 0.1
ALLOWANCE = ("allowance", "allowance_period")
# Without what is easily mistaken for something else (I, L, O, U and so 0 and 1 for them): Crockford's base 32.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MISREAD = str.maketrans("ILO", "110")
CODE_LENGTH = 20  # 100 bits
CODE_GROUP = 5


class CodeRefused(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def message(self) -> str:
        texts = {
            "used": _("This code was used already."),
            "expired": _("This code has expired."),
        }
        return texts.get(self.reason) or _("There is no such code. Mind each letter.")


# -- codes -----------------------------------------------------------------------------------------------------------


def make_codes(
    name: str,
    count: int,
    amount: int,
    *,
    expires_at: datetime | None = None,
    credit_days: int | None = None,
    by: User | None = None,
) -> tuple[RedeemBatch, list[str]]:
    """``count`` codes worth ``amount`` micro-credits each. The codes are told here and kept nowhere.

    ``credit_days``: how long the credit lasts once redeemed. Raises ValidationError with messages per field.
    """
    errors = {}
    if not 1 <= count <= MOST_CODES:
        errors["count"] = _("A whole number from 1 to %(high)d.") % {"high": MOST_CODES}
    if not 0 < amount <= quota.LARGEST_CHANGE:
        errors["amount"] = _("Not a possible amount.")
    if expires_at is not None and expires_at <= timezone.now():
        errors["expires_at"] = _("This time is over already.")
    if credit_days is not None and not 1 <= credit_days <= 36500:
        errors["credit_days"] = _("A whole number from 1 to %(high)d.") % {"high": 36500}
    if errors:
        raise ValidationError(errors)
    codes = [_new_code() for _number in range(count)]
    with transaction.atomic():
        batch = RedeemBatch.objects.create(
            name=name, count=count, amount=amount, expires_at=expires_at, credit_days=credit_days, created_by=by
        )
        rows = (RedeemCode(batch=batch, hash=_code_hash(code), last4=code[-4:]) for code in codes)
        RedeemCode.objects.bulk_create(rows, batch_size=1000)
        audit.on(batch, "create", after=audit.fields_of(batch))
    return batch, codes


def revoke_codes(batch: RedeemBatch) -> None:
    """Those of the batch that nobody has used yet are worth nothing from now on."""
    now = timezone.now()
    with transaction.atomic():
        if RedeemBatch.objects.filter(pk=batch.pk, revoked_at=None).update(revoked_at=now):
            left = batch.codes.filter(used_at=None).count()
            before, after = {"revoked_at": None, "codes_left": left}, {"revoked_at": now, "codes_left": 0}
            audit.on(batch, "revoke", before, after)
    batch.refresh_from_db(fields=["revoked_at"])


def redeem(user: User, code: str) -> LedgerEntry:
    """Raises CodeRefused. Of any number who send the same code at once, one gets the credit."""
    wallet = quota.ensure_wallet(user)
    now = timezone.now()
    with transaction.atomic():
        found = RedeemCode.objects.select_related("batch").filter(hash=_code_hash(code)).first()
        if found is None or found.batch.revoked_at is not None:
            raise CodeRefused("unknown")
        if found.batch.expires_at is not None and found.batch.expires_at <= now:
            raise CodeRefused("expired")
        if not RedeemCode.objects.filter(pk=found.pk, used_at=None).update(used_at=now, used_by=user):
            raise CodeRefused("used")
        batch = Batch([wallet.pk], [])
        lasts = found.batch.credit_days
        lots.deposit(
            batch,
            batch.wallets[wallet.pk],
            Kind.REDEEM,
            found.batch.amount,
            note=found.batch.name,
            request_id=f"code-{found.pk}",
            expires_at=now + timedelta(days=lasts) if lasts else None,
        )
        batch.write()
        quota.tell(wallet, "redeem", {}, {"amount": found.batch.amount, "note": found.batch.name})
        return LedgerEntry.objects.get(request_id=f"code-{found.pk}", kind=Kind.REDEEM)


def _new_code() -> str:
    code = "".join(secrets.choice(ALPHABET) for _place in range(CODE_LENGTH))
    return "-".join(code[start : start + CODE_GROUP] for start in range(0, CODE_LENGTH, CODE_GROUP))


def _code_hash(code: str) -> str:
    """However it was typed: small letters, spaces, no dashes, O for 0."""
    typed = "".join(letter for letter in code[:200].upper() if letter.isalnum())
    return keyed_hash("redeem code", typed.translate(MISREAD))


# -- many at once ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreditRow:
    """``amount`` in micro-credits, above 0."""

    username: str
    amount: int
    note: str = ""


def top_up_many(rows: Sequence[CreditRow], *, batch: str) -> bool:
    """All rows or none. ``batch`` names the whole: a second call with it changes nothing and returns False.

    User names are compared ignoring case, where only one fits. Raises ValidationError with a message per wrong row (``rows``).
    """
    people = _people_named(row.username for row in rows)
    errors = [text for number, row in enumerate(rows, 1) if (text := _row_problem(number, row, people))]
    if errors or not rows:
        raise ValidationError({"rows": errors or [_("There is no row.")]})
    wallets = [_wallet_of(people[row.username]).pk for row in rows]
    ids = [f"topup-{batch}-{number}" for number in range(len(rows))]
    with transaction.atomic():
        changes = Batch(wallets, ids)
        if any(changes.kinds_posted(request_id) for request_id in ids):
            return False
        with audit.in_one_go():
            for number, (row, wallet_id, request_id) in enumerate(zip(rows, wallets, ids, strict=True), 1):
                _top_up_one(changes, changes.wallets[wallet_id], number, row, request_id)
        changes.write()
    return True


def _top_up_one(changes: Batch, wallet: Wallet, number: int, row: CreditRow, request_id: str) -> None:
    before = {"available": wallet.available}
    try:
        lots.deposit(changes, wallet, Kind.TOPUP, row.amount, note=row.note, request_id=request_id)
    except ValueError as error:
        text = _("Row %(row)d: the balance would be too large.") % {"row": number}
        raise ValidationError({"rows": [text]}) from error
    quota.tell(wallet, "topup", before, {"available": wallet.available, "amount": row.amount, "note": row.note})


def _people_named(names: Iterable[str]) -> dict[str, User]:
    """Exactly so, else the only one that fits ignoring case: a database may tell letters apart that Python does not."""
    people = User.objects.filter(service_of=None).select_related("wallet").only("username", "wallet")
    exact = {user.username: user for user in people}
    by_lower: dict[str, list[User]] = {}
    for user in exact.values():
        by_lower.setdefault(user.username.lower(), []).append(user)
    found = {}
    for name in names:
        fitting = by_lower.get(name.lower(), [])
        if name in exact:
            found[name] = exact[name]
        elif len(fitting) == 1:
            found[name] = fitting[0]
    return found


def _row_problem(number: int, row: CreditRow, people: Mapping[str, User]) -> str:
    if row.username not in people:
        return _("Row %(row)d: there is no user “%(name)s”.") % {"row": number, "name": row.username}
    if not 0 < row.amount <= quota.LARGEST_CHANGE:
        return _("Row %(row)d: not a possible amount.") % {"row": number}
    return ""


def _wallet_of(user: User) -> Wallet:
    """Without a query where the row brought it along."""
    return user.wallet if hasattr(user, "wallet") else quota.ensure_wallet(user)


# -- allowances ------------------------------------------------------------------------------------------------------


def set_allowance(wallet: Wallet, amount: int | None, period: str = Period.MONTH) -> None:
    """A person's own allowance: so many micro-credits at the beginning of each period, of which the rest goes at its end.

    None: as the group has it. 0: none. What was given for the running period stays as it is; a first allowance comes at once.
    """
    _check_allowance(amount, period)
    with transaction.atomic():
        before = audit.fields_of(Wallet.objects.get(pk=wallet.pk), *ALLOWANCE)
        Wallet.objects.filter(pk=wallet.pk).update(allowance=amount, allowance_period=period)
        quota.tell(wallet, "allowance", before, {"allowance": amount, "allowance_period": period})
    allowances_changed(Wallet.objects.filter(pk=wallet.pk).values_list("user_id", flat=True))


def set_group_allowance(group: Group, amount: int, period: str = Period.MONTH) -> None:
    """As ``set_allowance``, for every member without an own one."""
    _check_allowance(amount, period)
    with transaction.atomic():
        before = audit.fields_of(Group.objects.get(pk=group.pk), *ALLOWANCE)
        Group.objects.filter(pk=group.pk).update(allowance=amount, allowance_period=period)
        audit.on(group, "update", before, {"allowance": amount, "allowance_period": period})
    allowances_changed(User.objects.filter(group=group).values_list("pk", flat=True))


def allowances_changed(user_ids: Iterable[int]) -> None:
    """Looks at these people's allowances now: their amount, or their group, has changed. The supervisor does what is left
    of very many."""
    _are_due(Wallet.objects.filter(user_id__in=list(user_ids)), timezone.now())
    give_allowances()


def give_allowances(now: datetime | None = None, seconds: float = SECONDS) -> int:
    """What is due, for so long at most. Returns how many were given; doing it twice, or in two processes, gives each once."""
    now = now or timezone.now()
    _bring_back(now)
    due = Wallet.objects.filter(allowance_due__lte=now).order_by("allowance_due", "pk").values_list("pk", flat=True)
    return _each_wallet(list(due), lambda wallet_id: _give_allowance(wallet_id, now), seconds)


def _each_wallet(wallet_ids: Iterable[int], change: Callable[[int], int], seconds: float) -> int:
    """The sum of what ``change`` returns. It has a transaction of its own; the rest is the next call's.

    A wallet that fails is logged and stops none of those behind it, unless the database is not to be reached. After each one it
    waits as long as that took, so that whoever else wants to write gets in.
    """
    end = time.monotonic() + seconds
    total = 0
    for wallet_id in wallet_ids:
        began = time.monotonic()
        if began >= end:
            break
        try:
            total += change(wallet_id)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # the loop's edge: everybody else's credit must not depend on this wallet
            logger.exception("wallet %d was left as it is", wallet_id)
        if not connection.in_atomic_block:  # a caller's transaction would keep them out all the same
            time.sleep(min(time.monotonic() - began, LONGEST_PAUSE))
    return total


def _bring_back(now: datetime) -> None:
    """A clock was far ahead and is set right: what would be due later than at the next period's beginning is looked at now."""
    ahead = Q()
    for period in Period.values:
        own = Q(allowance__isnull=False, allowance_period=period)
        groups = Q(allowance=None, user__group__allowance_period=period)
        ahead |= (own | groups) & Q(allowance_due__gt=period_end(period, now))
    _are_due(Wallet.objects.filter(ahead), now)


def _are_due(wallets: QuerySet[Wallet], now: datetime) -> None:
    """Locks them in order, as everybody does: an UPDATE of many takes them as it finds them, and two of it end in a deadlock."""
    ids = list(wallets.values_list("pk", flat=True))
    if ids:  # asked first: an UPDATE that finds nothing would take SQLite's only lock all the same
        with transaction.atomic():
            Batch(ids, [])
            Wallet.objects.filter(pk__in=ids).update(allowance_due=now)


def _give_allowance(wallet_id: int, now: datetime) -> bool:
    with transaction.atomic():
        batch = Batch([wallet_id], [])
        wallet = batch.wallets[wallet_id]
        rules = Wallet.objects.select_related("user__group").get(pk=wallet_id)
        if rules.allowance_due is None or rules.allowance_due > now:  # another process was here
            return False
        group = rules.user.group
        amount, period = rules.allowance, rules.allowance_period
        if amount is None:
            amount, period = (group.allowance, group.allowance_period) if group else (0, period)
        until = period_end(period, now)
        Wallet.objects.filter(pk=wallet_id).update(allowance_due=until if amount else None)
        lots.expire(batch, wallet, now)
        request_id = f"allowance-{wallet_id}-{period}-{period_start(period, now):%Y-%m-%d}"
        is_given = LedgerEntry.objects.filter(~Q(request_id=""), request_id=request_id, kind=Kind.GRANT).exists()
        if amount and not is_given:
            lots.deposit(
                batch, wallet, Kind.GRANT, amount, request_id=request_id, expires_at=until, note=ledger_notes.ALLOWANCE
            )
        batch.write()
        return bool(amount) and not is_given


def _check_allowance(amount: int | None, period: str) -> None:
    if amount is not None and not 0 <= amount <= quota.LARGEST_CHANGE:
        raise ValidationError({"allowance": _("Not a possible amount.")})
    if period not in Period.values:
        raise ValidationError({"allowance_period": _("Not a possible period.")})


# -- expiry ----------------------------------------------------------------------------------------------------------


def expire_lots(now: datetime | None = None, seconds: float = SECONDS) -> int:
    """Takes back credit whose time is over, for so long at most. Returns how much, in micro-credits. What is held is taken when
    it comes free."""
    now = now or timezone.now()
    over = CreditLot.objects.filter(expires_at__lte=now, unused__gt=0).order_by().values_list("wallet_id", flat=True)
    return _each_wallet(list(over.distinct()), lambda wallet_id: _expire(wallet_id, now), seconds)


def _expire(wallet_id: int, now: datetime) -> int:
    with transaction.atomic():
        batch = Batch([wallet_id], [])
        taken = lots.expire(batch, batch.wallets[wallet_id], now)
        batch.write()
    return taken
