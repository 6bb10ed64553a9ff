"""Who somebody is here who comes from the single sign-on provider: the account that its issuer and subject are connected to.

Nothing else connects: a name or an email address at a provider proves nothing about an account here. Whoever has an account
already connects it while logged in (``connect``); for everybody else one is made, as ``OIDC_REGISTRATION`` allows. With
``OIDC_OPERATORS`` or ``OIDC_ADMINS`` the provider's groups decide the role at each login.

    Refused
    ├── NoAccount           no account yet, and none is made here
    ├── Waits               an administrator has to approve the account first
    ├── Blocked             the account was blocked, or its registration refused
    ├── OfSomebodyElse      connected to another account already
    ├── ConnectedAlready    the account is connected to somebody else at the provider
    └── OnlyWayIn           without a password the account could not be used any more
"""

from __future__ import annotations

import logging
import re
import secrets
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from accounts import audit_log, callers, groups, people, selectors, services
from accounts.models import Group, SingleSignOnIdentity, User
from llmplatform.lib import audit

if TYPE_CHECKING:  # the protocol's libraries take long to import, and only the login page needs them
    from accounts.openid_connect import Claims

logger = logging.getLogger(__name__)

LONGEST_NAME = 120
NUMBERED_NAMES = 20
NOT_IN_NAMES = re.compile(r"[^\w.+-]+")


class Refused(Exception):
    pass


class NoAccount(Refused):
    pass


class Waits(Refused):
    pass


class Blocked(Refused):
    pass


class OfSomebodyElse(Refused):
    pass


class ConnectedAlready(Refused):
    pass


class OnlyWayIn(Refused):
    pass


def is_on() -> bool:
    return bool(settings.OIDC_ISSUER and settings.OIDC_CLIENT_ID)


def provider_name() -> str:
    """What people call the provider; empty without single sign-on."""
    return str(settings.OIDC_NAME) if is_on() else ""


def identity_of(user: User) -> SingleSignOnIdentity | None:
    """Who the account is at a provider."""
    return SingleSignOnIdentity.objects.filter(user=user).order_by("-pk").first()


def user_for(claims: Claims, language: str, address: str = "") -> User:
    """The account that may log in now, made if need be. Raises Refused."""
    user = _connected(claims) or _made(claims, language)
    if not user.is_active:
        audit_log.login_failed(user.username, address, "inactive")
        raise Waits if user.waiting else Blocked
    _apply_groups(user, claims)
    return user


def connect(user: User, claims: Claims) -> None:
    """The logged-in ``user`` has shown to be this person at the provider. Raises Refused."""
    known = _connected(claims)
    if known is not None:
        if known.pk != user.pk:
            raise OfSomebodyElse
        return
    try:
        with transaction.atomic():
            SingleSignOnIdentity.objects.create(user=user, issuer=claims.issuer, subject=claims.subject)
            audit.on(user, "sso_connect", after={"provider": claims.issuer})
    except IntegrityError as error:
        raise ConnectedAlready from error


def disconnect(user: User, password: str, address: str = "") -> None:
    """Raises OnlyWayIn, or as ``services.prove_password``."""
    if not user.has_usable_password():
        raise OnlyWayIn
    services.prove_password(user, password, address)
    with transaction.atomic():
        rows = SingleSignOnIdentity.objects.filter(user=user)
        issuers = list(rows.values_list("issuer", flat=True))
        if rows.delete()[0]:
            audit.on(user, "sso_disconnect", before={"provider": issuers[0]})


def _connected(claims: Claims) -> User | None:
    rows = SingleSignOnIdentity.objects.select_related("user")
    identity = rows.filter(issuer=claims.issuer, subject=claims.subject).first()
    return identity.user if identity else None


# -- new accounts --------------------------------------------------------------------------------------------------------


def _made(claims: Claims, language: str) -> User:
    """Of two logins at once of somebody new, one makes the account and the other finds it."""
    if settings.OIDC_REGISTRATION == "closed":
        raise NoAccount
    waiting = settings.OIDC_REGISTRATION == "approval"
    for name in _possible_names(claims):
        try:
            with transaction.atomic():
                user = services.create_user(
                    name,
                    None,
                    _proven_email(claims),
                    language,
                    registers={"provider": claims.issuer},
                    is_active=not waiting,
                    waiting=waiting,
                )
                SingleSignOnIdentity.objects.create(user=user, issuer=claims.issuer, subject=claims.subject)
                return user
        except (ValidationError, IntegrityError):  # the name is taken, or somebody has just made the account
            known = _connected(claims)
            if known is not None:
                return known
    raise NoAccount


def _possible_names(claims: Claims) -> Iterator[str]:
    """What the provider calls them, as far as it can be a name here; with a number where others have it."""
    wanted = claims.text(settings.OIDC_USERNAME_CLAIM) or claims.text("email") or claims.text("name")
    # Without what follows an @: a name that reads like an address would stand in the way of whoever has that address.
    plain = NOT_IN_NAMES.sub("-", unicodedata.normalize("NFKC", wanted.partition("@")[0]))
    name = plain.strip("-.+")[:LONGEST_NAME] or "user"
    yield name
    for number in range(2, NUMBERED_NAMES):
        yield f"{name}-{number}"
    yield f"{name}-{secrets.token_hex(4)}"


def _proven_email(claims: Claims) -> str:
    """Only one that the provider has verified, and that nobody here has."""
    email = claims.text("email")
    if claims.values.get("email_verified") is not True or selectors.users_named(email):
        return ""
    try:
        validate_email(email)
    except ValidationError:
        return ""
    return email if len(email) <= 254 else ""


# -- groups and roles ----------------------------------------------------------------------------------------------------


def _apply_groups(user: User, claims: Claims) -> None:
    """Recorded as the service's doing: it is not the person who decides."""
    if not settings.OIDC_GROUPS_CLAIM:
        return
    # Keycloak writes its groups as paths.
    values = [value.removeprefix("/") for value in claims.texts(settings.OIDC_GROUPS_CLAIM)]
    by_provider = replace(audit.actor(), user_id=None, name="service:single sign-on", key_id=None)
    with audit.acting(lambda: by_provider):
        _apply_role(user, values)
        _apply_group(user, values)


def _apply_role(user: User, values: list[str]) -> None:
    if not settings.OIDC_OPERATORS and not settings.OIDC_ADMINS:
        return
    is_admin, is_operator = (
        not set(values).isdisjoint(names) for names in (settings.OIDC_ADMINS, settings.OIDC_OPERATORS)
    )
    role = "admin" if is_admin else "operator" if is_operator else "user"
    if role == user.role:
        return
    try:
        people.set_role(user, role)
    except people.LastAdministrator:
        logger.warning("%s stays administrator: the last one who can log in", user.username)


def _apply_group(user: User, values: list[str]) -> None:
    """The first value that is the name of a group here; without any, people stay where they are."""
    by_name = {group.name.lower(): group for group in Group.objects.all()}
    group = next((by_name[value.lower()] for value in values if value.lower() in by_name), None)
    if group is not None and group.pk != user.group_id:
        groups.move(user, group)
        callers.forget(user.pk)
