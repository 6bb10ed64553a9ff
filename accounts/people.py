"""What an administrator decides about people: who may come in, what they may do, what they may use.

LastAdministrator    without them nobody could decide anything any more
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from accounts import audit_log, callers
from accounts.models import User
from llmplatform.lib import audit

ROLES = ("user", "operator", "admin")
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


class LastAdministrator(ValidationError):
    def __init__(self) -> None:
        super().__init__(_("This is the last administrator who can log in; make another one first."))


def persons() -> QuerySet[User]:
    """Everybody but service accounts."""
    return User.objects.filter(service_of=None)


def approve_user(user: User) -> None:
    """Somebody who registered may come in."""
    _set(user, "approve", is_active=True, waiting=False)


def refuse_user(user: User) -> None:
    """Somebody who registered may not. The account stays, so that the name is known when it comes again."""
    _set(user, "refuse", is_active=False, waiting=False)


def block_user(user: User) -> None:
    """Ends sessions, tokens and keys within seconds. Raises LastAdministrator."""
    with transaction.atomic():
        _check_not_last(user)
        _set(user, "block", is_active=False, waiting=False)


def unblock_user(user: User) -> None:
    _set(user, "unblock", is_active=True, waiting=False)


def set_role(user: User, role: str) -> None:
    """``user``, ``operator`` or ``admin``. Raises LastAdministrator, or ValidationError for what is no role."""
    if role not in ROLES:
        raise ValidationError({"role": _("One of: %(roles)s") % {"roles": ", ".join(ROLES)}})
    if user.service_of_id is not None and role != "user":
        raise ValidationError({"role": _("A group's service account has no other role.")})
    with transaction.atomic():
        if role != "admin":
            _check_not_last(user)
        _set(user, "role", is_staff=role != "user", is_superuser=role == "admin")


def set_limits(user: User, limits: Mapping[str, int | None]) -> None:
    """A person's own limits; None: as the group says for each member, 0: none. Raises ValidationError per field."""
    errors = {}
    for name, value in limits.items():
        if name not in LIMITS:
            raise TypeError(name)
        if value is not None and not 0 <= value <= 2**31 - 1:
            errors[name] = _("A whole number from 0 to %(high)d.") % {"high": 2**31 - 1}
    if errors:
        raise ValidationError(errors)
    _set(user, "update", **limits)


def _set(user: User, verb: str, **columns: Any) -> None:
    with transaction.atomic():
        before = audit_log.user_fields(user)
        User.objects.filter(pk=user.pk).update(**columns)
        for name, value in columns.items():
            setattr(user, name, value)
        audit.on(user, verb, before, audit_log.user_fields(user))
    callers.forget(user.pk)


def _check_not_last(user: User) -> None:
    """Of two who block each other at once, one is refused: administrators are locked for the moment."""
    admins = persons().filter(is_superuser=True, is_active=True).order_by("pk").select_for_update()
    ids = [admin.pk for admin in admins]
    if ids == [user.pk]:
        raise LastAdministrator
