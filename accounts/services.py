"""What a person can ask for about accounts: register, log in, become administrator, get and renew tokens, change the password.

    LoginRefused
    ├── WrongCredentials    no such account, or not its password: which of them is not told
    └── AccountInactive     the password is right, but the account waits for approval or was disabled
TokenRefused            a refresh token that is wrong, expired, used before, or ended by a new password
SecondFactorMissing     the account must have a second factor, and gets no tokens before it is set up
RegistrationClosed      accounts are made by an administrator only
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token
from rest_framework_simplejwt.utils import get_md5_hash_password

from accounts import attempts, audit_log, callers, invites, lockout, quota, selectors
from accounts.models import User
from llmplatform.lib import audit

CONSOLE_TOKEN_LIFETIME = timedelta(hours=24)
LAST_LOGIN_EVERY = timedelta(hours=1)  # a login writes the row at most this often


class RegistrationClosed(Exception):
    pass


class TokenRefused(Exception):
    pass


class SecondFactorMissing(Exception):
    pass


class LoginRefused(Exception):
    pass


class WrongCredentials(LoginRefused):
    pass


class AccountInactive(LoginRefused):
    pass


REFUSALS: dict[type[Exception], str] = {WrongCredentials: "credentials", AccountInactive: "inactive"}


class TokenPair(NamedTuple):
    access: str
    refresh: str


class NewAdministrator(NamedTuple):
    user: User
    password: str | None  # made here, to be shown once; None when it was given
    must_change: bool


# -- accounts --------------------------------------------------------------------------------------------------------


def register_user(username: str, password: str, email: str = "", language: str = "", invite: str = "") -> User:
    """A new account with its first credit; inactive until approved when ``REGISTRATION=approval``. An invite opens every door.

    Raises RegistrationClosed, or ValidationError with messages per field.
    """
    if invite:
        with transaction.atomic():
            taken = invites.take_place(invite)
            return create_user(username, password, email, language, registers={"invite": str(taken)}, group=taken.group)
    if settings.REGISTRATION == "closed":
        raise RegistrationClosed
    waiting = settings.REGISTRATION == "approval"
    return create_user(username, password, email, language, registers={}, is_active=not waiting, waiting=waiting)


def create_user(
    username: str,
    password: str | None,
    email: str = "",
    language: str = "",
    *,
    registers: Mapping[str, Any] | None = None,
    **columns: Any,
) -> User:
    """Any account, with a wallet; ``columns`` are further ones of User. Raises ValidationError with messages per field.

    Without a password it is an account for single sign-on only.
    ``registers`` says that it is the person's own doing, and what else the audit log is to know of it.
    """
    user = _unsaved_user(username, email, language)
    for name, value in columns.items():
        setattr(user, name, value)
    _check(user, password)
    user.set_password(password)
    return _save_with_wallet(user, unlimited=False, registers=registers)


def create_administrator(username: str, password: str | None = None) -> NewAdministrator:
    """The administrator of a fresh installation: unlimited, with a random password if none is given.

    A password that was made here, or that is too weak for anybody else, must be changed at the first login.
    Raises ValidationError when the name is taken or not allowed.
    """
    user = _unsaved_user(username, "", "")
    user.is_staff = user.is_superuser = True
    _check(user, None)
    user.must_change_password = password is None or not _is_strong(password, user)
    made = None if password else secrets.token_urlsafe(12)
    user.set_password(password or made)
    return NewAdministrator(_save_with_wallet(user, unlimited=True), made, user.must_change_password)


@contextmanager
def _told_when_refused(name: str, address: str, action: str = "user.login_failed") -> Iterator[None]:
    """Wrong passwords stand in the audit log, wherever somebody tries."""
    try:
        yield
    except (LoginRefused, attempts.TooManyAttempts) as error:
        audit_log.login_failed(name, address, REFUSALS.get(type(error), "throttled"), action)
        raise


def user_with_password(username: str, password: str, address: str = "") -> User:
    """The account that a user name or email address and a password open. Takes the same time whether the name exists or not.

    ``address`` is where the attempt comes from; a server's own calls have none. Raises LoginRefused or TooManyAttempts.
    """
    found = selectors.users_named(username) if username.isprintable() else []
    found = [user for user in found if user.service_of_id is None]
    user = found[0] if found else None  # a user name wins over somebody else's email address that reads the same
    with _told_when_refused(username, address):
        if not _is_password(user, username, password, address) or user is None:
            raise WrongCredentials
        if not user.is_active:
            raise AccountInactive
    return user


def _is_password(user: User | None, typed: str, password: str, address: str, *, is_known: bool = False) -> bool:
    """Counts what is wrong, for the address and for the account. Raises TooManyAttempts.

    A name of nobody and an account that is held take the time of a wrong password.
    """
    if not address:
        return _matches(user, password)
    attempts.count("login", address)
    try:
        with lockout.attempt(typed, user, address, is_known=is_known) as attempt:
            right = _matches(None if attempt.is_held else user, password)
            if right:
                attempt.succeeded()
            else:
                attempt.failed()
    except attempts.TooManyAttempts:
        attempts.give_back("login", address)  # nothing was tried; others behind this address are not to suffer for it
        raise
    if right:
        attempts.give_back("login", address)
    return right


def _matches(user: User | None, password: str) -> bool:
    if user is None:
        User().set_password(password)
        return False
    return user.check_password(password)


def change_password(user: User, old: str, new: str, address: str = "") -> None:
    """Ends every token and session of the user. Raises ValidationError with messages per field, or TooManyAttempts.

    A stolen token must not be a way to guess the password behind it: attempts are counted like logins.
    """
    try:
        _prove_password(user, old, address, "user.password_refused")
    except WrongCredentials as error:
        raise ValidationError({"old_password": _("This is not your present password.")}) from error
    if old == new:
        raise ValidationError({"new_password": _("Choose a password other than the present one.")})
    try:
        validate_password(new, user)
    except ValidationError as error:
        raise ValidationError({"new_password": error.messages}) from error
    set_password(user, new)


def prove_password(user: User, password: str, address: str = "") -> None:
    """That whoever is logged in knows the account's password, before a change to how one gets in. An account without one (made
    by single sign-on) needs none. Raises WrongCredentials or TooManyAttempts."""
    if user.has_usable_password():
        _prove_password(user, password, address, "user.proof_refused")


def _prove_password(user: User, password: str, address: str, action: str) -> None:
    with _told_when_refused(user.username, address, action):
        if not _is_password(user, user.username, password, address, is_known=True):
            raise WrongCredentials


def set_password(user: User, password: str, *, must_change: bool = False, verb: str = "password") -> None:
    """``verb`` says in the audit log how it came about."""
    before = audit.fields_of(user, "password", "must_change_password")
    user.set_password(password)
    user.must_change_password = must_change
    with transaction.atomic():
        user.save(update_fields=["password", "must_change_password"])
        audit.on(user, verb, before, audit.fields_of(user, "password", "must_change_password"))
    callers.forget(user.pk)
    lockout.forget(user)


def update_profile(user: User, changes: dict[str, Any]) -> User:
    """``email``, ``language``, ``first_name``, ``last_name``. Raises ValidationError with messages per field."""
    before = audit.fields_of(user, *changes)
    for name, value in changes.items():
        setattr(user, name, value)
    _check_unique(user)
    try:
        with transaction.atomic():
            user.save(update_fields=list(changes) or None)
            audit.on(user, "update", before, audit.fields_of(user, *changes))
    except IntegrityError as error:
        raise ValidationError({"email": _email_taken()}) from error
    callers.forget(user.pk)
    return user


def choose_language(user: User, language: str) -> None:
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(language=language)
        audit.on(user, "update", {"language": user.language}, {"language": language})


def note_login(user: User) -> None:
    """``last_login`` for logins without a session, written at most once an hour."""
    audit_log.logged_in(user)
    now = timezone.now()
    stale = Q(last_login=None) | Q(last_login__lt=now - LAST_LOGIN_EVERY)
    if user.last_login is None or user.last_login < now - LAST_LOGIN_EVERY:
        User.objects.filter(stale, pk=user.pk).update(last_login=now)


def _unsaved_user(username: str, email: str, language: str) -> User:
    known = {code for code, _name in settings.LANGUAGES}
    return User(
        username=User.normalize_username(username),
        email=User.objects.normalize_email(email).strip(),
        language=language if language in known else "",
    )


def _check(user: User, password: str | None) -> None:
    """All that is wrong at once, so that a person corrects a form one time."""
    errors: dict[str, Any] = {}
    checks: list[Callable[[], None]] = [partial(user.clean_fields, exclude=["password"]), partial(_check_unique, user)]
    for check in checks:
        try:
            check()
        except ValidationError as error:
            for name, messages in error.message_dict.items():
                errors.setdefault(name, messages)
    if password is not None:
        try:
            validate_password(password, user)
        except ValidationError as error:
            errors["password"] = error.messages
    if errors:
        raise ValidationError(errors)


def _check_unique(user: User) -> None:
    """Names and addresses are unique ignoring case, and nobody's name is another one's address: both are used to log in."""
    errors = {}
    if any(other.pk != user.pk for other in selectors.users_named(user.username)):
        errors["username"] = _name_taken()
    if user.email and any(other.pk != user.pk for other in selectors.users_named(user.email)):
        errors["email"] = _email_taken()
    if errors:
        raise ValidationError(errors)


def _name_taken() -> str:
    return _("This user name is taken.")


def _email_taken() -> str:
    return _("This email address is in use by another account.")


def _is_strong(password: str, user: User) -> bool:
    try:
        validate_password(password, user)
    except ValidationError:
        return False
    return True


def _save_with_wallet(user: User, *, unlimited: bool, registers: Mapping[str, Any] | None = None) -> User:
    try:
        with transaction.atomic():
            user.save()
            quota.open_wallet(user, unlimited=unlimited)
            fields = {**audit_log.user_fields(user), "unlimited": unlimited}
            if registers is None:
                audit.on(user, "create", after=fields)
            else:
                with audit.acting_as(user):
                    audit.on(user, "register", after={**fields, **registers})
    except IntegrityError as error:  # somebody took the name since it was checked
        raise ValidationError({"username": _name_taken()}) from error
    return user


# -- tokens ----------------------------------------------------------------------------------------------------------


def token_pair(user: User) -> TokenPair:
    """The table of issued tokens gets the id only: a copy of the database is no bunch of keys.

    The user's expired rows go at the same time, so that the table needs no cleaning of its own.
    """
    OutstandingToken.objects.filter(user=user, expires_at__lt=timezone.now()).delete()
    refresh: RefreshToken = Token.for_user.__func__(RefreshToken, user)
    OutstandingToken.objects.create(
        user=user,
        jti=refresh[api_settings.JTI_CLAIM],
        token="",
        created_at=refresh.current_time,
        expires_at=refresh.current_time + refresh.lifetime,
    )
    return TokenPair(str(refresh.access_token), str(refresh))


def console_token(user: User) -> str:
    """An access token that is valid for a day: for the command line that is printed at start."""
    token = AccessToken.for_user(user)
    token.set_exp(lifetime=CONSOLE_TOKEN_LIFETIME)
    return str(token)


def renew_tokens(refresh: str) -> tuple[User, TokenPair]:
    """A new pair for a refresh token, which is thereby used up. Raises TokenRefused or SecondFactorMissing."""
    with transaction.atomic():
        user = _used_up(refresh)
        if selectors.lacks_second_factor(user):
            raise SecondFactorMissing
        return user, token_pair(user)


def end_refresh_token(refresh: str) -> None:
    """Log out: the token gives no new ones. Raises TokenRefused."""
    with transaction.atomic():
        _used_up(refresh)


def _used_up(refresh: str) -> User:
    """The token's user, after marking the token as used. Of two at once with the same token, one is refused."""
    try:
        token = RefreshToken(refresh)
        user = User.objects.get(pk=callers.user_number(token[api_settings.USER_ID_CLAIM]), is_active=True)
        fingerprint = str(token[api_settings.REVOKE_TOKEN_CLAIM])
        issued = OutstandingToken.objects.get(jti=token[api_settings.JTI_CLAIM])
    except (TokenError, KeyError, ValueError, TypeError, User.DoesNotExist, OutstandingToken.DoesNotExist) as error:
        raise TokenRefused from error
    if not secrets.compare_digest(fingerprint.encode(), get_md5_hash_password(user.password).encode()):
        raise TokenRefused
    _row, created = BlacklistedToken.objects.get_or_create(token=issued)
    if not created:
        raise TokenRefused
    return user
