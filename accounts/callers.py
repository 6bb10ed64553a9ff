"""Who is calling: the one place that turns a bearer token or a session cookie into a ``Caller``.

Made for the inference path: a token's signature is checked in memory, and what the database says of its user (active,
password unchanged, role) or of a key (its rights, not revoked) is remembered for ``STATE_SECONDS``, so that most requests need no
query. A changed password, a disabled account and a revoked key are seen everywhere within that time. What is remembered is
found by the hash of the whole credential, never by a part of it.

    NotAuthenticated
    └── CsrfRefused       a session cookie without the CSRF token that an unsafe method needs
    NotAllowed            a key that is right, from an address it may not be used from
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from secrets import compare_digest
from typing import Literal, TypeVar

from django.conf import settings
from django.db import close_old_connections
from django.db.models import Q
from django.utils import timezone
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import AccessToken
from rest_framework_simplejwt.utils import get_md5_hash_password

from accounts import quota
from accounts.browser_session import CookieRequest, CsrfFailed, check_csrf, session_claims
from accounts.limits import Limit
from accounts.models import ApiKey, Priority, User
from accounts.remembered import Remembered
from accounts.secrets_at_rest import keyed_hash
from accounts.selectors import lacks_second_factor
from llmplatform.lib import networks
from llmplatform.lib.credentials import LONGEST_TOKEN
from llmplatform.lib.credentials import NotAuthenticated as NotAuthenticated
from llmplatform.lib.networks import Network

Argument = TypeVar("Argument")
Result = TypeVar("Result")

PriorityName = Literal["interactive", "batch"]
STATE_SECONDS = 3.0
CLAIMS_SECONDS = 300.0  # a signature that was right stays so; the time in the token is looked at each time
NOTE_USE_EVERY = timedelta(minutes=1)
KEY_PREFIX = "sk-"
KEY_FORM = re.compile(r"sk-[A-Za-z0-9_-]{43}")


class CsrfRefused(NotAuthenticated):
    pass


class NotAllowed(Exception):
    """The argument is the address that the key may not be used from."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and within which bounds. None for scopes or models is no bound."""

    user_id: int
    username: str
    role: str  # user, operator, admin
    wallet_id: int
    unlimited: bool
    language: str  # "" when the user has not chosen one
    key_id: int | None = None  # the API key that asks
    key_name: str = ""
    scopes: frozenset[str] | None = None  # of the key
    key_models: frozenset[str] | None = None  # those the key may use
    group_id: int | None = None
    group_models: frozenset[str] | None = None  # those the group gets to see
    limits: tuple[Limit, ...] = ()
    priority: PriorityName = "interactive"  # of the key; whoever logged in sits there and waits
    weight: int = 1  # of the group: its members get so many times as much as others while all wait

    @property
    def tenant(self) -> int:
        """Among whom slots are shared: the person, or the service account of a group, and not each of their keys."""
        return self.user_id

    def has_scope(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes

    def sees(self, *names: str) -> bool:
        """Whether the model is there for this caller at all; ``names``: all that it is called."""
        return self.group_models is None or not self.group_models.isdisjoint(names)

    def may_use(self, *names: str) -> bool:
        """Whether the key allows it."""
        return self.key_models is None or not self.key_models.isdisjoint(names)


def caller_of(user: User) -> Caller:
    """The user themselves, without a key."""
    wallet = user.wallet if hasattr(user, "wallet") else quota.ensure_wallet(user)
    return Caller(
        user.pk,
        user.username,
        user.role,
        wallet.pk,
        wallet.unlimited,
        user.language,
        group_id=user.group_id,
        group_models=models_shown_to(user),
        limits=_limits_of(user),
        weight=user.group.queue_weight if user.group is not None else 1,
    )


def models_shown_to(user: User) -> frozenset[str] | None:
    """The models their group gets to see; None: all."""
    group = user.group
    return frozenset(group.allowed_models) if group is not None and group.allowed_models else None


def caller_of_key(key: ApiKey) -> Caller:
    # Old and new secret of a rotated key are counted together.
    subject = f"key:{key.root_id or key.pk}"
    limit = Limit(subject, key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests)
    caller = caller_of(key.user)
    return replace(
        caller,
        key_id=key.pk,
        key_name=key.name,
        scopes=frozenset(key.scopes),
        key_models=frozenset(key.allowed_models) if key.allowed_models else None,
        limits=(limit, *caller.limits) if limit else caller.limits,
        priority="batch" if key.priority == Priority.BATCH else "interactive",
    )


def _limits_of(user: User) -> tuple[Limit, ...]:
    """A person's own limits come before what the group says for each member."""
    group = user.group

    def own(name: str) -> int:
        value: int | None = getattr(user, name)
        if value is not None:
            return value
        return getattr(group, f"member_{name}") if group else 0

    names = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
    limits = [Limit(f"user:{user.pk}", *(own(name) for name in names))]
    if group is not None:
        limits.append(Limit(f"group:{group.pk}", *(getattr(group, name) for name in names)))
    return tuple(limit for limit in limits if limit)


async def caller_from_bearer(token: str, address: str = "") -> Caller:
    """The caller a JWT access token or an API key stands for; ``address`` is where the request comes from.

    Raises NotAuthenticated, or NotAllowed.
    """
    if token.startswith(KEY_PREFIX):
        return await _caller_from_key(token, address)
    user_id, fingerprint = _claims(token)
    caller = await _accepted(user_id, lambda state: _equal(state.fingerprint, fingerprint))
    if caller is None:
        raise NotAuthenticated
    return caller


async def _caller_from_key(token: str, address: str) -> Caller:
    if not KEY_FORM.fullmatch(token):
        raise NotAuthenticated
    name = keyed_hash("api key", token)
    state = _keys.get(name)
    if state is None or not state.is_live():
        # As with users: only a state read just now can refuse.
        read_at = time.monotonic()
        state = await _in_database_thread(_read_key, name)
        if state is None:
            raise NotAuthenticated
        _keys.put(name, state, read_at)
    if not state.is_live():
        raise NotAuthenticated
    if not state.may_come_from(address):
        raise NotAllowed(address)
    return state.caller


def key_from_token(token: str, address: str) -> ApiKey:
    """The same for callers that want the row, read just now, with its user. Raises NotAuthenticated, or NotAllowed."""
    key = _find_key(keyed_hash("api key", token)) if KEY_FORM.fullmatch(token) else None
    if key is None:
        raise NotAuthenticated
    state = _key_state(key)
    if not state.is_live():
        raise NotAuthenticated
    if not state.may_come_from(address):
        raise NotAllowed(address)
    _note_use(key)
    return key


async def caller_from_session(
    scope_headers: Iterable[tuple[bytes, bytes]], method: str, *, secure: bool | None = None
) -> Caller | None:
    """The caller a browser's session cookie stands for, or None. Raises CsrfRefused for an unsafe method without its token.

    ``secure`` tells whether the request came by TLS; without it, whether this service has a certificate.
    """
    request = CookieRequest(scope_headers, method, bool(settings.TLS_CERT) if secure is None else secure)
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    if not session_key:
        return None
    user_id, session_hash = await _in_database_thread(session_claims, session_key)
    if user_id is None:
        return None
    try:
        check_csrf(request)
    except CsrfFailed as error:
        raise CsrfRefused from error
    return await _accepted(
        user_id, lambda state: _equal(state.session_hash, session_hash) and not state.lacks_second_factor
    )


def forget(user_id: int) -> None:
    """Ask the database again at this user's next request; for changes made in this very process."""
    _users.forget(user_id)
    _keys.clear()  # whose they are is not known here; they are read again within a millisecond each


def forget_key(key_hash: str) -> None:
    _keys.forget(key_hash)


# -- tokens ----------------------------------------------------------------------------------------------------------


def _claims(token: str) -> tuple[int, str]:
    """User id and password fingerprint out of a token whose signature, type and time are right."""
    if len(token) > LONGEST_TOKEN:
        raise NotAuthenticated
    name = sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    known = _claims_known.get(name)
    if known is None:
        known = _checked_claims(token)
        _claims_known.put(name, known, time.monotonic())
    if known.expires_at <= time.time():
        raise NotAuthenticated
    return known.user_id, known.fingerprint


@dataclass(frozen=True, slots=True)
class _Claims:
    user_id: int
    fingerprint: str
    expires_at: float


def _checked_claims(token: str) -> _Claims:
    try:
        payload = AccessToken(token).payload
        user_id = user_number(payload[api_settings.USER_ID_CLAIM])
        return _Claims(user_id, str(payload[api_settings.REVOKE_TOKEN_CLAIM]), float(payload["exp"]))
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
    lacks_second_factor: bool  # and must have one: a session is good for setting it up only


@dataclass(frozen=True, slots=True)
class _KeyState:
    caller: Caller
    active: bool  # neither revoked nor its owner disabled
    expires_at: float | None
    networks: tuple[Network, ...]

    def is_live(self) -> bool:
        return self.active and (self.expires_at is None or time.time() < self.expires_at)

    def may_come_from(self, address: str) -> bool:
        return not self.networks or networks.is_in(address, self.networks)


_users: Remembered[int, _State] = Remembered(STATE_SECONDS)
_keys: Remembered[str, _KeyState] = Remembered(STATE_SECONDS)
_claims_known: Remembered[str, _Claims] = Remembered(CLAIMS_SECONDS)


def forget_everything() -> None:
    for memory in (_users, _keys, _claims_known):
        memory.clear()


# Threads of our own: the event loop's shared ones may all be busy with something slow.
_database_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="callers")


async def _accepted(user_id: int, check: Callable[[_State], bool]) -> Caller | None:
    """The active user for whom ``check`` holds. A remembered state may be from before a new password or an approval, so only
    a state read just now can refuse."""
    state = _users.get(user_id)
    if state is not None and state.active and check(state):
        return state.caller
    read_at = time.monotonic()
    state = await _in_database_thread(_read_user, user_id)
    if state is None:
        return None
    _users.put(user_id, state, read_at)
    return state.caller if state.active and check(state) else None


def _equal(one: str, other: str) -> bool:
    return compare_digest(one.encode(), other.encode())


async def _in_database_thread(function: Callable[[Argument], Result], argument: Argument) -> Result:
    def run() -> Result:
        close_old_connections()
        return function(argument)

    return await asyncio.get_running_loop().run_in_executor(_database_threads, run)


def _read_user(user_id: int) -> _State | None:
    user = User.objects.select_related("wallet", "group").filter(pk=user_id).first()
    if user is None:
        return None
    return _State(
        caller_of(user),
        user.is_active,
        get_md5_hash_password(user.password),
        user.get_session_auth_hash(),
        lacks_second_factor(user),
    )


def _read_key(name: str) -> _KeyState | None:
    key = _find_key(name)
    if key is None:
        return None
    _note_use(key)
    return _key_state(key)


def _find_key(name: str) -> ApiKey | None:
    return ApiKey.objects.select_related("user__wallet", "user__group").filter(hash=name).first()


def _key_state(key: ApiKey) -> _KeyState:
    return _KeyState(
        caller_of_key(key),
        key.revoked_at is None and key.user.is_active,
        key.expires_at.timestamp() if key.expires_at else None,
        networks.parse_all(key.allowed_addresses),
    )


def _note_use(key: ApiKey) -> None:
    """At most once a minute, whichever process sees it."""
    now = timezone.now()
    stale = now - NOTE_USE_EVERY
    if key.last_used_at is None or key.last_used_at < stale:
        rows = ApiKey.objects.filter(Q(last_used_at=None) | Q(last_used_at__lt=stale), pk=key.pk)
        rows.update(last_used_at=now)
