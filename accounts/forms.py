"""Forms of the account pages. What is right or wrong about a name or a password is decided by accounts.services."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.password_validation import password_validators_help_text_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts import attempts, services
from accounts.models import User

LONGEST_PASSWORD = 1000  # hashing a longer one would only cost time


class LoginForm(AuthenticationForm):
    """Asks accounts.services itself rather than Django's backends, to be able to say why it was no."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = _("User name or email address")
        self.fields["password"].widget.attrs["maxlength"] = LONGEST_PASSWORD

    def clean(self) -> dict[str, Any]:
        address = self.request.META.get("REMOTE_ADDR", "") if self.request else ""
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not name or not password:
            return self.cleaned_data
        try:
            user = services.user_with_password(name, password[: LONGEST_PASSWORD + 1], address)
        except attempts.TooManyAttempts as error:
            raise forms.ValidationError(too_many_text(error), code="throttled") from error
        except services.AccountInactive as error:
            raise forms.ValidationError(
                _("This account is not active. Ask the administrator."), code="inactive"
            ) from error
        except services.LoginRefused as error:
            text = _("The name or the password is not right. Mind capital letters in the password.")
            raise forms.ValidationError(text, code="invalid_login") from error
        user.backend = settings.AUTHENTICATION_BACKENDS[0]  # what login() reads
        self.user_cache = user
        return self.cleaned_data


def too_many_text(error: attempts.TooManyAttempts) -> str:
    return ngettext(
        "Too many attempts. Try again in %(seconds)d second.",
        "Too many attempts. Try again in %(seconds)d seconds.",
        error.retry_after,
    ) % {"seconds": error.retry_after}


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
    new_password = _password_field(_("New password"), "new-password", help_text=password_validators_help_text_html)

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
        label=_("Language"),
        choices=[("", _("As the browser")), ("zh-hans", "简体中文"), ("en", "English")],
        required=False,
    )
