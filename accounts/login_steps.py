"""From a proven password or single sign-on to a logged-in session: the second factor lies between, for those who have one.

Between the two steps the session knows only who is expected, for five minutes, and is logged in as nobody.
"""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme

from accounts import second_factor
from accounts.models import User

PENDING_KEY = "pending_login"
PENDING_SECONDS = 300


def enter(request: HttpRequest, user: User, target: str, *, by_provider: bool = False) -> HttpResponse:
    """Logs in and goes to ``target``, or asks for the second factor first, unless the provider has done so."""
    if second_factor.is_on(user) and not (by_provider and settings.OIDC_SECOND_FACTOR):
        _remember(request, user, target)
        return redirect("login_code")
    return _logged_in(request, user, target)


def pending_user(request: HttpRequest) -> User | None:
    """Whose second factor this session waits for. None when there is nobody, it took too long, or the account has changed."""
    pending: dict[str, Any] = request.session.get(PENDING_KEY) or {}
    if not pending or time.time() > pending["until"]:
        return None
    user = User.objects.filter(pk=pending["user"], is_active=True).first()
    if user is None or not constant_time_compare(user.get_session_auth_hash(), pending["hash"]):
        return None
    return user


def finish(request: HttpRequest, user: User) -> HttpResponse:
    """Logs in whoever ``pending_user`` named; the second factor is proven."""
    return _logged_in(request, user, request.session[PENDING_KEY]["target"])


def safe_target(request: HttpRequest, wanted: str) -> str:
    """Where to go after a login: a page of this service, whatever a link says."""
    is_own = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
    return wanted if is_own else resolve_url(settings.LOGIN_REDIRECT_URL)


def remember_language(response: HttpResponse, language: str) -> None:
    """The language of a person goes with them to each browser they log in with."""
    if language:
        name, year = settings.LANGUAGE_COOKIE_NAME, 365 * 86400
        response.set_cookie(name, language, max_age=year, samesite="Lax", secure=settings.LANGUAGE_COOKIE_SECURE)


def _remember(request: HttpRequest, user: User, target: str) -> None:
    request.session.cycle_key()
    request.session[PENDING_KEY] = {
        "user": user.pk,
        "hash": user.get_session_auth_hash(),
        "until": time.time() + PENDING_SECONDS,
        "target": target,
    }


def _logged_in(request: HttpRequest, user: User, target: str) -> HttpResponse:
    request.session.pop(PENDING_KEY, None)
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    response = redirect(target)
    remember_language(response, user.language)
    return response
