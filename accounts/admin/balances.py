"""Balances: shown and changed on more than one page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminRadioSelectWidget

from accounts import credits, ledger_notes, quota
from accounts.admin.fields import CreditsField, LimitField, SelectField, text_input
from accounts.models import Group, Period, User, Wallet
from llmplatform.lib.console import formats
from llmplatform.lib.console.actions import NamedDialogForm, back, confirmed_action, origin
from llmplatform.lib.console.badges import badge
from llmplatform.lib.console.pages import OnceForm, once

LONGEST_DAYS = 36500


def balance_text(wallet: Wallet | None) -> str | SafeString:
    if wallet is None:
        return formats.NOTHING
    return badge(_("unlimited"), "good") if wallet.unlimited else formats.credits(wallet.available)


def allowance_text(amount: int, period: str) -> str:
    if not amount:
        return formats.NOTHING
    return _("%(credits)s credits %(period)s") % {
        "credits": formats.credits(amount),
        "period": Period(period).label,
    }


def name_url(user: User) -> str:
    """The page of a person, or of the group whose service account it is."""
    if user.service_of_id:
        return reverse("admin:accounts_group_change", args=[user.service_of_id])
    return reverse("admin:accounts_user_change", args=[user.pk])


def owner_name(user: User) -> str | SafeString:
    """A person's user name; a service account's group, marked as such."""
    service = user.service_of
    return user.username if service is None else format_html("{} {}", service.name, badge(_("service"), "busy"))


# -- dialogs -------------------------------------------------------------------------------------------------------


def wallet_of(target: Model) -> Wallet:
    """The wallet that a page is about: a balance's own, a person's, or the one of a group's services."""
    if isinstance(target, Wallet):
        return target
    user = get_object_or_404(User, service_of=target) if isinstance(target, Group) else cast(User, target)
    wallet = quota.ensure_wallet(user)
    wallet.user = user
    return wallet


class WalletForm(NamedDialogForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wallet = wallet_of(self.target)


class AmountForm(OnceForm, WalletForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["credits"].widget.attrs["autofocus"] = True


class TopUpForm(AmountForm):
    credits = CreditsField(label=gettext_lazy("Credits"))
    days = LimitField(
        label=gettext_lazy("Days the credit lasts"),
        min_value=1,
        max_value=LONGEST_DAYS,
        help_text=gettext_lazy("Empty: for ever. What is not used by then goes."),
    )
    note = forms.CharField(label=gettext_lazy("Note"), max_length=200, required=False, widget=text_input())


class CorrectForm(AmountForm):
    credits = CreditsField(
        label=gettext_lazy("Credits"),
        negative=True,
        help_text=gettext_lazy("Below 0 takes away; never more than is available."),
    )
    note = forms.CharField(label=gettext_lazy("Reason"), max_length=200, widget=text_input())

    def clean_credits(self) -> int:
        amount: int = self.cleaned_data["credits"]
        if not amount:
            raise ValidationError(_("0 changes nothing."))
        return amount


class UnlimitedForm(WalletForm):
    unlimited = forms.ChoiceField(
        label=gettext_lazy("When the balance is used up"),
        choices=[
            ("no", gettext_lazy("requests are refused")),
            ("yes", gettext_lazy("requests go on: unlimited")),
        ],
        widget=UnfoldAdminRadioSelectWidget(),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["unlimited"].initial = "yes" if self.wallet.unlimited else "no"


class AllowanceForm(WalletForm):
    credits = CreditsField(
        label=gettext_lazy("Credits"),
        zero=True,
        required=False,
        help_text=gettext_lazy("Empty: as the group has it. 0: none."),
    )
    period = SelectField(label=gettext_lazy("Begins anew"), choices=Period.choices)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["credits"].initial = self.wallet.allowance
        self.fields["period"].initial = self.wallet.allowance_period


class BalanceActions:
    """Actions for pages whose rows have a wallet."""

    def _return(self, request: HttpRequest, object_id: str) -> HttpResponse:
        opts = self.opts  # type: ignore[attr-defined]
        url = reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[object_id])
        return back(request, origin(request, url))

    def _change_once(
        self, request: HttpRequest, form: AmountForm, object_id: str, change: Callable[[], Wallet], done: str
    ) -> HttpResponse | None:
        """None when it cannot be: the form then says why."""
        try:
            changed = once(request, form, change)
        except quota.InsufficientQuota:
            form.wallet.refresh_from_db(fields=["available"])
            text = _("Only %(credits)s credits are available.") % {"credits": formats.credits(form.wallet.available)}
            form.add_error("credits", text)
            return None
        except ValueError:
            form.add_error("credits", _("The balance would be too large."))
            return None
        if changed is not None:
            messages.success(request, done)
        return self._return(request, object_id)

    @confirmed_action(
        title=gettext_lazy("Top up"),
        text=gettext_lazy("The amount is added to the balance at once and stands in the ledger."),
        submit=gettext_lazy("Top up"),
        icon="add_card",
        form_class=TopUpForm,
    )
    def top_up(self, request: HttpRequest, form: TopUpForm, object_id: str) -> HttpResponse | None:
        wallet, filled = form.wallet, form.cleaned_data
        amount, days = filled["credits"], filled["days"]
        note = filled["note"] or ledger_notes.by(request.user.get_username())
        until = timezone.now() + timedelta(days=days) if days else None
        done = _("%(credits)s credits added for %(name)s.")
        done %= {"credits": formats.credits(amount), "name": wallet.user.username}
        return self._change_once(request, form, object_id, lambda: quota.top_up(wallet, amount, note, until), done)

    @confirmed_action(
        title=gettext_lazy("Correct"),
        text=gettext_lazy("For mistakes: adds to the balance or takes away. It stands in the ledger with its reason."),
        submit=gettext_lazy("Correct"),
        icon="exposure",
        form_class=CorrectForm,
    )
    def correct(self, request: HttpRequest, form: CorrectForm, object_id: str) -> HttpResponse | None:
        wallet, amount, note = form.wallet, form.cleaned_data["credits"], form.cleaned_data["note"]
        done = _("The balance of %(name)s was corrected by %(credits)s credits.")
        done %= {"credits": formats.signed_credits(amount), "name": wallet.user.username}
        return self._change_once(request, form, object_id, lambda: quota.adjust(wallet, amount, note), done)

    @confirmed_action(
        title=gettext_lazy("Unlimited"),
        text=gettext_lazy("Usage of an unlimited account is recorded like any other, and never refused for its cost."),
        submit=gettext_lazy("Save"),
        icon="all_inclusive",
        form_class=UnlimitedForm,
    )
    def unlimited_or_not(self, request: HttpRequest, form: UnlimitedForm, object_id: str) -> HttpResponse:
        unlimited = form.cleaned_data["unlimited"] == "yes"
        wallet = quota.set_unlimited(form.wallet, unlimited)
        text = _("%(name)s is unlimited now.") if unlimited else _("%(name)s is limited by the balance now.")
        messages.success(request, text % {"name": wallet.user.username})
        return self._return(request, object_id)

    @confirmed_action(
        title=gettext_lazy("Allowance"),
        text=gettext_lazy(
            "Credits at the beginning of each day, week or month; what is left of them goes at its end. The first comes at once."
        ),
        submit=gettext_lazy("Save"),
        icon="event_repeat",
        form_class=AllowanceForm,
    )
    def set_allowance(self, request: HttpRequest, form: AllowanceForm, object_id: str) -> HttpResponse:
        wallet = form.wallet
        credits.set_allowance(wallet, form.cleaned_data["credits"], form.cleaned_data["period"])
        messages.success(request, _("The allowance of %(name)s was saved.") % {"name": wallet.user.username})
        return self._return(request, object_id)
