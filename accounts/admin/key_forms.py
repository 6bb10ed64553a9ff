"""Forms of the console for API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectWidget

from accounts.admin.fields import (
    CreditsField,
    LimitField,
    ModelsFormMixin,
    MomentField,
    SelectField,
    text_area,
    text_input,
)
from accounts.models import ApiKey, Group, Period, Priority, Scope, User
from llmplatform.lib.console.actions import NamedDialogForm
from llmplatform.lib.console.pages import OnceForm

OVERLAPS = {
    "0": gettext_lazy("none: the old key stops at once"),
    "1": gettext_lazy("1 hour"),
    "24": gettext_lazy("1 day"),
    "168": gettext_lazy("7 days"),
    "720": gettext_lazy("30 days"),
}
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
RULES = ("name", "scopes", "which_models", "allowed_models", "expires_at", "allowed_addresses", "priority", "budget",
         "budget_period", *LIMITS)  # fmt: skip


class KeyRulesForm(ModelsFormMixin, forms.Form):
    """What a key may do."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        widget=text_input(),
        help_text=gettext_lazy("What it is for, such as the program's name."),
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("What it may do"),
        choices=Scope.choices,
        initial=[Scope.INFERENCE],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text=gettext_lazy("Never more than its owner."),
    )
    expires_at = MomentField(label=gettext_lazy("Expires"), required=False, help_text=gettext_lazy("Empty: never."))
    allowed_addresses = forms.CharField(
        label=gettext_lazy("Addresses"),
        required=False,
        widget=text_area(3, placeholder="10.0.0.0/8"),
        help_text=gettext_lazy("One address or network a line, IPv4 or IPv6. Empty: from anywhere."),
    )
    priority = SelectField(
        label=gettext_lazy("Priority"),
        choices=Priority.choices,
        initial=Priority.INTERACTIVE,
        required=False,
        help_text=gettext_lazy("Batch requests wait until no interactive one does; after a minute they count as such."),
    )
    budget = CreditsField(
        label=gettext_lazy("Budget in credits"),
        zero=True,
        required=False,
        help_text=gettext_lazy("The most that is spent through this key. Empty: as much as its owner has."),
    )
    budget_period = SelectField(
        label=gettext_lazy("The budget begins anew"),
        required=False,
        choices=[("", gettext_lazy("never")), *Period.choices],
    )
    requests_per_minute = LimitField(
        label=gettext_lazy("Requests per minute"), help_text=gettext_lazy("Empty: no limit.")
    )
    tokens_per_minute = LimitField(label=gettext_lazy("Tokens per minute"), help_text=gettext_lazy("Empty: no limit."))
    concurrent_requests = LimitField(label=gettext_lazy("Requests at once"), help_text=gettext_lazy("Empty: no limit."))

    def rules(self) -> dict[str, Any]:
        """What was filled in, by the names of ``accounts.keys.NewKey``."""
        filled = self.cleaned_data
        return {
            "name": filled["name"],
            "scopes": filled["scopes"],
            "allowed_models": self.chosen_models(),
            "allowed_addresses": filled["allowed_addresses"].replace(",", " ").split(),
            "expires_at": filled["expires_at"],
            "priority": filled["priority"] or Priority.INTERACTIVE,
            "budget": filled["budget"],
            "budget_period": filled["budget_period"],
            **{name: filled[name] or 0 for name in LIMITS},
        }


class NewKeyForm(KeyRulesForm, OnceForm):
    """For ``owner``, or, where the page does not know it yet, for whom the form names."""

    username = forms.CharField(
        label=gettext_lazy("For the person"),
        max_length=150,
        required=False,
        widget=text_input(),
        help_text=gettext_lazy("User name"),
    )
    group = forms.ModelChoiceField(
        label=gettext_lazy("Or for services of the group"),
        queryset=Group.objects.all(),
        required=False,
        empty_label=gettext_lazy("no group"),
        widget=UnfoldAdminSelectWidget(),
    )
    field_order = ("once", "username", "group", *RULES)

    def __init__(self, *args: Any, owner: User | Group | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owner = owner
        self.offer_models([])
        if owner is not None:
            del self.fields["username"], self.fields["group"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if "username" in self.fields:
            self.owner = self._named(cleaned.get("username", "").strip(), cleaned.get("group"))
        return cleaned

    def _named(self, username: str, group: Group | None) -> User | Group | None:
        if bool(username) == bool(group):
            self.add_error("username", _("Name a person, or choose a group."))
            return None
        if group is not None:
            return group
        people = User.objects.filter(username__iexact=username, service_of=None) if username.isprintable() else []
        found = next((user for user in people if user.username == username), None) or next(iter(people), None)
        if found is None:
            self.add_error("username", ValidationError(_("There is no user “%(name)s”.") % {"name": username}))
        return found


class ChangeKeyForm(NamedDialogForm, KeyRulesForm):
    field_order = RULES

    def __init__(self, *args: Any, target: ApiKey, **kwargs: Any) -> None:
        stored = {name: getattr(target, name) or None for name in LIMITS}
        same = ("name", "scopes", "expires_at", "priority", "budget", "budget_period")
        stored |= {name: getattr(target, name) for name in same}
        stored["allowed_addresses"] = "\n".join(target.allowed_addresses)
        super().__init__(*args, target=target, initial=stored, **kwargs)
        self.offer_models(target.allowed_models)


class RotateForm(OnceForm, NamedDialogForm):
    overlap = SelectField(
        label=gettext_lazy("How long the old key goes on working"), choices=list(OVERLAPS.items()), initial="24"
    )

    @property
    def duration(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["overlap"]))
