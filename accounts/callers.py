"""Who is calling: the one place that turns a bearer token or a session cookie into a ``Caller``.

Made for the inference path: a token's signature is checked in memory, and what the database says of its user (active,
password unchanged, role) is remembered for ``STATE_SECONDS``, so that most requests need no query. A changed password or a
disabled account is seen everywhere within that time.

    NotAuthenticated
    └── CsrfRefused    a session cookie without the CSRF token that an unsafe method needs
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from secrets import compare_digest
from typing import TypeVar

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, parse_cookie
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import AccessToken
from rest_framework_simplejwt.utils import get_md5_hash_password

from accounts import quota
from accounts.models import User

Argument = TypeVar("Argument")
Result = TypeVar("Result")

STATE_SECONDS = 3.0
STATES_KEPT = 10_000
LONGEST_TOKEN = 4096  # ours are about 300 characters; nothing longer is worth a signature check
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class NotAuthenticated(Exception):
    pass


class CsrfRefused(NotAuthenticated):
    pass


@dataclass(frozen=True, slots=True)
class Caller:
    user_id: int
    username: str
    role: str  # user, operator, admin
    wallet_id: int
    unlimited: bool
    language: str  # "" when the user has not chosen one


def caller_of(user: User) -> Caller:
    wallet = quota.ensure_wallet(user)
    return Caller(user.pk, user.username, user.role, wallet.pk, wallet.unlimited, user.language)


async def caller_from_bearer(token: str) -> Caller:
    """The caller a JWT access token stands for. Raises NotAuthenticated."""
    user_id, fingerprint = _claims(token)
    caller = await _accepted(user_id, lambda state: _equal(state.fingerprint, fingerprint))
    if caller is None:
        raise NotAuthenticated
    return caller


async def caller_from_session(
    scope_headers: Iterable[tuple[bytes, bytes]], method: str, *, secure: bool | None = None
) -> Caller | None:
    """The caller a browser's session cookie stands for, or None. Raises CsrfRefused for an unsafe method without its token.

    ``secure`` tells whether the request came by TLS; without it, whether this service has a certificate.
    """
    request = _Request(scope_headers, method, bool(settings.TLS_CERT) if secure is None else secure)
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    if not session_key:
        return None
    user_id, session_hash = await _in_database_thread(_session_claims, session_key)
    if user_id is None:
        return None
    if method.upper() not in SAFE_METHODS:
        _check_csrf(request)
    return await _accepted(user_id, lambda state: _equal(state.session_hash, session_hash))


def forget(user_id: int) -> None:
    """Ask the database again at this user's next request; for changes made in this very process."""
    _states.forget(user_id)


# -- tokens ----------------------------------------------------------------------------------------------------------


def _claims(token: str) -> tuple[int, str]:
    """User id and password fingerprint out of a token whose signature, type and time are right."""
    if len(token) > LONGEST_TOKEN:
        raise NotAuthenticated
    try:
        payload = AccessToken(token).payload
        return user_number(payload[api_settings.USER_ID_CLAIM]), str(payload[api_settings.REVOKE_TOKEN_CLAIM])
    except (TokenError, KeyError, ValueError, TypeError) as error:
        raise NotAuthenticated from error


def user_number(claim: object) -> int:
    """The user id in a token. Raises ValueError for what no database column would take."""
    number = int(str(claim))
    if not 0 < number < 2**63:
        raise ValueError(claim)
    return number


# -- what the database says of a user ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _State:
    caller: Caller
    active: bool
    fingerprint: str
    session_hash: str
    read_at: float


class _States:
    """User id → state, for ``STATE_SECONDS``, at most ``STATES_KEPT`` of them (the longest known goes first)."""

    def __init__(self) -> None:
        self._states: dict[int, _State] = {}
        self._lock = threading.Lock()

    def get(self, user_id: int) -> _State | None:
        state = self._states.get(user_id)
        return state if state is not None and time.monotonic() - state.read_at < STATE_SECONDS else None

    def put(self, state: _State) -> None:
        with self._lock:
            self._states.pop(state.caller.user_id, None)
            self._states[state.caller.user_id] = state
            while len(self._states) > STATES_KEPT:
                del self._states[next(iter(self._states))]

    def forget(self, user_id: int) -> None:
        with self._lock:
            self._states.pop(user_id, None)


_states = _States()
# Threads of our own: the event loop's shared ones may all be busy with something slow.
_database_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="callers")


async def _accepted(user_id: int, check: Callable[[_State], bool]) -> Caller | None:
    """The active user for whom ``check`` holds. A remembered state may be from before a new password or an approval, so only
    a state read just now can refuse."""
    state = _states.get(user_id)
    if state is not None and state.active and check(state):
        return state.caller
    state = await _in_database_thread(_read_state, user_id)
    if state is None:
        return None
    _states.put(state)
    return state.caller if state.active and check(state) else None


def _equal(one: str, other: str) -> bool:
    return compare_digest(one.encode(), other.encode())


async def _in_database_thread(function: Callable[[Argument], Result], argument: Argument) -> Result:
    def run() -> Result:
        close_old_connections()
        return function(argument)

    return await asyncio.get_running_loop().run_in_executor(_database_threads, run)


def _read_state(user_id: int) -> _State | None:
    read_at = time.monotonic()
    user = User.objects.filter(pk=user_id).first()
    if user is None:
        return None
    return _State(
        caller_of(user), user.is_active, get_md5_hash_password(user.password), user.get_session_auth_hash(), read_at
    )


# -- the browser's session -------------------------------------------------------------------------------------------


class _Request(HttpRequest):
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
        raise CsrfRefused(reason)


def _unused(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def _check_csrf(request: HttpRequest) -> None:
    check = _CsrfCheck(_unused)
    check.process_request(request)
    check.process_view(request, _unused, (), {})


def _session_claims(session_key: str) -> tuple[int | None, str]:
    store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
    session = store(session_key)
    try:
        backend_known = session.get(BACKEND_SESSION_KEY) in settings.AUTHENTICATION_BACKENDS
        user_id = int(session[SESSION_KEY])
    except (KeyError, ValueError):
        return None, ""
    return (user_id if backend_known else None), str(session.get(HASH_SESSION_KEY, ""))
