"""Forms around the second factor and single sign-on. What is right is decided by accounts.second_factor."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.forms import LONGEST_PASSWORD
from accounts.models import User
from accounts.second_factor import LONGEST_CODE


def _code_field(label: Any, **attrs: Any) -> forms.CharField:
    widget = forms.TextInput(attrs={"autocomplete": "one-time-code", "spellcheck": "false", "class": "code", **attrs})
    return forms.CharField(label=label, max_length=LONGEST_CODE, widget=widget)


def _password_field() -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": "current-password"})
    return forms.CharField(label=_("Password"), strip=False, max_length=LONGEST_PASSWORD, widget=widget)


class LoginCodeForm(forms.Form):
    code = _code_field(_("Code"), inputmode="numeric", autofocus=True)


class RecoveryCodeForm(forms.Form):
    code = _code_field(_("Recovery code"), autocapitalize="none", autocomplete="off", autofocus=True)


class OwnerForm(forms.Form):
    """The password of an account that has one, so that nobody at an unlocked screen can change how its owner gets in."""

    password = _password_field()

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not user.has_usable_password():
            del self.fields["password"]


class SetupForm(OwnerForm):
    code = _code_field(_("Code from the app"), inputmode="numeric")

    field_order = ("code", "password")


class ProvenForm(OwnerForm):
    """For changes of a factor that is on."""

    code = _code_field(_("Code from the app, or a recovery code"), autocapitalize="none")
