"""Forms of the account pages. What is right or wrong about a name or a password is decided by accounts.services."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.password_validation import password_validators_help_text_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop, ngettext_lazy

from accounts import attempts, services
from accounts.models import User

# Django says these beside a new password. Here for our catalogue, whose Chinese addresses people as all of our pages do.
SAID_BY_DJANGO = [
    gettext_noop("Your password can’t be too similar to your other personal information."),
    gettext_noop("Your password can’t be a commonly used password."),
    gettext_noop("Your password can’t be entirely numeric."),
    ngettext_lazy(
        "Your password must contain at least %(min_length)d character.",
        "Your password must contain at least %(min_length)d characters.",
    ),
]
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
            self.retry_after = error.retry_after
            raise forms.ValidationError(str(error), code="throttled") from error
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
    invite = forms.CharField(required=False, max_length=200, widget=forms.HiddenInput)


class PasswordForm(forms.Form):
    """A new password. The old one is asked for, except from somebody whose first password only led here."""

    old_password = _password_field(_("Current password"), "current-password")
    new_password = _password_field(_("New password"), "new-password", help_text=password_validators_help_text_html)

    def __init__(self, user: User, data: Any = None) -> None:
        super().__init__(data)
        if user.must_change_password:
            del self.fields["old_password"]


class ForgottenForm(forms.Form):
    email = forms.EmailField(
        label=_("Email address"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email", "autofocus": True}),
    )


class ResetForm(forms.Form):
    uid = forms.CharField(max_length=40, widget=forms.HiddenInput)
    token = forms.CharField(max_length=100, widget=forms.HiddenInput)
    new_password = _password_field(_("New password"), "new-password", help_text=password_validators_help_text_html)


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


class RedeemForm(forms.Form):
    code = forms.CharField(
        label=_("Redeem code"),
        max_length=200,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false", "class": "code"}
        ),
    )
