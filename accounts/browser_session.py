"""The browser's session outside of Django's middleware: what its cookies say, and whether an unsafe request may use them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse, parse_cookie
from django.middleware.csrf import CsrfViewMiddleware

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class CsrfFailed(Exception):
    pass


class CookieRequest(HttpRequest):
    """As much of a Django request as the CSRF check looks at."""

    def __init__(self, scope_headers: Iterable[tuple[bytes, bytes]], method: str, secure: bool) -> None:
        super().__init__()
        self.method = method.upper()
        self._by_tls = secure
        self.META = {"SERVER_NAME": "localhost", "SERVER_PORT": "443" if secure else "80"}
        for name, value in scope_headers:
            self.META[f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"] = value.decode("latin-1")
        self.COOKIES = parse_cookie(self.META.get("HTTP_COOKIE", ""))

    def _get_scheme(self) -> str:
        return "https" if self._by_tls else "http"


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        raise CsrfFailed(reason)


def _unused(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def check_csrf(request: HttpRequest) -> None:
    """Raises CsrfFailed for an unsafe method without the page's token."""
    if request.method in SAFE_METHODS:
        return
    check = _CsrfCheck(_unused)
    check.process_request(request)
    check.process_view(request, _unused, (), {})


def session_claims(session_key: str) -> tuple[int | None, str]:
    """The user id and the fingerprint of their password in a session; None for one that is unknown or over."""
    store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
    session = store(session_key)
    try:
        backend_known = session.get(BACKEND_SESSION_KEY) in settings.AUTHENTICATION_BACKENDS
        user_id = int(session[SESSION_KEY])
    except (KeyError, ValueError):
        return None, ""
    return (user_id if backend_known else None), str(session.get(HASH_SESSION_KEY, ""))
