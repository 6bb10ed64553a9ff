"""What a person can ask for about accounts: register, log in, become administrator, get and renew tokens, change the password.

    LoginRefused
    ├── WrongCredentials    no such account, or not its password: which of them is not told
    └── AccountInactive     the password is right, but the account waits for approval or was disabled
TokenRefused            a refresh token that is wrong, expired, used before, or ended by a new password
RegistrationClosed      accounts are made by an administrator only
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
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

from accounts import attempts, callers, quota, selectors
from accounts.models import User

CONSOLE_TOKEN_LIFETIME = timedelta(hours=24)
LAST_LOGIN_EVERY = timedelta(hours=1)  # a login writes the row at most this often


class RegistrationClosed(Exception):
    pass


class TokenRefused(Exception):
    pass


class LoginRefused(Exception):
    pass


class WrongCredentials(LoginRefused):
    pass


class AccountInactive(LoginRefused):
    pass


class TokenPair(NamedTuple):
    access: str
    refresh: str


class NewAdministrator(NamedTuple):
    user: User
    password: str | None  # made here, to be shown once; None when it was given
    must_change: bool


# -- accounts --------------------------------------------------------------------------------------------------------


def register_user(username: str, password: str, email: str = "", language: str = "") -> User:
    """A new account with its first credit; inactive until approved when ``REGISTRATION=approval``.

    Raises RegistrationClosed, or ValidationError with messages per field.
    """
    if settings.REGISTRATION == "closed":
        raise RegistrationClosed
    return create_user(username, password, email, language, is_active=settings.REGISTRATION == "open")


def create_user(username: str, password: str, email: str = "", language: str = "", **flags: bool) -> User:
    """Any account, with a wallet. Raises ValidationError with messages per field."""
    user = _unsaved_user(username, email, language)
    for name, value in flags.items():
        setattr(user, name, value)
    _check(user, password)
    user.set_password(password)
    return _save_with_wallet(user, unlimited=False)


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


def user_with_password(username: str, password: str, address: str = "") -> User:
    """The account that a user name or email address and a password open. Takes the same time whether the name exists or not.

    ``address`` is where the attempt comes from; a server's own calls have none. Raises LoginRefused or TooManyAttempts.
    """
    if address:
        attempts.count("login", address)
    found = selectors.users_named(username) if username.isprintable() else []
    if not found:
        User().set_password(password)
        raise WrongCredentials
    user = found[0]  # a user name wins over somebody else's email address that reads the same
    if not user.check_password(password):
        raise WrongCredentials
    if address:
        attempts.give_back("login", address)
    if not user.is_active:
        raise AccountInactive
    return user


def change_password(user: User, old: str, new: str, address: str = "") -> None:
    """Ends every token and session of the user. Raises ValidationError with messages per field, or TooManyAttempts.

    A stolen token must not be a way to guess the password behind it: attempts are counted like logins.
    """
    if address:
        attempts.count("login", address)
    if not user.check_password(old):
        raise ValidationError({"old_password": _("This is not your present password.")})
    if address:
        attempts.give_back("login", address)
    if old == new:
        raise ValidationError({"new_password": _("Choose a password other than the present one.")})
    try:
        validate_password(new, user)
    except ValidationError as error:
        raise ValidationError({"new_password": error.messages}) from error
    set_password(user, new)


def set_password(user: User, password: str, *, must_change: bool = False) -> None:
    user.set_password(password)
    user.must_change_password = must_change
    user.save(update_fields=["password", "must_change_password"])
    callers.forget(user.pk)


def update_profile(user: User, changes: dict[str, Any]) -> User:
    """``email``, ``language``, ``first_name``, ``last_name``. Raises ValidationError with messages per field."""
    for name, value in changes.items():
        setattr(user, name, value)
    _check_unique(user)
    try:
        with transaction.atomic():
            user.save(update_fields=list(changes) or None)
    except IntegrityError as error:
        raise ValidationError({"email": _email_taken()}) from error
    callers.forget(user.pk)
    return user


def note_login(user: User) -> None:
    """``last_login`` for logins without a session, written at most once an hour."""
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


def _save_with_wallet(user: User, *, unlimited: bool) -> User:
    try:
        with transaction.atomic():
            user.save()
            quota.open_wallet(user, unlimited=unlimited)
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
    """A new pair for a refresh token, which is thereby used up. Raises TokenRefused."""
    with transaction.atomic():
        user = _used_up(refresh)
        return user, token_pair(user)


def end_refresh_token(refresh: str) -> None:
    """Log out: the token gives no new ones. Raises TokenRefused."""
    with transaction.atomic():
        _used_up(refresh)


def _used_up(refresh: str) -> User:
    """The token's user, after marking the token as used. Of two at once with the same token, one is refused."""
    try:
        token = RefreshToken(refresh)
        user = User.objects.get(pk=int(token[api_settings.USER_ID_CLAIM]), is_active=True)
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
