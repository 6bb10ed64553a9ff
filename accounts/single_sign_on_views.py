"""The way to the single sign-on provider and back.

What has to be remembered meanwhile is in a signed cookie of its own for each attempt, which only the paths below see: strangers
fill no table, and two tabs do not disturb each other.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from accounts import attempts, audit_log, login_steps, openid_connect, services, single_sign_on
from accounts.models import User
from accounts.second_factor_forms import OwnerForm

logger = logging.getLogger(__name__)

WHAT = "single-sign-on"  # for the counter of attempts
SALT = "accounts.single_sign_on"
SECONDS = 600  # for logging in over there
STATE_IN_NAME = 16  # characters of the state that name the cookie


@never_cache
@require_safe
def begin(request: HttpRequest) -> HttpResponse:
    """To the provider; ``next`` is where to go after the login."""
    _check_is_on()
    target = login_steps.safe_target(request, request.GET.get("next", ""))
    if request.user.is_authenticated:
        return redirect(target)
    begun = _begun(request, {"next": target})
    if isinstance(begun, HttpResponse):
        return begun
    address, cookie = begun
    return _with_cookie(redirect(address), cookie)


@never_cache
@sensitive_post_parameters()
@login_required
@require_POST
def connect(request: HttpRequest) -> HttpResponse:
    """To the provider, to connect the present account. A page with a link: browsers count a redirect as the form's own
    destination, and our policy lets forms go nowhere else."""
    _check_is_on()
    user = _user(request)
    form = OwnerForm(user, request.POST, prefix="sso")
    try:
        services.prove_password(user, form.data.get("sso-password", ""), request.META["REMOTE_ADDR"])
    except (services.WrongCredentials, attempts.TooManyAttempts) as error:
        is_wrong = isinstance(error, services.WrongCredentials)
        messages.error(request, _("This is not your present password.") if is_wrong else str(error))
        return redirect("account_security")
    begun = _begun(request, {"connect": user.pk})
    if isinstance(begun, HttpResponse):
        return begun
    address, cookie = begun
    page = render(request, "accounts/sso_leave.html", {"address": address, "provider": settings.OIDC_NAME})
    return _with_cookie(page, cookie)


@never_cache
@require_safe
def finish(request: HttpRequest) -> HttpResponse:
    """Back from the provider. Whatever is wrong, the attempt is over: its cookie goes."""
    _check_is_on()
    name = _cookie_name(request.GET.get("state", ""))
    response = _finished(request, name)
    response.delete_cookie(name, path=_cookie_path(), samesite="Lax")
    return response


def _finished(request: HttpRequest, name: str) -> HttpResponse:
    try:
        attempts.count(WHAT, request.META["REMOTE_ADDR"])
        remembered = signing.loads(request.COOKIES.get(name, ""), salt=SALT, max_age=SECONDS)
        claims = openid_connect.finish(_back_address(request), remembered, request.GET.dict())
        attempts.give_back(WHAT, request.META["REMOTE_ADDR"])
        return _entered(request, remembered, claims)
    except signing.BadSignature:
        return _problem(request, _("This login was begun in another browser, or too long ago. Begin again."), 400)
    except attempts.TooManyAttempts as error:
        return _too_many(request, error)
    except openid_connect.ProviderError as error:
        return _provider_problem(request, error)
    except single_sign_on.Refused as error:
        return _refused(request, error)


def _entered(request: HttpRequest, remembered: dict[str, Any], claims: openid_connect.Claims) -> HttpResponse:
    if "connect" not in remembered:
        user = single_sign_on.user_for(claims, get_language() or "", request.META["REMOTE_ADDR"])
        return login_steps.enter(request, user, remembered["next"], by_provider=True)
    if request.user.pk != remembered["connect"]:
        return _problem(request, _("You have logged out meanwhile. Log in and begin again."), 403)
    single_sign_on.connect(_user(request), claims)
    messages.success(request, _("Connected. From now on you can log in with %(provider)s.") % _named())
    return redirect("account_security")


def _begun(request: HttpRequest, remembered: dict[str, Any]) -> tuple[str, tuple[str, str]] | HttpResponse:
    """The provider's address and the cookie (name, value), or what is wrong, as a page."""
    try:
        attempts.count(WHAT, request.META["REMOTE_ADDR"])
        address, secrets = openid_connect.begin(_back_address(request))
        attempts.give_back(WHAT, request.META["REMOTE_ADDR"])  # a whole office begins the day behind one address
    except attempts.TooManyAttempts as error:
        return _too_many(request, error)
    except openid_connect.ProviderError as error:
        return _provider_problem(request, error)
    return address, (_cookie_name(secrets["state"]), signing.dumps({**remembered, **secrets}, salt=SALT))


def _check_is_on() -> None:
    if not single_sign_on.is_on():
        raise Http404


def _back_address(request: HttpRequest) -> str:
    origin = settings.PUBLIC_URL or f"{request.scheme}://{request.get_host()}"
    return f"{origin}{reverse('sso_back')}"


def _cookie_name(state: str) -> str:
    """Any text gives a name that cookies can have."""
    kept = "".join(sign for sign in state[:STATE_IN_NAME] if sign.isascii() and sign.isalnum())
    return f"sso-{kept}"


def _cookie_path() -> str:
    return reverse("sso_back")


def _with_cookie(response: HttpResponse, cookie: tuple[str, str]) -> HttpResponse:
    name, value = cookie
    response.set_cookie(
        name,
        value,
        max_age=SECONDS,
        path=_cookie_path(),
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
    return response


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - looked at before
    return request.user


# -- what went wrong -----------------------------------------------------------------------------------------------------


def _named() -> dict[str, str]:
    return {"provider": settings.OIDC_NAME}


def _provider_problem(request: HttpRequest, error: openid_connect.ProviderError) -> HttpResponse:
    is_denied = isinstance(error, openid_connect.Denied)
    logger.log(logging.INFO if is_denied else logging.WARNING, "single sign-on: %s", error)
    if is_denied:
        return _problem(request, _("%(provider)s did not let you in, or you cancelled there.") % _named(), 403)
    if isinstance(error, openid_connect.Unavailable):
        text = _("%(provider)s does not answer as it should. Try again in a minute.") % _named()
        return _problem(request, text, 502)
    audit_log.login_failed("", request.META["REMOTE_ADDR"], "single_sign_on")
    text = _(
        "What came back from %(provider)s proves nothing. Begin again; if it happens again, tell the administrator."
    )
    return _problem(request, text % _named(), 400)


def _refused(request: HttpRequest, error: single_sign_on.Refused) -> HttpResponse:
    texts = {
        single_sign_on.NoAccount: _("You have no account here yet. Ask the administrator for one."),
        single_sign_on.Waits: _("Your account is made. An administrator has to approve it before you can log in."),
        single_sign_on.Blocked: _("This account is not active. Ask the administrator."),
        single_sign_on.OfSomebodyElse: _("This login at %(provider)s belongs to another account here.") % _named(),
        single_sign_on.ConnectedAlready: _("Your account is connected to another login at %(provider)s.") % _named(),
    }
    return _problem(request, texts[type(error)], 403)


def _too_many(request: HttpRequest, error: attempts.TooManyAttempts) -> HttpResponse:
    response = _problem(request, str(error), 429)
    response["Retry-After"] = str(error.retry_after)
    return response


def _problem(request: HttpRequest, text: str, status: int) -> HttpResponse:
    return render(request, "accounts/sso_problem.html", {"text": text, **_named()}, status=status)
