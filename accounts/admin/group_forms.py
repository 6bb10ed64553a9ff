"""The form of the console for groups: amounts in credits, models that exist or existed."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.admin.fields import CreditsField, LimitField, ModelsFormMixin, SelectField, text_input
from accounts.models import Group, Period
from accounts.models.people import HEAVIEST
from llmplatform.lib.console import formats

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
MEMBER_LIMITS = tuple(f"member_{name}" for name in LIMITS)
COLUMNS = (
    "name", "description", "starting_balance", "allowance", "allowance_period", *LIMITS, *MEMBER_LIMITS, "queue_weight",
)  # fmt: skip


class GroupForm(ModelsFormMixin, forms.ModelForm):  # type: ignore[type-arg]
    starting_balance = CreditsField(label=gettext_lazy("Starting balance (credits)"), zero=True, required=False)
    allowance = CreditsField(
        label=gettext_lazy("Allowance (credits)"),
        zero=True,
        required=False,
        help_text=gettext_lazy(
            "For each member at the beginning of each period; what is left of it goes at its end. Empty: none."
        ),
    )
    allowance_period = SelectField(label=gettext_lazy("Begins anew"), choices=Period.choices, initial=Period.MONTH)
    requests_per_minute = LimitField(label=gettext_lazy("Requests per minute"))
    tokens_per_minute = LimitField(label=gettext_lazy("Tokens per minute"))
    concurrent_requests = LimitField(label=gettext_lazy("Requests at once"))
    member_requests_per_minute = LimitField(label=gettext_lazy("Requests per minute"))
    member_tokens_per_minute = LimitField(label=gettext_lazy("Tokens per minute"))
    member_concurrent_requests = LimitField(label=gettext_lazy("Requests at once"))
    queue_weight = LimitField(
        label=gettext_lazy("Weight"),
        min_value=1,
        max_value=HEAVIEST,
        required=True,
        initial=1,
        help_text=gettext_lazy(
            "While people wait for a model, a member of a group with weight 3 gets three times as many tokens as "
            "somebody with weight 1."
        ),
    )

    class Meta:
        model = Group
        fields = COLUMNS
        widgets = {"name": text_input(), "description": text_input()}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offer_models(self.instance.allowed_models)
        start = settings.DEFAULT_TOKENS * settings.TOKEN_PRICE
        self.fields["starting_balance"].help_text = _("For new members. Empty: %(credits)s, as for everybody.") % {
            "credits": formats.credits(start)
        }
        for name in (*LIMITS, *MEMBER_LIMITS):
            self.fields[name].help_text = _("Empty: no limit.")
            if not getattr(self.instance, name):
                self.initial[name] = None

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if Group.objects.filter(name__iexact=name).exclude(pk=self.instance.pk).exists():
            raise ValidationError(_("There is a group of this name already."))
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        for name in (*LIMITS, *MEMBER_LIMITS, "allowance"):
            cleaned[name] = cleaned.get(name) or 0
        return cleaned

    def group_fields(self) -> dict[str, Any]:
        """What was filled in, by the names of the table's columns."""
        return {**{name: self.cleaned_data[name] for name in COLUMNS}, "allowed_models": self.chosen_models()}
