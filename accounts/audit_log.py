"""The audit log: the only writer of ``AuditEntry``. Services tell ``llmplatform.lib.audit`` what they change; it lands here.

Entries are kept for ever. What others can make us write is bounded: of one name from one address within an hour, failed logins
are told up to the tenth (then that address has to wait), and after it the 16th, 32nd …; and no more than
``FAILURES_PER_MINUTE`` entries a minute in all.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import user_logged_in
from django.http import HttpRequest

from accounts import selectors
from accounts.attempts import customer
from accounts.models import ApiKey, AuditEntry, Group, Invite, ModelPolicy, RedeemBatch, User
from accounts.models.audit import Area
from llmplatform.lib import audit

# What an entry can be about. Balances are a user's: their changes stand with the user's others.
TYPES = {"user": User, "group": Group, "key": ApiKey, "invite": Invite, "price": ModelPolicy, "code": RedeemBatch}

AREAS = {
    "user": Area.PEOPLE,
    "group": Area.PEOPLE,
    "invite": Area.PEOPLE,
    "key": Area.KEYS,
    "balance": Area.MONEY,
    "price": Area.MONEY,
    "code": Area.MONEY,
}
LOGINS = frozenset(
    {"user.login", "user.login_failed"}
    | {"user.password", "user.password_refused", "user.password_reset", "user.reset_link"}
    | {"user.second_factor_on", "user.second_factor_off", "user.recovery_codes", "user.recovery_code_used"}
    | {"user.sso_connect", "user.sso_disconnect", "user.proof_refused"}
)

FAILURES_PER_MINUTE = 30
FAILURE_WINDOW = 3600.0
FAILURES_REMEMBERED = 10_000
# Somebody may have typed the password into the wrong field: of a name that is nobody's, only the beginning is kept.
UNKNOWN_NAME_KEPT = 3
LONGEST_NAME = 150
LONGEST_ADDRESS = 45


def register() -> None:
    audit.register_sink(write)
    for name, model in TYPES.items():
        audit.register_type(name, model)
    user_logged_in.connect(_on_session_login, dispatch_uid="audit")


def area_of(action: str) -> Area:
    return Area.LOGINS if action in LOGINS else AREAS.get(action.partition(".")[0], Area.SERVICE)


def write(events: Sequence[audit.Event]) -> None:
    if len(events) == 1:
        _entry(events[0]).save()
    else:
        AuditEntry.objects.bulk_create(map(_entry, events), batch_size=1000)


def _entry(event: audit.Event) -> AuditEntry:
    return AuditEntry(
        actor_id=event.actor.user_id,
        actor_name=event.actor.name,
        key_id=event.actor.key_id,
        address=event.actor.address,
        area=area_of(event.action),
        action=event.action,
        target_type=event.target_type,
        target_id=event.target_id,
        target_name=event.target_name,
        changes=event.changes,
    )


def actor_of(request: HttpRequest) -> audit.Actor:
    """Who a request is from, as far as it is known by now. The REST framework puts there whom it has authenticated."""
    user: Any = getattr(request, "user", None)
    address = request.META.get("REMOTE_ADDR", "")[:LONGEST_ADDRESS]
    if user is None or not user.is_authenticated:
        return audit.Actor(address=address)
    if user.pk is None:
        return audit.Actor(name="machine:CLUSTER_TOKEN", address=address)
    key = getattr(getattr(request, "auth", None), "key", None)  # see accounts.api.authentication.KeyAuth
    return audit.Actor(user.pk, user.get_username(), key.pk if isinstance(key, ApiKey) else None, address)


def user_fields(user: User) -> dict[str, Any]:
    """What is told of a person's row: the role instead of the two flags it consists of."""
    fields = audit.fields_of(user)
    del fields["is_staff"], fields["is_superuser"]
    return {**fields, "role": user.role}


# -- logins --------------------------------------------------------------------------------------------------------------
def logged_in(user: User) -> None:
    """Only of those who can change things for others: everybody's would be many and tell little."""
    if user.role != "user":
        with audit.acting_as(user):
            audit.on(user, "login")


def _on_session_login(sender: object, user: User, **_others: object) -> None:
    logged_in(user)


def login_failed(name: str, address: str, why: str, action: str = "user.login_failed") -> None:
    """``why`` is a code of ``audit_words.REASONS``. The same work whether or not there is such a name."""
    told = _failures.count(f"{action} {name}", address)
    if told is None:
        return
    found = next(iter(selectors.users_named(name)), None) if name.isprintable() else None
    shown = found.username if found else f"{name[:UNKNOWN_NAME_KEPT]}{'…' if len(name) > UNKNOWN_NAME_KEPT else ''}"
    details = {"reason": why, "attempts": told.attempts if told.attempts > 1 else None, "others": told.others or None}
    audit.record(action, "user", found.pk if found else "", shown, after=details)


def forget_failures() -> None:
    """As in a new process."""
    global _failures
    _failures = _Failures()


class _Told(NamedTuple):
    attempts: int  # of this name from this address, this one included
    others: int  # failures of anybody, for which there was no room since the last entry


class _Failures:
    """How often what failed within the hour, in this process."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._minute = (0, 0)  # which one it is, and how many entries it has
        self._untold = 0
        self._lock = threading.Lock()

    def count(self, name: str, address: str) -> _Told | None:
        """None when this failure is not to have an entry."""
        with self._lock:
            now = time.monotonic()
            attempts = self._counted((name[:LONGEST_NAME].lower(), customer(address)), now)
            if attempts > settings.AXES_FAILURE_LIMIT and attempts & (attempts - 1):  # no power of two
                return None
            if not self._has_room(int(now // 60)):
                self._untold += 1
                return None
            told, self._untold = _Told(attempts, self._untold), 0
            return told

    def _counted(self, pair: tuple[str, str], now: float) -> int:
        begun, count = self._seen.pop(pair, (now, 0))
        if now - begun > FAILURE_WINDOW:
            begun, count = now, 0
        self._seen[pair] = (begun, count + 1)
        while len(self._seen) > FAILURES_REMEMBERED:
            self._seen.popitem(last=False)
        return count + 1

    def _has_room(self, minute: int) -> bool:
        written = self._minute[1] + 1 if self._minute[0] == minute else 1
        self._minute = (minute, written)
        return written <= FAILURES_PER_MINUTE


_failures = _Failures()
