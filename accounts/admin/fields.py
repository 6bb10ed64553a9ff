"""Fields that the console's forms about people, groups, keys and money share: amounts in credits, models, limits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import (
    INPUT_CLASSES,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from llmplatform.lib.console.formats import MICRO
from llmplatform.lib.model_names import model_aliases, model_names

SMALLEST = Decimal("0.000001")
LARGEST = Decimal(10**9)


def text_input(**attrs: Any) -> UnfoldAdminTextInputWidget:
    return UnfoldAdminTextInputWidget(attrs=attrs)


def text_area(rows: int = 4, **attrs: Any) -> UnfoldAdminTextareaWidget:
    return UnfoldAdminTextareaWidget(attrs={"rows": rows, **attrs})


class CreditsField(forms.DecimalField):
    """An amount in credits as people write it; whole micro-credits to the program, as value and as initial value."""

    def __init__(self, *, zero: bool = False, negative: bool = False, **kwargs: Any) -> None:
        least = -LARGEST if negative else Decimal(0) if zero else SMALLEST
        widget = UnfoldAdminDecimalFieldWidget(attrs={"step": "any", "inputmode": "decimal"})
        super().__init__(**{"min_value": least, "max_value": LARGEST, "decimal_places": 6, "widget": widget, **kwargs})

    def clean(self, value: Any) -> int | None:
        amount = super().clean(value)
        return None if amount is None else int(amount * MICRO)

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, int):
            return value
        amount = Decimal(value) / MICRO
        return f"{amount.normalize():f}"

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


class LimitField(forms.IntegerField):
    def __init__(self, **kwargs: Any) -> None:
        widget = UnfoldAdminIntegerFieldWidget(attrs={"min": 0, "inputmode": "numeric"})
        super().__init__(**{"min_value": 0, "max_value": 2**31 - 1, "required": False, "widget": widget, **kwargs})


class SelectField(forms.ChoiceField):
    widget = UnfoldAdminSelectWidget


class MomentField(forms.DateTimeField):
    """Day and minute, in the reader's time zone; a field of the browser's own, which needs no script."""

    widget = forms.DateTimeInput

    def __init__(self, **kwargs: Any) -> None:
        attrs = {"type": "datetime-local", "class": " ".join(INPUT_CLASSES)}
        super().__init__(widget=forms.DateTimeInput(attrs=attrs, format="%Y-%m-%dT%H:%M"), **kwargs)

    def clean(self, value: Any) -> datetime | None:
        moment: datetime | None = super().clean(value)
        if moment is not None and moment <= timezone.now():
            raise ValidationError(_("This time is over already."))
        return moment


# -- which models ------------------------------------------------------------------------------------------------------

ALL, CHOSEN = "all", "chosen"


class ModelsFormMixin(forms.Form):
    """``which_models`` and ``allowed_models``. Two fields, since an empty list means all: taking away the last model of a
    list must not open all of them."""

    which_models = forms.ChoiceField(
        label=gettext_lazy("Models"),
        choices=[(ALL, gettext_lazy("all models")), (CHOSEN, gettext_lazy("only those chosen below"))],
        initial=ALL,
        widget=UnfoldAdminRadioSelectWidget(),
    )
    allowed_models = forms.MultipleChoiceField(
        label=gettext_lazy("Chosen models"), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget()
    )

    def offer_models(self, stored: Iterable[str]) -> None:
        """All models there are, their aliases, and those of the row that are gone: they stay allowed, should they come back."""
        there, kept = {name: name for name in model_names()}, list(stored)
        for alias, name in model_aliases().items():
            there[alias] = _("%(alias)s (alias of %(name)s)") % {"alias": alias, "name": name}
        gone = [(name, _("%(name)s (does not exist now)") % {"name": name}) for name in kept if name not in there]
        field = self.fields["allowed_models"]
        field.choices = [*there.items(), *gone]  # type: ignore[attr-defined]
        field.initial = kept
        self.fields["which_models"].initial = CHOSEN if kept else ALL

    def chosen_models(self) -> list[str]:
        return [] if self.cleaned_data.get("which_models") == ALL else self.cleaned_data.get("allowed_models", [])

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("which_models") == CHOSEN and not cleaned.get("allowed_models"):
            self.add_error("allowed_models", ValidationError(_("Choose at least one model, or “all models”.")))
        return cleaned
