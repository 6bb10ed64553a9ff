"""A user's own page about money: what is there, what became of it, and redeeming a code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from accounts import attempts, credits, ledger_notes, prices, quota, selectors
from accounts.forms import RedeemForm
from accounts.models import CreditLot, LedgerEntry, User, Wallet
from llmplatform.lib.console.formats import rounded_credits, signed_credits

ROWS = 50
LOTS = 20


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as its owner reads it."""

    time: datetime
    kind: str
    about: str
    change: str
    is_gain: bool


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def balance(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)  # noqa: S101 - login_required stands before
    form = RedeemForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        status = _redeem(request, request.user, form)
        if status == 200:
            return redirect("account_balance")
    else:
        status = 400 if request.method == "POST" else 200
    return render(request, "accounts/balance.html", _context(request, request.user, form), status=status)


def _redeem(request: HttpRequest, user: User, form: RedeemForm) -> int:
    """The status to answer with; what went wrong stands in the form."""
    try:
        attempts.count("redeem", request.META.get("REMOTE_ADDR", ""))
        entry = credits.redeem(user, form.cleaned_data["code"])
    except attempts.TooManyAttempts as error:
        form.add_error("code", str(error))
        return 429
    except credits.CodeRefused as error:
        form.add_error("code", error.message())
        return 400
    except ValueError:
        form.add_error("code", _("The balance would be too large."))
        return 400
    text = _("%(credits)s credits were added to your balance.")
    messages.success(request, text % {"credits": rounded_credits(entry.available_change)})
    return 200


def _context(request: HttpRequest, user: User, form: RedeemForm) -> dict[str, Any]:
    wallet = quota.ensure_wallet(user)
    try:
        place = selectors.Place.parse(request.GET["after"]) if "after" in request.GET else None
    except ValueError:
        place = None
    rows = selectors.balance_changes(wallet.pk, place, ROWS + 1)
    return {
        "page": "account",
        "tab": "balance",
        "form": form,
        "wallet": wallet,
        "credits": rounded_credits(wallet.available),
        "held": rounded_credits(wallet.held) if wallet.held else "",
        "tokens": _tokens(wallet),
        "allowance": _allowance(user, wallet),
        "lots": _lots(wallet),
        "lines": [_line(row) for row in rows[:ROWS]],
        "next": selectors.Place.of(rows[ROWS - 1]) if len(rows) > ROWS else None,
    }


def _tokens(wallet: Wallet) -> int | None:
    price = prices.default_price().prompt
    return wallet.available // price if price else None


def _allowance(user: User, wallet: Wallet) -> dict[str, Any] | None:
    amount, period = wallet.allowance, wallet.get_allowance_period_display()
    if amount is None and user.group is not None:
        amount, period = user.group.allowance, user.group.get_allowance_period_display()
    return {"credits": rounded_credits(amount), "period": period, "next": wallet.allowance_due} if amount else None


def _lots(wallet: Wallet) -> list[dict[str, Any]]:
    """What expires when. What was spent since the lots were last brought up to date is taken off here in the same way."""
    spent, lots = wallet.spent - wallet.spent_at_lots, []
    rows = CreditLot.objects.filter(wallet=wallet, unused__gt=0, expires_at__gt=timezone.now())
    for lot in rows.order_by("expires_at", "pk")[:LOTS]:
        used = min(spent, lot.unused)
        spent -= used
        if lot.unused > used:
            lots.append({"credits": rounded_credits(lot.unused - used), "expires": lot.expires_at})
    return lots


def _line(entry: LedgerEntry) -> Line:
    change = entry.available_change + entry.held_change
    about = entry.model_name if entry.kind == LedgerEntry.Kind.SETTLE else ledger_notes.in_words(entry.note)
    kind = _("request") if entry.kind == LedgerEntry.Kind.SETTLE else entry.get_kind_display()
    return Line(entry.created_at, kind, about, signed_credits(change), change > 0)
