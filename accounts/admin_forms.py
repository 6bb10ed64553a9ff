"""Forms of the console for people: one choice of role instead of Django's two flags, amounts in credits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _
from unfold.forms import UserCreationForm
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import User
from llmplatform.lib.console.actions import NamedDialogForm
from llmplatform.lib.console.formats import MICRO

ROLES = [
    ("user", _("user: chats and calls the API")),
    ("operator", _("operator: models, machines, usage of others")),
    ("admin", _("administrator: everything, users and balances too")),
]


class RoleFormMixin:
    """Adds ``role`` and refuses what would leave the service without an administrator."""

    base_fields: dict[str, forms.Field]
    cleaned_data: dict[str, Any]
    instance: User
    editor: User | None = None  # who fills in the form; set by the page

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data  # type: ignore[misc]
        role = cleaned.get("role", "user")
        active = cleaned.get("is_active", True)
        if self.editor and self.instance.pk == self.editor.pk and (role != "admin" or not active):
            raise ValidationError(_("You cannot take your own access away: another administrator can."))
        self.instance.is_superuser = role == "admin"
        self.instance.is_staff = role in {"admin", "operator"}
        return cleaned


def role_field() -> forms.ChoiceField:
    return forms.ChoiceField(label=_("Role"), choices=ROLES, initial="user", widget=UnfoldAdminSelectWidget())


class PersonChangeForm(RoleFormMixin, forms.ModelForm):  # type: ignore[type-arg]
    role = role_field()
    language = forms.ChoiceField(
        label=_("Language"),
        required=False,
        choices=[("", _("as the browser asks")), *settings.LANGUAGES],
        widget=UnfoldAdminSelectWidget(),
    )

    class Meta:
        model = User
        fields = ("username", "email", "is_active", "must_change_password", "language")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].initial = self.instance.role
        self.fields["is_active"].help_text = _(
            "Off: the person cannot log in, and tokens stop working. Nobody is deleted."
        )


class PersonCreationForm(RoleFormMixin, UserCreationForm):
    role = role_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.pop("usable_password", None)  # there is no other way to log in yet


class TopUpForm(NamedDialogForm):
    credits = forms.DecimalField(
        label=_("Credits"),
        min_value=Decimal("0.000001"),
        max_value=Decimal(10**9),
        decimal_places=6,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"autofocus": True, "step": "any"}),
    )
    note = forms.CharField(label=_("Note"), max_length=200, required=False, widget=UnfoldAdminTextInputWidget(attrs={}))

    @property
    def micro_credits(self) -> int:
        return int(self.cleaned_data["credits"] * MICRO)
