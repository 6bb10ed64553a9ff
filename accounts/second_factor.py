"""A second factor at the login: codes by time (TOTP, RFC 6238) of an app, and recovery codes that stand in for it once.

The app's secret has to be readable to check a code, so it lies encrypted in the database. Each code works once, and of two
callers at once with the same one a single one gets in: what was used is written by an UPDATE that only one of them can do.

    CodeRefused            wrong, used before, or too old: which of them is not told
    └── FactorUnreadable   SECRET_KEY is not the one it was set up with; an administrator has to remove it
    AlreadyOn              somebody else has just set one up for the same account
"""

from __future__ import annotations

import logging
import math
import secrets
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import pyotp
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from pyotp.exceptions import OTPVerificationError

from accounts import attempts, audit_log, callers, services
from accounts.models import RecoveryCode, SecondFactor, User
from accounts.secrets_at_rest import Unreadable, keyed_hash, opened, sealed
from llmplatform.lib import audit

logger = logging.getLogger(__name__)

PURPOSE = "second-factor"
ISSUER = "LLM Platform"  # how the app calls this service
DRIFT = 1  # steps of 30 seconds that a phone's clock may be off
RECOVERY_CODES = 10
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what reads alike
FREE_FAILURES = 5  # wrong codes in a row before one has to wait
FIRST_BLOCK_SECONDS = 30  # doubled by each further wrong code
LONGEST_BLOCK_SECONDS = 3600
LONGEST_CODE = 100

clock = time.time  # what codes are checked by


class CodeRefused(Exception):
    pass


class FactorUnreadable(CodeRefused):
    pass


class AlreadyOn(Exception):
    pass


class Setup(NamedTuple):
    kept: str  # the secret, encrypted: for the session of whoever sets it up, so that no other session knows it
    secret: str  # for typing in
    address: str  # for the QR code


# -- whether there is one ------------------------------------------------------------------------------------------------


def is_offered() -> bool:
    return bool(settings.SECOND_FACTOR != "off")


def is_on(user: User) -> bool:
    """Whether a login of this user takes a code."""
    return is_offered() and SecondFactor.objects.filter(user=user).exists()


def recovery_codes_left(user: User) -> int:
    return RecoveryCode.objects.filter(user=user).count()


# -- setting up and turning off ------------------------------------------------------------------------------------------


def begin_setup(user: User, kept: str = "") -> Setup:
    """What the app has to know: a new secret, or the one that was begun with."""
    try:
        secret = opened(PURPOSE, kept)
    except Unreadable:
        secret = pyotp.random_base32()
        kept = sealed(PURPOSE, secret)
    return Setup(kept, secret, pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=ISSUER))


def confirm_setup(user: User, kept: str, password: str, code: str, address: str = "") -> list[str]:
    """Turns the factor on with a first code of the app; answers the recovery codes.

    Raises WrongCredentials, CodeRefused, TooManyAttempts or AlreadyOn.
    """
    services.prove_password(user, password, address)
    try:
        secret = opened(PURPOSE, kept)
    except Unreadable as error:
        raise CodeRefused from error
    with _counted(address):
        step = _step_of(secret, _normalized(code))
    try:
        with transaction.atomic():
            SecondFactor.objects.create(user=user, secret=kept, last_step=step)
            codes = _new_codes(user)
            audit.on(user, "second_factor_on", {}, {"second_factor": True, "totp_secret": audit.Secret("new")})
    except IntegrityError as error:
        raise AlreadyOn from error
    callers.forget(user.pk)
    return codes


def new_recovery_codes(user: User, password: str, code: str, address: str = "") -> list[str]:
    """Ten new ones; the old ones stop working. Raises WrongCredentials, CodeRefused or TooManyAttempts."""
    prove_owner(user, password, code, address)
    with transaction.atomic():
        codes = _new_codes(user)
        audit.on(user, "recovery_codes", event=True)
    return codes


def turn_off(user: User, password: str, code: str, address: str = "") -> None:
    """The owner's own wish; whoever must have one has to set it up anew before anything else. Raises WrongCredentials,
    CodeRefused or TooManyAttempts."""
    prove_owner(user, password, code, address)
    remove(user)


def remove(user: User) -> bool:
    """Takes the factor and its recovery codes away, for somebody who lost both; False when there was none."""
    with transaction.atomic():
        RecoveryCode.objects.filter(user=user).delete()
        count, _rows = SecondFactor.objects.filter(user=user).delete()
        if count:
            audit.on(user, "second_factor_off", {"second_factor": True}, {"second_factor": False})
    callers.forget(user.pk)
    return bool(count)


def prove_owner(user: User, password: str, code: str, address: str = "") -> None:
    """That whoever asks for a change is not just somebody at an unlocked screen. Raises as ``turn_off`` does."""
    services.prove_password(user, password, address)
    check(user, code, address)


# -- checking ------------------------------------------------------------------------------------------------------------


def check(user: User, code: str, address: str = "") -> None:
    """Uses up a code of the app or a recovery code. Raises CodeRefused or TooManyAttempts.

    ``address`` is where the attempt comes from. Wrong codes of the app also count for the account, wherever they come from,
    since it takes the right password to try one; its owner gets in with a recovery code meanwhile.
    """
    try:
        with _counted(address):
            _use(user, _normalized(code))
    except (CodeRefused, attempts.TooManyAttempts) as error:
        why = "throttled" if isinstance(error, attempts.TooManyAttempts) else "second_factor"
        audit_log.login_failed(user.username, address, why)
        raise


def _use(user: User, code: str) -> None:
    factor = SecondFactor.objects.filter(user=user).first()
    if factor is None:
        raise CodeRefused
    if len(code) == 6 and code.isdigit():
        _use_step(factor, code)
    else:
        _use_recovery_code(user, code)


def _use_step(factor: SecondFactor, code: str) -> None:
    _count_failure(factor)
    try:
        secret = opened(PURPOSE, factor.secret)
    except Unreadable as error:
        logger.error(
            "the second factor of user %d cannot be read: SECRET_KEY has changed; take it away with resetsecondfactor",
            factor.user_id,
        )
        raise FactorUnreadable from error
    step = _step_of(secret, code)
    unused = SecondFactor.objects.filter(pk=factor.pk, last_step__lt=step)
    if not unused.update(last_step=step, failures=0, blocked_until=None):
        raise CodeRefused


def _step_of(secret: str, code: str) -> int:
    try:
        return pyotp.TOTP(secret).verify_and_get_timecode(code, for_time=clock(), valid_window=DRIFT)
    except OTPVerificationError as error:
        raise CodeRefused from error


def _use_recovery_code(user: User, code: str) -> None:
    with transaction.atomic():
        deleted, _rows = RecoveryCode.objects.filter(user=user, hash=_hash(code)).delete()
        if not deleted:
            raise CodeRefused
        with audit.acting_as(user):
            audit.on(user, "recovery_code_used", after={"recovery_codes_left": recovery_codes_left(user)}, event=True)


@contextmanager
def _counted(address: str) -> Iterator[None]:
    """A guess counts for the address it comes from; a right one does not. Raises TooManyAttempts."""
    if address:
        attempts.count(PURPOSE, address)
    yield
    if address:
        attempts.give_back(PURPOSE, address)


def _count_failure(factor: SecondFactor) -> None:
    """Counted before the code is looked at, so that a thousand at once do not slip through. Raises TooManyAttempts."""
    for _turn in range(10):
        now = timezone.now()
        row = SecondFactor.objects.filter(pk=factor.pk).values_list("failures", "blocked_until").first()
        if row is None:
            raise CodeRefused
        failures, blocked_until = row
        if blocked_until is not None and blocked_until > now:
            raise attempts.TooManyAttempts(math.ceil((blocked_until - now).total_seconds()))
        seconds = _block_seconds(failures + 1)
        until = now + timedelta(seconds=seconds) if seconds else None
        same = SecondFactor.objects.filter(pk=factor.pk, failures=failures)
        if same.update(failures=failures + 1, blocked_until=until):
            return
    raise attempts.TooManyAttempts(1)


def _block_seconds(failures: int) -> int:
    if failures < FREE_FAILURES:
        return 0
    return min(LONGEST_BLOCK_SECONDS, FIRST_BLOCK_SECONDS << min(failures - FREE_FAILURES, 16))


def _normalized(code: str) -> str:
    """As people copy it: with spaces or hyphens, in capitals, in the wide digits of Chinese input."""
    text = unicodedata.normalize("NFKC", code[:LONGEST_CODE]).lower()
    return "".join(sign for sign in text if sign.isalnum())


# -- recovery codes ------------------------------------------------------------------------------------------------------


def _new_codes(user: User) -> list[str]:
    codes = ["".join(secrets.choice(ALPHABET) for _sign in range(16)) for _code in range(RECOVERY_CODES)]
    RecoveryCode.objects.filter(user=user).delete()
    RecoveryCode.objects.bulk_create([RecoveryCode(user=user, hash=_hash(code)) for code in codes])
    return ["-".join(code[start : start + 4] for start in range(0, 16, 4)) for code in codes]


def _hash(code: str) -> str:
    return keyed_hash("recovery code", code)
