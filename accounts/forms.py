"""Forms of the account pages. What is right or wrong about a name or a password is decided by accounts.services."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.password_validation import password_validators_help_text_html
from django.utils.translation import gettext_lazy as _

from accounts.models import User

LONGEST_PASSWORD = 1000  # hashing a longer one would only cost time


class LoginForm(AuthenticationForm):
    error_messages = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("The name or the password is not right. Mind capital letters in the password."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = _("User name or email address")
        self.fields["password"].widget.attrs["maxlength"] = LONGEST_PASSWORD


def _password_field(label: Any, autocomplete: str, **kwargs: Any) -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": autocomplete})
    return forms.CharField(label=label, strip=False, max_length=LONGEST_PASSWORD, widget=widget, **kwargs)


class RegisterForm(forms.Form):
    username = forms.CharField(
        label=_("User name"),
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}),
    )
    email = forms.EmailField(
        label=_("Email address"),
        max_length=254,
        required=False,
        help_text=_("May stay empty."),
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    password = _password_field(_("Password"), "new-password", help_text=password_validators_help_text_html)


class PasswordForm(forms.Form):
    """A new password. The old one is asked for, except from somebody whose first password only led here."""

    old_password = _password_field(_("Current password"), "current-password")
    new_password = _password_field(
        _("New password"), "new-password", help_text=password_validators_help_text_html
    )

    def __init__(self, user: User, data: Any = None) -> None:
        super().__init__(data)
        if user.must_change_password:
            del self.fields["old_password"]


class ProfileForm(forms.Form):
    email = forms.EmailField(
        label=_("Email address"),
        max_length=254,
        required=False,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    # Each language by its own name: whoever looks for theirs may not read the present one.
    language = forms.ChoiceField(
        label=_("Language"), choices=[("", _("As the browser")), ("zh-hans", "简体中文"), ("en", "English")], required=False
    )
