"""Forms of the console for people: one choice of role instead of Django's two flags, limits that may come from the group."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.forms import AdminPasswordChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelectWidget

from accounts import services
from accounts.admin.fields import LimitField, SelectField
from accounts.models import Group, User
from llmplatform.lib.console import formats

ROLES = [
    ("user", gettext_lazy("user: chats and calls the API")),
    ("operator", gettext_lazy("operator: models, machines, usage of others")),
    ("admin", gettext_lazy("administrator: everything, users and balances too")),
]
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


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
        return cleaned


def role_field() -> forms.ChoiceField:
    return SelectField(label=gettext_lazy("Role"), choices=ROLES, initial="user")


def group_field() -> forms.ModelChoiceField[Group]:
    return forms.ModelChoiceField(
        label=gettext_lazy("Group"),
        queryset=Group.objects.all(),
        required=False,
        empty_label=gettext_lazy("no group"),
        widget=UnfoldAdminSelectWidget(),
    )


class PersonChangeForm(RoleFormMixin, forms.ModelForm):  # type: ignore[type-arg]
    role = role_field()
    group = group_field()
    language = forms.ChoiceField(
        label=gettext_lazy("Language"),
        required=False,
        choices=[("", gettext_lazy("as the browser asks")), *settings.LANGUAGES],
        widget=UnfoldAdminSelectWidget(),
    )
    requests_per_minute = LimitField(label=gettext_lazy("Requests per minute"))
    tokens_per_minute = LimitField(label=gettext_lazy("Tokens per minute"))
    concurrent_requests = LimitField(label=gettext_lazy("Requests at once"))

    class Meta:
        model = User
        fields = ("username", "email", "is_active", "must_change_password", "language", "group", *LIMITS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["role"].initial = self.instance.role
        self.fields["is_active"].help_text = _(
            "Off: the person cannot log in, and tokens stop working. Nobody is deleted."
        )
        for name in LIMITS:
            self.fields[name].widget.attrs["placeholder"] = self._of_the_group(name)
            self.fields[name].help_text = _("Empty: as the group has it. 0: no limit.")

    def _of_the_group(self, name: str) -> str:
        """What holds as long as the person has no limit of their own."""
        group = self.instance.group
        limit = getattr(group, f"member_{name}") if group else 0
        return _("by the group: %(limit)s") % {"limit": formats.number(limit)} if limit else _("no limit")

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        if ":" in name:
            raise ValidationError(_("A user name has no colon."))
        return name


class PersonCreationForm(RoleFormMixin, UserCreationForm):
    role = role_field()
    group = group_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.pop("usable_password", None)  # there is no other way to log in yet
        self.fields["must_change_password"].initial = True


class PasswordForm(AdminPasswordChangeForm):
    """There is no other way to log in that could be left, so a password is set and never taken away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.pop("usable_password", None)

    def save(self, commit: bool = True) -> User:
        services.set_password(self.user, self.cleaned_data["password1"])
        return self.user  # type: ignore[no-any-return]


class GroupChoiceForm(forms.Form):
    group = group_field()
