"""The form for a new API key. What is possible is decided by accounts.keys."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.keys import LIMITS, NewKey
from accounts.models import Period, Priority, Scope, User
from llmplatform.lib.configuration import MICRO

LIFETIMES = [
    ("", _("never")),
    ("7", _("in 7 days")),
    ("30", _("in 30 days")),
    ("90", _("in 90 days")),
    ("365", _("in a year")),
]


def _limit(label: Any) -> forms.IntegerField:
    return forms.IntegerField(label=label, min_value=0, max_value=2**31 - 1, required=False)


class KeyForm(forms.Form):
    name = forms.CharField(
        label=_("Name"),
        max_length=100,
        help_text=_("Where you use it, so that you know it again."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        label=_("May be used to"),
        choices=Scope.choices,
        initial=[Scope.INFERENCE],
        widget=forms.CheckboxSelectMultiple,
    )
    expires = forms.ChoiceField(label=_("Expires"), choices=LIFETIMES, required=False)
    models = forms.CharField(
        label=_("Only these models"), max_length=5000, required=False, help_text=_("Names with commas; empty: all.")
    )
    addresses = forms.CharField(
        label=_("Only from these addresses"),
        max_length=5000,
        required=False,
        help_text=_("Addresses or networks with commas, such as 10.0.0.0/8; empty: from anywhere."),
    )
    priority = forms.ChoiceField(
        label=_("Priority"),
        choices=Priority.choices,
        initial=Priority.INTERACTIVE,
        required=False,
        help_text=_("Batch: for programs that can wait until nobody else does."),
    )
    budget = forms.DecimalField(
        label=_("Budget in credits"), min_value=0, max_value=10**9, decimal_places=6, required=False
    )
    budget_period = forms.ChoiceField(
        label=_("Budget begins anew"), choices=[("", _("never")), *Period.choices], required=False
    )
    requests_per_minute = _limit(_("Requests a minute"))
    tokens_per_minute = _limit(_("Tokens a minute"))
    concurrent_requests = _limit(_("Requests at once"))

    def __init__(self, *args: Any, owner: User, **kwargs: Any) -> None:
        """What the owner's role does not permit is not offered: a key that has it could not use it."""
        super().__init__(*args, **kwargs)
        if not owner.is_staff:
            box = cast(forms.MultipleChoiceField, self.fields["scopes"])
            box.choices = [(value, label) for value, label in Scope.choices if value != Scope.MODELS_WRITE]

    @property
    def basic(self) -> list[Any]:
        return [self[name] for name in ("name", "expires")]

    @property
    def further(self) -> list[Any]:
        names = ("models", "addresses", "priority", "budget", "budget_period", *LIMITS)
        return [self[name] for name in names]

    @property
    def further_is_open(self) -> bool:
        """Somebody has filled in something there, or did so wrongly."""
        return any(
            field.errors or (self.is_bound and field.value() not in (None, "", field.initial)) for field in self.further
        )

    def wanted(self) -> NewKey:
        data = self.cleaned_data
        days, budget = data["expires"], data["budget"]
        return NewKey(
            name=data["name"],
            scopes=data["scopes"],
            allowed_models=_words(data["models"]),
            allowed_addresses=_words(data["addresses"]),
            expires_at=timezone.now() + timedelta(days=int(days)) if days else None,
            priority=data["priority"] or Priority.INTERACTIVE,
            budget=None if budget is None else int(Decimal(budget) * MICRO),
            budget_period=data["budget_period"],
            **{name: data[name] or 0 for name in LIMITS},
        )

    def add_service_error(self, error: ValidationError) -> None:
        fields = {"allowed_models": "models", "allowed_addresses": "addresses", "expires_at": "expires"}
        for name, texts in error.message_dict.items():
            field = fields.get(name, name)
            for text in texts:
                self.add_error(field if field in self.fields else None, text)


def _words(text: str) -> list[str]:
    """Separated by commas, Chinese ones too, or lines."""
    for separator in "，、;；\n\r\t":
        text = text.replace(separator, ",")
    return [word.strip() for word in text.split(",") if word.strip()]
