"""The second step of a login, and the page on which people look after how they get in: ``/account/security``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import segno
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from accounts import attempts, login_steps, second_factor, selectors, services, single_sign_on
from accounts.models import SecondFactor, User
from accounts.second_factor_forms import LoginCodeForm, OwnerForm, ProvenForm, RecoveryCodeForm, SetupForm

SETUP_KEY = "second_factor_setup"
PAGE = "accounts/security.html"


# -- logging in ----------------------------------------------------------------------------------------------------------


@never_cache
@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
def login_code(request: HttpRequest) -> HttpResponse:
    user = login_steps.pending_user(request)
    if user is None:
        if request.method == "POST":
            messages.error(request, _("That took too long. Log in again."))
        return redirect("login")
    by_recovery_code = "recovery" in request.GET
    form = (RecoveryCodeForm if by_recovery_code else LoginCodeForm)(request.POST or None)
    status = 200
    if form.is_valid():
        try:
            second_factor.check(user, form.cleaned_data["code"], request.META["REMOTE_ADDR"])
        except (second_factor.CodeRefused, attempts.TooManyAttempts) as error:
            status = _add_refusal(form, error)
        else:
            return login_steps.finish(request, user)
    context = {"form": form, "by_recovery_code": by_recovery_code, "name": user.username}
    return render(request, "accounts/login_code.html", context, status=status)


# -- the page ------------------------------------------------------------------------------------------------------------


@never_cache
@login_required
@require_http_methods(["GET", "HEAD"])
def security(request: HttpRequest) -> HttpResponse:
    return render(request, PAGE, _context(request, _user(request)))


@never_cache
@sensitive_post_parameters()
@login_required
@require_POST
def turn_on(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    kept = request.session.get(SETUP_KEY, "")

    def confirm(password: str, code: str) -> HttpResponse:
        codes = second_factor.confirm_setup(user, kept, password, code, request.META["REMOTE_ADDR"])
        del request.session[SETUP_KEY]
        return _shown_once(request, user, codes, is_new=True)

    form = SetupForm(user, request.POST)
    return _tried(request, form, confirm) or _again(request, user, setup_form=form)


@never_cache
@sensitive_post_parameters()
@login_required
@require_POST
def new_codes(request: HttpRequest) -> HttpResponse:
    user = _user(request)

    def make(password: str, code: str) -> HttpResponse:
        codes = second_factor.new_recovery_codes(user, password, code, request.META["REMOTE_ADDR"])
        return _shown_once(request, user, codes, is_new=False)

    form = ProvenForm(user, request.POST, prefix="codes")
    return _tried(request, form, make) or _again(request, user, codes_form=form)


@never_cache
@sensitive_post_parameters()
@login_required
@require_POST
def turn_off(request: HttpRequest) -> HttpResponse:
    user = _user(request)

    def remove(password: str, code: str) -> HttpResponse:
        second_factor.turn_off(user, password, code, request.META["REMOTE_ADDR"])
        messages.success(request, _("The second factor is turned off."))
        return redirect("account_security")

    form = ProvenForm(user, request.POST, prefix="off")
    return _tried(request, form, remove) or _again(request, user, off_form=form)


@sensitive_post_parameters()
@login_required
@require_POST
def disconnect(request: HttpRequest) -> HttpResponse:
    user = _user(request)

    def do(password: str, code: str) -> HttpResponse:
        single_sign_on.disconnect(user, password, request.META["REMOTE_ADDR"])
        messages.success(request, _("Disconnected."))
        return redirect("account_security")

    form = OwnerForm(user, request.POST, prefix="sso")
    return _tried(request, form, do) or _again(request, user, sso_form=form)


def _tried(request: HttpRequest, form: forms.Form, act: Callable[[str, str], HttpResponse]) -> HttpResponse | None:
    """What ``act`` answers to the password and code in the form; None when something is wrong, which the form then says."""
    if not form.is_valid():
        return None
    filled = form.cleaned_data
    try:
        return act(filled.get("password", ""), filled.get("code", ""))
    except services.WrongCredentials:
        form.add_error("password", _("This is not your present password."))
    except second_factor.AlreadyOn:
        return redirect("account_security")
    except single_sign_on.OnlyWayIn:
        form.add_error(None, _("Without a password you could not get in any more."))
    except (second_factor.CodeRefused, attempts.TooManyAttempts) as error:
        _add_refusal(form, error)
    return None


def _add_refusal(form: forms.Form, error: Exception) -> int:
    """Says in the form what was wrong; answers the status."""
    if isinstance(error, attempts.TooManyAttempts):
        form.add_error(None, str(error))
        return 429
    if isinstance(error, second_factor.FactorUnreadable):
        form.add_error(None, _("Codes cannot be checked at the moment. Use a recovery code, or ask the administrator."))
        return 400
    form.add_error("code", _("This code is wrong, too old or was used before."))
    form.data = {**form.data, form.add_prefix("code"): ""}  # it is of no use any more
    return 400


def _again(request: HttpRequest, user: User, **context: Any) -> HttpResponse:
    return render(request, PAGE, _context(request, user) | context, status=400)


def _shown_once(request: HttpRequest, user: User, codes: list[str], *, is_new: bool) -> HttpResponse:
    return render(request, PAGE, _context(request, user) | {"codes": codes, "is_new": is_new})


def _context(request: HttpRequest, user: User) -> dict[str, Any]:
    factor = SecondFactor.objects.filter(user=user).first() if second_factor.is_offered() else None
    lacks = selectors.lacks_second_factor(user)
    context: dict[str, Any] = {
        "page": "account",
        "offered": second_factor.is_offered(),
        "factor": factor,
        "lacks": lacks,
        "must_have": selectors.must_have_second_factor(user),
        "provider": single_sign_on.provider_name(),
        "identity": single_sign_on.identity_of(user),
        "sso_form": OwnerForm(user, prefix="sso"),
    }
    if factor is not None:
        context |= {
            "codes_left": second_factor.recovery_codes_left(user),
            "codes_form": ProvenForm(user, prefix="codes"),
            "off_form": ProvenForm(user, prefix="off"),
        }
    elif context["offered"] and (lacks or request.method == "POST" or "setup" in request.GET):
        context |= _setup(request, user)
    return context


def _setup(request: HttpRequest, user: User) -> dict[str, Any]:
    setup = second_factor.begin_setup(user, request.session.get(SETUP_KEY, ""))
    request.session[SETUP_KEY] = setup.kept
    picture = segno.make(setup.address, error="m").svg_data_uri(scale=4, border=3, dark="#000", light="#fff")
    grouped = " ".join(setup.secret[start : start + 4] for start in range(0, len(setup.secret), 4))
    return {"setup": setup, "qr": picture, "secret": grouped, "setup_form": SetupForm(user)}


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - login_required stands before
    return request.user
