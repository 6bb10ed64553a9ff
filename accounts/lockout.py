"""Passwords are not found by guessing: after ten wrong ones for one account from one address, that address waits 15 minutes.

django-axes counts, in the database: a restart forgets nothing, and every web process knows. Nobody is locked out from another
address, so nobody can lock out somebody else for good.

Each attempt counts for two: for the name as it was typed, and for the account it belongs to, so that a user name and an email
address give no attempts twice. Which names belong together, or to anybody at all, must not be told: a name that was tried too
often itself is refused in words; one whose account was tried too often by its other name is refused like a wrong password. A
name of nobody has a second counter too, and so costs the same work.
"""

from __future__ import annotations

import logging
import math
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from accounts import attempts
from accounts.models import User
from llmplatform.lib.errors import ApiError

MOST_COUNTERS = 100_000  # about 30 MB
DELETED_AT_ONCE = 500
WAIT_SECONDS = 20

logger = logging.getLogger(__name__)
# Whoever tries one account many times at once is checked one after the other, so that each knows how the one before ended.
_turns = [threading.Lock() for _number in range(64)]


class Attempt:
    """One password for one account from one address; made by ``attempt``."""

    def __init__(self, typed: str, user: User | None, address: str) -> None:
        self.name_key = _name_key(typed)
        self.account_key = f"user:{user.pk}" if user else _name_key(typed, "nobody")
        self.address = address
        self.user = user

    @property
    def is_held(self) -> bool:
        """To be refused whatever the password; say no more than that it is wrong."""
        return not _is_allowed(self.account_key, self.address)

    def failed(self) -> None:
        for key in (self.name_key, self.account_key):
            request = _Request(self.address)
            AxesProxyHandler.user_login_failed(__name__, _credentials(key), request)
        if request.axes_locked_out:
            # The name itself may be a password that was typed into the wrong field.
            whom = f"user {self.user.pk}" if self.user else "a name that nobody has"
            logger.warning("too many wrong passwords for %s from %s", whom, self.address)

    def succeeded(self) -> None:
        if self.user:
            forget(self.user, self.address)


@contextmanager
def attempt(typed: str, user: User | None, address: str, *, is_known: bool = False) -> Iterator[Attempt]:
    """Around checking a password. ``is_known``: whoever tries has proved already whose account it is, so it may be told
    that it is held. Raises TooManyAttempts while it is, without anything being checked."""
    trial = Attempt(typed, user, attempts.customer(address))
    turn = _turns[hash((trial.account_key, trial.address)) % len(_turns)]
    if not turn.acquire(timeout=WAIT_SECONDS):
        raise ApiError("overloaded", _("Too many people log in at once; try again in a moment."), 503, retry_after=5)
    try:
        for key in (trial.name_key, trial.account_key) if is_known else (trial.name_key,):
            if not _is_allowed(key, trial.address):
                raise attempts.TooManyAttempts(_seconds_left(key, trial.address))
        yield trial
    finally:
        turn.release()


def forget(user: User, address: str = "") -> None:
    """Wrong passwords so far do not count any more, for one address or (after a new password) for all."""
    keys = [f"user:{user.pk}", _name_key(user.username)]
    rows = AccessAttempt.objects.filter(username__in=[*keys, _name_key(user.email)] if user.email else keys)
    (rows.filter(ip_address=address) if address else rows).delete()


def clean_up() -> None:
    """Counters whose time is over go, and the oldest of too many: an attacker must not fill the disk."""
    _delete(AccessAttempt.objects.filter(attempt_time__lte=_threshold()).values_list("pk", flat=True))
    _delete(AccessAttempt.objects.order_by("-attempt_time").values_list("pk", flat=True)[MOST_COUNTERS:])


def _delete(keys: Any) -> None:
    found = list(keys)
    for begin in range(0, len(found), DELETED_AT_ONCE):
        AccessAttempt.objects.filter(pk__in=found[begin : begin + DELETED_AT_ONCE]).delete()


def _name_key(typed: str, kind: str = "name") -> str:
    """Names are not stored: people type passwords into the wrong field."""
    name = unicodedata.normalize("NFKC", typed).casefold().encode("utf-8", "replace")
    return f"{kind}:{salted_hmac('accounts.lockout', name, algorithm='sha256').hexdigest()}"


# -- django-axes -----------------------------------------------------------------------------------------------------


class _Request(HttpRequest):
    """What axes reads of a request. Nothing a caller wrote is in it, so nothing of theirs is stored."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.META = {"REMOTE_ADDR": address, "HTTP_USER_AGENT": "", "HTTP_ACCEPT": "", "PATH_INFO": ""}
        self.axes_locked_out = False


class Handler(AxesDatabaseHandler):  # type: ignore[misc]
    """Only what ``attempt`` counts is counted: Django's signals of the same login would count it again."""

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any
    ) -> None:
        if isinstance(request, _Request):
            super().user_login_failed(sender, credentials, request, **kwargs)

    def user_logged_in(self, *args: Any, **kwargs: Any) -> None:
        pass

    def user_logged_out(self, *args: Any, **kwargs: Any) -> None:
        pass

    def clean_expired_user_attempts(
        self, request: HttpRequest | None = None, credentials: dict[str, Any] | None = None
    ) -> int:
        """Those of this attempt. axes would read the whole table at each failure; that is left to ``clean_up``."""
        expired = [
            rows.filter(attempt_time__lte=_threshold()) for rows in self.filter_user_attempts(request, credentials)
        ]
        return sum(rows.delete()[0] for rows in expired)


def address_of(request: HttpRequest) -> str | None:
    """AXES_CLIENT_IP_CALLABLE: what the ASGI layer found out, and nothing of the headers."""
    return request.META.get("REMOTE_ADDR")


def _credentials(key: str) -> dict[str, str]:
    return {"username": key}


def _is_allowed(key: str, address: str) -> bool:
    return bool(AxesProxyHandler.is_allowed(_Request(address), _credentials(key)))


def _seconds_left(key: str, address: str) -> int:
    last = AccessAttempt.objects.filter(username=key, ip_address=address).values_list("attempt_time", flat=True).first()
    left = (last - _threshold()).total_seconds() if last else 0
    return max(1, math.ceil(left))


def _threshold() -> datetime:
    cool_off: timedelta = settings.AXES_COOLOFF_TIME
    return timezone.now() - cool_off
